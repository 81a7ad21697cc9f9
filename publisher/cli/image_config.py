"""How an image's config is shown by `publisher inspect` and `publisher show`."""

from __future__ import annotations

from collections.abc import Iterator

from publisher.cli.rendering import echo
from publisher.errors import printable
from publisher.oci.config import HealthCheck, ImageConfig
from publisher.sizes import plural

_NANOSECONDS = 1_000_000_000


def print_config(config: ImageConfig, indent: str) -> None:
    """Print what the config contains, one field per line; what it does not contain is left out."""
    for label, text in _lines(config):
        echo(f"{indent}{label + ':':12} {printable(text)}")


def _lines(config: ImageConfig) -> Iterator[tuple[str, str]]:
    container = config.container
    single = (
        ("created", config.created),
        ("author", config.author),
        ("entrypoint", " ".join(map(repr, container.entrypoint))),
        ("command", " ".join(map(repr, container.command))),
        ("user", container.user),
        ("directory", "" if container.directory == "/" else container.directory),
        ("ports", ", ".join(container.ports)),
        ("volumes", ", ".join(container.volumes)),
        ("stop signal", container.stop_signal),
        ("health", _health(container.health_check)),
        ("history", _history(config)),
    )
    yield from ((label, text) for label, text in single if text)
    yield from (("environment", variable) for variable in container.variables)
    yield from (("label", f"{name}={text}") for name, text in container.labels.items())
    yield from (("note", note) for note in config.notes)


def _history(config: ImageConfig) -> str:
    if not config.history:
        return ""
    with_layer = sum(not step.empty_layer for step in config.history)
    return f"{plural(len(config.history), 'step')}, {with_layer} with a layer"


def _health(check: HealthCheck | None) -> str:
    if check is None:
        return ""
    durations = (
        ("every", check.interval),
        ("timeout", check.timeout),
        ("start period", check.start_period),
    )
    parts = [f"{label} {value / _NANOSECONDS:g} s" for label, value in durations if value]
    parts += [f"retries {check.retries}"] if check.retries else []
    return ", ".join([" ".join(map(repr, check.test)) or "inherited", *parts])
