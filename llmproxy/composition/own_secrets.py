"""The secrets of the daemon itself: the encryption key, the management token, the passwords of its servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from twisted.logger import Logger

from llmproxy.config.load import read_private
from llmproxy.config.model import Settings
from llmproxy.config.redis_url import parse_redis_url
from llmproxy.config.secret_variables import PREFIX, secret
from llmproxy.keyring import Keyring, parse_keys
from llmproxy.store.canary import refuse_new_key
from llmproxy.store.engines import parse_store_url, url_passwords
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


def encryption_key_file(settings: Settings, environ: Mapping[str, str]) -> Path | None:
    """The file that has the encryption keys; C{None} where the environment itself does."""
    for name in (f"{PREFIX}ENCRYPTION_KEY", "ENCRYPTION_KEY"):
        if environ.get(name):
            return None
        if environ.get(f"{name}_FILE"):
            return Path(environ[f"{name}_FILE"])
    return Path(settings.state_dir).absolute() / "encryption-key"


def keyring(encryption: Secret, file: Path | None, learn: Callable[[str], object]) -> Keyring:
    """The encryption keys, looked for again in their file where something has been sealed with one that is not known.

    @param learn: Called with every key that is found later, so that logs can leave it out.
    """
    stamp: tuple[int, int, int] | None = None

    def read() -> tuple[str, ...] | None:
        nonlocal stamp
        if file is None:
            return None
        try:
            status = file.stat()
            found = (status.st_ino, status.st_size, status.st_mtime_ns)
            if found == stamp:
                return None
            mode, text = read_private(str(file))
        except (OSError, UnicodeDecodeError):
            return None  # what is known goes on being used
        if mode & 0o077:
            return None
        stamp = found
        keys = parse_keys(text)
        for key in keys:
            learn(key)
        return keys

    return Keyring(parse_keys(encryption.value), read)


def passwords(settings: Settings) -> list[str]:
    """Those of the servers that the settings name."""
    servers = [url for url in (settings.redis.url, settings.cache.redis_url, settings.limits.redis_url) if url]
    return [*(parse_redis_url(url).password for url in servers), *url_passwords(parse_store_url(settings.store.url))]
