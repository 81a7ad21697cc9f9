"""Publishes container images, unpacked, to a file system that many machines mount read-only."""


def __getattr__(name: str) -> str:
    """Return `__version__`, that of the installed package; few commands need it."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _installed_version()


def _installed_version() -> str:
    """Return what importlib.metadata returns, which takes longer than a command like `version`."""
    import sys
    from pathlib import Path

    for directory in sys.path:
        for each in Path(directory).glob("publisher-*.dist-info/METADATA"):
            lines = each.read_text(encoding="utf-8").splitlines()
            found = [line for line in lines if line.startswith("Version: ")]
            return found[0].removeprefix("Version: ")
    return "0+unknown"  # the directory alone is in PYTHONPATH
