"""Text -> token ids: cleaning, damage, readers of datasets, batches."""
