"""Compare the tree with its records, and repair it: verify, doctor, adopt, init."""
