"""`python -m bench.goals`: the goals of speed with what is measured, in one run.

    python -m bench.goals --baseline COMMIT [--rounds N]

Everything runs in turn, also the commands of an older commit, in a git worktree of its own. Run it
on an idle machine: times are those of the clock unless "CPU" is written. Then the same four images
are published with 0, 1 and 2 workers; from these times follow the fraction that is serial, and what
it predicts for more processors. Takes about ten minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import bulk, cvmfs, group_commit, start_up, unpack
from bench.measure import Command, Contender, Cost, measure, median
from bench.workers import IMAGES, ingest_with, print_prediction, write_images
from tests.any_repository import KINDS
from tests.command import succeed
from tests.components import docker_registry
from tests.cvmfs import make_machine
from tests.debian import cached
from tests.layer_builder import file, image, layer
from tests.registry import OwnRegistry

_ROOT = Path(__file__).parents[1]
_PUBLISHER = (sys.executable, "-m", "publisher")
_NOW = "publisher ingest-image"
_BEFORE = "baseline"
_SMALL_FILES = 40_000
_BULK = 60
_PASS = "python3 -c pass"
_PARTS = ("unpacking", "start_up", "nothing_to_do", "cvmfs", "group_commit", "at_once", "bulk")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.goals", description=__doc__)
    parser.add_argument("--baseline", metavar="COMMIT", help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, of which the median")
    parser.add_argument("--files", type=int, default=10_000, help="of each of four images at once")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where to work")
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=_PARTS)
    arguments = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, load ", end=""
    )
    print(f"{os.getloadavg()[0]:.1f}; Python {platform.python_version()}; medians of ", end="")
    print(f"{arguments.rounds} rounds")
    print(f"{'':52}{'goal':>10}{'measured':>10}{'x goal':>10}{'baseline':>10}")
    with ExitStack() as stack:
        work = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="bench-goals-", dir=arguments.folder)
        )
        os.environ["PUBLISHER_STATE"] = f"{work}/state"
        older = stack.enter_context(_worktree(arguments.baseline, Path(work)))
        goals = _Goals(Path(work), arguments.rounds, older, arguments.files)
        for part in arguments.parts:
            getattr(goals, part)()


@contextmanager
def _worktree(commit: str | None, work: Path) -> Iterator[Path | None]:
    """Yield a checkout of the commit, or None without one."""
    if commit is None:
        yield None
        return
    place = work / "baseline"
    git = ("git", "-C", str(_ROOT), "worktree")
    subprocess.run([*git, "add", "--quiet", "--detach", str(place), commit], check=True)
    try:
        yield place
    finally:
        subprocess.run([*git, "remove", "--force", str(place)], check=True)


class _Goals:
    """Measures and prints one goal after the other."""

    def __init__(self, work: Path, rounds: int, older: Path | None, files: int) -> None:
        self._work = work
        self._rounds = rounds
        self._older = older
        self._files = files

    def unpacking(self) -> None:
        """(a) and (b): one image, against pipelines of other programs."""
        layout = cached("bench-images", unpack.RECIPE, unpack.build_images) / "layout"
        others = {
            "science": "curl | tee >(sha256sum) | igzip | tar",
            "small": "sha256sum, tar -xzf (no network)",
        }
        with docker_registry(self._work / "registry") as registry:
            for tag, other in others.items():
                registry.push(f"oci:{layout}:{tag}", f"bench:{tag}", "--preserve-digests")
                found = unpack.contenders(registry, layout, tag)
                costs = self._measure({name: found[name] for name in (_NOW, other)}, _NOW)
                goal = 1.0 if tag == "science" else 1.8
                ratios = {n: c.wall / costs[other].wall for n, c in costs.items() if n != other}
                what = f"{unpack.IMAGES[tag]}: x {other.partition(' (')[0]}"
                _print_row(what[:51], goal, ratios[_NOW], ratios.get(_BEFORE))
        files = {name: cost.cpu / _SMALL_FILES * 1e6 for name, cost in costs.items()}
        _print_row("(b): CPU per file, us", 35, files[_NOW], files.get(_BEFORE))

    def start_up(self) -> None:
        """CPU of commands that reach no registry."""
        now = start_up.contenders(self._new("start"))
        before = start_up.contenders(self._new("start-before"), self._publish_before)
        older = {
            f"{_BEFORE} {name}": self._before(contender)
            for name, contender in before.items()
            if self._older is not None and name.startswith("publisher ") and self._works(contender)
        }
        costs = {
            name: median(each).cpu * 1000
            for name, each in measure(now | older, self._rounds, self._work).items()
        }
        for name in now:
            if name.startswith("publisher "):
                what = f"{name}: CPU, ms"
                _print_row(what, 120, costs[name], costs.get(f"{_BEFORE} {name}"))
        _print_row(f"{_PASS}: CPU, ms", None, costs[_PASS])

    def nothing_to_do(self) -> None:
        """An ingest that finds its image unchanged."""
        folder = self._new("nothing")
        with OwnRegistry() as registry:
            registry.add("bench/small", "1", image(layer(file("motd"))))
            machine = make_machine(folder / "machine")
            name = machine.make("bench.example.org")
            state = {"PUBLISHER_STATE": os.environ["PUBLISHER_STATE"]}
            os.environ.update(dict(machine.environment) | state)
            publish = ("ingest-image", f"http://{registry.host}/bench/small:1", "--repository")
            for kind, url in (("directory", f"dir:{folder}/images"), ("CVMFS", f"cvmfs:{name}")):
                succeed(*publish, url, env={**machine.environment, **state})
                is_first = kind == "directory"
                if is_first:
                    self._publish_before(*publish, f"{url}-before")
                older = _always(*publish, f"{url}-before") if is_first else None
                costs = self._measure({_NOW: _always(*publish, url)}, older)
                seconds = {each: cost.wall for each, cost in costs.items()}
                what = f"nothing to do, {kind}: s"
                _print_row(what, 0.25, seconds[_NOW], seconds.get(_BEFORE))

    def cvmfs(self) -> None:
        """The publisher's own part of a publication to CVMFS."""
        folder = self._new("cvmfs")
        layout = cvmfs.write_image(folder, 115, 9_000)
        parts = cvmfs.measure_parts(folder, layout, min(3, self._rounds))
        own = statistics.median(each.own for each in parts)
        _print_row("115 MB to CVMFS, without the server's time: s", 1.0, own)
        whole = statistics.median(each.whole for each in parts)
        _print_row("115 MB to CVMFS, with the stand-in's time: s", None, whole)

    def group_commit(self) -> None:
        """Six images that are ready together."""
        wishes = group_commit.make_list(self._new("group"), 6)
        for kind in KINDS:
            ways = {group: group_commit.publishing(kind, group, wishes) for group in (1, 16)}
            found = measure({str(n): way for n, way in ways.items()}, min(3, self._rounds))
            one, several = median(found["1"]).wall, median(found["16"]).wall
            _print_row(f"6 images, --group 16: x --group 1, {kind}", None, several / one)

    def at_once(self) -> None:
        """Four images at once; with different numbers of workers."""
        wishes = write_images(self._new("images"), self._files)
        counts = {
            str(count): lambda work, count=count: ingest_with(wishes, count, work)
            for count in (0, 1, 2)
        }
        words = (*_PUBLISHER, "ingest", "--quiet", wishes, "--repository")
        costs = self._measure({_NOW: lambda work: [(*words, work / "tree")], **counts}, _NOW)
        if self._older is not None:
            ratio = costs[_NOW].wall / costs[_BEFORE].wall
            _print_row("four images at once: x baseline", 0.6, ratio)
        _print_row("four images at once: s", None, costs[_NOW].wall, _wall(costs.get(_BEFORE)))
        total = IMAGES * self._files
        for count in (0, 1, 2):
            cost = costs[str(count)]
            _print_row(f"four images, --workers {count}: s", None, cost.wall)
            _print_row(
                f"four images, --workers {count}: CPU per file, us", None, cost.cpu / total * 1e6
            )
        print_prediction(wishes, self._new("prediction"), min(3, self._rounds))

    def bulk(self) -> None:
        """Many images that share bases, against skopeo and umoci."""
        folder = self._new("bulk")
        with docker_registry(folder / "registry") as registry:
            names = bulk.push_images(folder, registry, _BULK, 500)
            wishes = folder / "wishes.yaml"
            images = [{"image": f"http://{registry.host}/{name}"} for name in names]
            wishes.write_text(json.dumps({"version": 2, "images": images}))
            ways: dict[str, Contender] = {
                _NOW: lambda work: bulk.publish(wishes, work),
                "loop": lambda work: bulk.loop(registry, names, work),
            }
            costs = self._measure(ways, _NOW)
        now, loop, before = costs[_NOW], costs["loop"], costs.get(_BEFORE)
        what = f"{_BULK} images: {{}}: x skopeo, umoci"
        ratios = (None if before is None else before.wall / loop.wall, now.wall / loop.wall)
        _print_row(what.format("wall"), 1.0, ratios[1], ratios[0])
        ratios = (None if before is None else before.cpu / loop.cpu, now.cpu / loop.cpu)
        _print_row(what.format("CPU"), 1.0, ratios[1], ratios[0])

    def _measure(
        self, contenders: dict[str, Contender], older: Contender | str | None
    ) -> dict[str, Cost]:
        """Return medians, with those of `older` as it is in the baseline."""
        if isinstance(older, str):
            older = contenders[older]
        if self._older is not None and older is not None:
            contenders = contenders | {_BEFORE: self._before(older)}
        found = measure(contenders, self._rounds, self._work)
        return {name: median(each) for name, each in found.items()}

    def _before(self, contender: Contender) -> Contender:
        """Return the same commands of the baseline."""
        return lambda work: [self._command_before(each) for each in contender(work)]

    def _command_before(self, command: Command) -> Command:
        assert tuple(command[:3]) == _PUBLISHER
        variables = (f"PYTHONPATH={self._older}", f"PUBLISHER_STATE={self._work}/state-before")
        return ("env", *variables, sys.executable, "-P", "-m", "publisher", *command[3:])

    def _publish_before(self, *words: str | Path) -> None:
        if self._older is not None:
            command = [str(each) for each in self._command_before((*_PUBLISHER, *words))]
            subprocess.run(
                command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )

    def _works(self, contender: Contender) -> bool:
        """Return whether the baseline has the command."""
        [command] = contender(self._work)
        words = [str(each) for each in self._command_before(command)]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def _new(self, name: str) -> Path:
        (self._work / name).mkdir()
        return self._work / name


def _always(*words: str) -> Contender:
    return lambda _: [(*_PUBLISHER, *words)]


def _wall(cost: Cost | None) -> float | None:
    return None if cost is None else cost.wall


def _print_row(
    what: str, goal: float | None, measured: float, baseline: float | None = None
) -> None:
    cells: Sequence[float | None] = (goal, measured, goal and measured / goal, baseline)
    texts = ["" if cell is None else f"{cell:.{2 if cell < 20 else 0}f}" for cell in cells]
    missed = " missed" if goal is not None and measured > goal else ""
    print(f"{what:52}{texts[0]:>10}{texts[1]:>10}{texts[2]:>10}{texts[3]:>10}{missed}", flush=True)


if __name__ == "__main__":
    main()
