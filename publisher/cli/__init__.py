"""The `publisher` command."""


def main() -> None:
    """Run the command line."""
