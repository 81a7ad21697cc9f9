"""How a command starts and ends, as `python -m publisher` and as the script `publisher`.

Loading modules is most of a short command, so that each command begins and ends here, and not in
`publisher.cli.main`, which loads all that commands share.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys

_INTERRUPTED = 130  # as in publisher.cli.failures, which takes long to load


def main() -> None:
    """Load the command line, run it, and end the process with its exit code."""
    # Until the command is loaded (publisher.cli.main), Python would print where it was interrupted.
    _end_on(signal.SIGINT)
    gc.disable()  # until then as well: nothing of what is loaded becomes unreachable
    end = _End()
    atexit.register(end)  # what is registered first is called last
    from publisher.cli.main import main as run

    try:
        run()
    except SystemExit as error:
        _end_on(signal.SIGINT, signal.SIGTERM)  # only the exit functions are left
        end.code = error.code
        raise


def _end_on(*signals: signal.Signals) -> None:
    """Let the signals end the process without a message, unless they are ignored."""
    for each in signals:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, lambda number, frame: os._exit(_INTERRUPTED))


class _End:
    """Ends the process without deleting its objects one by one, after all other exit functions."""

    def __init__(self) -> None:
        self.code: object = None

    def __call__(self) -> None:
        if not isinstance(self.code, int):
            return  # an unexpected error: Python prints it
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            return  # Python tries it again, and reports it
        os._exit(self.code)


if __name__ == "__main__":
    main()
