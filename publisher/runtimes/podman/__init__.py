"""The additional image store for Podman: its format, and its place in a repository."""
