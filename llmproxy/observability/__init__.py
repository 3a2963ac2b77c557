"""What the process reports."""
