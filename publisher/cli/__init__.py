"""The `publisher` command: parse options, call a use case, render its result. No logic here."""
