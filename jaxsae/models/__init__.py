"""Models that are read, and their training: the restoration transformer, in Flax."""
