"""Layers are unpacked in worker processes, and whatever a worker does affects its layer only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from publisher.errors import DigestMismatch
from publisher.layers.errors import LayerError, LimitExceeded, UnsafeName
from publisher.layers.opaque import OPAQUE_XATTRS
from publisher.layers.policy import Limits, Policy
from publisher.repository.layer_files import UnexpectedFile
from publisher.tree import layout
from publisher.workers import fork_server
from publisher.workers.answers import encode_error, parse_answer
from publisher.workers.check import check_index
from publisher.workers.errors import WorkerEnded, WorkerFailed, WorkerNotStarted
from publisher.workers.pool import Workers
from tests.components import program, require_root
from tests.cvmfs import is_running
from tests.layer_builder import (
    character_device,
    directory,
    fifo,
    file,
    hardlink,
    layer,
    layer_of_blob,
    opaque,
    symlink,
    whiteout,
)
from tests.processes import wait_until
from tests.trees import describe_tree
from tests.worker_stages import (
    ENVIRONMENT,
    Stages,
    children,
    descriptors,
    job,
    server_pid,
    unpack,
)

LAYER = layer(
    directory("d", 0o2755, uid=5),
    file("d/f", b"content", mtime_ns=1_700_000_000_123_456_789),
    file("d/caf\udce9", os.urandom(300_000)),
    symlink("d/s", "../outside"),
    hardlink("d/h", "d/f"),
    hardlink("late", "d/in a lower layer"),
    fifo("p", mode=0o600),
    character_device("null"),
    whiteout("gone"),
    opaque("d"),
    file("setuid", b"x", mode=0o4755),
)
SMALL = layer(directory("d"), file("d/f", b"content"), symlink("s", "d"))
ALONE = Workers(0)


@pytest.mark.parametrize("form", ["tree", "order"])
def test_a_worker_leaves_the_same_files_as_this_process(
    workers: Workers, stages: Stages, form: str
) -> None:
    task = job(LAYER, Policy(owner=(7, 8)), tar_split=True)
    results = []
    for each in (ALONE, workers):
        stage = stages.make(form)
        unpacked = each.unpack(stage, LAYER.chunks(), task)
        with stage.open_index() as index:
            results.append((unpacked, index.read()))
        stage.finish()
    assert results[0] == results[1]
    assert results[0][0].summary.dropped == {"device": 1, "setuid": 1}
    for policy in (
        Policy(),
        Policy(setuid="keep", devices="keep", readable=True),
        Policy(writable="drop", xattrs="drop"),
    ):
        unpacked = workers.unpack(stages.make(form), LAYER.chunks(), job(LAYER, policy))
        assert unpacked.summary.files == 4
    if form == "tree":
        one, other = (each / layout.LAYER_TREE for each in sorted(stages.kept.iterdir()))
        assert describe_tree(one) == describe_tree(other)
    for name in ("*/.metadata/tar-split.gz", "*-blob", "*-blob.order"):
        contents = [path.read_bytes() for path in stages.kept.glob(name)]
        assert contents[:1] * 2 == contents
        assert bool(contents) == (form == "order" or "blob" not in name)


def test_errors_are_those_that_this_process_raises(workers: Workers, stages: Stages) -> None:
    damaged = layer_of_blob(SMALL.blob[:-20] + bytes(20), SMALL.tar)
    not_whole = replace(SMALL, blob=SMALL.blob[:-9])
    few = Policy(limits=Limits(layer_entries=2))
    tasks = [
        (layer(file("../x")), None, UnsafeName),
        (layer(file("d"), file("d/f")), None, LayerError),
        (damaged, None, LayerError),
        (not_whole, None, DigestMismatch),
        (replace(SMALL, blob=SMALL.blob + b"x"), None, LayerError),
        (replace(SMALL, diff_id=LAYER.diff_id), None, DigestMismatch),
        (SMALL, few, LimitExceeded),
        (SMALL.with_descriptor(media_type="text/plain"), None, LayerError),
    ]
    for built, policy, kind in tasks:
        caught = []
        for each in (ALONE, workers):
            with pytest.raises(kind) as raised:
                each.unpack(stages.make(), built.chunks(), job(built, policy))
            caught.append((type(raised.value), vars(raised.value), str(raised.value)))
        assert caught[0] == caught[1]
        assert caught[0][0] is kind
    with pytest.raises(ConnectionResetError, match="by peer"):
        workers.unpack(stages.make(), _broken(), job(SMALL))
    full = stages.make()
    (full.place.directory / "layer").write_text("in its place")
    with pytest.raises(OSError) as in_worker:
        unpack(workers, full, SMALL)
    assert isinstance(in_worker.value, FileExistsError | NotADirectoryError)
    assert not children(server_pid(workers))


def _broken() -> Any:
    yield SMALL.blob[:10]
    raise ConnectionResetError("reset by peer")


def test_a_worker_that_is_killed_at_any_step_is_an_error_of_its_layer(
    workers: Workers, stages: Stages
) -> None:
    unpack(workers, stages.make(), SMALL)
    before = descriptors()
    for step in range(1, 1000):
        stage = stages.probe("kill_at", str(step))
        try:
            unpack(workers, stage, SMALL)
        except WorkerEnded as error:
            assert error.status == -signal.SIGKILL
            assert "SIGKILL" in error.why and "lower --workers" in error.hint
            assert SMALL.digest in error.what
        else:
            break
    assert 50 < step < 200
    stage.finish()
    assert [path.name for path in stages.kept.iterdir()] == [stage._finished.name]  # type: ignore[union-attr]
    assert descriptors() == before
    assert not children(server_pid(workers))


def test_a_worker_that_crashes_is_an_error_that_names_the_signal(
    workers: Workers, stages: Stages
) -> None:
    with pytest.raises(WorkerEnded, match=r"ended by SIGSEGV.*report the image"):
        unpack(workers, stages.probe("end_by", str(int(signal.SIGSEGV))), SMALL)
    with pytest.raises(WorkerFailed, match="unexpected error: ZeroDivisionError: on purpose"):
        unpack(workers, stages.probe("fail"), SMALL)
    with pytest.raises(WorkerFailed, match=r"more memory than it may use.*lower --workers"):
        unpack(workers, stages.probe("exhaust_memory"), SMALL)


def test_a_worker_that_hangs_is_ended(workers: Workers, stages: Stages) -> None:
    impatient = Workers(1, patience=0.1)
    impatient._server = workers._server
    with pytest.raises(WorkerEnded, match="ended after 0 s, since it takes longer"):
        unpack(impatient, stages.probe("hang"), SMALL)
    assert not children(server_pid(workers))


def test_an_interrupt_ends_a_worker_that_is_waited_for(workers: Workers, stages: Stages) -> None:
    unpack(workers, stages.make(), SMALL)
    large = layer(file("f", os.urandom(5_000_000)), compression="none")  # more than a socket holds
    for built in (SMALL, large):

        def interrupt() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            workers.unpack(stages.probe("hang"), built.chunks(), job(built), interrupt)
        assert not children(server_pid(workers))


def test_a_worker_has_one_descriptor_no_environment_and_a_session_of_its_own(
    workers: Workers, stages: Stages
) -> None:
    with pytest.raises(LayerError, match="described") as caught:
        unpack(workers, stages.probe("describe"), SMALL)
    own = json.loads(caught.value.why)
    named = own["descriptors"]
    assert {named[number] for number in "012"} == {"/dev/null"}
    assert named.pop("3").startswith("socket:")
    assert set(named) == {"0", "1", "2"}
    assert own["environment"].keys() <= {"PATH", "PYTHONPATH", "LC_CTYPE"}
    assert own["session"] == own["pid"] and own["parent"] == server_pid(workers)
    assert not {"requests", "click", "publisher.sources"} & set(own["modules"])
    assert own["private_kilobytes"] < 25_000


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "malformed"),
        ("[]", "malformed"),
        ("{}", "another layer"),
        ('{"refused": {"x": "y"}}', "malformed"),
        ('{"summary": {"digest": 1}}', "malformed"),
        ('{"error": {"kind": "\\u001b[31mEvil", "why": "\\u202e"}}', "Evil"),
        ('{"error": {"kind": "SystemExit"}}', "unexpected error: SystemExit"),
        ('{"error": {"kind": "LimitExceeded", "allowed": "x"}}', "malformed"),
    ],
)
def test_an_answer_is_not_believed(workers: Workers, stages: Stages, text: str, why: str) -> None:
    with pytest.raises(WorkerFailed) as caught:
        unpack(workers, stages.probe("answer", text), SMALL)
    assert why in caught.value.why
    assert str(caught.value).isprintable()


def test_an_answer_has_a_size(workers: Workers, stages: Stages) -> None:
    with pytest.raises(WorkerFailed, match="too long"):
        unpack(workers, stages.probe("flood"), SMALL)


def test_a_result_before_the_end_of_the_blob_is_refused(workers: Workers, stages: Stages) -> None:
    summary = unpack(workers, stages.make(), SMALL).summary
    values = {name: getattr(summary, name) for name in summary.__slots__}
    text = json.dumps({"summary": {**values, "dropped": {}}})
    answered = threading.Event()

    def chunks() -> Any:
        yield SMALL.blob[:1]
        answered.wait(0.5)
        yield SMALL.blob[1:]

    with pytest.raises((WorkerFailed, DigestMismatch)):
        workers.unpack(stages.probe("answer", text), chunks(), job(SMALL))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"mode":"0644"', '"mode":"4755"', "'d/f' against the policy"),
        ('"mode":"0644"', '"mode":"0644","mode":"2755"', "'d/f' against the policy"),
        ('"type":"l"', '"type":"b","device":[8,0]', "'s' against the policy"),
        ('"target":"d"', '"xattrs":{"security.capability":"AAAA"}', "'s' against the policy"),
        ('"path":"s"', '"path":"../s","links":1', "leads out of the tree"),
        ('"path":"s"', '"path":"s","path":"../s"', "leads out of the tree"),
        ('"type":"l"', '"type":"x"', "a line is malformed"),
        ('"type":"l"', '"type":"w"', "'s' against the policy"),
        ("}", "}\n{}", "a line is malformed"),
        ("}", "}" + "x" * 1000, "a line is malformed"),
    ],
)
def test_an_index_that_the_policy_does_not_permit_is_refused(
    workers: Workers, stages: Stages, old: str, new: str, why: str
) -> None:
    with pytest.raises(WorkerFailed) as caught:
        unpack(workers, stages.probe("forge", old, new), SMALL)
    assert why in caught.value.why


@pytest.mark.parametrize("name", ["entries", "archive_size", "content_size"])
def test_a_layer_that_is_larger_than_the_limits_is_refused(
    workers: Workers, stages: Stages, name: str
) -> None:
    stage = stages.make()
    unpacked = unpack(workers, stage, SMALL)
    change: dict[str, Any] = {name: 2**62}
    lie = replace(unpacked, summary=replace(unpacked.summary, **change))
    with pytest.raises(WorkerFailed, match="exceeds the limits"):
        check_index(stage, lie, job(SMALL))


def test_an_index_whose_lines_are_together_too_long_is_refused(
    workers: Workers, stages: Stages
) -> None:
    few = job(SMALL, Policy(limits=Limits(layer_entries=10)))
    long = "x" * (10 * 1024 + 8 * len(SMALL.tar))
    forged = stages.probe("forge", '"target":"d"', f'"target":"d{long}"')
    with pytest.raises(WorkerFailed, match=r"damaged index: it has more than \d+ bytes"):
        workers.unpack(forged, SMALL.chunks(), few)


@pytest.mark.parametrize(
    "name", ["layer/layerfs", "layer/.metadata/index.zst", "layer/.metadata", "layer"]
)
def test_links_in_place_of_the_layers_files_are_refused(
    workers: Workers, stages: Stages, name: str, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    stage = stages.probe("leave", name, str(outside))
    with pytest.raises((UnexpectedFile, LayerError, OSError)):
        unpack(workers, stage, SMALL)
        stage.finish()
    assert not list(stages.kept.iterdir()) and not list(outside.iterdir())


@pytest.mark.parametrize("kind", ["symlink", "hard link", "FIFO"])
def test_the_order_of_a_layers_contents_is_a_file_of_its_own(
    workers: Workers, stages: Stages, kind: str, tmp_path: Path
) -> None:
    """A symlink there would let the publisher write a database anywhere."""
    stage = stages.make("order")
    unpack(workers, stage, SMALL)
    order = stage.place.order
    order.rename(tmp_path / "outside")
    if kind == "FIFO":
        os.mkfifo(order)
    elif kind == "symlink":
        order.symlink_to(tmp_path / "outside")
    else:
        order.hardlink_to(tmp_path / "outside")
    with pytest.raises(UnexpectedFile, match="is not what it should be"):
        stage.finish()
    assert not list(stages.kept.iterdir())


@pytest.mark.parametrize("form", ["tree", "order"])
def test_an_empty_file_outside_is_not_removed_as_tar_split_data(
    workers: Workers, stages: Stages, form: str, tmp_path: Path
) -> None:
    stage = stages.make(form)
    unpack(workers, stage, SMALL)
    metadata = stage.place.index.parent
    outside = tmp_path / stage.place.tar_split.name
    outside.touch()
    metadata.rename(tmp_path / "aside")
    metadata.symlink_to(tmp_path)
    with pytest.raises(UnexpectedFile):
        stage.finish()
    assert outside.exists()


def test_opaque_directories_are_marked_by_this_process_and_no_link_is_followed(
    workers: Workers, stages: Stages, tmp_path: Path
) -> None:
    require_root()
    marked = layer(directory("a"), directory("a/b"), opaque("a/b"))
    for_root, for_users = OPAQUE_XATTRS
    for is_compromised in (False, True):
        stage = stages.make()
        unpack(workers, stage, marked)
        opaque_directory = stage.place.tree / "a/b"
        assert os.getxattr(opaque_directory, for_users) == b"y"
        with suppress(OSError):
            os.removexattr(opaque_directory, for_root)  # as if the worker had no right to set it
        if not is_compromised:
            stage.finish()
            [kept] = stages.kept.iterdir()
            assert os.getxattr(kept / layout.LAYER_TREE / "a/b", for_root) == b"y"
            continue
        outside = tmp_path / "outside"
        (outside / "b").mkdir(parents=True)
        (stage.place.tree / "a").rename(tmp_path / "aside")
        (stage.place.tree / "a").symlink_to(outside)
        with pytest.raises(NotADirectoryError):
            stage.finish()
        assert os.listxattr(outside / "b") == []


@pytest.mark.parametrize("name", ["layer", "layer/.metadata", "layer/.metadata/index.zst"])
def test_files_of_a_layer_that_others_can_change_are_refused(
    workers: Workers, stages: Stages, name: str
) -> None:
    stage = stages.make()
    unpack(workers, stage, SMALL)
    (stage.place.directory / name).chmod(0o777)
    with pytest.raises(UnexpectedFile, match="is not what it should be"):
        stage.finish()


def test_a_link_to_a_layer_in_place_of_a_layer_is_refused(workers: Workers, stages: Stages) -> None:
    stage, other = stages.make(), stages.make()
    for each in (stage, other):
        unpack(workers, each, SMALL)
    stage.place.layer.rename(stage.place.directory / "aside")
    stage.place.layer.symlink_to(other.place.layer)
    with pytest.raises(UnexpectedFile):
        stage.finish()


def test_no_more_workers_run_than_permitted(workers: Workers, stages: Stages) -> None:
    unpack(workers, stages.make(), SMALL)
    most = []

    def chunks() -> Any:
        yield SMALL.blob[:1]  # arrives before the worker is started
        most.append(len(children(server_pid(workers))))
        yield SMALL.blob[1:]

    with ThreadPoolExecutor(6) as pool:
        tasks = [
            pool.submit(workers.unpack, stages.make(), chunks(), job(SMALL)) for _ in range(12)
        ]
        assert {task.result().summary.files for task in tasks} == {1}
    assert len(most) == 12 and max(most) <= 2


def test_a_server_that_has_forked_no_worker_is_not_waited_for() -> None:
    with Workers(1, ENVIRONMENT) as opened:
        opened.start()
        running = opened._server._running
        assert running is not None
    assert running[1].returncode == -signal.SIGKILL


def test_a_server_that_has_forked_workers_ends_by_itself(workers: Workers, stages: Stages) -> None:
    unpack(workers, stages.make(), SMALL)
    running = workers._server._running
    assert running is not None
    workers.close()
    assert running[1].returncode == 0


def test_a_server_that_is_killed_is_started_again(workers: Workers, stages: Stages) -> None:
    unpack(workers, stages.make(), SMALL)
    before = descriptors()
    for _ in range(3):
        os.kill(server_pid(workers), signal.SIGKILL)
        with ThreadPoolExecutor(4) as pool:
            tasks = [pool.submit(unpack, workers, stages.make(), SMALL) for _ in range(4)]
        assert [task.result().summary.files for task in tasks] == [1] * 4
    assert descriptors() == before
    with pytest.raises(WorkerFailed, match=r"No such file.*--workers 0"):
        with pytest.MonkeyPatch.context() as patch, Workers(1) as unable:
            patch.setattr(fork_server, "COMMAND", ("/nonexistent",))
            unpack(unable, stages.make(), SMALL)
    with pytest.raises(WorkerFailed, match=r"server has ended.*--workers 0"):
        with pytest.MonkeyPatch.context() as patch, Workers(1) as unable:
            patch.setattr(fork_server, "COMMAND", ("/bin/false",))
            unpack(unable, stages.make(), SMALL)
    assert descriptors() == before


def test_workers_end_with_their_server_and_the_next_one_gets_a_new_one(
    workers: Workers, stages: Stages
) -> None:
    unpack(workers, stages.make(), SMALL)
    pids: list[int] = []

    def chunks() -> Any:
        yield SMALL.blob[:20]
        server = server_pid(workers)
        pids.extend(children(server))
        os.kill(server, signal.SIGKILL)
        yield SMALL.blob[20:]

    before = descriptors()
    with pytest.raises(WorkerEnded, match=r"ended with its server.*lower --workers"):
        workers.unpack(stages.make(), chunks(), job(SMALL))
    assert len(pids) == 1
    wait_until(lambda: not is_running(pids[0]))
    assert unpack(workers, stages.make(), SMALL).summary.files == 1
    assert descriptors() == before


_PUBLISHER = """
import sys, time
from pathlib import Path
from publisher.workers.pool import Workers
from test_workers import SMALL
from tests.worker_stages import Stages, children, job, server_pid

