"""Hard cases 24 to 27: compression, corruption, truncation; and what is read of a blob."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from publisher.entry import Entry
from publisher.errors import DigestMismatch, PublisherError
from publisher.layers import ledger, temporary
from publisher.layers.errors import LayerError, LimitExceeded
from publisher.layers.policy import Limits, Policy
from publisher.layers.unpack import unpack
from publisher.oci.descriptor import Descriptor
from publisher.oci.media_types import FOREIGN_LAYER_TYPES
from publisher.repository.directory.tree_writer import TreeWriter
from tests.engine import Unpack, unpack_layer
from tests.layer_builder import (
    BLOCK,
    Compression,
    Layer,
    compress,
    digest_of,
    directory,
    file,
    layer,
    layer_of_blob,
    layer_of_tar,
    pax_header,
    tar,
    zstd_skippable,
)

RANDOM = random.Random(24)
MEMBERS = (
    directory("d"),
    file("d/small", b"small"),
    file("d/large", RANDOM.randbytes(700_000)),
    file("e", b"x" * 2_000_000),
    file("f", b"last", pax={"comment": "extended"}),
)
ARCHIVE = tar(*MEMBERS)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("parts", [1, 2, 7, 500])
def test_every_compression_in_one_part_or_many_gives_the_same(
    compression: Compression, parts: int, tmp_path: Path
) -> None:
    unpacked = unpack_layer(
        layer_of_tar(ARCHIVE, compression=compression, parts=parts), tmp_path / "t"
    )
    assert unpacked.paths == ["d", "d/large", "d/small", "e", "f"]
    assert (tmp_path / "t/d/large").read_bytes() == MEMBERS[2].content
    assert (tmp_path / "t/f").read_bytes() == b"last"


def test_zstd_skippable_frames_are_skipped_wherever_they_are(tmp_path: Path) -> None:
    half = len(ARCHIVE) // 2
    blob = b"".join(
        [
            zstd_skippable(b"first"),
            compress(ARCHIVE[:half], "zstd"),
            zstd_skippable(b"table of contents" * 1000, 7),
            zstd_skippable(b""),
            compress(ARCHIVE[half:], "zstd"),
            zstd_skippable(b"last", 15),
        ]
    )
    assert len(unpack_layer(layer_of_blob(blob, ARCHIVE), tmp_path / "t").paths) == 5


def test_gzip_members_may_be_empty_have_names_and_be_padded_with_zeros(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with gzip.GzipFile("a name", "wb", fileobj=buffer, mtime=5) as out:
        out.write(ARCHIVE[:1000])
    blob = buffer.getvalue() + gzip.compress(b"") + gzip.compress(ARCHIVE[1000:]) + bytes(3000)
    assert len(unpack_layer(layer_of_blob(blob, ARCHIVE), tmp_path / "t").paths) == 5


@pytest.mark.parametrize("size", [1, 7, 512, 65536, 10**9])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_chunks_may_be_of_any_size(compression: Compression, size: int, tmp_path: Path) -> None:
    source = layer(*MEMBERS[:2], file("x", b"y" * 3000), compression=compression, parts=3)
    with TreeWriter(tmp_path / "t") as sink:
        summary = unpack(
            iter(source.chunks(size)),
            source.descriptor,
            source.diff_id,
            sink,
            io.BytesIO(),
            Policy(),
        )
    assert summary.files == 2
    assert summary.archive_size == len(source.tar)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("declared", ["gzip", "zstd", "none", "docker", "foreign"])
def test_the_bytes_decide_how_they_are_compressed_not_the_media_type(
    compression: Compression, declared: str, tmp_path: Path
) -> None:
    media_type = {
        "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
        "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
        "none": "application/vnd.oci.image.layer.v1.tar",
        "docker": "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "foreign": min(FOREIGN_LAYER_TYPES),
    }[declared]
    source = layer_of_tar(ARCHIVE, compression=compression, media_type=media_type)
    assert len(unpack_layer(source, tmp_path / "t").paths) == 5


@pytest.mark.parametrize(
    "media_type",
    ["application/vnd.oci.image.layer.v1.tar+encrypted", "application/vnd.helm.chart", ""],
)
def test_an_unknown_media_type_is_refused(media_type: str, tmp_path: Path) -> None:
    source = layer(*MEMBERS).with_descriptor(media_type=media_type)
    with pytest.raises(LayerError, match="media type"):
        unpack_layer(source, tmp_path / "t")


@pytest.mark.parametrize("compressor", [bz2.compress, lzma.compress])
def test_other_compressions_are_refused_by_name(compressor: object, tmp_path: Path) -> None:
    assert callable(compressor)
    with pytest.raises(LayerError, match=r"compressed with (bzip2|xz)"):
        unpack_layer(layer_of_blob(compressor(ARCHIVE), ARCHIVE), tmp_path / "t")


def test_sha512_digests_and_diff_ids_are_verified(tmp_path: Path) -> None:
    source = layer(*MEMBERS, algorithm="sha512")
    assert unpack_layer(source, tmp_path / "a").summary.digest.startswith("sha512:")
    lie = Layer(source.blob, source.descriptor, digest_of(b"", "sha512"), source.tar)
    with pytest.raises(DigestMismatch):
        unpack_layer(lie, tmp_path / "b")


class _Sink:
    """Notes whether the tree was declared complete."""

    finished = False

    def add(self, entry: Entry, content: object = ()) -> None: ...

    def finish(self) -> None:
        self.finished = True


def refuse(source: Layer, error: type[PublisherError] = PublisherError) -> PublisherError:
    """Unpack what must be refused, with nothing made visible; returns the refusal."""
    sink, index = _Sink(), io.BytesIO()
    with pytest.raises(error) as caught:
        unpack(source.chunks(), source.descriptor, source.diff_id, sink, index, Policy())
    assert not sink.finished
    assert index.getvalue() == b""
    return caught.value


def test_the_error_for_a_wrong_blob_digest_has_both_digests() -> None:
    source = layer(*MEMBERS)
    wrong = digest_of(b"something else")
    error = refuse(source.with_descriptor(digest=wrong), DigestMismatch)
    assert isinstance(error, DigestMismatch)
    assert (error.expected, error.actual) == (wrong, source.digest)


def test_the_error_for_a_wrong_diff_id_has_both_digests() -> None:
    source = layer(*MEMBERS)
    wrong = digest_of(b"something else")
    error = refuse(Layer(source.blob, source.descriptor, wrong, source.tar), DigestMismatch)
    assert isinstance(error, DigestMismatch)
    assert (error.expected, error.actual) == (wrong, source.diff_id)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_truncation_anywhere_is_a_digest_mismatch_that_counts_what_is_missing(
    compression: Compression,
) -> None:
    whole = layer(*MEMBERS[:2], file("f", b"z" * 2000), compression=compression)
    size = len(whole.blob)
    cuts = {0, 1, 2, 3, 10, BLOCK, 2 * BLOCK, size // 2, size - 1024, size - 9, size - 1}
    for cut in sorted(c for c in cuts if 0 <= c < size):
        short = Layer(whole.blob[:cut], whole.descriptor, whole.diff_id, whole.tar)
        error = refuse(short, DigestMismatch)
        assert f"{size - cut} bytes are missing" in str(error)


def test_an_archive_that_ends_exactly_at_a_header_is_caught_by_the_diff_id() -> None:
    whole = tar(*MEMBERS)
    cut = tar(*MEMBERS[:3], end=b"")
    assert whole.startswith(cut)
    blob = compress(cut)
    refuse(layer_of_blob(blob, whole), DigestMismatch)


@pytest.mark.parametrize("missing", [1, 100, 511, 512, 600])
def test_an_archive_that_ends_within_a_member_is_an_error_that_names_it(missing: int) -> None:
    archive = tar(file("whole"), file("the/last", b"x" * 700), end=b"")
    error = refuse(layer_of_tar(archive[:-missing]), LayerError)
    assert "'the/last'" in str(error)


@pytest.mark.parametrize("size", [1, 300, 511])
def test_an_archive_that_ends_within_a_header_is_an_error(size: int) -> None:
    archive = tar(file("a"), end=b"") + file("b").encode()[:size]
    assert "within a header" in str(refuse(layer_of_tar(archive), LayerError))


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(1024), bytes(10_240)])
def test_end_blocks_may_be_missing_or_many(end: bytes, unpack: Unpack) -> None:
    assert unpack(file("a", b"1"), end=end).paths == ["a"]


def test_what_follows_the_end_blocks_is_hashed_and_ignored(unpack: Unpack) -> None:
    junk = bytes(1024) + b"junk" * 1000 + file("hidden").encode()
    assert unpack(file("a"), end=junk).paths == ["a"]


def test_a_lone_block_of_zeros_in_the_middle_is_an_error() -> None:
    error = refuse(layer(file("a"), bytes(512), file("b")), LayerError)
    assert "lone block of zeros" in str(error)


def test_an_extended_header_without_a_member_is_an_error() -> None:
    refuse(layer(file("a"), pax_header({"path": "b"})), LayerError)


def test_a_checksum_of_signed_characters_is_right_as_well(unpack: Unpack) -> None:
    member = file(b"caf\xe9")
    header = member.encode()[:BLOCK]
    counted = header[:148] + b" " * 8 + header[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in counted)
    assert unpack(replace(member, checksum=b"%06o\0 " % signed)).paths == ["caf\udce9"]
    with pytest.raises(LayerError, match="checksum"):
        unpack(replace(member, checksum=b"%06o\0 " % (signed + 1)))


@pytest.mark.parametrize("position", [0, 50, 100, 130, 148, 156, 257, 300])
def test_a_corrupt_header_in_the_middle_is_an_error(position: int) -> None:
    broken = bytearray(file("b", b"x").encode())
    broken[position] ^= 0x55
    error = refuse(layer(file("a"), bytes(broken), file("c")), LayerError)
    assert "checksum" in str(error)


def test_garbage_is_not_an_archive() -> None:
    for garbage in RANDOM.randbytes(5000), b"<html>no such page</html>" * 100, b"{}", b"\xff" * 600:
        refuse(layer_of_tar(garbage, compression="none"), LayerError)
        refuse(layer_of_tar(garbage, compression="gzip"), LayerError)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_damage_in_the_compressed_stream_is_a_digest_mismatch_if_the_blob_was_damaged(
    compression: Compression,
) -> None:
    whole = layer(*MEMBERS, compression=compression)
    for _ in range(20):
        damaged = bytearray(whole.blob)
        damaged[RANDOM.randrange(20, len(damaged))] ^= 1 << RANDOM.randrange(8)
        refuse(Layer(bytes(damaged), whole.descriptor, whole.diff_id, whole.tar), DigestMismatch)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_damaged_stream_with_the_right_digest_is_a_corrupt_layer(
    compression: Compression,
) -> None:
    good = compress(ARCHIVE, compression)
    damaged = good[: len(good) // 2] + b"\xff" * 40 + good[len(good) // 2 + 40 :]
    refuse(layer_of_blob(damaged, ARCHIVE), PublisherError)
    error = refuse(layer_of_blob(good[: len(good) // 2], ARCHIVE), PublisherError)
    assert isinstance(error, LayerError | DigestMismatch)


def test_a_gzip_checksum_that_is_wrong_is_an_error() -> None:
    blob = bytearray(compress(ARCHIVE))
    blob[-6] ^= 1
    assert "gzip" in str(refuse(layer_of_blob(bytes(blob), ARCHIVE), LayerError))


def test_something_else_after_the_gzip_stream_is_an_error() -> None:
    blob = compress(ARCHIVE) + b"not gzip"
    assert "follow the gzip stream" in str(refuse(layer_of_blob(blob, ARCHIVE), LayerError))


def test_a_huge_zstd_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, compression_level=1)
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    stream = compressor.compressobj()  # of unknown size, so that the window is not reduced
    blob = stream.compress(ARCHIVE) + stream.flush()
    assert "zstd" in str(refuse(layer_of_blob(blob, ARCHIVE), LayerError))


def test_a_blob_longer_than_its_descriptor_is_not_read_on() -> None:
    source = layer(*MEMBERS)
    asked: list[int] = []

    def endless() -> Iterator[bytes]:
        yield source.blob
        for number in range(1000):
            asked.append(number)
            yield b"more"

    sink = _Sink()
    unpack(endless(), source.descriptor, source.diff_id, sink, io.BytesIO(), Policy())
    assert asked == []
    short = Descriptor(source.descriptor.media_type, source.digest, len(source.blob) - 1)
    with pytest.raises(LayerError, match="longer than"):
        unpack(endless(), short, source.diff_id, _Sink(), io.BytesIO(), Policy())
    assert asked == []


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_bomb_is_refused_when_it_exceeds_the_limit(compression: Compression) -> None:
    bomb = layer(file("zeros", bytes(60_000_000)), compression=compression)
    assert len(bomb.blob) < 100_000
    policy = Policy(limits=Limits(layer_bytes=5_000_000))
    with pytest.raises(LimitExceeded, match="5000000 bytes"):
        unpack(bomb.chunks(), bomb.descriptor, bomb.diff_id, _Sink(), io.BytesIO(), policy)


class BrokenSource(Exception):
    pass


def test_errors_of_chunks_are_raised() -> None:
    source = layer(*MEMBERS)

    def breaks() -> Iterator[bytes]:
        yield source.blob[:1000]
        raise BrokenSource

    with pytest.raises(BrokenSource):
        unpack(breaks(), source.descriptor, source.diff_id, _Sink(), io.BytesIO(), Policy())


def test_errors_of_the_sink_are_raised_and_end_reading() -> None:
    source = layer(*(file(f"f{n}", RANDOM.randbytes(100_000)) for n in range(300)))
    taken: list[int] = []

    def chunks() -> Iterator[bytes]:
        for chunk in source.chunks(10_000):
            taken.append(len(chunk))
            yield chunk

    class Full(_Sink):
        def add(self, entry: Entry, content: object = ()) -> None:
            if entry.path == "f3":
                raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        unpack(chunks(), source.descriptor, source.diff_id, Full(), io.BytesIO(), Policy())
    assert sum(taken) < len(source.blob) / 2


def test_a_full_directory_of_temporary_files_is_an_error_that_names_it(
    unpack: Unpack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_MOST_IN_MEMORY", 100)
    small = temporary._SETTINGS + "PRAGMA max_page_count = 20;"
    monkeypatch.setattr(temporary, "_SETTINGS", small)
    with pytest.raises(LayerError, match=r"cannot unpack layer .*full .*TMPDIR"):
        unpack(*(file(f"{n:0200}") for n in range(1000)))


def test_a_sink_may_ignore_content() -> None:
    source = layer(*MEMBERS)
    index = io.BytesIO()
    unpack(source.chunks(), source.descriptor, source.diff_id, _Sink(), index, Policy())
    assert index.getvalue()
