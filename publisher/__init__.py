"""Publishes container images, unpacked, to a filesystem that many machines mount read-only."""

__version__ = "0.1.0"
