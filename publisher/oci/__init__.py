"""The values of the OCI specifications: references, manifests, configs, platforms. Pure."""
