"""What container runtimes need beside the bare tree, and how they are called. One module each."""
