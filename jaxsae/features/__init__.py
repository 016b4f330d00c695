"""What latents mean: statistics of one pass over the text, concepts, detection, splicing, the report."""
