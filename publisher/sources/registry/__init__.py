"""Registries: HTTP, authentication, pulling and pushing."""
