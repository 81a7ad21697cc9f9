"""The contents of a staged layer are read again by a worker process, which is not trusted."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from publisher.entry import Content, Entry, Hole
from publisher.errors import DigestMismatch
from publisher.ingest.report import Status
from publisher.ingest.run import ingest
from publisher.layers.errors import LayerError
from publisher.layers.policy import Limits as LayerLimits
from publisher.layers.policy import Policy
from publisher.layers.replay import ReadContents, StagedContents, read_contents_here, replay
from publisher.repository.cvmfs.layer_stage import CvmfsLayerStage
from publisher.sources.open import Sources
from publisher.tree import layout
from publisher.wishlist import wish_for
from publisher.wishlist.model import Request
from publisher.workers.errors import WorkerEnded, WorkerFailed
from publisher.workers.frames import Part
from publisher.workers.pool import Workers
from publisher.workers.surroundings import ADDRESS_SPACE, OPEN_FILES
from tests.attacked import Limits, attacked_by, listening, metadata
from tests.components import require_root
from tests.compromised import ATTEMPTS, permitted
from tests.cvmfs import make_machine
from tests.hostile import CORPUS, aimed_at
from tests.layer_builder import (
    Layer,
    directory,
    file,
    hardlink,
    image,
    layer,
    opaque,
    symlink,
    whiteout,
    write_layout,
)
from tests.sampling import sample, share
from tests.worker_stages import Stages, children, descriptors, job, server_pid

HALF = {"GNU.sparse.map": "0,4,3000000,4,9000000,4", "GNU.sparse.size": "12000000"}
LAYER = layer(
    file("d/late", b"before its directory", uid=6),
    directory("d", 0o2755, uid=5),
    file("d/f", b"replaced"),
    file("d/f", b"content"),
    file("d/large", os.urandom(700_000)),
    file("d/sparse", b"onetwosixten", pax=HALF),
    file("empty"),
    file("gone", b"replaced by a directory"),
    directory("gone"),
    symlink("d/s", "../outside"),
    hardlink("a", "d/large"),
    hardlink("late", "d/in a lower layer"),
    file("caf\udce9", b"x", mode=0o4755),
    whiteout("white"),
    opaque("d"),
)
SMALL = layer(directory("d"), file("d/f", b"content"), file("d/g", b"other"), symlink("s", "d"))


def stage(stages: Stages, built: Layer, policy: Policy | None = None) -> StagedContents:
    """Unpack a layer in this process, as CVMFS stages it."""
    made = stages.make("order")
    assert isinstance(made, CvmfsLayerStage)
    Workers(0).unpack(made, built.chunks(), job(built, policy))
    made.finish()
    staged = made._staged
    scratch = stages.folder / f"reading-{staged.directory.name}"
    scratch.mkdir()
    return StagedContents(staged.blob, staged.index, staged.order, scratch / "worker")


def probe(stages: Stages, *words: str, built: Layer = SMALL) -> StagedContents:
    """A staged layer whose worker calls a function of tests/worker_server.py."""
    staged = stage(stages, built)
    (staged.scratch.parent / "probe").write_text(json.dumps(words))
    return staged


Sent = list[tuple[object, ...]]


def replayed(staged: StagedContents, read: ReadContents = read_contents_here) -> Sent:
    """What is sent of a staged layer, in order: entries with the sizes of their pieces' runs."""
    sent: Sent = []

    def add(entry: Entry, content: Content) -> None:
        runs: list[object] = []
        for piece in content:
            if isinstance(piece, Hole):
                runs.append(piece.size)
            elif runs and isinstance(runs[-1], bytes):
                runs[-1] += bytes(piece)
            else:
                runs.append(bytes(piece))
        sent.append((entry, runs))

    with staged.index.open("rb") as index, read(staged) as contents:
        replay(index, (), contents, add, lambda fixup: sent.append((fixup,)))
    return sent


def test_what_a_worker_reads_is_sent_as_what_this_process_reads(
    workers: Workers, stages: Stages
) -> None:
    for policy in (Policy(), Policy(setuid="keep", readable=True)):
        staged = stage(stages, LAYER, policy)
        here = replayed(staged)
        assert replayed(staged, workers.read_contents) == here
        assert [entry.path for entry, _ in here][:3] == ["", "d", "gone"]  # type: ignore[attr-defined]
        assert [b"onet", 2999996, b"wosi", 5999996, b"xten", 2999996] in [each[1] for each in here]
    assert not children(server_pid(workers))


