"""Refusals of what an API's, a project's or a token's policy wants otherwise; as all L{llmproxy.errors}."""

from __future__ import annotations

from llmproxy.errors import BadRequest


class ParamRequired(BadRequest):
    code = "param_required"
    message = "A request parameter that this API requires is missing."


class HeaderNotAllowed(BadRequest):
    code = "header_not_allowed"
    message = "A header has a value that this API does not allow."
