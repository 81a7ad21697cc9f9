"""Progress of an ingest: on a terminal, elsewhere, and when it is interrupted."""

from __future__ import annotations

import io
import re
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

from publisher.cli.live_progress import LiveProgress
from publisher.codec import JsonObject
from publisher.ingest.report import Outcome, Status
from publisher.repository.lock import new_lock
from publisher.times import utc_now
from publisher.tree import layout
from publisher.tree.schedule import RemoveSchedule, ScheduledRemoval
from tests.any_repository import NAME, make_repository
from tests.command import command, succeed
from tests.layer_builder import file, image, layer, write_layout
from tests.processes import wait_until
from tests.registry import OwnRegistry
from tests.registry_faults import slow
from tests.registry_images import sample_image
from tests.terminal import Screen, Terminal

IMAGE = "registry.example.org/astronomy/stimela/casa:1.7.1"
FIRST, SECOND = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_the_first_interrupt_is_shown_and_no_live_line_remains(tmp_path: Path) -> None:
    with OwnRegistry() as registry:
        registry.add("team/x", "1", sample_image())
        registry.misbehave(slow(delay=20), path="/blobs/")
        reference = f"{registry.url}/team/x:1"
        terminal = Terminal(command("ingest-image", reference, "--repository", tmp_path / "images"))
        wait_until(lambda: terminal.shows("fetching"))
        terminal.type(b"\x03")
        wait_until(lambda: terminal.shows("interrupt again to stop at once"))
        assert terminal.wait() == 130
    lines = terminal.screen.lines
    assert lines[0].startswith("publisher: stopping after the running steps")
    assert lines[-1] == "publisher: interrupted; the next run goes on from there"
    assert not [line for line in lines if "fetching" in line]
    assert terminal.screen.has_cursor


@pytest.mark.parametrize(
    ("kind", "waits_for"),
    [
        ("directory", "lock"),
        ("directory", "lock before the first image"),
        ("cvmfs", "lock"),
        ("cvmfs", "server"),
    ],
)
def test_the_first_interrupt_ends_a_wait_for_others(
    kind: str, waits_for: str, tmp_path: Path
) -> None:
    place = make_repository(kind, tmp_path)
    write_layout(image(layer(file("a"))), tmp_path / "layout", "1")
    words = ("ingest-image", f"oci:{tmp_path}/layout:1", "--repository", place.url)
    with ExitStack() as others:
        if waits_for.startswith("lock"):
            place.state.mkdir(parents=True, exist_ok=True)
            if waits_for != "lock":  # to convert what an earlier release wrote
                retired = ScheduledRemoval(
                    *("a:1", "a:1", FIRST, FIRST, JsonObject("{}"), "removed", utc_now(), utc_now())
                )
                schedule = RemoveSchedule((retired,)).to_bytes()
                (place.root / layout.REMOVE_SCHEDULE).write_bytes(schedule)
            others.enter_context(new_lock(place.state / "lock"))
        else:
            assert place.machine is not None
            place.machine.server("transaction", NAME)
            others.callback(place.machine.server, "abort", "-f", NAME)
        terminal = Terminal(command(*words, "--wait", "100000"), **place.env)
        wait_until(lambda: terminal.shows("waiting for"))
        terminal.type(b"\x03")
        assert terminal.wait() == 130
    assert terminal.screen.lines[-1] == "publisher: interrupted; the next run goes on from there"
    succeed(*words, env=place.env)


@pytest.fixture
def live() -> tuple[LiveProgress, io.StringIO]:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=80, height=24, _environ={})
    return LiveProgress(console), written


def shown(written: io.StringIO) -> Screen:
    screen = Screen()
    screen.feed(written.getvalue().replace("\n", "\r\n").encode())
    return screen


def test_a_terminal_shows_the_image_of_each_layer_and_total_rate_and_eta(
    live: tuple[LiveProgress, io.StringIO],
) -> None:
    progress, written = live
    with progress:
        progress.run_started(3)
        progress.image_step(IMAGE, "fetching")
        progress.layers_expected(IMAGE, {FIRST: 40_000_000, SECOND: 60_000_000})
        for digest, size in ((FIRST, 40_000_000), (SECOND, 60_000_000)):
            progress.layer_started(digest, size)
        progress.layer_advanced(FIRST, 40_000_000)
        progress.layer_done(FIRST)
        progress.layer_advanced(SECOND, 10_000_000)
        progress._live.refresh()
        lines = shown(written).lines
    assert lines[0].endswith(f"{IMAGE}: fetching")
    assert re.search(r"stimela/casa:1\.7\.1 bbbbbbbb .* 10\.0/60\.0 MB", lines[1])
    assert re.search(r"0/3 requests, 1/2 layers .* 50\.0/100\.0 MB \S.* ETA", lines[2])
    assert len(lines) == 3
    assert shown(written).lines == []


def test_a_failed_layer_no_longer_counts_as_work(live: tuple[LiveProgress, io.StringIO]) -> None:
    progress, written = live
    with progress:
        progress.run_started(1)
        progress.layers_expected(IMAGE, {FIRST: 40_000_000, SECOND: 60_000_000})
        progress.layer_started(FIRST, 40_000_000)
        progress.layer_advanced(FIRST, 1_000_000)
        progress.layer_done(FIRST)
        progress._live.refresh()
        assert re.search(r"1\.0/61\.0 MB", shown(written).lines[-1])


def test_closing_the_display_twice_restores_the_terminal_once(
    live: tuple[LiveProgress, io.StringIO],
) -> None:
    progress, written = live
    with progress:
        progress.image_step(IMAGE, "publishing")
        progress.close()
        assert shown(written).has_cursor and shown(written).lines == []
        before = written.getvalue()
    assert written.getvalue() == before


def test_results_and_messages_stay_above_the_live_lines(
    live: tuple[LiveProgress, io.StringIO], capsys: pytest.CaptureFixture[str]
) -> None:
    progress, written = live
    with progress:
        progress.image_step("a/x:1", "publishing")
        progress.notice("the registry asks to wait")
        progress.image_done(Outcome("a/x:1", "a/x:1", Status.PUBLISHED))
    assert shown(written).lines == ["publisher: the registry asks to wait", "a/x:1: published"]
    assert capsys.readouterr().err == ""


def test_plain_lines_name_the_image_of_each_layer_and_how_far_the_run_is(tmp_path: Path) -> None:
    built = image(layer(file("a", b"x" * 100)), layer(file("b", b"y" * 100)))
    layout = write_layout(built, tmp_path / "layout", "1")
    arguments = ("--repository", tmp_path / "images", "--jobs", "1")
    lines = succeed("ingest-image", f"oci:{layout}:1", *arguments).err.splitlines()
    assert re.fullmatch(r"local/layout:1: 2 layers to fetch, \d+ B", lines[1])
    for number, line in enumerate(lines[2:4], 1):
        assert re.fullmatch(
            rf"local/layout:1: layer sha256:\w{{12}}: \d+ B, .*/s \({number} of 2 layers, .*\)",
            line,
        )
    assert lines[-1] == "local/layout:1: published (1 of 1)"
