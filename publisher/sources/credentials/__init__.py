"""Credentials of registries, where docker and podman keep them: files and helper programs."""
