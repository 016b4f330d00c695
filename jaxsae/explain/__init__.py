"""Why the model restores what it restores, and where else a corpus has the same."""
