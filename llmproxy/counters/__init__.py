"""Counters that hold requests to their limits: in this process's memory, or in Redis."""
