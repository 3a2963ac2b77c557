"""What providers export, read."""

from __future__ import annotations

import io
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.cli.provider_exports import ProviderExport, read_export

OPENAI_COSTS = """\
start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,quantity,quantity_unit,line_item,user_id,\
api_key_id,project_id,organization_id,project_name,organization_name,user_email,api_source
1790467200,1790553600,2026-09-27T00:00:00+00:00,2026-09-28T00:00:00+00:00,,,,,,,,,,,,,
1790553600,1790640000,2026-09-28T00:00:00+00:00,2026-09-29T00:00:00+00:00,0.50000000000000001,usd,1000,tokens,\
"gpt-5-nano, input_tokens",,key_1,proj_a,org-a,A,Org,a@example.com,
1790553600,1790640000,2026-09-28T00:00:00+00:00,2026-09-29T00:00:00+00:00,0.25,usd,10,tokens,\
"gpt-5-nano, output_tokens",,key_1,proj_a,org-a,A,Org,a@example.com,
"""
OPENAI_USAGE = """\
start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,user_id,api_key_id,model,batch,\
service_tier,input_tokens,output_tokens,input_cached_tokens,input_uncached_tokens
1790553600,1790640000,,,proj_a,3,,,gpt-5-nano-2025-08-07,False,default,900,120,400,500
1790553600,1790640000,,,proj_b,1,,,gpt-5-nano-2025-08-07,False,default,100,0,0,100
"""
ANTHROPIC_USAGE = """\
usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,\
usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens,\
web_search_count,inference_geo,speed
2026-08-05,claude-opus-4-5-20251101,app,Default,standard,≤ 200k,1000,20,3,4000,50,0,global,
2026-08-05 13:00,claude-opus-4-5-20251101,app,Default,standard,≤ 200k,1,0,0,0,1,0,global,
"""
ANTHROPIC_COSTS = """\
usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd,cost_type,\
inference_geo,speed,api_key_id,api_key_status
2026-08-04,Claude Haiku 4.5,Default,demo,message,≤ 200k,input_no_cache,0.05,0.05,token,not_available,,id,active
2026-08-04,Claude Haiku 4.5,Default,demo,message,≤ 200k,output,0.02,0.02,token,not_available,,id,active
"""


def read(text: str) -> ProviderExport:
    return read_export(io.StringIO(text, newline=""))


class FormatTests(SynchronousTestCase):
    def test_openai_costs(self) -> None:
        """Line items of one model are added up; a day without any is one of the file's days."""
        found = read(OPENAI_COSTS)
        self.assertEqual(found.format.name, "openai-costs")
        self.assertEqual(found.days, {"2026-09-27", "2026-09-28"})
        self.assertEqual(found.sums, {("2026-09-28", "gpt-5-nano"): {"cost_usd": Decimal("0.75000000000000001")}})

    def test_openai_usage(self) -> None:
        """Of all projects and keys."""
        found = read(OPENAI_USAGE)
        sums = {"requests": Decimal(4), "input_tokens": Decimal(1000), "output_tokens": Decimal(120)}
        self.assertEqual(found.sums, {("2026-09-28", "gpt-5-nano-2025-08-07"): sums})

    def test_anthropic_usage(self) -> None:
        """Input is all input, as in the ledger; rows of hours belong to their day."""
        sums = {"input_tokens": Decimal(5024), "output_tokens": Decimal(51)}
        self.assertEqual(read(ANTHROPIC_USAGE).sums, {("2026-08-05", "claude-opus-4-5-20251101"): sums})

    def test_anthropic_costs(self) -> None:
        self.assertEqual(
            read(ANTHROPIC_COSTS).sums, {("2026-08-04", "Claude Haiku 4.5"): {"cost_usd": Decimal("0.07")}}
        )

    def test_another_currency(self) -> None:
        """Nothing is compared with dollars that is none."""
        self.assertRaisesRegex(ValueError, "line 3 .* eur", read, OPENAI_COSTS.replace("usd", "eur"))

    def test_faults(self) -> None:
        """What is wrong is named, with its line."""
        self.assertRaisesRegex(ValueError, "no export that is known", read, "foo,bar\n1,2\n")
        self.assertRaisesRegex(ValueError, "no export that is known", read, "")
        self.assertRaisesRegex(ValueError, "no lines", read, "usage_date_utc,cost_usd\n")
        self.assertRaisesRegex(ValueError, "line 2", read, "usage_date_utc,cost_usd\nAugust,1\n")
        self.assertRaisesRegex(ValueError, "line 2", read, "usage_date_utc,cost_usd\n2026-08-04,much\n")
        self.assertRaisesRegex(ValueError, "line 2", read, "usage_date_utc,cost_usd\n2026-08-04,NaN\n")

    @given(st.text())
    def test_whatever_a_file_has(self, text: str) -> None:
        """Nothing else than ValueError comes of it."""
        for head in ("", "usage_date_utc,cost_usd\n", OPENAI_USAGE.partition("\n")[0] + "\n"):
            try:
                read(head + text)
            except ValueError:
                pass
