"""What is published: list, show, ls, diff, find, run, module files."""
