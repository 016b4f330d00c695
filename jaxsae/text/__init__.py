"""Text -> token ids. Read in this order: cleaning, fragments, preparation, tokenizer, arrow, loading, samples, batching."""
