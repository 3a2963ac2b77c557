"""The playground: one chat through the proxy, by the browser itself."""

from __future__ import annotations

from llmproxy.web.admin.visit import HtmlPage, Visit

# The endpoints that chat, and in whose form.
CHATS = {"/v1/chat/completions": "openai", "/v1/messages": "anthropic"}


async def show(visit: Visit) -> HtmlPage:
    apis = (await visit.api.get("/manage/apis"))["data"]
    chats = [
        {"name": api["name"], "path": f"/{api['name']}{path}", "form": form}
        for api in apis
        for path, form in CHATS.items()
        if any(endpoint.split()[-1] in (path, "/**") for endpoint in api["allowed_endpoints"])
    ]
    return HtmlPage("playground.html", {"chats": chats})
