"""No setting without an effect: for each of them, the test that shows through a started daemon what it changes.

Whether these tests would notice if the setting changed nothing: C{python -m tests.effects}.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Literal, get_args, get_origin
from unittest import TestCase

from llmproxy.config.fields import leaves
from tests.support.setting_variables import settable, value

TESTS = Path(__file__).parents[2]
D = "integration/test_settings.py::"
REFUSED = D + "test_what_there_is_not_is_refused"  # there is only one value
APIS, PATIENCE = "integration/settings/test_apis.py::", "integration/settings/test_patience.py::"
PRICES, SECTIONS = "integration/settings/test_prices.py::", "integration/settings/test_sections.py::"
REFERENCES = "integration/test_secret_references.py::"
LOST = D + "test_limits_while_redis_is_lost"
SEVERAL = "integration/test_several_upstreams.py::"
EGRESS = "integration/test_egress.py::"
PROBES = "integration/test_probes.py::"
SLOW = "integration/test_slow_readers.py::"

SIGN_IN = "integration/test_oidc_sign_in.py::"
OIDC, BY_JWT = "integration/settings/test_oidc.py::", "integration/test_oidc.py::"
ALERTS = "integration/test_budget_alerts.py::"

SHOWN_BY = {
    "alerts.thresholds": ALERTS + "test_no_thresholds",
    "alerts.webhook.url": ALERTS + "test_everybody_is_told_once",
    "alerts.webhook.secret": ALERTS + "test_everybody_is_told_once",
    "alerts.webhook.timeout": ALERTS + "test_a_receiver_that_never_answers",
    "alerts.webhook.queue_size": ALERTS + "test_a_receiver_that_never_answers",
    "alerts.webhook.attempts": ALERTS + "test_a_receiver_that_fails",
    "alerts.webhook.ca_file": ALERTS + "test_whose_certificate_is_not_trusted",
    "alerts.webhook.allow_http": ALERTS + "test_what_the_settings_refuse",
    "auth.oidc.profiles.<name>.soft_budget_usd": OIDC + "test_soft_budgets_of_a_profile",
    "auth.oidc.profiles.<name>.soft_budget_tokens": OIDC + "test_soft_budgets_of_a_profile",
    "apis.<name>.limits.soft_budget_usd": ALERTS + "test_an_api_that_warns",
    "apis.<name>.limits.soft_budget_tokens": ALERTS + "test_an_api_that_warns",
    "attribution": "integration/test_attribution.py::test_claimed_and_fixed",
    "ledger.attribution_values": "integration/test_attribution.py::test_more_values_than_are_told_apart",
    "default_api": APIS + "test_default_api_and_base_url",
    "apis.<name>.provider": APIS + "test_provider_and_auth",
    "apis.<name>.base_url": APIS + "test_default_api_and_base_url",
    "apis.<name>.allowed_endpoints": APIS + "test_allowed_endpoints",
    "apis.<name>.allowed_methods": APIS + "test_allowed_methods",
    "apis.<name>.auth": APIS + "test_provider_and_auth",
    "apis.<name>.query_key": APIS + "test_query_key",
    "apis.<name>.forward_cookies": APIS + "test_forward_cookies",
    "apis.<name>.heartbeat": "integration/test_heartbeat.py::test_a_silent_stream",
    "apis.<name>.timeouts.connect": PATIENCE + "test_until_it_responds",
    "apis.<name>.timeouts.response_header": PATIENCE + "test_until_it_responds",
    "apis.<name>.timeouts.request": PATIENCE + "test_until_it_responds",
    "apis.<name>.timeouts.stream": PATIENCE + "test_until_it_ends",
    "apis.<name>.timeouts.idle": PATIENCE + "test_until_it_ends",
    "apis.<name>.timeouts.idle_connection": PATIENCE + "test_unused_connection",
    "apis.<name>.timeouts.drain": PATIENCE + "test_drain",
    "apis.<name>.timeouts.flush_interval": PATIENCE + "test_gathered",
    "apis.<name>.connection.max_idle_conns": PATIENCE + "test_kept_connections",
    "apis.<name>.connection.max_idle_conns_per_host": PATIENCE + "test_kept_connections",
    "apis.<name>.connection.dns_ttl": "integration/test_names.py::test_a_changed_address_is_used",
    "apis.<name>.connection.max_conns_per_host": PATIENCE + "test_connections_at_once",
    "apis.<name>.connection.max_open_per_project": PATIENCE + "test_requests_of_a_project_at_once",
    "apis.<name>.param_whitelist": APIS + "test_param_whitelist",
    "apis.<name>.allowed_origins": APIS + "test_allowed_origins",
    "apis.<name>.required_headers": APIS + "test_required_headers",
    "apis.<name>.header_values": APIS + "test_header_values",
    "apis.<name>.required_params": APIS + "test_required_params",
    "apis.<name>.max_output_tokens": APIS + "test_max_output_tokens",
    "apis.<name>.limits.requests_per_minute": APIS + "test_requests_per_minute",
    "apis.<name>.limits.tokens_per_minute": APIS + "test_tokens_per_minute",
    "apis.<name>.limits.concurrency": APIS + "test_concurrency",
    "apis.<name>.limits.budget_usd": APIS + "test_budgets",
    "apis.<name>.limits.budget_tokens": APIS + "test_budgets",
    "apis.<name>.limits.default_output_tokens": APIS + "test_default_output_tokens",
    "apis.<name>.circuit_breaker.failures": APIS + "test_failures",
    "apis.<name>.circuit_breaker.cooldown": APIS + "test_cooldown",
    "apis.<name>.retries.attempts": APIS + "test_attempts",
    "apis.<name>.circuit_breaker.error_ratio": SEVERAL + "test_error_ratio",
    "apis.<name>.circuit_breaker.window": SEVERAL + "test_error_ratio_over_a_window",
    "apis.<name>.circuit_breaker.min_requests": SEVERAL + "test_error_ratio",
    "apis.<name>.probe.path": PROBES + "test_ejected_and_restored",
    "apis.<name>.probe.interval": PROBES + "test_how_many_in_a_row",
    "apis.<name>.probe.timeout": PROBES + "test_one_that_does_not_answer_in_time",
    "apis.<name>.probe.healthy": PROBES + "test_how_many_in_a_row",
    "apis.<name>.probe.unhealthy": PROBES + "test_how_many_in_a_row",
    "apis.<name>.probe.status": PROBES + "test_statuses",
    "apis.<name>.probe.project": PROBES + "test_with_a_projects_key",
    "apis.<name>.retries.on": "integration/test_lost_requests.py::test_a_connection_that_ends_after_the_request",
    "apis.<name>.retries.budget": SEVERAL + "test_an_outage",
    "apis.<name>.retries.backoff": SEVERAL + "test_backoff",
    "apis.<name>.upstreams.0.base_url": SEVERAL + "test_weight_and_round_robin",
    "apis.<name>.upstreams.0.weight": SEVERAL + "test_weight_and_round_robin",
    "apis.<name>.upstreams.0.priority": SEVERAL + "test_priority_and_failover",
    **dict.fromkeys(("apis.<name>.proxy_url", "apis.<name>.proxy_credentials"), EGRESS + "test_through_a_proxy"),
    "apis.<name>.upstreams.0.proxy_url": EGRESS + "test_a_proxy_of_its_own",
    "apis.<name>.upstreams.0.proxy_credentials": EGRESS + "test_a_proxy_of_its_own",
    "apis.<name>.client_cert_file": EGRESS + "test_client_certificate",
    "apis.<name>.client_key_file": EGRESS + "test_client_certificate",
    "apis.<name>.upstreams.0.client_cert_file": EGRESS + "test_a_certificate_of_its_own",
    "apis.<name>.upstreams.0.client_key_file": EGRESS + "test_a_certificate_of_its_own",
    "apis.<name>.upstreams.0.ca_file": SEVERAL + "test_authorities_of_its_own",
    "apis.<name>.balance": SEVERAL + "test_weight_and_round_robin",
    "apis.<name>.affinity.headers": SEVERAL + "test_affinity",
    "apis.<name>.key_cooldown": SEVERAL + "test_three_keys",
    "apis.<name>.metering.enabled": APIS + "test_metering",
    "apis.<name>.metering.include_usage": APIS + "test_include_usage",
    "apis.<name>.on_client_abort": PATIENCE + "test_client_leaves",
    "apis.<name>.error_format": APIS + "test_error_format",
    "apis.<name>.forward_client_ip": APIS + "test_forward_client_ip",
    "apis.<name>.cache.post": APIS + "test_cached_posts",
    "apis.<name>.cache.ttl": APIS + "test_cached_posts",
    "apis.<name>.ca_file": APIS + "test_ca_file",
    "server.listen": SECTIONS + "test_where_it_listens_and_stores",
    "server.workers": SECTIONS + "test_workers",
    "server.max_head_bytes": D + "test_the_longest_head",
    "server.max_request_bytes": SECTIONS + "test_max_request_bytes",
    "server.max_buffered_bytes": "integration/test_buffers.py::test_many_who_do_not_read",
    "server.head_timeout": "integration/test_malformed.py::test_a_head_that_takes_for_ever",
    "server.body_timeout": "integration/test_malformed.py::test_a_body_that_takes_for_ever",
    "server.keepalive_timeout": "integration/test_malformed.py::test_a_connection_that_is_not_used_again",
    "server.send_timeout": SLOW + "test_one_that_hardly_reads",
    "server.min_send_rate": SLOW + "test_one_that_hardly_reads",
    "server.max_connections": "integration/test_malformed.py::test_one_connection_too_many",
    "server.max_connections_per_address": SLOW + "test_more_connections_than_one_address_may_have",
    "server.drain_delay": "integration/test_workers_as_one.py::test_clients_are_served_on",
    "server.drain_timeout": "integration/test_daemon.py::test_stopping_cuts_what_is_still_busy_when_the_time_is_up",
    "server.underscores_in_headers": SECTIONS + "test_underscores_in_headers",
    "server.trusted_proxies": SECTIONS + "test_trusted_proxies",
    "server.debug_headers": SECTIONS + "test_debug_headers",
    "server.fast_path": SECTIONS + "test_fast_path",
    "server.admin_listen": "integration/test_daemon.py::test_management_and_metrics_on_listeners_of_their_own",
    "server.metrics_listen": "integration/test_daemon.py::test_management_and_metrics_on_listeners_of_their_own",
    "server.public_metrics": "integration/test_daemon.py::test_what_was_spent_is_not_for_everybody",
    "server.enforce_project_active": SECTIONS + "test_enforce_project_active",
    "store.url": SECTIONS + "test_where_it_listens_and_stores",
    "store.token_cache_ttl": SECTIONS + "test_token_cache_ttl",
    "store.token_cache_size": D + "test_how_many_tokens_are_remembered",
    "cache.enabled": "integration/test_caching.py::test_without_a_cache_nothing_is_kept",
    "cache.backend": D + "test_what_keys_in_redis_begin_with",
    "cache.redis_url": "integration/test_eviction.py::test_another_one_for_the_cache",
    "cache.max_bytes": SECTIONS + "test_max_bytes",
    "cache.max_object_bytes": "integration/test_caching.py::test_what_is_too_large_is_never_kept",
    "cache.default_ttl": SECTIONS + "test_default_ttl",
    "cache.heuristics": SECTIONS + "test_heuristics",
    "cache.streams": SECTIONS + "test_streams_and_replay",
    "cache.replay": SECTIONS + "test_streams_and_replay",
    "cache.coalesce": SECTIONS + "test_coalesce",
    "cache.scope": SECTIONS + "test_scope",
    "redis.url": D + "test_what_keys_in_redis_begin_with",
    "redis.key_prefix": D + "test_what_keys_in_redis_begin_with",
    "redis.timeout": D + "test_how_long_redis_is_waited_for",
    "redis.ca_file": SECTIONS + "test_redis_ca_file",
    "limits.backend": "integration/test_limits.py::test_four_daemons_share_a_rate",
    "limits.redis_url": "integration/test_eviction.py::test_another_one_for_the_cache",
    "limits.allow_eviction": "integration/test_eviction.py::test_it_is_allowed",
    "limits.on_loss.requests_per_minute": LOST,
    "limits.on_loss.tokens_per_minute": LOST,
    "limits.on_loss.concurrency": LOST,
    "limits.on_loss.budget_usd": LOST,
    "limits.on_loss.budget_tokens": LOST,
    "limits.lease": "integration/test_limits.py::test_a_daemon_that_is_killed_leaves_its_leases",
    "limits.unknown_price": D + "test_a_budget_and_a_model_without_a_price",
    "ledger.enabled": D + "test_without_a_ledger",
    "ledger.directory": D + "test_the_size_of_a_journal_and_of_its_files",
    "ledger.segment_bytes": D + "test_the_size_of_a_journal_and_of_its_files",
    "ledger.max_bytes": D + "test_the_size_of_a_journal_and_of_its_files",
    "ledger.interval": SECTIONS + "test_ledger_interval",
    "ledger.keep_lines": D + "test_how_long_lines_and_days_are_kept",
    "ledger.keep_days": D + "test_how_long_lines_and_days_are_kept",
    "prices.0.api": PRICES + "test_whose_price_it_is",
    "prices.0.model": PRICES + "test_whose_price_it_is",
    "prices.0.input": PRICES + "test_input_and_output",
    "prices.0.output": PRICES + "test_input_and_output",
    "prices.0.cached": PRICES + "test_cached_input",
    "prices.0.cache_write": PRICES + "test_written_input",
    "prices.0.input_audio": PRICES + "test_sound",
    "prices.0.output_audio": PRICES + "test_sound",
    "prices.0.per_request": PRICES + "test_each_request",
    "prices.0.units": PRICES + "test_units",
    "events.bus": REFUSED,
    "events.queue_size": D + "test_events_that_may_wait",
    "secrets.environment": REFERENCES + "test_what_may_not_be_referred_to",
    "secrets.directories": REFERENCES + "test_what_may_not_be_referred_to",
    "secrets.refresh": REFERENCES + "test_plugin",
    "secrets.stores.0.type": REFERENCES + "test_plugin",
    "events.sinks.0.type": SECTIONS + "test_where_it_listens_and_stores",
    "audit.file": D + "test_where_acts_are_written",
    "audit.fsync": SECTIONS + "test_audit_fsync",
    "audit.store": "integration/test_audit.py::test_settings",
    "audit.keep": SECTIONS + "test_audit_keep",
    "logging.format": D + "test_how_it_is_logged",
    "logging.level": D + "test_what_is_logged",
    "logging.access": D + "test_how_it_is_logged",
    "state_dir": D + "test_where_secrets_are_made",
    "auth.oidc.issuer": BY_JWT + "test_a_jwt_in_place_of_a_token",
    "auth.oidc.jwks_url": OIDC + "test_jwks_url",
    "auth.oidc.algorithms": OIDC + "test_algorithms",
    "auth.oidc.clock_skew": OIDC + "test_clock_skew",
    "auth.oidc.jwks_refresh": OIDC + "test_jwks_refresh",
    "auth.oidc.jwks_cooldown": BY_JWT + "test_keys_that_are_rotated",
    "auth.oidc.jwks_max_stale": OIDC + "test_jwks_max_stale",
    "auth.oidc.timeout": OIDC + "test_timeout",
    "auth.oidc.ca_file": OIDC + "test_ca_file",
    "auth.oidc.allow_http": OIDC + "test_allow_http",
    "auth.oidc.audience": BY_JWT + "test_claims_that_are_refused",
    "auth.oidc.apis": BY_JWT + "test_what_claims_allow",
    "auth.oidc.claims.project": BY_JWT + "test_claims_that_allow_nothing",
    "auth.oidc.claims.profile": OIDC + "test_profiles",
    "auth.oidc.claims.models": OIDC + "test_claims",
    "auth.oidc.claims.apis": OIDC + "test_claims",
    "auth.oidc.require": BY_JWT + "test_claims_that_allow_nothing",
    "auth.oidc.projects": BY_JWT + "test_claims_that_allow_nothing",
    "auth.oidc.default_project": OIDC + "test_defaults",
    "auth.oidc.default_profile": OIDC + "test_defaults",
    "auth.oidc.profiles.<name>.apis": OIDC + "test_profiles",
    "auth.oidc.profiles.<name>.endpoints": OIDC + "test_profiles",
    "auth.oidc.profiles.<name>.models": OIDC + "test_profiles",
    "auth.oidc.profiles.<name>.ips": OIDC + "test_profiles",
    **dict.fromkeys(
        (
            f"auth.oidc.profiles.<name>.{name}"
            for name in (
                *("methods", "max_output_tokens", "param_whitelist", "required_params"),
                *("required_headers", "header_values"),
            )
        ),
        OIDC + "test_policies_of_profiles",
    ),
    "auth.oidc.profiles.<name>.requests_per_minute": OIDC + "test_profiles",
    "auth.oidc.profiles.<name>.tokens_per_minute": OIDC + "test_profiles",
    "auth.oidc.profiles.<name>.concurrency": OIDC + "test_profiles",
    "auth.oidc.profiles.<name>.budget_usd": OIDC + "test_profiles",
    "auth.oidc.profiles.<name>.budget_tokens": OIDC + "test_profiles",
    "auth.validators.0.type": "integration/test_library.py::test_a_token_validator_of_ones_own",
    "auth.validators.0.apis": "integration/test_library.py::test_a_token_validator_of_ones_own",
    "management.oidc.issuer": SIGN_IN + "test_a_person_signs_in",
    "management.oidc.client_id": SIGN_IN + "test_a_person_signs_in",
    "management.oidc.redirect_uri": SIGN_IN + "test_settings_that_are_refused",
    "management.oidc.audience": "integration/test_management_jwts.py::test_what_is_refused",
    "management.oidc.scopes": SIGN_IN + "test_where_a_browser_is_sent",
    "management.oidc.claims.name": SIGN_IN + "test_a_person_signs_in",
    "management.oidc.claims.role": SIGN_IN + "test_a_person_signs_in",
    "management.oidc.claims.projects": SIGN_IN + "test_roles",
    "management.oidc.roles.admin": SIGN_IN + "test_a_person_signs_in",
    "management.oidc.roles.operator": SIGN_IN + "test_roles",
    "management.oidc.roles.viewer": SIGN_IN + "test_roles",
    "management.oidc.ca_file": SIGN_IN + "test_by_tls",
    "management.oidc.allow_http": SIGN_IN + "test_settings_that_are_refused",
}


def has_one_value(setting: str) -> bool:
    """Whether nothing but its default may stand there: a C{Literal} of one word, or a list of them."""
    (info,) = (leaf.info for leaf in leaves() if ".".join(map(str, leaf.path)) == setting)
    kind = info.annotation
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
    return get_origin(kind) is Literal and len(get_args(kind)) == 1


@cache
def source(file: str) -> tuple[str, frozenset[str]]:
    """A test file's text, and the tests in it."""
    text = (TESTS / file).read_text(encoding="utf-8")
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    return text, frozenset(node.name for node in ast.walk(ast.parse(text)) if isinstance(node, functions))


class EverySetting(TestCase):
    def test_each_has_a_test(self) -> None:
        """A new setting needs one that shows its difference; one that is gone leaves none behind."""
        self.assertEqual({".".join(map(str, leaf.path)) for leaf in leaves()}, set(SHOWN_BY))

    def test_these_tests_are_there(self) -> None:
        """And the files that they are in set what they are to show."""
        for setting, test in SHOWN_BY.items():
            with self.subTest(setting):
                self.assertTrue(test.startswith("integration/"), "what a user sees is seen through the daemon")
                file, _, name = test.partition("::")
                text, tests = source(file)
                self.assertIn(name, tests)
                key = re.escape(setting.rpartition(".")[2]).replace("_", "[_-]")
                self.assertRegex(text.lower(), rf"(?<![a-z]){key}(?![a-z])")

    def test_each_variable_has_a_value(self) -> None:
        """With which a daemon of C{integration/settings/test_environment.py} starts; a text needs one in C{VALUES}."""
        for name, leaf in settable():
            with self.subTest(name):
                self.assertIsNotNone(value(name, leaf), "tests/support/setting_variables.py does not know one")
