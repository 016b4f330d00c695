#!/usr/bin/env python3
"""`jaxsae compare`, from a clone of the repository."""

from jaxsae.cli.main import run_command

if __name__ == "__main__":
    run_command("compare")
