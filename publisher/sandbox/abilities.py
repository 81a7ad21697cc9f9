"""What this machine can do to confine worker processes, and what the lack of it means."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.sandbox.confinement import Confinement, Measure, confine
from publisher.sandbox.errors import SandboxError


@dataclass(frozen=True, slots=True)
class Ability:
    """A measure, and whether this machine has it. `meaning` and `remedy` are set if it does not."""

    measure: Measure
    present: bool
    meaning: str = ""
    remedy: str = ""


def abilities() -> Sequence[Ability]:
    """Return which measures this user and kernel have, as a child process finds out.

    Raises:
        SandboxError: A process cannot be confined at all.
    """
    missing = _missing()
    return [
        Ability(each, False, *_explain(each, missing)) if each in missing else Ability(each, True)
        for each in Measure
    ]


def _missing() -> Sequence[Measure]:
    """Confine a child process, and return the measures that it lacks."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _report(writer)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as answers:
        lines = answers.read().splitlines()
    os.waitpid(child, 0)
    if not lines or lines[-1] != "end":
        raise SandboxError("cannot confine a worker process", why=": ".join(lines) or "it ended")
    return [Measure(line) for line in lines[:-1]]


def _report(writer: int) -> None:
    try:
        lines = [*confine(Confinement(Path("/"), (writer,))), "end"]
    except PublisherError as error:
        lines = [error.why or error.what]
    os.write(writer, "\n".join(lines).encode("utf-8", "replace"))
    os._exit(0)


def _explain(measure: Measure, missing: Sequence[Measure]) -> tuple[str, str]:
    match measure:
        case Measure.ROOT if os.geteuid() == 0:
            return (
                "root lacks CAP_SYS_CHROOT here: a compromised worker could change owners, modes "
                "and times of files outside of its layer",
                "add the capability (CapabilityBoundingSet of systemd, docker run --cap-add)",
            )
        case Measure.ROOT:
            return (
                "this user may not create user namespaces: a compromised worker could change modes "
                "and times of other files of the user",
                "permit it (sysctl kernel.unprivileged_userns_clone=1, RestrictNamespaces=user of "
                "systemd), or publish as root",
            )
        case Measure.LANDLOCK:
            rest = (
                "could read and change all files that the publishing user can"
                if Measure.ROOT in missing
                else "is kept from other files only by its root directory"
            )
            return (
                f"the kernel lacks it, or a container refuses it: a compromised worker {rest}",
                "use Linux 5.19 or later, with landlock in its parameter lsm=",
            )
        case Measure.SYSTEM_CALLS:
            return (
                "the kernel lacks it, a container refuses it, or the architecture is not "
                "supported: a compromised worker could use the network, and every call of the "
                "kernel",
                "permit seccomp in the container, or use a kernel with CONFIG_SECCOMP_FILTER on "
                "x86_64 or aarch64",
            )
