"""A blob becomes entries, entries become a tree and an index, indexes become a flat image."""
