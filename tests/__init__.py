"""Tests of llmproxy: of its parts, of requests within one process, and of daemons."""

import os
import sys

# What is started often is compiled once, also where the environment says otherwise. Here, because pytest compiles
# hypothesis, which the first conftest.py imports, with its own assertions: two seconds in each process.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
