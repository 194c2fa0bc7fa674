"""What a node can do: every engine and precision on this machine, for ``foreedge bench-node``."""
