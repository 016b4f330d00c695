"""Why the model restores a broken place as it does, and which passages of a corpus are like it."""
