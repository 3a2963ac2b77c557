"""Ollama's own API, and llama.cpp's: streams of one JSON object a line.

Facts: C{docs.ollama.com/api} (usage), C{github.com/ggml-org/llama.cpp/tree/master/tools/server}.
"""

from __future__ import annotations

from llmproxy.metering.dialects.operation import Operation

OPERATIONS = (
    Operation(
        "generate",
        ("api/chat", "api/generate"),
        takes_text=True,
        makes_text=True,
        maxima=(("options", "num_predict"),),
    ),
    Operation("embeddings", ("api/embed", "api/embeddings"), takes_text=True),
    Operation("admin", ("api/show", "api/pull", "api/push", "api/create", "api/copy"), free=True),
)
