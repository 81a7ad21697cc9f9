"""Metrics of a repository and its jobs, in a file that Prometheus' node exporter reads.

families.py    the metrics: names, labels, meaning (pure)
textfile.py    the file: earlier values are kept, new ones replace them, atomically
repository.py  the values that are read from the repository itself
"""

from publisher.metrics.families import Update
from publisher.metrics.repository import repository_updates
from publisher.metrics.textfile import UnusableMetricsFile, update_file

__all__ = ["UnusableMetricsFile", "Update", "repository_updates", "update_file"]
