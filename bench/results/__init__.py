"""The measurements of docs/results.md; `python -m bench.results --help`."""
