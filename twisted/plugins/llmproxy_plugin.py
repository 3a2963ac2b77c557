"""What twistd finds: the proxy, the simulator, the built-in caches, event sinks and token validators, and where limits
are counted.
"""

from twisted.application.service import ServiceMaker

from llmproxy.base.collector import uncollected

with uncollected():
    from llmproxy.auth.oidc.factory import OidcValidatorFactory
    from llmproxy.caching.backends.memory import MemoryCacheFactory
    from llmproxy.caching.backends.redis_factory import RedisCacheFactory
    from llmproxy.limits.counters.memory import MemoryCountersFactory
    from llmproxy.limits.counters.redis_factory import RedisCountersFactory
    from llmproxy.observability.file_sink import FileSinkFactory

proxy = ServiceMaker(
    "llmproxy",
    "llmproxy.tap",
    "A transparent, governed reverse proxy for LLM APIs.",
    "llmproxy",
)

simulator = ServiceMaker(
    "llmproxy simulator",
    "llmproxy.simulator.tap",
    "A provider to try llmproxy on: OpenAI, Anthropic, Gemini, Mistral and Azure formats, steered by request headers.",
    "llmproxy-simulator",
)

file_sink = FileSinkFactory()

memory_cache = MemoryCacheFactory()
redis_cache = RedisCacheFactory()
memory_counters = MemoryCountersFactory()
redis_counters = RedisCountersFactory()
oidc_validator = OidcValidatorFactory()
