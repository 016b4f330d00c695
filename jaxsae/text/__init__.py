"""Text -> token ids. Read in this order: cleaning, fragments, preparation, tokenizer, arrow, loading, samples,
batching.

Beside them `damaged_text` and `damaged_files`, of what users want restored.
"""
