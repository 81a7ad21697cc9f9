"""What tar-split data costs while a layer is unpacked, and how large it is.

    python -m bench.tar_split [--rounds N]

Unpacks three archives from memory, without and with it in turn: many small files, a few large ones,
and a mixture as in a distribution. Prints CPU time (all threads), its ratio, and sizes.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path

from publisher.layers.policy import Policy
from publisher.layers.unpack import unpack
from publisher.repository.directory.tree_writer import TreeWriter
from tests.layer_builder import Layer, file, layer

_PIECE = 65536


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.tar_split", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, of which the median")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where to work")
    arguments = parser.parse_args()
    print(f"{'':28}{'without s':>11}{'with s':>9}{'ratio':>8}{'archive MB':>12}{'data kB':>9}")
    for name, source in archives().items():
        seconds: dict[bool, list[float]] = {False: [], True: []}
        size = 0
        for _ in range(arguments.rounds):
            for with_data, found in seconds.items():
                used, size = unpack_once(source, with_data, arguments.folder)
                found.append(used)
        without, with_data_ = (statistics.median(seconds[each]) for each in (False, True))
        print(
            f"{name:28}{without:11.2f}{with_data_:9.2f}{with_data_ / without:8.2f}"
            f"{len(source.tar) / 1e6:12.0f}{size / 1e3:9.0f}"
        )


def archives() -> dict[str, Layer]:
    """The layers to unpack."""
    text = b"".join(b"line %d of a text\n" % number for number in range(60_000))
    mixture = [
        file(f"d{n // 50}/f{n}", text[n * 7 : n * 7 + 300 + (n * n) % 40_000]) for n in range(5000)
    ]
    return {
        "20,000 files of 100 bytes": layer(
            *(file(f"d{n // 500}/f{n}", b"%0100d" % n) for n in range(20_000))
        ),
        "5,000 files of 20 kB": layer(*mixture),
        "4 files of 64 MB": layer(*(file(f"f{n}", text * 60) for n in range(4))),
    }


def unpack_once(source: Layer, with_data: bool, folder: Path) -> tuple[float, int]:
    """Return the seconds of CPU time, and the size of the data."""
    data = io.BytesIO()
    with tempfile.TemporaryDirectory(dir=folder) as tree:
        chunks = source.chunks(_PIECE)
        began = time.process_time()
        with TreeWriter(Path(tree, "tree")) as sink:
            unpack(
                *(chunks, source.descriptor, source.diff_id, sink, io.BytesIO(), Policy()),
                tar_split=data if with_data else None,
            )
        return time.process_time() - began, len(data.getvalue())


if __name__ == "__main__":
    main()
