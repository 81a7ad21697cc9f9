"""The paths and the records of the published tree. Pure."""
