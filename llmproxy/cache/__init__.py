"""Where answers are kept: each backend remembers byte strings, and knows nothing of HTTP."""
