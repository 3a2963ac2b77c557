"""Redis, so guarded that it can do no harm: every command ends in time, and whoever asks goes on without it."""

from llmproxy.redis.client import Redis, connect
from llmproxy.redis.errors import RedisRefused, RedisUnavailable
from llmproxy.redis.scripts import Script

__all__ = ["Redis", "RedisRefused", "RedisUnavailable", "Script", "connect"]
