"""Model and text -> rows: extraction, rows in memory and on disk."""
