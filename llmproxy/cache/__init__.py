"""Where answers are kept. Each module is one backend."""
