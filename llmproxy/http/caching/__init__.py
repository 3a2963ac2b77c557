"""HTTP caching (RFC 9111) as decisions: no I/O, no clock; time comes in as seconds since the epoch."""
