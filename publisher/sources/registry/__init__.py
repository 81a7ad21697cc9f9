"""Registries: the OCI distribution API for pulling and pushing, and its authentication."""
