"""HTTP for registries and wish lists: connections, retries, redirects, limits of answers."""
