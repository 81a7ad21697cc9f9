"""The published filesystem: what reads it, and the transactions that change it."""
