"""What is known of each provider: how its requests are read, how its responses report usage, what it bills. Pure.

One file per provider or wire family; whoever adds a provider writes one, and its name into L{registry}.
"""
