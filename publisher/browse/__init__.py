"""The published images: list, show, ls, diff, find, run, export, trace, module files."""
