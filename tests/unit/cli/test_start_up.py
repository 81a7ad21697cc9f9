"""Which modules a command loads: those that it uses, since loading is most of a short command."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from publisher.cli import main
from publisher.cli.summaries import GROUPS, SUMMARIES
from tests.command import environment, publisher, succeed
from tests.cvmfs import make_machine
from tests.layer_builder import file, image, layer, write_layout
from tests.registry import OwnRegistry

# Loads what all commands load, and forks for each: prints the modules that the child has then.
_PROGRAM = """
import json, os, sys
import publisher.cli.main
for line in sys.stdin:
    arguments, variables = json.loads(line)
    sys.stdout.flush()
    if os.fork() == 0:
        os.environ.update(variables)
        sys.argv = ["publisher", *arguments]
        output = os.dup(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            publisher.cli.main.main()
        except SystemExit as end:
            os.write(output, json.dumps([end.code, sorted(sys.modules)]).encode() + b"\\n")
            os._exit(0)
    os.wait()
"""
_TO_PUBLISH = (
    *("publisher.repository.directory.transaction", "publisher.layers.unpack"),
    *("isal", "fastcrc", "filelock", "ctypes"),
)
_OF_REGISTRIES = (
    *("publisher.sources.http", "publisher.sources.registry", "publisher.sources.credentials"),
    *("requests", "urllib3", "docker", "oras", "http", "ssl", "email"),
)
_NEVER = (
    *("publisher.repository.cvmfs.repository", "publisher.snapshotter"),
    *("cryptography", "sigstore", "apprise", "grpc", "prometheus_client", "rich", "packaging"),
)
_NO_WISH_LISTS = ("yaml", "publisher.wishlist", "publisher.sources", "publisher.ingest")
_NO_STATE = ("sqlite3", "publisher.state.store")
_NO_PROGRAMS = ("subprocess", "tempfile")
_NO_PUBLISHING = (
    *("publisher.ingest.new_image", "publisher.ingest.commit", "publisher.ingest.causes"),
    *("publisher.ingest.thin_push", "publisher.workers.job", "publisher.workers.answers"),
    *("publisher.sandbox", "publisher.layers.index", "publisher.packages", "publisher.policy"),
    *("publisher.runtimes", "publisher.thin", "publisher.removal", "publisher.verify"),
    *("publisher.notify.parse", "publisher.metrics.textfile", "publisher.cli.events"),
    *("publisher.oci.config", "tarfile", "_strptime"),
)
_NO_CVMFS_TRANSACTION = (
    *("publisher.repository.cvmfs.transaction", "publisher.repository.cvmfs.sending"),
    "publisher.layers.replay",
)
_NOTHING = (*_NO_WISH_LISTS, *_NO_STATE, *_NO_PROGRAMS, "zstandard", "publisher.layers")

# Each command with its exit code, and what it does not load beside the three lists above.
_READING = {
    ("--help",): _NOTHING,
    ("version",): (*_NOTHING, "publisher.repository.directory"),
    ("list",): (*_NO_WISH_LISTS, *_NO_STATE, *_NO_PROGRAMS),
    ("show", "local/one:1"): (*_NO_WISH_LISTS, *_NO_STATE, *_NO_PROGRAMS),
    ("ls", "local/one:1"): (*_NO_WISH_LISTS, *_NO_STATE, "subprocess"),
    ("diff", "local/one:1", "local/one:1"): (*_NO_WISH_LISTS, *_NO_STATE, "subprocess"),
    ("find", "motd"): (*_NO_WISH_LISTS, *_NO_STATE, "subprocess"),
    ("du", "local/one:1"): (*_NO_WISH_LISTS, *_NO_STATE, *_NO_PROGRAMS),
    ("stats",): (*_NO_WISH_LISTS, *_NO_STATE, *_NO_PROGRAMS),
    ("log",): (*_NO_WISH_LISTS, *_NO_STATE, *_NO_PROGRAMS, "hashlib", "zstandard"),
    ("schedule",): ("yaml", *_NO_STATE, *_NO_PROGRAMS, "hashlib"),
    ("gc", "--dry-run"): ("yaml", *_NO_STATE, *_NO_PROGRAMS, "hashlib"),
    ("runs",): ("yaml", *_NO_PROGRAMS, "zstandard"),
    ("status",): ("yaml", "publisher.ingest.image", "subprocess", "tempfile"),
    ("status", "wishlist.yaml"): ("publisher.ingest.image", "subprocess", "tempfile"),
    ("plan", "wishlist.yaml"): ("publisher.ingest.image", *_NO_STATE, "subprocess"),
    ("prune", "--dry-run", "wishlist.yaml"): ("publisher.ingest.image", "subprocess"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a wish list of one image, which is published."""
    layout = write_layout(image(layer(file("motd"))), tmp_path / "layout", "1")
    (tmp_path / "wishlist.yaml").write_text(
        f"version: 2\nimages:\n- image: oci:{layout}:1\n  name: one\n"
    )
    succeed("ingest", tmp_path / "wishlist.yaml", "--repository", tmp_path / "images")
    return tmp_path


def test_a_command_that_reaches_no_registry_loads_only_what_it_uses(folder: Path) -> None:
    variables = {"PUBLISHER_REPOSITORY": f"dir:{folder}/images"}
    completion = {"_PUBLISHER_COMPLETE": "bash_complete", "COMP_WORDS": "publisher sho"}
    requests = [(arguments, variables) for arguments in _READING]
    requests += [((), variables | completion)]
    answers = _loaded(folder, requests)
    expected = [*_READING.items(), (("completion of a command",), _NOTHING)]
    outcomes = []
    for (arguments, unused), (code, loaded) in zip(expected, answers, strict=True):
        needless = (*unused, *_TO_PUBLISH, *_OF_REGISTRIES, *_NEVER)
        outcomes.append((arguments, code, _among(loaded, needless)))
    assert outcomes == [(arguments, 0, []) for arguments, _ in expected]


def test_a_check_of_the_repository_loads_neither_what_repairs_it_nor_the_other_backend(
    folder: Path,
) -> None:
    variables = {"PUBLISHER_REPOSITORY": f"dir:{folder}/images"}
    answers = _loaded(folder, [((command,), variables) for command in ("verify", "doctor")])
    needless = (
        *("publisher.verify.repair", "publisher.verify.refetch", "publisher.layers.unpack"),
        *("publisher.repository.cvmfs.machine", "isal", "fastcrc", *_OF_REGISTRIES, *_NEVER),
    )
    assert [_among(loaded, needless) for _, loaded in answers] == [[], []]


def test_an_ingest_of_an_unchanged_image_loads_nothing_that_fetches_or_publishes(
    tmp_path: Path,
) -> None:
    machine = make_machine(tmp_path / "machine")
    cvmfs = f"cvmfs:{machine.make('start.example.org')}"
    with OwnRegistry() as registry:
        registry.add("tools/one", "1", image(layer(file("motd"))))
        reference = f"http://{registry.host}/tools/one:1"
        (tmp_path / "wishlist.yaml").write_text(f"version: 2\nimages:\n- image: {reference}\n")
        commands: list[tuple[tuple[str, ...], dict[str, str]]] = []
        for url in (f"dir:{tmp_path}/images", cvmfs):
            variables = {**machine.environment, "PUBLISHER_REPOSITORY": url}
            succeed("ingest", tmp_path / "wishlist.yaml", env=variables)
            commands += [
                (("ingest", "wishlist.yaml"), variables),
                (("ingest-image", reference), variables),
            ]
        answers = _loaded(tmp_path, commands)
    needless = (*_NO_PUBLISHING, *_TO_PUBLISH[:-2], "docker", "oras.provider", "requests")
    of_backends = [(*_NEVER,)] * 2 + [(*_NEVER[1:], *_NO_CVMFS_TRANSACTION)] * 2
    of_commands = [(), ("yaml",)] * 2
    found = [
        (code, _among(loaded, (*needless, *of_backend, *of_command)))
        for (code, loaded), of_backend, of_command in zip(
            answers, of_backends, of_commands, strict=True
        )
    ]
    assert found == [(0, [])] * 4


def _among(loaded: list[str], needless: tuple[str, ...]) -> list[str]:
    """Return those of the loaded modules that are needless, or inside a needless package."""
    below = tuple(f"{each}." for each in needless)
    return [name for name in loaded if name in needless or name.startswith(below)]


def _loaded(
    folder: Path, requests: list[tuple[tuple[str, ...], dict[str, str]]]
) -> list[tuple[int, list[str]]]:
    """Return exit code and loaded modules of each command, which has arguments and variables."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=folder,
        env=environment(folder, PYTHONPATH=str(Path(main.__file__).parents[2])),
        input="".join(json.dumps(request) + "\n" for request in requests),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_help_and_completion_show_the_first_sentence_of_each_command(tmp_path: Path) -> None:
    for name, target in main._COMMANDS.items():
        module, _, attribute = target.partition(":")
        text = getattr(importlib.import_module(module), attribute).help
        paragraph = " ".join(text.partition("\n\n")[0].split())
        first = re.split(r"(?<!\.)\.(?: |$)", paragraph, maxsplit=1)[0]  # not at "WISHLIST..."
        assert (name, SUMMARIES[name]) == (name, first)
    assert list(SUMMARIES) == list(main._COMMANDS)
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(SUMMARIES)

    shell = {"_PUBLISHER_COMPLETE": "fish_complete", "COMP_WORDS": "publisher sh"}
    shell["COMP_CWORD"] = "sh"
    assert "Show everything about a published IMAGE" in publisher(env=shell).out
