"""The root of the error hierarchy, and functions that make text from outside safe to print."""

import errno
import logging
import re
import sys
from collections.abc import Iterator

from publisher.lazy import pattern

_log = logging.getLogger(__name__)

_SHOWN = 100
"""The most characters of a text that a message quotes."""

_BEFORE_DIGEST = pattern(r"(?P<rest>.*)@sha(?:256|512):[^/@]*", re.DOTALL)


def printable(text: str, *, keep_line_breaks: bool = False) -> str:
    """Return `text` with every character escaped that a terminal or a log would interpret.

    Control characters, escape sequences, line breaks, bidirectional overrides and lone surrogates
    become Python escapes (`\\x1b`, `\\n`, `\\u202e`). Every string that comes from outside (a
    registry, an image, a wish list, a file of the tree) passes through here before it is printed.
    With `keep_line_breaks`, a line feed stays as it is.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or (keep_line_breaks and c == "\n") else ascii(c)[1:-1] for c in text
    )


def presentable(text: str) -> str:
    """Return text from outside for a message: without credentials, escaped, and shortened.

    The part before an '@' that no digest follows may be a user name and a password.
    """
    return shorten(printable(_without_credentials(text)))


def install_hint(extra: str) -> str:
    """Return how the packages of an extra are installed beside this publisher.

    The name `publisher` of PyPI belongs to another program.
    """
    return f"in a checkout of the publisher: {sys.executable} -m pip install '.[{extra}]'"


def shorten(text: str) -> str:
    """Return `text`, or its beginning if it is long."""
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "…"


def _without_credentials(text: str) -> str:
    match = _BEFORE_DIGEST.fullmatch(text)
    rest = match["rest"] if match else text
    if "@" not in rest:
        return text
    return "…@" + rest.rpartition("@")[2] + text[len(rest) :]


class PublisherError(Exception):
    """A failure that the program understands and can explain.

    `what` names what failed and on what ("cannot fetch docker.io/library/debian:stable"), `why` the
    cause as far as it is known, and `hint` one action or command that helps. Secrets never belong
    in any of the three. They may quote text from outside: control characters are escaped, except
    line breaks.
    """

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = printable(what, keep_line_breaks=True)
        self.why = printable(why, keep_line_breaks=True)
        self.hint = printable(hint, keep_line_breaks=True)

    def __str__(self) -> str:
        text = f"{self.what}: {self.why}" if self.why else self.what
        return f"{text} ({self.hint})" if self.hint else text


_AS_OWNER = "run the command as a user with that permission, such as the owner of the repository"
_CAUSES = {
    errno.EACCES: ("permission denied", _AS_OWNER),
    errno.EPERM: ("operation not permitted", _AS_OWNER),
    errno.ENOSPC: ("No space left on device", "free space, for example with `publisher gc`"),
    errno.EDQUOT: ("the disk quota is used up", "raise the quota, or free space"),
    errno.EROFS: ("the file system is mounted read-only", "mount it read-write"),
    errno.EFBIG: (
        "the file is larger than a file may be",
        "raise the limit (ulimit -f unlimited), or choose another file system",
    ),
    errno.EMLINK: (
        "its directory has as many subdirectories as its file system allows",
        "choose a file system with a higher limit, such as ext4 or xfs",
    ),
    errno.EMFILE: (
        "this process has too many files open",
        "raise the limit (ulimit -n 4096), or lower --jobs",
    ),
    errno.ENFILE: ("the system has too many files open", "raise fs.file-max, or lower --jobs"),
    errno.ENOTSUP: ("its file system does not support that", "choose another file system"),
    errno.EIO: ("the disk reports an error (EIO)", "look at the kernel's log: dmesg"),
}
"""For errors of a file system: the cause in words for a user, and a hint."""

NO_PROCESS = "this user, or its control group, has as many processes and threads as it may have"
MORE_PROCESSES = "raise the limit (ulimit -u, or TasksMax of the systemd unit), or lower --jobs"


def explain(error: Exception) -> PublisherError:
    """Return `error` as an error with what, why and hint; a PublisherError is returned unchanged.

    The text of an OSError ("[Errno 27] File too large") does not tell a user what to do.
    """
    if isinstance(error, PublisherError):
        return error
    if is_process_limit(error):
        return PublisherError(
            "cannot start a process or thread", why=NO_PROCESS, hint=MORE_PROCESSES
        )
    if not isinstance(error, OSError):
        return PublisherError("cannot continue", why=f"{type(error).__name__}: {error}")
    name = error.filename2 or error.filename
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    # An operation on an open file names its descriptor.
    what = (
        "cannot complete the command" if not name or isinstance(name, int) else f"cannot use {name}"
    )
    cause = error.strerror or str(error) or type(error).__name__
    why, hint = _CAUSES.get(error.errno or 0, (cause, ""))
    if cause.startswith("No usable temporary directory"):  # of tempfile
        hint = "set TMPDIR to a directory in which this user may create files"
    return PublisherError(what, why=why, hint=hint)


def is_process_limit(error: BaseException) -> bool:
    """Return whether a process or thread could not be started because there are too many."""
    if isinstance(error, RuntimeError):  # Python has no other sign of it
        return str(error).startswith("can't start new thread")
    return isinstance(error, OSError) and error.errno == errno.EAGAIN and not error.filename


def is_resource_limit(error: OSError) -> bool:
    """Return whether descriptors or memory ran out: nothing is wrong with the file itself."""
    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def failure_text(error: Exception, name: str) -> str:
    """Return why `name` failed; the traceback of an unexpected error goes to the log."""
    if isinstance(error, PublisherError | OSError) or is_process_limit(error):
        return str(explain(error))
    _log.error("unexpected error at %s", name, exc_info=error)
    return f"unexpected error: {type(error).__name__}: {error}"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and the errors that led to it, in all ways in which libraries store them."""
    found = [error]
    for each in found:  # grows meanwhile
        yield each
        inner = (each.__cause__, each.__context__, getattr(each, "reason", None), *each.args)
        found += [e for e in inner if isinstance(e, BaseException) and e not in found]


class InvalidReference(PublisherError):
    """A string is not an image reference that can be used."""


class InvalidManifest(PublisherError):
    """A manifest, config or image index is malformed, or of a kind that cannot be published."""


class DigestMismatch(PublisherError):
    """Bytes do not have the digest that they should have.

    `expected` and `actual` are full digests ("sha256:…"), so that a reader can search for both.
    """

    def __init__(self, what: str, *, expected: str, actual: str, hint: str = "") -> None:
        super().__init__(what, why=f"expected {expected}, got {actual}", hint=hint)
        self.expected = expected
        self.actual = actual
