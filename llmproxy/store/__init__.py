"""Projects and tokens in a SQL database."""
