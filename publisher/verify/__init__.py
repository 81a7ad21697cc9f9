"""The tree is compared with its records: verify, repair, refetch, doctor, adopt, init."""
