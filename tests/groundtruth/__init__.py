"""Ground truth: mixed calls through the started daemon, and its ledger held against the simulator's invoice."""
