"""Metering: what a response used and what that costs, read from its bytes as they pass. Pure."""
