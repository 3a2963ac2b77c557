"""How close the estimate of a request's input is to what OpenAI's tokenizers make of it: the figures of docs/limits.md.

    python -m pip install bpe-openai==0.1.4
    python -m bench.estimates

The prompts are those of the tests, which have their true counts beside them. The pieces are what the rule was not
fitted to, and everybody has: the beginnings of 130 modules of Python's standard library, and the chapters of its
language reference (C{pydoc_data.topics}), each as the one message of a request. A message counts four tokens beside
its text.
"""

from __future__ import annotations

import json
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from llmproxy.metering.estimating import estimate_prompt
from tests.support.reading import read

PROMPTS = Path(__file__).parent.parent / "tests/unit/metering/prompts.jsonl"
PIECE_CHARS = 4000
MESSAGE_TOKENS = 4
MODELS = (("gpt-5", "o200k", "o200k_base"), ("gpt-4-turbo", "cl100k", "cl100k_base"))


def pieces() -> list[str]:
    """Code and prose, the same with every copy of one Python release."""
    from pydoc_data.topics import topics

    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    code = [text[:PIECE_CHARS] for module in modules if len(text := module.read_text("utf-8")) >= 200]
    prose = [text[:PIECE_CHARS] for _, text in sorted(topics.items()) if len(text) >= 200]
    return code[:130] + prose


def row(pairs: Iterable[tuple[bytes, int]], model: str) -> str:
    """The figures for requests, each with its true count."""
    likely, most = [], []
    for body, true in pairs:
        estimate = estimate_prompt(read(body, piece=65_536), len(body), "openai", model)
        likely.append(estimate.likely / true)
        most.append(estimate.most / true)
    low = [ratio for ratio in most if ratio < 1]
    return (
        f"{len(most)} requests: likely {median(likely):.2f}, reserved {median(most):.2f}, "
        f"p99 {sorted(most)[int(0.99 * (len(most) - 1))]:.2f}, too low {len(low)} (least {min(most):.3f})"
    )


def main() -> None:
    import bpe_openai

    prompts = [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    texts = pieces()
    print(f"Python {sys.version.split()[0]}")
    for model, name, encoding in MODELS:
        tokenizer = bpe_openai.get_encoding(encoding)
        bodies = [
            json.dumps({"model": model, "messages": [{"role": "user", "content": text}]}).encode() for text in texts
        ]
        true = [len(tokenizer.encode(text)) + MESSAGE_TOKENS for text in texts]
        print(encoding, "prompts:", row([(each["body"].encode(), each["tokens"][name]) for each in prompts], model))
        print(encoding, "pieces: ", row(zip(bodies, true, strict=True), model))


if __name__ == "__main__":
    main()
