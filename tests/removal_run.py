"""`python -m tests.removal_run`: thousands of random sequences of publications and removals.

After every step the published tree is compared with a model of what must be in it
(tests/removal_machine.py has the rules). The sequences are tried in shares, each from a seed of its
own that reproduces it; the outcome contains how often each case was reached, and a case that was
never reached is a failure of the run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.removal_machine import EXECUTED, REACHED, Removal
from tests.removal_model import Source

SHARE = 100
STEPS = 30


def main() -> None:
    """Run the shares in several processes, and print what came of them."""
    parser = argparse.ArgumentParser(prog="tests.removal_run", description=__doc__)
    parser.add_argument("--sequences", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1, help="of the first share")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where to do it")
    arguments = parser.parse_args()
    shares = -(-arguments.sequences // SHARE)
    began = time.perf_counter()
    total: Counter[str] = Counter()
    failed = []
    with (
        tempfile.TemporaryDirectory(prefix="removal-", dir=arguments.folder) as folder,
        ProcessPoolExecutor(arguments.processes, max_tasks_per_child=1) as pool,
    ):
        runs = {
            pool.submit(_run_share, folder, number): number
            for number in range(arguments.seed, arguments.seed + shares)
        }
        for done in as_completed(runs):
            error = done.exception()
            if error is not None:
                failed.append(runs[done])
                print(f"seed {runs[done]}: {''.join(_lines(error))}", flush=True)
                continue
            total.update(done.result())
            print(
                f"{total['sequences']} sequences, {total['steps']} steps, {total['kills']} kills, "
                f"{time.perf_counter() - began:.0f} s",
                flush=True,
            )
    for name in REACHED:
        print(f"{total[name]:8}  {name}")
    missed = [name for name in REACHED if not total[name]]
    if failed or missed:
        sys.exit(f"failed: seeds {sorted(failed)}; never reached: {missed}")


def _lines(error: BaseException) -> list[str]:
    return [str(error.__cause__ or error), "\n", *getattr(error, "__notes__", [])]


def _run_share(folder: str, number: int) -> Counter[str]:
    place = Path(folder, str(number))
    place.mkdir()
    return run(place, SHARE, number)


def run(folder: Path, sequences: int, number: int | None = None) -> Counter[str]:
    """Try so many sequences in `folder`; what was done and reached.

    With `number` as a seed it is the same at every time, and a failure is reported as it was found,
    without looking for a shorter one.
    """

    class Here(Removal):
        pass

    Here.folder, Here.source = folder, Source(folder / "app")
    before = EXECUTED.copy()
    run_state_machine_as_test(
        Here if number is None else seed(number)(Here),
        settings=settings(
            max_examples=sequences,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        ),
    )
    return EXECUTED - before


if __name__ == "__main__":
    main()
