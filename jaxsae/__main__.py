"""`python -m jaxsae`: the installed command."""

from jaxsae.cli.main import main

if __name__ == "__main__":
    main()
