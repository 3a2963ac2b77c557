"""A provider to try things on.

It speaks the providers' wire formats, does what request headers tell it, and remembers what it saw.
It shares no code with the proxy, so that it can judge it.
"""
