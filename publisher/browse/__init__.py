"""The published images: list, show, ls, diff, find, run, module files."""
