"""L{llmproxy.config.load}: a file is right, or everything that is wrong with it is said."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import TestCase

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llmproxy.config import fields
from llmproxy.config.load import SettingsError, check_report, load, parse
from llmproxy.config.model import Settings
from llmproxy.config.names import METHODS
from llmproxy.config.routes import Routes
from llmproxy.model import Allowance, Budget

ONE = """\
apis:
  openai:
    base_url: https://api.openai.com
    allowed_endpoints: [/v1/models]
"""


def read(text: str, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    return parse(text, "etc/apis.yaml", environ or {}, {name.replace("__", "."): v for name, v in overrides.items()})


def wrong(text: str, environ: Mapping[str, str] | None = None, **overrides: Any) -> list[str]:
    try:
        read(text, environ, **overrides)
    except SettingsError as e:
        return [str(problem) for problem in e.problems]
    raise AssertionError("nothing was wrong")


def dump(found: Settings) -> str:
    """The settings as a file would say them."""
    return yaml.safe_dump(_escaped(found.model_dump(mode="json")))


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


class Right(TestCase):
    def test_a_short_file(self) -> None:
        """Everything else has a default, and the only API is the default one."""
        found = read(ONE)
        self.assertEqual(found.default_api, "openai")
        self.assertEqual(found.apis["openai"].timeouts.request, 600.0)
        self.assertEqual(found.server.listen, ("tcp:8080:interface=127.0.0.1",))

    def test_several_apis_without_a_default(self) -> None:
        """Then there is none."""
        other = "  local: {base_url: 'http://127.0.0.1:1', allowed_endpoints: [/v1/**]}\n"
        self.assertEqual(read(ONE + other).default_api, "")

    def test_limits_of_an_api(self) -> None:
        """Budgets may be one or several; 0 is none."""
        found = read(ONE + "    limits: {requests_per_minute: 60, concurrency: 0, budget_usd: [20/month, 2/day]}\n")
        self.assertEqual(
            found.apis["openai"].limits.allowance(),
            Allowance(requests_per_minute=60, budget_usd=(Budget(2 * 10**9, "day"), Budget(20 * 10**9, "month"))),
        )
        self.assertIsNone(read(ONE).apis["openai"].limits.allowance())
        one = read(ONE + "    limits: {budget_tokens: 1000000}\n").apis["openai"].limits.allowance()
        self.assertEqual(one, Allowance(budget_tokens=(Budget(1_000_000, "lifetime"),)))

    def test_units_are_read(self) -> None:
        """Durations become seconds, sizes bytes."""
        found = read(ONE + "    timeouts: {idle: 1m30s, request: 0}\nserver: {max_head_bytes: 8KiB}\n")
        self.assertEqual((found.apis["openai"].timeouts.idle, found.apis["openai"].timeouts.request), (90.0, 0.0))
        self.assertEqual(found.server.max_head_bytes, 8192)

    def test_on_is_a_key(self) -> None:
        """C{retries: {on: …}} is not a boolean."""
        self.assertEqual(read(ONE + "    retries: {on: [connect]}\n").apis["openai"].retries.on, ("connect",))

    def test_a_section_without_anything(self) -> None:
        """A heading whose settings are all commented out is as good as none."""
        self.assertEqual(read(ONE + "server:\nlogging:\n  level:\n"), read(ONE))

    def test_what_a_sink_wants_to_know(self) -> None:
        """Options of a plugin keep the types they have in the file."""
        text = """
events:
  sinks:
    - type: file
      path: x
      size: '${N}'
      count: ${N}
      on: no
      deep:
        - a: ${N}
