"""What is to be unpacked, the result, and the one function that unpacks, in whichever process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from publisher.layers.package_sink import PackageSink
from publisher.layers.policy import Policy, policy_from_values, policy_values
from publisher.layers.unpack import LayerSummary, unpack
from publisher.lazy import dataclass
from publisher.oci.descriptor import Descriptor
from publisher.repository import LayerFiles
from publisher.repository.cvmfs.layer_stage import order_files
from publisher.repository.directory.layer_stage import tree_files
from publisher.repository.layer_files import LayerPlace, StagedFiles
from publisher.tree.layer_packages import LARGEST, PackageRecord


@dataclass(frozen=True, slots=True)
class Job:
    """A layer to be unpacked: its descriptor and diff ID, the policy, and whether Podman needs it.

    `tar_split` is whether to write the layer's tar-split data.
    """

    descriptor: Descriptor
    diff_id: str
    policy: Policy
    tar_split: bool = False

    @property
    def layer(self) -> str:
        """The name of the layer in errors."""
        return f"layer {self.descriptor.digest}"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The result: the summary, and how often the file system did not store something, by kind."""

    summary: LayerSummary
    refused: Mapping[str, int]


def unpack_layer(
    files: LayerFiles, chunks: Iterable[bytes], job: Job, *, is_checked: bool
) -> Unpacked:
    """Unpack a layer to `files`.

    Args:
        files: The files of the layer, new and empty.
        chunks: The blob.
        job: Which layer it is.
        is_checked: Another process checks size and digest of `chunks`.

    Raises:
        Exception: Those of `publisher.layers.unpack`.
    """
    sink = PackageSink(files.sink)
    summary = unpack(
        chunks,
        job.descriptor,
        job.diff_id,
        sink,
        files.index,
        job.policy,
        tar_split=files.open_tar_split() if job.tar_split else None,
        is_checked=is_checked,
        kept=files.kept,
    )
    packages = sink.packages(summary)
    if packages is not None:
        record = PackageRecord.of(job.descriptor.digest, packages).to_bytes()
        if len(record) <= LARGEST:
            files.add_packages(record)
    return Unpacked(summary, files.refused)


def open_files(place: LayerPlace, memory: int | None) -> StagedFiles:
    """Create the files of the layer that is unpacked at `place`; see `LayerStage.memory`."""
    return tree_files(place) if place.form == "tree" else order_files(place, memory)


def encode_job(place: LayerPlace, job: Job) -> bytes:
    """Return the message with a job for a worker process."""
    descriptor = job.descriptor
    return json.dumps(
        {
            "form": place.form,
            "directory": str(place.directory),
            "descriptor": [descriptor.media_type, descriptor.digest, descriptor.size],
            "diff_id": job.diff_id,
            "policy": policy_values(job.policy),
            "tar_split": job.tar_split,
        }
    ).encode()


def decode_job(message: bytes) -> tuple[LayerPlace, Job]:
    """Return the place and the job of a message of `encode_job`."""
    value = json.loads(message)
    return LayerPlace(value["form"], Path(value["directory"])), Job(
        Descriptor(*value["descriptor"]),
        value["diff_id"],
        policy_from_values(value["policy"]),
        value["tar_split"],
    )
