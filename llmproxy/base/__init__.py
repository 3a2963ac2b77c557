"""What everything else stands on: coroutines, memos, threads, periods. Knows nothing of proxies."""
