"""Credentials of registries in the files and helper programs of docker and podman."""
