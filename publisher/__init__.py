"""Publishes container images, unpacked, to a file system that many machines mount read-only."""


def __getattr__(name: str) -> str:
    """Return `__version__`, that of the installed package; few commands need it."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("publisher")
    except PackageNotFoundError:  # the directory alone is in PYTHONPATH
        return "0+unknown"
