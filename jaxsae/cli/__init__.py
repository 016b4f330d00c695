"""The command line: one module a command, and what they share. The only room that imports `convert`."""
