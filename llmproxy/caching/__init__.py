"""The response cache: what is kept is given again, and what is being fetched is fetched once."""

from llmproxy.caching.admin import Chosen, Contents
from llmproxy.caching.broadcast import Reader
from llmproxy.caching.collapsing import Fetch
from llmproxy.caching.draining import Drain
from llmproxy.caching.lookup import Asking
from llmproxy.caching.replay import Given
from llmproxy.caching.service import Caching

__all__ = ["Asking", "Caching", "Chosen", "Contents", "Drain", "Fetch", "Given", "Reader"]
