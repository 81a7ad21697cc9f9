"""Files and records that container runtimes need beside a bare tree, and how they are called."""
