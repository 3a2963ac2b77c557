"""The management API: projects, tokens, and what they may do. L{tree} has it as a resource."""
