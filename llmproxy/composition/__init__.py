"""Where the objects of the daemon are made; L{llmproxy.app} puts them together."""