"""
        (sink,) = read(ONE + text, {"N": "3"}).events.sinks
        self.assertEqual(sink.type, "file")
        self.assertEqual(sink.options, {"path": "x", "size": "3", "count": 3, "on": "no", "deep": [{"a": 3}]})

    def test_variables_in_the_file(self) -> None:
        """They become what the setting wants."""
        text = ONE + "server: {max_connections: '${N}', debug_headers: '${B}'}\nredis:\n  key_prefix: ${N}\n"
        found = read(text, {"N": "3", "B": "false"})
        self.assertEqual(
            (found.server.max_connections, found.server.debug_headers, found.redis.key_prefix), (3, False, "3")
        )


class Above(TestCase):
    def test_the_environment_is_above_the_file(self) -> None:
        """Any scalar outside the APIs, and lists with commas."""
        found = read(
            ONE + "store: {url: 'sqlite:///a'}\nserver: {max_connections: 2}\n",
            {
                "LLMPROXY_STORE_URL": "sqlite:///b",
                "LLMPROXY_SERVER_LISTEN": "tcp:1, unix:/x",
                "LLMPROXY_SERVER_DRAIN_TIMEOUT": "5s",
                "LLMPROXY_LOGGING_LEVEL": "debug",
                "LLMPROXY_LOGGING_ACCESS": "off",
                "LLMPROXY_STATE_DIR": "/var/lib/x",
                "LLMPROXY_SERVER_MAX_CONNECTIONS": "",
            },
        )
        self.assertEqual(found.store.url, "sqlite:///b")
        self.assertEqual(found.server.listen, ("tcp:1", "unix:/x"))
        self.assertEqual((found.server.drain_timeout, found.server.max_connections), (5.0, 2))
        self.assertEqual((found.logging.level, found.logging.access, found.state_dir), ("debug", False, "/var/lib/x"))

    def test_names_of_other_proxies(self) -> None:
        """They work, and ours weigh more."""
        theirs = {
            "HTTP_CACHE_ENABLED": "false",
            "HTTP_CACHE_BACKEND": "in-memory",
            "REDIS_CACHE_URL": "redis://other:6379/1",
            "REDIS_CACHE_KEY_PREFIX": "x:",
        }
        found = read(ONE + "cache: {backend: redis}\n", theirs)
        self.assertEqual((found.cache.enabled, found.cache.backend), (False, "memory"))
        self.assertEqual((found.redis.url, found.redis.key_prefix), ("redis://other:6379/1", "x:"))
        self.assertTrue(read(ONE, {**theirs, "LLMPROXY_CACHE_ENABLED": "true"}).cache.enabled)
        self.assertEqual(read(ONE, {"HTTP_CACHE_BACKEND": "redis"}).cache.backend, "redis")

    def test_flags_are_above_the_environment(self) -> None:
        """A flag that was not given is C{None}."""
        environ = {"LLMPROXY_SERVER_LISTEN": "tcp:1", "LLMPROXY_LOGGING_LEVEL": "warn"}
        found = read(ONE, environ, server__listen=["tcp:2"], logging__level=None, server__max_connections="4")
        self.assertEqual(
            (found.server.listen, found.logging.level, found.server.max_connections), (("tcp:2",), "warn", 4)
        )

    def test_a_wrong_variable_is_named(self) -> None:
        """The file is not to blame, and says nothing of it any more."""
        self.assertEqual(
            wrong(ONE + "server: {max_connections: no}\n", {"LLMPROXY_SERVER_MAX_CONNECTIONS": "two"}),
            ['LLMPROXY_SERVER_MAX_CONNECTIONS: server.max_connections: "two" is not a whole number'],
        )
        self.assertEqual(
            wrong(ONE, server__listen=["tcp:1", "2"]),
            ['command line: server.listen[1]: "2" is not an endpoint (try tcp:2)'],
        )

    def test_what_is_laid_over_a_wrong_section(self) -> None:
        """The section is what is wrong."""
        self.assertEqual(
            wrong(ONE + "server: [x]\n", {"LLMPROXY_SERVER_MAX_CONNECTIONS": "2"}),
            ["etc/apis.yaml:5:1: server: is a list, not a mapping of settings"],
        )


class Wrong(TestCase):
    maxDiff = None

    def test_budgets(self) -> None:
        self.assertEqual(
            wrong(ONE + "    limits: {budget_usd: [2/day, 3/day], budget_tokens: 1.5/day, concurrency: -1}\n"),
            [
                'etc/apis.yaml:5:42: apis.openai.limits.budget_tokens[0]: "1.5/day" is not a budget '
                "(try 1000000/day or 5000000/month; periods are day, month and lifetime)",
                'etc/apis.yaml:5:66: apis.openai.limits.concurrency: "-1" is too small (at least 0)',
            ],
        )
        self.assertEqual(
            wrong(ONE + "    limits: {budget_usd: [2/day, 3/day]}\n"),
            ["etc/apis.yaml:5:5: apis.openai.limits: there must be at most one budget for each period"],
        )

    def test_everything_at_once(self) -> None:
        """Each with its place, what is wrong, and what was meant."""
        text = """\
