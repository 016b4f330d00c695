"""Models: the protocol that the rest of the library speaks to, the restoration transformer in Flax, its training."""
