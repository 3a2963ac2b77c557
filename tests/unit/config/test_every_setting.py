"""No setting without an effect: for each of them, the test that shows what it changes in what is started or served."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from unittest import TestCase

from llmproxy.config.fields import leaves

TESTS = Path(__file__).parents[2]
J, D = "journey/test_settings.py::", "integration/test_settings.py::"
REFUSED = D + "test_what_there_is_not_is_refused"  # there is only one value
ENDS, LIMITS, CACHED = "journey/test_ends.py::", "journey/test_limits.py::", "journey/test_caching.py::"
PRICE = J + "test_whose_price_it_is"
LOST = D + "test_limits_while_redis_is_lost"
SLOW = "integration/test_slow_readers.py::"

SHOWN_BY = {
    "default_api": "journey/test_refusals.py::test_no_such_api",
    "apis.<name>.provider": "journey/test_fields.py::test_each_providers_way",
    "apis.<name>.base_url": "journey/test_refusals.py::test_no_such_api",
    "apis.<name>.allowed_endpoints": "journey/test_refusals.py::test_no_such_api",
    "apis.<name>.allowed_methods": "journey/test_fields.py::test_the_head_of_an_error",
    "apis.<name>.auth": "journey/test_fields.py::test_each_providers_way",
    "apis.<name>.query_key": "journey/test_fields.py::test_a_credential_in_the_query",
    "apis.<name>.forward_cookies": "journey/test_fields.py::test_cookies",
    "apis.<name>.timeouts.connect": ENDS + "test_no_connection_comes_about",
    "apis.<name>.timeouts.response_header": ENDS + "test_before_the_head",
    "apis.<name>.timeouts.request": ENDS + "test_a_plain_answer_that_has_not_begun",
    "apis.<name>.timeouts.stream": ENDS + "test_a_stream_that_is_given_one",
    "apis.<name>.timeouts.idle": ENDS + "test_in_the_middle",
    "apis.<name>.timeouts.idle_connection": J + "test_how_long_an_unused_one_is_kept",
    "apis.<name>.timeouts.drain": "journey/test_usage.py::test_not_for_ever",
    "apis.<name>.timeouts.flush_interval": ENDS + "test_an_interval",
    "apis.<name>.connection.max_idle_conns": J + "test_how_many_unused_ones_are_kept",
    "apis.<name>.connection.max_idle_conns_per_host": J + "test_how_many_unused_ones_are_kept",
    "apis.<name>.connection.max_conns_per_host": J + "test_how_many_there_are_at_once",
    "apis.<name>.connection.max_open_per_project": SLOW + "test_one_client_with_many_slow_uploads",
    "apis.<name>.param_whitelist": "journey/test_governance.py::test_not_allowed",
    "apis.<name>.allowed_origins": "journey/test_governance.py::test_a_page_that_may_not",
    "apis.<name>.required_headers": "journey/test_governance.py::test_required_headers",
    "apis.<name>.limits.requests_per_minute": LIMITS + "test_of_the_api_for_everybody",
    "apis.<name>.limits.tokens_per_minute": LIMITS + "test_what_was_wanted_what_is_left_and_what_would_fit",
    "apis.<name>.limits.concurrency": LIMITS + "test_a_provider_that_cannot_be_reached",
    "apis.<name>.limits.budget_usd": LIMITS + "test_what_was_wanted_what_is_left_and_what_would_fit",
    "apis.<name>.limits.budget_tokens": J + "test_what_is_reckoned_where_a_request_says_no_maximum",
    "apis.<name>.limits.default_output_tokens": J + "test_what_is_reckoned_where_a_request_says_no_maximum",
    "apis.<name>.circuit_breaker.failures": "journey/test_circuits.py::test_switched_off",
    "apis.<name>.circuit_breaker.cooldown": "journey/test_circuits.py::test_one_probe_at_a_time",
    "apis.<name>.retries.attempts": "journey/test_circuits.py::test_a_connection_that_does_not_come_about",
    "apis.<name>.retries.on": REFUSED,
    "apis.<name>.metering.enabled": "journey/test_usage.py::test_not_measured",
    "apis.<name>.metering.include_usage": "journey/test_usage.py::test_asked_in_its_place",
    "apis.<name>.on_client_abort": "journey/test_usage.py::test_heard_out",
    "apis.<name>.error_format": "journey/test_refusals.py::test_plain",
    "apis.<name>.forward_client_ip": "journey/test_fields.py::test_a_clients_address_where_it_is_wanted",
    "apis.<name>.cache.post": CACHED + "test_never",
    "apis.<name>.cache.ttl": CACHED + "test_always",
    "apis.<name>.ca_file": "integration/test_endpoints.py::test_tls",
    "server.listen": "integration/test_endpoints.py::test_tcp",
    "server.workers": REFUSED,
    "server.max_head_bytes": D + "test_the_longest_head",
    "server.max_request_bytes": "journey/test_refusals.py::test_a_body_that_is_announced_too_large",
    "server.max_buffered_bytes": "integration/test_buffers.py::test_many_who_do_not_read",
    "server.head_timeout": "integration/test_malformed.py::test_a_head_that_takes_for_ever",
    "server.body_timeout": "integration/test_malformed.py::test_a_body_that_takes_for_ever",
    "server.keepalive_timeout": "integration/test_malformed.py::test_a_connection_that_is_not_used_again",
    "server.send_timeout": SLOW + "test_one_that_hardly_reads",
    "server.min_send_rate": ENDS + "test_a_client_that_reads_a_little_now_and_then",
    "server.max_connections": "integration/test_malformed.py::test_one_connection_too_many",
    "server.max_connections_per_address": SLOW + "test_more_connections_than_one_address_may_have",
    "server.drain_timeout": "integration/test_daemon.py::test_stopping_cuts_what_is_still_busy_when_the_time_is_up",
    "server.trusted_proxies": "journey/test_governance.py::test_whose_request_it_is",
    "server.debug_headers": "journey/test_fields.py::test_no_debug_headers",
    "server.fast_path": "journey/test_fast_path.py::test_usual_requests_go_the_short_way",
    "server.admin_listen": "integration/test_daemon.py::test_management_and_metrics_on_listeners_of_their_own",
    "server.metrics_listen": "integration/test_daemon.py::test_management_and_metrics_on_listeners_of_their_own",
    "server.public_metrics": "integration/test_daemon.py::test_what_was_spent_is_not_for_everybody",
    "server.enforce_project_active": "journey/test_governance.py::test_not_enforced",
    "store.url": "integration/test_revocation.py::test_the_store_is_gone",
    "store.token_cache_ttl": "integration/test_revocation.py::test_the_store_is_gone",
    "store.token_cache_size": D + "test_how_many_tokens_are_remembered",
    "cache.enabled": CACHED + "test_switched_off",
    "cache.backend": D + "test_what_keys_in_redis_begin_with",
    "cache.redis_url": "integration/test_eviction.py::test_another_one_for_the_cache",
    "cache.max_bytes": J + "test_how_much_is_kept",
    "cache.max_object_bytes": "journey/test_coalescing.py::test_too_large",
    "cache.default_ttl": CACHED + "test_kept_by_default",
    "cache.heuristics": J + "test_what_says_only_when_it_was_changed",
    "cache.streams": "journey/test_coalescing.py::test_not_unless_the_operator_says_so",
    "cache.replay": "journey/test_coalescing.py::test_at_its_own_pace",
    "cache.coalesce": "journey/test_coalescing.py::test_switched_off",
    "cache.scope": CACHED + "test_everybody_where_the_operator_says_so",
    "redis.url": D + "test_what_keys_in_redis_begin_with",
    "redis.key_prefix": D + "test_what_keys_in_redis_begin_with",
    "redis.timeout": D + "test_how_long_redis_is_waited_for",
    "redis.ca_file": "integration/test_redis.py::test_verified",
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
    "ledger.interval": "integration/test_ledger_files.py::test_a_journal_that_was_left_behind",
    "ledger.keep_lines": D + "test_how_long_lines_and_days_are_kept",
    "ledger.keep_days": D + "test_how_long_lines_and_days_are_kept",
    "prices.0.api": PRICE,
    "prices.0.model": PRICE,
    "prices.0.input": PRICE,
    "prices.0.output": PRICE,
    "prices.0.cached": J + "test_what_comes_from_the_providers_cache",
    "prices.0.cache_write": J + "test_what_is_written_to_the_providers_cache",
    "prices.0.input_audio": J + "test_sound_and_requests",
    "prices.0.output_audio": J + "test_sound_and_requests",
    "prices.0.per_request": J + "test_sound_and_requests",
    "prices.0.units": J + "test_what_is_billed_beside_tokens",
    "events.bus": REFUSED,
    "events.queue_size": D + "test_events_that_may_wait",
    "events.sinks.0.type": "integration/test_library.py::test_a_plugin_of_ones_own",
    "audit.file": D + "test_where_acts_are_written",
    "audit.fsync": "integration/test_audit.py::test_settings",
    "audit.store": "integration/test_audit.py::test_settings",
    "audit.keep": "unit/observability/test_stored_audit.py::test_retention",
    "logging.format": D + "test_how_it_is_logged",
    "logging.level": D + "test_what_is_logged",
    "logging.access": D + "test_how_it_is_logged",
    "state_dir": D + "test_where_secrets_are_made",
}


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
                file, _, name = test.partition("::")
                text, tests = source(file)
                self.assertIn(name, tests)
                key = re.escape(setting.rpartition(".")[2]).replace("_", "[_-]")
                self.assertRegex(text.lower(), rf"(?<![a-z]){key}(?![a-z])")
