"""The client half."""