default_api: opena
apis:
  openai:
    provider: opnai
    base_url: ftp://api.openai.com
    allowed_endpoints: []
    allowed_methods: [GET, post, CONNECT]
    timeouts:
      request: fast
      idle: 30
      conect: 1s
    allowed_origins: [app.example.com]
    required_headers: ["no header"]
    auth: host
    circuit_breaker: {failures: -1}
    retries: {attempts: 11, on: [always]}
    request: 1s
  Other:
    allowed_endpoints: [v1/models, "/v1/**/x"]
    base_url: ${BASE}
  metrics: {base_url: "https://x", allowed_endpoints: [/x], base_url: "https://y"}
  empty:
server: {listen: [8080], max_connections: "2", max_head_bytes: big, debug_headers: "yes"}
store: {url: data.db}
redis: {url: "http://:hunter2@x"}
logging: {level: warning}
events: {sinks: [{path: x}]}
cache: on
listen: tcp:1
<<: {}
"""
        at = "etc/apis.yaml"
        self.assertEqual(
            wrong(text),
            [
                f'{at}:1:1: default_api: there is no API named "opena" (did you mean openai?)',
                f'{at}:4:5: apis.openai.provider: "opnai" is not one of openai, anthropic, google, mistral, azure,'
                " bedrock-bearer, generic (did you mean openai?)",
                f'{at}:5:5: apis.openai.base_url: "ftp://api.openai.com" is not a base URL: it must begin with http://'
                " or https:// (try https://api.openai.com)",
                f"{at}:6:5: apis.openai.allowed_endpoints: is empty; it needs at least one entry",
                f'{at}:7:28: apis.openai.allowed_methods[1]: "post" is not a method (did you mean POST?)',
                f'{at}:7:34: apis.openai.allowed_methods[2]: "CONNECT" is a method that is never forwarded',
                f'{at}:9:7: apis.openai.timeouts.request: "fast" is not a duration (try 120s)',
                f'{at}:10:7: apis.openai.timeouts.idle: "30" is not a duration (try 30s)',
                f"{at}:11:7: apis.openai.timeouts.conect: is not a setting (did you mean connect?)",
                f'{at}:12:23: apis.openai.allowed_origins[0]: "app.example.com" is not an origin'
                " (try https://app.example.com)",
                f'{at}:13:24: apis.openai.required_headers[0]: "no header" is not a header name',
                f'{at}:14:5: apis.openai.auth: "host" is not a way to send a key'
                " (try bearer, x-api-key, or the name of a header)",
                f'{at}:15:23: apis.openai.circuit_breaker.failures: "-1" is too small (at least 0)',
                f'{at}:16:15: apis.openai.retries.attempts: "11" is too large (at most 10)',
                f'{at}:16:34: apis.openai.retries.on[0]: "always" is not one of '
                "connect, reused, reset, 429, 502, 503, 504, 529",
                f"{at}:17:5: apis.openai.request: is not a setting here (did you mean apis.<name>.timeouts.request?)",
                f"{at}:18:3: apis.Other: is not a name for an API: a-z, 0-9, _ and -, and first a letter or digit",
                f'{at}:19:25: apis.Other.allowed_endpoints[0]: "v1/models" is not an endpoint'
                " (try /v1/chat/completions): The request target must begin with a slash.",
                f'{at}:19:36: apis.Other.allowed_endpoints[1]: "/v1/**/x" is not an endpoint:'
                " ** may only be the whole last segment",
                f"{at}:20:5: apis.Other.base_url: the environment variable BASE is not set"
                " (set it, or write ${BASE:-default})",
                f"{at}:21:3: apis.metrics: this name is reserved for the proxy's own addresses",
                f"{at}:21:61: apis.metrics.base_url: stands here twice (first in line 21)",
                f"{at}:22:3: apis.empty: is empty",
                f'{at}:23:19: server.listen[0]: "8080" is not an endpoint (try tcp:8080)',
                f'{at}:23:26: server.max_connections: "2" is not a whole number',
                f'{at}:23:48: server.max_head_bytes: "big" is not a size (try 64KiB)',
                f'{at}:23:69: server.debug_headers: "yes" is neither true nor false',
                f"{at}:24:9: store.url: is not a database URL (try sqlite:///data/llmproxy.db)",
                f"{at}:25:9: redis.url: is not a Redis URL: "
                "it must begin with redis://, rediss:// or unix:// (try redis://localhost:6379/0)",
                f'{at}:26:11: logging.level: "warning" is not one of debug, info, warn, error, critical'
                " (did you mean warn?)",
                f"{at}:27:18: events.sinks[0].type: is missing",
                f'{at}:28:1: cache: is "on", not a mapping of settings',
                f"{at}:29:1: listen: is not a setting here (did you mean server.listen?)",
                f"{at}:30:1: <<: merging mappings is not part of YAML 1.2"
                " (give the section an anchor, and use an alias for it)",
            ],
        )

    def test_no_apis(self) -> None:
        """There is nothing to do without one."""
        self.assertEqual(wrong(""), ["etc/apis.yaml:1:1: apis: is missing"])
        self.assertEqual(wrong("apis: {}"), ["etc/apis.yaml:1:1: apis: is empty; it needs at least one entry"])
        self.assertEqual(wrong("apis: 3"), ['etc/apis.yaml:1:1: apis: is "3", not a mapping of settings'])
        self.assertEqual(wrong("[]"), ["etc/apis.yaml:1:1: is a list, not a mapping of settings"])
        self.assertEqual(wrong("null"), ["etc/apis.yaml:1:1: is empty"])

    def test_the_default_alone(self) -> None:
        """Found once, whether or not anything else is wrong."""
        self.assertEqual(
            wrong("default_api: local\n" + ONE), ['etc/apis.yaml:1:1: default_api: there is no API named "local"']
        )
        self.assertEqual(len(wrong("default_api: local\nx: 1\n" + ONE)), 2)

    def test_a_program_hears_of_the_default_too(self) -> None:
        """Who builds L{Settings} without a file is held to the same."""
        with self.assertRaisesRegex(ValueError, "there is no API named"):
            Settings(default_api="x", apis=read(ONE).apis)

    def test_a_variable_is_not_shown(self) -> None:
        """A key that got into the wrong setting does not get into the log."""
        (problem,) = wrong(ONE + "    auth: ${KEY}\n", {"KEY": "sk secret"})
        self.assertIn('"${KEY}"', problem)
        self.assertNotIn("secret", problem)


class Files(TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "apis.yaml")

    def wrong(self) -> str:
        with self.assertRaises(SettingsError) as raised:
            load(self.path, {})
        return str(raised.exception).replace(self.path, "X")

    def test_a_file(self) -> None:
        """With the mark that some editors put at its beginning, and their line ends."""
        Path(self.path).write_bytes(b"\xef\xbb\xbf" + ONE.replace("\n", "\r\n").encode())
        self.assertEqual(load(self.path, {}), read(ONE))

    def test_files_that_cannot_be_read(self) -> None:
        """A path that is wrong is one more thing that is wrong with the settings."""
        self.assertEqual(self.wrong(), "X: cannot be read: No such file or directory")
        os.mkdir(self.path)
        self.assertEqual(self.wrong(), "X: cannot be read: Is a directory")
        with self.assertRaises(SettingsError):
            load("a\0b", {})

    def test_not_text(self) -> None:
        """The place of the first byte that is wrong."""
        Path(self.path).write_bytes(b"a: 1\nb: \xff\n")
        self.assertEqual(self.wrong(), "X:2:4: is not text in UTF-8")

    def test_too_large(self) -> None:
        """Nobody writes four million characters of settings."""
        Path(self.path).write_bytes(b"#" * (4 * 1024 * 1024 + 1))
        self.assertEqual(self.wrong(), "X: is too large for a settings file")

    def test_the_one_that_comes_with_it(self) -> None:
        """Starts out of the box, with every well-known provider."""
        shipped = Path(__file__).parents[3] / "etc" / "apis.yaml"
        found = load(str(shipped), {})
        self.assertEqual(list(found.apis), ["openai", "anthropic", "google", "mistral", "azure", "local"])
        self.assertEqual((found.default_api, found.server.listen), ("openai", ("tcp:8080:interface=127.0.0.1",)))
        Routes(found)


class Page(TestCase):
    def test_the_example_of_a_whole_file(self) -> None:
        """What C{docs/settings.md} shows first can be copied as it stands."""
        page = (Path(__file__).parents[3] / "docs" / "settings.md").read_text("utf-8")
        example = page.partition("```yaml\n")[2].partition("```")[0]
        self.assertEqual(read(example).apis["openai"].base_url, "https://api.openai.com")


WORDS = st.text(max_size=8) | st.sampled_from(["${X}", "$", "${", "10s", "64KiB", "https://h", "/v1/x", "tcp:1", "GET"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
KEYS = st.sampled_from(sorted({str(step) for leaf in fields.leaves() for step in leaf.path})) | WORDS
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=30
)
DURATIONS = st.integers(0, 10**12).map(lambda microseconds: microseconds / 10**6)
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12)
API_NAMES = st.from_regex(r"x[a-z0-9_-]{0,8}", fullmatch=True)
HOSTS = st.from_regex(r"[a-z][a-z0-9-]{0,6}x(\.[a-z]{2,5}x)?(:[1-9][0-9]{0,3})?(/[a-z]{1,5}){0,2}/?", fullmatch=True)
ENDPOINTS = st.from_regex(r"(/[a-z0-9:]{1,6}|/\*){1,4}(/\*\*)?", fullmatch=True)
APIS = st.fixed_dictionaries(
    {
        "base_url": HOSTS.map("https://".__add__),
        "allowed_endpoints": st.lists(ENDPOINTS, min_size=1, max_size=4),
    },
    optional={
        "provider": st.sampled_from(["openai", "anthropic", "google", "azure"]),
        "allowed_methods": st.lists(st.sampled_from(METHODS), min_size=1, max_size=4),
        "auth": st.sampled_from(["", "bearer", "X-Mine"]),
        "query_key": st.booleans(),
        "timeouts": st.fixed_dictionaries({}, optional={"request": DURATIONS, "idle": DURATIONS}),
        "param_whitelist": st.dictionaries(
            TEXTS.filter(str.strip), st.lists(TEXTS | st.booleans() | st.integers(-9, 9), min_size=1), max_size=2
        ),
        "allowed_origins": st.lists(st.sampled_from(["*", "https://a.example", "http://b:3000"])),
        "required_headers": st.lists(st.from_regex(r"[A-Za-z-]{1,8}", fullmatch=True), max_size=2),
        "circuit_breaker": st.fixed_dictionaries({"failures": st.integers(0, 10**6), "cooldown": DURATIONS}),
        "ca_file": TEXTS,
    },
)
OPTIONS = st.dictionaries(
    st.from_regex(r"o[a-z]{0,5}", fullmatch=True), TEXTS | st.booleans() | st.integers(-(10**9), 10**9), max_size=3
)
SETTINGS = st.fixed_dictionaries(
    {"apis": st.dictionaries(API_NAMES, APIS, min_size=1, max_size=3)},
    optional={
        "server": st.fixed_dictionaries(
            {},
            optional={
                "listen": st.lists(st.sampled_from(["tcp:1", "unix:/x"]), min_size=1),
                "max_head_bytes": st.integers(0, 10**14),
                "head_timeout": DURATIONS,
                "trusted_proxies": st.lists(st.ip_addresses().map(str), max_size=2),
            },
        ),
        "store": st.fixed_dictionaries({"url": TEXTS.map("sqlite:///".__add__)}),
        "redis": st.fixed_dictionaries({"key_prefix": TEXTS}),
        "events": st.fixed_dictionaries(
            {"sinks": st.lists(OPTIONS.map(lambda options: {**options, "type": "file"}), max_size=2)}
        ),
        "audit": st.fixed_dictionaries({"file": TEXTS}),
        "state_dir": TEXTS.filter(str.strip),
    },
)


class Properties(TestCase):
    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(st.text())
    @example("a: &a [*a]")
    @example('"\\U99999999"')
    @example("%YAML 9.9\n--- x")
    @example("? {a: 1}\n: 2")
    @example("!<tag:yaml.org,2002:python/object/apply:os.getcwd> []")
    def test_any_text(self, text: str) -> None:
        """Whatever a file holds, it is right, or it is said what is wrong: nothing else ever comes out."""
        self.assertTrue(wrong(text))

    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(TREES, st.dictionaries(st.sampled_from(["X", "LLMPROXY_SERVER_LISTEN", "HTTP_CACHE_ENABLED"]), TEXTS))
    def test_any_structure(self, tree: Any, environ: dict[str, str]) -> None:
        """The same for what is YAML, and nearly settings."""
        for text in (yaml.safe_dump(tree), json.dumps(tree), yaml.safe_dump({"apis": {"x": tree}, "server": tree})):
            try:
                parse(text, "f", environ)
            except SettingsError as e:
                self.assertTrue(e.problems)
                self.assertTrue(all(str(problem).isprintable() for problem in e.problems), str(e))

    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(SETTINGS)
    def test_written_and_read_again(self, tree: Any) -> None:
        """Settings that are written to a file are the same when they are read from it; and they can be served."""
        found = Settings.model_validate(tree)
        self.assertEqual(read(dump(found)), found)
        Routes(found)


RIGHT = "apis: {x: {base_url: 'https://x.example', allowed_endpoints: [/v1/models]}}\n"


class EndpointMethods(TestCase):
    def test_a_method_that_the_api_does_not_allow(self) -> None:
        """Could never be used; HEAD is allowed where GET is."""
        text = (
            "apis: {x: {base_url: 'https://x.example', allowed_endpoints: ['%s /v1/models'], allowed_methods: [GET]}}"
        )
        for method in ("GET", "HEAD"):
            self.assertEqual(read(text % method).apis["x"].allowed_endpoints, (f"{method} /v1/models",))
        (problem,) = wrong(text % "DELETE")
        self.assertIn('"DELETE /v1/models" names a method that is not among allowed_methods', problem)
        (problem,) = wrong(text % "TRACE")
        self.assertIn('"TRACE" is a method that is never forwarded', problem)


class CheckReport(TestCase):
    def report(self, text: str, **environ: str) -> tuple[int, str]:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "apis.yaml")
            Path(path).write_text(text)
            code, said = check_report(path, environ)
        return code, said.replace(path, "X")

    def test_right(self) -> None:
        """What the daemon would do, without passwords."""
        code, said = self.report(RIGHT, LLMPROXY_STORE_URL="postgresql+psycopg://u:hunter2@h/d")
        self.assertEqual(code, 0)
        self.assertIn("X is right.", said)
        self.assertIn("https://x.example", said)
        self.assertIn("postgresql+psycopg://***@h/d", said)
        self.assertNotIn("hunter2", said)

    def test_refused_urls_are_not_repeated(self) -> None:
        """They may hold a password where nobody looks for one."""
        for section in (
            "store: {url: 'postgresql:/u:hunter2@h/d'}",
            "store: {url: 'postgresql://u:a@hunter2@h/d'}",
            "store: {url: 'mysql://u:hunter2@h/d'}",
            "redis: {url: 'redis:/:hunter2@h/0'}",
            "limits: {redis_url: 'rediss://hunter2@h/0'}",
            "cache: {redis_url: 'redis://h/hunter2'}",
            "alerts: {webhook: {url: 'https://h/x#hunter2', secret: 'env:X'}}",
            "alerts: {webhook: {url: 'https://hunter2!/x', secret: 'env:X'}}",
            "auth: {oidc: {jwks_url: 'https://u:hunter2@h'}}",
            "auth: {oidc: {issuer: 'https://u:a@hunter2@h'}}",
        ):
            with self.subTest(section):
                code, said = self.report(f"{RIGHT}{section}\n")
                self.assertEqual((code, "hunter2" in said), (78, False), said)
        for url in ("https://u:hunter2/x@h", "https:/hunter2@h", "https://h/?key=hunter2"):
            code, said = self.report(RIGHT.replace("https://x.example", url, 1))
            self.assertEqual((code, "hunter2" in said), (78, False), said)
        proxied = RIGHT.replace("{base_url", "{proxy_url: 'http://h/hunter2', base_url", 1)
        code, said = self.report(proxied)
        self.assertEqual((code, "hunter2" in said), (78, False), said)

    def test_users_with_at_signs(self) -> None:
        """Some servers have them; only one in a password would be read as something else."""
        for user in ("u%40s:p%40q", "u@server:p", "u@server"):
            code, said = self.report(RIGHT, LLMPROXY_STORE_URL=f"postgresql://{user}@h/d?a=b@c")
            self.assertEqual(code, 0, said)

    def test_said_once(self) -> None:
        """Each by the setting's own path, and with the word as it is to be written."""
        for text, said in (
            (RIGHT.replace("'https://x.example'", "'${UNSET_BASE}'"), "UNSET_BASE is not set"),
            (RIGHT + "server: {workers: 0}\n", 'server.workers: "0" is too small (at least 1)'),
            (RIGHT + "server: {workers: 257}\n", 'server.workers: "257" is too large (at most 256)'),
            (RIGHT.replace("allowed", "allowed_methods: [GTE], allowed", 1), "(did you mean GET?)"),
        ):
            code, report = self.report(text)
            self.assertEqual((code, report.count("\n"), said in report), (78, 1, True), report)

    def test_wrong(self) -> None:
        """The exit code of sysexits, and every problem on a line of its own."""
        code, said = self.report(RIGHT + "a: 1\nb: 2\n")
        self.assertEqual(code, 78)
        self.assertEqual(said.splitlines()[-1], "2 problems in the settings.")
        self.assertEqual(said.splitlines()[:2], ["X:2:1: a: is not a setting", "X:3:1: b: is not a setting"])

    def test_not_there(self) -> None:
        """A path that is wrong is a wrong setting too."""
        self.assertEqual(
            check_report("/no/such", {}),
            (78, "/no/such: cannot be read: No such file or directory\n1 problem in the settings."),
        )
