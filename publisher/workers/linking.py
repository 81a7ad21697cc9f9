"""In a worker process: link a flat image from layers that are unpacked already.

It reads indexes, which the publisher has checked, and no bytes of an image. So that it can link
from all layers, its confinement permits the whole repository.
"""

from __future__ import annotations

import base64
import json
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path

from publisher.entry import Generated
from publisher.layers.index import LayerIndex
from publisher.layers.index_lines import decode_entry, decode_to_link, encode_entry
from publisher.layers.merge import merge
from publisher.repository.directory.linker import LinkJob, link_tree
from publisher.repository.disk import file_system_type, open_file
from publisher.sandbox import Confinement, confine, for_unpacking
from publisher.tree import layout
from publisher.workers.answers import encode_error, encode_linked
from publisher.workers.frames import frame
from publisher.workers.surroundings import ADDRESS_SPACE, OPEN_FILES, use_for_temporary_files

_KIND = b'{"link": '


def encode_link_job(job: LinkJob) -> bytes:
    """Return the message with a flat image to be linked."""
    paths = [str(path.relative_to(job.root)) for path in (job.destination, *job.layers)]
    generated = [
        [encode_entry(each.entry), base64.b64encode(each.content).decode()]
        for each in job.generated
    ]
    return json.dumps({"link": [str(job.root), *paths], "generated": generated}).encode()


def is_link_job(message: bytes) -> bool:
    """Return whether a message is one of `encode_link_job`."""
    return message.startswith(_KIND)


def _decoded(message: bytes) -> LinkJob:
    value = json.loads(message)
    root, destination, *layers = map(Path, value["link"])
    generated = [
        Generated(decode_entry(line), base64.b64decode(content))
        for line, content in value["generated"]
    ]
    return LinkJob(root, destination, layers, generated)


def link(channel: socket.socket, message: bytes) -> None:
    """Link the flat image of the job, and answer."""
    try:
        # Few images are large, so that the server does not import what adds files to them.
        from publisher.runtimes.flat_files import insert

        job = _decoded(message)
        # It is looked up in a file that is out of reach afterwards.
        file_system_type(job.root.stat().st_dev)
        lacking = confine(
            Confinement(
                job.root,
                (channel.fileno(),),
                for_unpacking(set_user_id=True, devices=True),
                set_user_id=True,
                address_space=ADDRESS_SPACE,
                open_files=OPEN_FILES,
            )
        )
        # Paths are relative from here on: the repository may be the root of this process.
        use_for_temporary_files(job.destination.with_suffix(".temporary"))
        indexes = [
            LayerIndex(partial(open_file, layer / layout.LAYER_INDEX)) for layer in job.layers
        ]
        plan = insert(merge(indexes, decode_to_link), job.generated)
        trees = [layer / layout.LAYER_TREE for layer in job.layers]
        answer = encode_linked(link_tree(job.destination, plan, trees).refused, lacking)
    except Exception as error:  # noqa: BLE001 - the answer
        answer = encode_error(error)
    with suppress(ConnectionError):  # the publisher does not need it any more
        channel.sendall(frame(answer))
