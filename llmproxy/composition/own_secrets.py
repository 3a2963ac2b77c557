"""The secrets of the daemon itself: the encryption key, the management token, the passwords of its servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from twisted.logger import Logger

from llmproxy.config.environ import secret
from llmproxy.config.load import read_private
from llmproxy.config.model import Settings
from llmproxy.config.redis_url import parse_redis_url
from llmproxy.store.canary import refuse_new_key
from llmproxy.store.engines import parse_store_url
from llmproxy.store.secrets import Secret, load_or_make

_log = Logger()


def own_secrets(
    settings: Settings, environ: Mapping[str, str], random: Callable[[int], bytes]
) -> tuple[Secret, Secret]:
    """The encryption key and the management token: from the environment, their files, or made now."""
    encryption = load_or_make(
        settings.state_dir,
        secret(environ, "ENCRYPTION_KEY", read_private),
        "encryption-key",
        random,
        partial(refuse_new_key, url=settings.store.url),  # a database that needs a key which is lost gets no new one
    )
    management = load_or_make(
        settings.state_dir, secret(environ, "MANAGEMENT_TOKEN", read_private), "management-token", random
    )
    for each in (encryption, management):
        if each.made:
            _log.info("Made {path}; keep it safe.", path=str(each.path))
    return encryption, management


def passwords(settings: Settings) -> list[str]:
    """Those of the servers that the settings name."""
    servers = [url for url in (settings.redis.url, settings.cache.redis_url, settings.limits.redis_url) if url]
    return [*(parse_redis_url(url).password for url in servers), parse_store_url(settings.store.url).password or ""]
