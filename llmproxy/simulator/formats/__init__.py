"""What each provider says, one module each: pure functions from a L{dialect.Call} to a L{dialect.Reply}."""
