"""A daemon that takes itself to be under load, however long ago the last message was: nothing goes at once.

Python imports a module of this name at its start, where the folder is on PYTHONPATH.
"""

from llmproxy.wire import write_coalescing

write_coalescing.IDLE_SECONDS = 86_400.0
