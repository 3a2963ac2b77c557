"""Redis, so guarded that it can do no harm: every command ends in time, and whoever asks goes on without it."""

from llmproxy.redis.client import RedisClient, connect
from llmproxy.redis.commands import RedisRefused, RedisUnavailable, Script

__all__ = ["RedisClient", "RedisRefused", "RedisUnavailable", "Script", "connect"]
