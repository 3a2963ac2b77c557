"""Redis, so guarded that it can do no harm: every command ends in time, and whoever asks goes on without it."""

from llmproxy.redis.client import Redis, connect
from llmproxy.redis.commands import RedisRefused, RedisUnavailable, Script

__all__ = ["Redis", "RedisRefused", "RedisUnavailable", "Script", "connect"]
