"""Check the index that a worker process wrote, which a layer may have taken over."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from publisher.entry import Entry, EntryType
from publisher.layers.errors import LayerError
from publisher.layers.index import decode_entry, read_index
from publisher.layers.policy import Policy
from publisher.layers.unpack import index_header
from publisher.lazy import pattern
from publisher.repository import LayerStage
from publisher.workers.errors import WorkerFailed
from publisher.workers.job import Job, Unpacked

_ENTRY_BYTES = 1024
"""The average size of the lines of a layer with as many entries as it may have, at most.

A layer with larger ones, such as attributes and long names, has them in its archive.
"""

_ORDINARY = pattern(
    r'\{"path":"[^"\\]+","type":"[fd]","mode":"0[67][0-7][0-7]","uid":\d{1,9},"gid":\d{1,9},'
    r'(?:"size":\d+,)?"mtime_ns":-?\d+(?:,"sha256":"[0-9a-f]{64}")?\}'
)
_NOT_WRITABLE = pattern(_ORDINARY.pattern.replace("[0-7][0-7]", "[0145][0145]"))
"""The lines of most entries, whose properties every policy without owner and `readable` permits."""


def check_index(stage: LayerStage, unpacked: Unpacked, job: Job) -> None:
    """Check that the index is that of the layer, and has nothing that the policy does not permit.

    From the index alone, flat images get directories, links and devices, and CVMFS all entries.
    Paths are checked wherever entries are read (`publisher.layers.index.decode_entry`).

    Raises:
        WorkerFailed: The index is damaged, belongs to another layer, does not match the answer, has
            an entry that the policy does not permit, or is larger than a layer may be.
    """
    what = f"cannot unpack {job.layer}"
    limits, summary = job.policy.limits, unpacked.summary
    if (
        summary.entries > limits.layer_entries
        or summary.archive_size > limits.layer_bytes
        or summary.content_size > limits.layer_apparent_bytes
    ):
        raise WorkerFailed(what, why="the answer of its worker process exceeds the limits")
    with stage.open_index() as file:
        try:
            index = read_index(file)
            header = index.header
            # As many lines as the header states, or LayerError.
            most = _ENTRY_BYTES * limits.layer_entries + 8 * summary.archive_size
            refused = _first_refused(_bounded(index.lines(), most), job.policy)
        except LayerError as error:
            why = f"its worker process wrote a damaged index: {error.why}"
            raise WorkerFailed(what, why=why) from error
    expected = index_header(unpacked.summary, job.policy)
    policy: object = json.loads(json.dumps(dict(expected.policy)))
    if (header.policy, replace(header, policy={})) != (policy, replace(expected, policy={})):
        raise WorkerFailed(what, why="the index of its worker process does not match its answer")
    if refused is not None:
        why = f"the index of its worker process has {refused!r} against the policy"
        raise WorkerFailed(what, why=why)


def _bounded(lines: Iterable[str], most: int) -> Iterator[str]:
    """Yield `lines`; raise LayerError after more than `most` bytes."""
    size = 0
    for line in lines:
        size += len(line)
        if size > most:
            raise LayerError("cannot read a layer index", why=f"it has more than {most} bytes")
        yield line


def _first_refused(lines: Iterable[str], policy: Policy) -> str | None:
    """Return the path of the first entry against the policy, or None; read all lines."""
    matches = (_NOT_WRITABLE if policy.writable == "drop" else _ORDINARY).fullmatch
    if policy.owner is not None or policy.readable:
        matches = re.compile(r"(?!)").fullmatch
    refused = None
    for line in lines:
        if matches(line) is None:
            entry = decode_entry(line)
            if not _is_permitted(entry, policy) and refused is None:
                refused = entry.path
    return refused


def _is_permitted(entry: Entry, policy: Policy) -> bool:
    if entry.type is EntryType.WHITEOUT or entry.is_unresolved:
        return not (entry.mode or entry.uid or entry.gid or entry.xattrs)
    return policy.apply(entry) == entry
