"""The process: how it starts, what it says of itself, how it stops."""
