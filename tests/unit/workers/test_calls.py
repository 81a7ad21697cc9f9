"""Functions that read are called in several processes, whatever happens to these."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_BEGIN = """
import os, signal, sys
from publisher.workers.calls import call_all

def in_a_child(number):
    return number, os.getpid() != parent

def raises(number):
    raise ValueError(f"call {number} in {'a child' if os.getpid() != parent else 'the parent'}")

def killed(number):
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return number, "again"

def cannot_be_pickled(number):
    return number, sys.stdout if os.getpid() != parent else "again"

parent, begun = os.getpid(), []

def run(processes, *calls):
    calls = [lambda call=call, number=number: call(number) for number, call in enumerate(calls)]
    return call_all(calls, processes, begun.append)

def require_none_left():
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return
    raise AssertionError("a process is left")
"""


def run(code: str, tmp_path: Path) -> None:
    """Run this in a process with one thread, which the process of a test may not be."""
    script = tmp_path / "script.py"
    script.write_text(f"{_BEGIN}\n{code}\nrequire_none_left()\n")
    subprocess.run([sys.executable, script], check=True, timeout=60)


def test_results_are_in_order_and_the_work_is_done_by_other_processes(tmp_path: Path) -> None:
    run(
        """
assert run(3, *[in_a_child] * 20) == [(number, True) for number in range(20)]
assert sorted(begun) == list(range(20))
for processes in (0, 1):
    begun.clear()
    assert run(processes, *[in_a_child] * 3) == [(number, False) for number in range(3)]
    assert begun == [0, 1, 2]
assert run(2) == []
assert run(2, in_a_child) == [(0, False)]
import threading
waiting = threading.Event()
thread = threading.Thread(target=waiting.wait)
thread.start()
assert run(2, in_a_child, in_a_child) == [(0, False), (1, False)], "locks may be held"
waiting.set()
thread.join()
""",
        tmp_path,
    )


def test_what_fails_in_another_process_is_done_again_and_raises_there(tmp_path: Path) -> None:
    run(
        """
found = run(2, in_a_child, killed, *[in_a_child] * 5)
assert found[1] == (1, "again") and {each[0] for each in found} == set(range(7))
found = run(2, killed, killed, in_a_child)
assert found == [(0, "again"), (1, "again"), (2, False)], "without any process"
found = run(2, in_a_child, cannot_be_pickled, in_a_child)
assert found[1] == (1, "again")
def never_ends(number):
    import time
    time.sleep(600)

try:
    run(2, never_ends, raises)
except ValueError as error:
    assert str(error) == "call 1 in the parent"
else:
    raise AssertionError
""",
        tmp_path,
    )


def test_without_space_for_processes_fewer_or_none_do_the_work(tmp_path: Path) -> None:
    run(
        """
import multiprocessing.connection, resource
run(2, in_a_child, in_a_child)  # loads what opens files
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
for free, children in ((1, {False}), (3, {True})):
    least = 0
    while os.path.exists(f"/proc/self/fd/{least}"):
        least += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (least + free, hard))
    found = run(3, *[in_a_child] * 6)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert [number for number, _ in found] == list(range(6))
    assert {child for _, child in found} == children, (free, found)
""",
        tmp_path,
    )


def test_an_interrupt_ends_all_processes(tmp_path: Path) -> None:
    run(
        """
import time

def sleeps(number):
    time.sleep(600)

def interrupts(number):
    os.kill(parent, signal.SIGINT)  # once: another one would interrupt the end of the processes
    sleeps(number)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
try:
    run(2, sleeps, interrupts)
except KeyboardInterrupt:
    pass
else:
    raise AssertionError
""",
        tmp_path,
    )