def test_hostile_archives_are_read_again_alike(workers: Workers, stages: Stages) -> None:
    policy = Policy(limits=LayerLimits(layer_bytes=10_000_000))
    for name in sample(list(CORPUS), share(0.15)):
        attack = layer(*aimed_at(CORPUS[name], "/victim"))
        try:
            staged = stage(stages, attack, policy)
        except LayerError:
            continue  # it is refused when it arrives
        assert replayed(staged, workers.read_contents) == replayed(staged), name


def test_a_worker_that_is_killed_at_any_step_while_it_reads_is_an_error_of_its_layer(
    workers: Workers, stages: Stages
) -> None:
    staged = stage(stages, SMALL)
    expected = replayed(staged, workers.read_contents)
    request = staged.scratch.parent / "probe"
    before = descriptors()
    for step in range(1, 100):
        _remove_scratch(staged)
        request.write_text(json.dumps(["kill_at", str(step)]))
        try:
            sent = replayed(staged, workers.read_contents)
        except WorkerEnded as error:
            assert error.status == -signal.SIGKILL
            assert error.what == f"cannot send layer {SMALL.digest}"
            assert "SIGKILL" in error.why and "lower --workers" in error.hint
        else:
            break
    assert sent == expected
    assert 40 < step < 100
    assert descriptors() == before
    assert not children(server_pid(workers))


