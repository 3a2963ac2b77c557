"""The admin pages."""

from llmproxy.web.admin.tree import AdminPages

__all__ = ["AdminPages"]
