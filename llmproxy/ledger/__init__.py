"""The ledger: one line for every request of a known token, kept through a crash and written to the store in batches."""

from llmproxy.ledger.service import Ledger

__all__ = ["Ledger"]
