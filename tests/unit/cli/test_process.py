"""How the process of a command starts and ends: `publisher.__main__`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import environment

# Runs a command, which is interrupted when it begins to load the named module.
_INTERRUPTED = """
import os, signal, sys
module, ignored = sys.argv.pop(1), sys.argv.pop(1)
if ignored == "ignored":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
class Interrupting:
    def find_spec(name, path, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting)
from publisher.__main__ import main
main()
"""

# Runs a command with an exit function, and with a thread that ends after the main thread.
_ENDING = """
import atexit, os, signal, sys, threading
from publisher.__main__ import main
import publisher.cli.version
run = publisher.cli.version.version.callback
def replaced(**options):
    if sent := os.environ.get("INTERRUPTED"):
        atexit.register(os.kill, os.getpid(), signal.Signals[sent])
    atexit.register(print, "exit function")
    main_ends = threading.main_thread().join
    threading.Thread(target=lambda: (main_ends(), print("thread"))).start()
    run(**options)
    return 3
publisher.cli.version.version.callback = replaced
main()
"""


def _run(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment(PYTHONPATH=str(Path(__file__).parents[3])) | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("module", ["click", "publisher.cli.failures", "publisher.cli.images"])
def test_an_interrupt_while_a_command_is_loaded_ends_it_without_a_word(module: str) -> None:
    done = _run(_INTERRUPTED, module, "", "list", "--repository", "/nonexistent")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_an_interrupt_while_a_command_runs_is_reported_without_a_traceback() -> None:
    loaded_later = "publisher.repository.directory.repository"
    done = _run(_INTERRUPTED, loaded_later, "", "list", "--repository", "/nonexistent")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "\npublisher: interrupted; the next run goes on from there\n"


def test_a_command_that_was_started_with_interrupts_ignored_ignores_them() -> None:
    for module in ("click", "platform"):
        done = _run(_INTERRUPTED, module, "ignored", "version")
        assert (done.returncode, done.stderr) == (0, "")


def test_the_end_of_a_command_waits_for_threads_and_calls_the_exit_functions() -> None:
    done = _run(_ENDING, "version")
    version, *others = done.stdout.splitlines()
    assert version.startswith("publisher ")
    assert (done.returncode, others, done.stderr) == (3, ["thread", "exit function"], "")


@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM"])
def test_an_interrupt_at_the_end_of_a_command_ends_it_without_a_word(sent: str) -> None:
    done = _run(_ENDING, "version", INTERRUPTED=sent)
    assert (done.returncode, done.stderr) == (130, "")
