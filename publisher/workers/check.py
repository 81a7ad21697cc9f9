"""Check the index that a worker process wrote, which a layer may have taken over."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from publisher.entry import Entry, EntryType
from publisher.layers.errors import LayerError
from publisher.layers.index import read_index
from publisher.layers.index_lines import decode_entry
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

_ORDINARY = (
    r'^\{"path":"[^"\\\n]+","type":"[fd]","mode":"0[67][0-7][0-7]","uid":[0-9]{1,9},'
    r'"gid":[0-9]{1,9},(?:"size":[0-9]+,)?"mtime_ns":-?[0-9]+(?:,"sha256":"[0-9a-f]{64}")?\}\n'
)
_ORDINARY_LINE = pattern(_ORDINARY, re.MULTILINE)
_NOT_WRITABLE_LINE = pattern(_ORDINARY.replace("[0-7][0-7]", "[0145][0145]"), re.MULTILINE)
"""The lines of most entries, whose properties every policy without owner and `readable` permits."""
_NO_LINE = pattern(r"(?!)")


def check_index(stage: LayerStage, unpacked: Unpacked, job: Job) -> None:
    """Check that the index is that of the layer, and has nothing that the policy does not permit.

    From the index alone, flat images get directories, links and devices, and CVMFS all entries.
    Paths are checked wherever entries are read (`publisher.layers.index_lines.decode_entry`).

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
            refused = _first_refused(_bounded(index.blocks(), most), job.policy)
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


def _bounded(blocks: Iterable[str], most: int) -> Iterator[str]:
    """Yield blocks of lines; raise LayerError after more than `most` bytes."""
    size = 0
    for block in blocks:
        size += len(block) - block.count("\n")
        if size > most:
            raise LayerError("cannot read a layer index", why=f"it has more than {most} bytes")
        yield block


def _first_refused(blocks: Iterable[str], policy: Policy) -> str | None:
    """Return the path of the first entry against the policy, or None; read all lines."""
    ordinary = _NOT_WRITABLE_LINE if policy.writable == "drop" else _ORDINARY_LINE
    if policy.owner is not None or policy.readable:
        ordinary = _NO_LINE
    refused = None
    for block in blocks:
        # One call for all lines of a block. (A possessive repetition of the line would do as well,
        # but ends within a line in Python 3.11.2.)
        others = ordinary.sub("", block)
        for line in others.removesuffix("\n").split("\n") if others else ():
            entry = decode_entry(line)
            if not _is_permitted(entry, policy) and refused is None:
                refused = entry.path
    return refused


def _is_permitted(entry: Entry, policy: Policy) -> bool:
    if entry.type is EntryType.WHITEOUT or entry.is_unresolved:
        return not (entry.mode or entry.uid or entry.gid or entry.xattrs)
    return policy.apply(entry) == entry
