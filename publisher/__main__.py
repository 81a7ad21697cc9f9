"""`python -m publisher` is the `publisher` command."""

from publisher.cli.main import main

if __name__ == "__main__":
    main()
