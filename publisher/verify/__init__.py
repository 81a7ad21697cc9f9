"""The tree is held against its records: verify, repair, refetch, doctor, adopt, init."""
