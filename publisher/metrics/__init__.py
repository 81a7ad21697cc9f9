"""Metrics of a repository and its jobs, in a file that Prometheus' node exporter reads.

families.py    the metrics: names, labels, meaning (pure)
textfile.py    the file: earlier values are kept, new ones replace them, atomically
repository.py  the values that are read from the repository itself
"""
