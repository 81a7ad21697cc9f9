"""Publishes container images, unpacked, to a file system that many machines mount read-only."""

__version__ = "0.1.0"
