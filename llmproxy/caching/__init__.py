"""The response cache: what is kept is given again, and what is being fetched is fetched once."""

from llmproxy.caching.asking import Asking
from llmproxy.caching.contents import Chosen, Contents
from llmproxy.caching.draining import Drain
from llmproxy.caching.flight import Fetch
from llmproxy.caching.given import Given
from llmproxy.caching.service import Caching
from llmproxy.caching.sharing import Reader

__all__ = ["Asking", "Caching", "Chosen", "Contents", "Drain", "Fetch", "Given", "Reader"]
