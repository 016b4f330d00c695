"""Rows -> sparse autoencoders: the step, the loop, saved states, logs, pictures."""
