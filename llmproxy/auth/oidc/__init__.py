"""OpenID Connect: an issuer's keys, the JWTs that it signs, and what their claims allow (RFC 7519, 7517, 8725)."""
