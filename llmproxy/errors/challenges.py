"""What C{WWW-Authenticate} says (RFC 9110, 11.6.1): RFC 6750, 3, wants at least one parameter in each challenge, and
only whoever sent a credential is told that it is no good.
"""

from __future__ import annotations

from collections.abc import Mapping

_BEARER = 'Bearer realm="llmproxy"'
MISSING: Mapping[str, str] = {"WWW-Authenticate": _BEARER}
INVALID_TOKEN: Mapping[str, str] = {"WWW-Authenticate": f'{_BEARER}, error="invalid_token"'}
INSUFFICIENT_SCOPE: Mapping[str, str] = {"WWW-Authenticate": f'{_BEARER}, error="insufficient_scope"'}
