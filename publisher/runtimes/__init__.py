"""The files and records that container runtimes need in addition to a tree, and their calls."""
