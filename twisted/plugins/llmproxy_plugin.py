"""What twistd finds: the proxy, the simulator, the built-in caches and event sinks, and where limits are counted."""

from twisted.application.service import ServiceMaker

from llmproxy.cache.memory import MemoryCacheFactory
from llmproxy.cache.redis import RedisCacheFactory
from llmproxy.counters.memory import MemoryCountersFactory
from llmproxy.counters.shared import RedisCountersFactory
from llmproxy.sinks.file import FileSinkFactory

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
