"""The file with metrics: read, changed, and replaced as a whole.

Commands share the file: each keeps what others wrote. See
https://prometheus.io/docs/instrumenting/exposition_formats/ for its format.
"""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from publisher.errors import PublisherError, printable
from publisher.metrics.families import FAMILIES, Family, Update
from publisher.replacing import replace_file

_MOST_BYTES = 16 * 2**20
_MODE = 0o644
_LOCK_SECONDS = 2.0
_Labels = tuple[str, ...]
_Values = dict[Family, dict[_Labels, float]]


class UnusableMetricsFile(PublisherError):
    """The file with metrics cannot be written; the earlier one is unchanged."""


def update_file(path: Path, updates: Iterable[Update]) -> None:
    """Change values in the file `path`, which is created if it is missing.

    A reader finds the earlier file or the new one. A file that is not in Prometheus' format, and
    metrics in it that the publisher does not know, are replaced.

    Raises:
        UnusableMetricsFile: The file is unchanged.
    """
    try:
        with _alone(path.parent):
            values = _read(path)
            for update in updates:
                _apply(values, update)
            replace_file(path, generate_latest(_Collector(values)), _MODE)
    except OSError as error:
        raise UnusableMetricsFile(
            f"cannot write the metrics to {path}",
            why=error.strerror or str(error),
            hint=f"make {path.parent} a directory that this user can write to, with free space",
        ) from error


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Wait until no other publisher changes files in the directory, but for seconds at most.

    Without the lock, of two commands that end at the same moment one may lose its values.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        end = time.monotonic() + _LOCK_SECONDS
        while not _locks(descriptor) and time.monotonic() < end:
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read(path: Path) -> _Values:
    """Return the values in the file; none if it is missing, or not in the format."""
    known = {family.name: family for family in FAMILIES}
    values: _Values = {}
    # A directory or a FIFO is refused when the file is replaced.
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        return values
    with suppress(ValueError, UnicodeDecodeError):
        for metric in text_string_to_metric_families(path.read_text("utf-8")):
            family = known.get(metric.name)
            if family is None:
                continue
            names = (*family.scope, *family.labels)
            for sample in metric.samples:
                if sample.labels.keys() <= set(names) and math.isfinite(sample.value):
                    key = tuple(sample.labels.get(name, "") for name in names)
                    values.setdefault(family, {})[key] = sample.value
    return values


def _apply(values: _Values, update: Update) -> None:
    family = update.family
    scope = tuple(printable(each) for each in update.scope)
    earlier = values.setdefault(family, {})
    same = {key: number for key, number in earlier.items() if key[: len(scope)] == scope}
    if not family.is_counter:
        for key in same:
            del earlier[key]
    for labels, number in update.values.items():
        key = (*scope, *map(printable, labels))
        earlier[key] = number + (same.get(key, 0.0) if family.is_counter else 0.0)


class _Collector:
    """The values, as the library's function for the format expects them."""

    def __init__(self, values: _Values) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        """Yield the families that have values, always in the same order."""
        for family in FAMILIES:
            found = self._values.get(family)
            if not found:
                continue
            metric = Metric(
                family.name, family.meaning, "counter" if family.is_counter else "gauge"
            )
            names = (*family.scope, *family.labels)
            for key, number in sorted(found.items()):
                sample = f"{family.name}_total" if family.is_counter else family.name
                metric.add_sample(sample, dict(zip(names, key, strict=True)), number)
            yield metric
