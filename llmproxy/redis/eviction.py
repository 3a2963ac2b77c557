"""Whether a Redis server may drop keys before they expire, as its documentation has it.

"Key eviction" (redis.io): once C{maxmemory} is reached, every C{maxmemory-policy} but C{noeviction} drops keys, the
C{volatile-} ones such as have a time to live; C{maxmemory 0} is no limit. All databases of a server share both. They
are read from C{INFO memory}, which managed servers allow where they forbid C{CONFIG}.
"""

from __future__ import annotations

MEMORY = (b"INFO", b"memory")  # the command whose reply L{evicting_policy} reads


def evicting_policy(info: bytes) -> str:
    """The policy by which this server evicts; C{""} where it does not, or does not say.

    @param info: Its reply to L{MEMORY}.
    """
    fields = dict(line.split(":", 1) for line in info.decode("ascii", "replace").split() if ":" in line)
    policy = fields.get("maxmemory_policy", "noeviction")
    return "" if policy == "noeviction" or fields.get("maxmemory") == "0" else policy
