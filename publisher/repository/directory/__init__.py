"""The backend for a directory on disk: transactions with a journal, hard links for flat images."""
