"""The admin pages. L{tree} has them as a resource."""