workers = Workers(1, {"PYTHONPATH": sys.argv[2]})

def chunks():
    yield SMALL.blob[:20]
    server = server_pid(workers)
    print(server, *children(server), flush=True)
    time.sleep(600)

workers.unpack(Stages(Path(sys.argv[1])).make(), chunks(), job(SMALL))
"""


def test_server_and_workers_end_with_a_publisher_that_is_killed(tmp_path: Path) -> None:
    top = str(Path(__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, "-c", _PUBLISHER, str(tmp_path), top],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": f"{top}:{Path(__file__).parent}", "PATH": os.environ["PATH"]},
        text=True,
    ) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 2
        process.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


_LIMITED = """
import resource, sys
from pathlib import Path
from publisher.errors import PublisherError
from publisher.workers.pool import Workers
from test_workers import SMALL
from tests.worker_stages import ENVIRONMENT, Stages, unpack

stages, hard = Stages(Path(sys.argv[1])), resource.getrlimit(resource.RLIMIT_NPROC)[1]
for limit in range(1, 7):
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, hard))
    try:
        with Workers(1, ENVIRONMENT) as workers:
            unpack(workers, stages.make(), SMALL)
    except PublisherError as error:
        print(error, flush=True)
    else:
        print("unpacked", flush=True)
"""


def test_a_limit_of_processes_that_a_worker_reaches_is_named_with_its_cure(tmp_path: Path) -> None:
    require_root()
    user = 60_000 + os.getpid() % 5_000  # that no other process has
    top = str(Path(__file__).parents[3])
    tmp_path.chmod(0o777)
    reading = "-all,+dac_read_search"  # of the files of Python
    ended = subprocess.run(
        [
            *(program("setpriv"), f"--reuid={user}", f"--regid={user}", "--clear-groups"),
            *(f"--inh-caps={reading}", f"--ambient-caps={reading}", f"--bounding-set={reading}"),
            *(sys.executable, "-c", _LIMITED, str(tmp_path)),
        ],
        env={"PYTHONPATH": f"{top}:{Path(__file__).parent}", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    refused = lines[: lines.index("unpacked")]
    assert len(refused) > 1 and set(lines[len(refused) :]) == {"unpacked"}
    for line in refused:  # the server, a worker, or what a worker starts
        assert "has as many processes and threads as it may have" in line
        assert "raise the limit" in line
    with pytest.raises(WorkerNotStarted, match=r"as it may have.*--workers 0"):
        parse_answer(encode_error(RuntimeError("can't start new thread")), job(SMALL))


def test_workers_compile_nothing_that_their_server_has_compiled() -> None:
    """What unpacks a layer after the server's own one finds its classes and patterns compiled."""
    program = (
        "import builtins, re\n"
        "from publisher.workers.warm_up import warm_up\n"
        "warm_up()\n"
        "del re.compile, builtins.exec\n"
        "warm_up()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
