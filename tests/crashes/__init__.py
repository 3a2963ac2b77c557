"""Crashes: a daemon that is killed under load again and again, and its counts and budgets held against its ledger."""
