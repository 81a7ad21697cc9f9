"""HTTP for registries and wish lists: connections, retries, redirects, and bounded answers."""
