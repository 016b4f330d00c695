"""Text -> token ids. Read in this order: fragments, preparation, tokenizer, arrow, loading, samples, batching."""
