"""Values of the OCI specifications: references, manifests, indexes, configs, platforms. Pure."""
