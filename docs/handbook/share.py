"""What is installed beside the program: man pages and completion scripts, in build/share."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

COMPLETIONS = {
    "bash": "bash-completion/completions/publisher",
    "zsh": "zsh/site-functions/_publisher",
    "fish": "fish/vendor_completions.d/publisher.fish",
}
"""Where each shell looks for a script, below share/."""


def write_share(man: Path, target: Path) -> None:
    """Fill the directory `target` with the man pages in `man`, and with the scripts."""
    shutil.rmtree(target, ignore_errors=True)
    (target / "man/man1").mkdir(parents=True)
    for page in sorted(man.glob("*.1")):
        shutil.copyfile(page, target / "man/man1" / page.name)
    for shell, place in COMPLETIONS.items():
        script = subprocess.run(
            [sys.executable, "-m", "publisher", "completion", shell],
            stdout=subprocess.PIPE,
            check=True,
        )
        (target / place).parent.mkdir(parents=True)
        (target / place).write_bytes(script.stdout)
