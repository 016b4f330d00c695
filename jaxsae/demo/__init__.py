"""The embedded demo: a generated corpus with the truth about every character, and its place on disk."""