def _remove_scratch(staged: StagedContents) -> None:
    for path in sorted(staged.scratch.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    staged.scratch.rmdir()


def test_errors_of_a_worker_that_reads_are_named(workers: Workers, stages: Stages) -> None:
    crash = str(int(signal.SIGSEGV))
    for words, kind, why in (
        (["end_by", crash], WorkerEnded, r"ended by SIGSEGV.*report the image"),
        (["fail"], WorkerFailed, "unexpected error: ZeroDivisionError: on purpose"),
        (["exhaust_memory"], WorkerFailed, r"more memory than it may use.*lower --workers"),
    ):
        with pytest.raises(kind, match=why):
            replayed(probe(stages, *words), workers.read_contents)
    impatient = Workers(1, patience=0.1)
    impatient._server = workers._server
    with pytest.raises(WorkerEnded, match="ended after 0 s, since it takes longer"):
        replayed(probe(stages, "hang"), impatient.read_contents)

    staged = stage(stages, SMALL)
    staged.blob.write_bytes(layer(directory("d"), file("d/f", b"changed")).blob)
    with pytest.raises((LayerError, DigestMismatch)):
        replayed(staged, workers.read_contents)
    staged = stage(stages, SMALL)
    staged.order.write_bytes(b"not a database" * 1000)
    with pytest.raises(LayerError, match="the list of its entries is damaged"):
        replayed(staged, workers.read_contents)
    staged = stage(stages, LAYER)
    blob = staged.blob.read_bytes()
    staged.blob.write_bytes(blob[: len(blob) // 2])  # the error comes within a file
    with pytest.raises(LayerError, match="ends too early"):
        replayed(staged, workers.read_contents)
    assert not children(server_pid(workers))


_LARGE = 2**63
_FILE_1, _FILE_2 = [Part.FILE, 0, ""], [Part.FILE, 1, ""]
_CONTENT, _OTHER = [Part.DATA, 7, "content"], [Part.DATA, 5, "other"]
_END = [Part.ANSWER, 2, "{}"]


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([_FILE_1, _CONTENT, _FILE_2, _OTHER], "ended with 0"),  # no answer
        ([_FILE_1, _CONTENT, _FILE_2, _OTHER, [Part.ANSWER, 5, "{}"]], "ended with 0"),
        ([_FILE_1, _CONTENT, _FILE_2, _OTHER, [Part.ANSWER, 3, "{}}"]], "is malformed"),
        ([_FILE_1, _CONTENT, _FILE_2, _OTHER, [Part.ANSWER, 2**30, "{}"]], "something else"),
        ([_FILE_1, _CONTENT, _END], "do not agree"),  # a file is missing
        ([_FILE_1, _CONTENT, _FILE_1, _CONTENT, _END], "do not agree"),  # one comes twice
        ([[Part.FILE, 2, ""], _CONTENT, _END], "do not agree"),  # one that the index lacks
        ([[Part.FILE, _LARGE, ""], _CONTENT, _END], "do not agree"),
        ([_FILE_1, _OTHER, _END], "do not agree"),
        ([_FILE_1, [Part.DATA, 7, "CONTENT"], _END], "do not agree"),
        ([_FILE_1, _CONTENT, _CONTENT, _END], "do not agree"),
        ([_FILE_1, [Part.DATA, _LARGE, "content"], _END], "do not agree"),
        ([_FILE_1, [Part.HOLE, _LARGE, ""], _END], "do not agree"),
        ([_FILE_1, [Part.HOLE, 7, ""], _END], "do not agree"),
        ([_FILE_1, [Part.DATA, 0, ""], _CONTENT], "an empty part"),
        ([_FILE_1, [Part.HOLE, 0, ""], _CONTENT], "an empty part"),
        ([_FILE_1, *([[Part.DATA, 1, "c"]] * 99)], "do not agree"),
        ([_CONTENT], "something else"),
        ([[0, 0, ""]], "something else"),
        ([[255, _LARGE, "x" * 99]], "something else"),
        ([], "ended with 0"),
        ([_END], "do not agree"),
    ],
)
def test_what_a_worker_sends_is_not_believed(
    workers: Workers, stages: Stages, parts: list[list[Any]], why: str
) -> None:
    with pytest.raises((WorkerFailed, LayerError)) as caught:
        replayed(probe(stages, "send_parts", json.dumps(parts)), workers.read_contents)
    assert why in caught.value.why
    assert not children(server_pid(workers))


def test_a_worker_cannot_keep_the_publisher_busy_with_tiny_parts(
    workers: Workers, stages: Stages
) -> None:
    long = layer(file("f", b"a" * 3000))
    parts = [[Part.FILE, 0, ""], *([[Part.DATA, 1, "a"]] * 3000), _END]
    with pytest.raises(WorkerFailed, match="more parts than the layer can have"):
        replayed(probe(stages, "send_parts", json.dumps(parts), built=long), workers.read_contents)


def test_nothing_that_a_worker_tries_while_it_reads_contents_succeeds(
    workers: Workers, stages: Stages, tmp_path: Path
) -> None:
    require_root()
    hostile = layer(file("f", b"content"))
    staged = stage(stages, hostile)
    limits = Limits(2 * len(hostile.tar) + 2**28, ADDRESS_SPACE, OPEN_FILES)
    with listening(tmp_path) as sockets:
        target = attacked_by(os.geteuid(), tmp_path / "outside", sockets, limits)
        before = metadata(target)
        (staged.scratch.parent / "probe").write_text(json.dumps(["attack", target.to_json()]))
        kept = staged.blob.read_bytes(), staged.index.read_bytes()
        with pytest.raises(LayerError) as raised:
            replayed(staged, workers.read_contents)
        assert metadata(target) == before
    results = json.loads(raised.value.why)
    assert results.keys() == ATTEMPTS.keys()
    assert permitted(results) == set()
    assert (staged.blob.read_bytes(), staged.index.read_bytes()) == kept


@pytest.mark.parametrize(
    ("words", "why", "is_fetched_again"),
    [
        (["end_by", str(int(signal.SIGKILL))], "ended by SIGKILL", False),
        (["change_contents", "content", "CONTENT"], "do not agree", True),
        (["send_parts", "[]"], "ended with 0", False),
    ],
    ids=["killed", "lies", "ends"],
)
def test_a_transaction_whose_worker_fails_is_aborted_and_the_next_one_completes(
    workers: Workers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    why: str,
    is_fetched_again: bool,
) -> None:
    name = "images.test.org"
    machine = make_machine(tmp_path / "machine", overlay=False)
    for key, value in machine.environment.items():
        monkeypatch.setenv(key, value)
    machine.make(name)
    write_layout(image(SMALL), tmp_path / "layout", "1")
    request = Request(wish_for(f"oci:{tmp_path}/layout:1", name="tool"))
    repository = machine.open(name, read_contents=workers.read_contents, memory=0)
    session = repository.mirror.tree.staging.session
    try:
        (session / "probe").write_text(json.dumps(words))
        with Sources() as sources:
            [outcome] = ingest([request], repository, sources, workers=workers).outcomes
            assert outcome.status is Status.FAILED and why in outcome.error
            assert f"{SMALL.digest}" in outcome.error
            assert machine.revision(name) == 1
            assert b"transaction" not in machine.server("list").stdout
            assert not (machine.published(name) / layout.LAYERS).exists()
            assert repository.has_layer(SMALL.digest) is not is_fetched_again
            assert [path.name for path in session.iterdir() if path.name.isdecimal()] == []
            (session / "probe").unlink()
            [outcome] = ingest([request], repository, sources, workers=workers).outcomes
        assert outcome.status is Status.PUBLISHED and machine.revision(name) == 2
    finally:
        repository.close()
    assert not children(server_pid(workers))
