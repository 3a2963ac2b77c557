"""The management API: projects, tokens, and what they may do."""

from llmproxy.web.manage.tree import Management

__all__ = ["Management"]
