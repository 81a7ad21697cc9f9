"""Read wish lists from a file, a web address, or a git repository.

lists/astro.yaml
https://lists.example.org/astro.yaml
git+https://git.example.org/astro/wishes.git//lists/astro.yaml@main
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from publisher.sources import SourceError
from publisher.sources.git import parse_git_location, read_git_file
from publisher.sources.settings import Settings
from publisher.wishlist import MAX_BYTES, WishListError

WEB_SECONDS = 120.0
"""The time-out of a wish list from a web server in seconds, over all tries."""


def is_remote(location: str) -> bool:
    """Return whether the location of a wish list is an address, not the path of a file."""
    return location.startswith(("http://", "https://", "git+"))


def list_identity(location: str) -> str:
    """Return the name of a wish list in the records of a repository.

    It is normalized: the absolute path of a file, an address without its fragment, a file in git
    without the revision. It is "" for standard input ("-"), so that the images count as published
    by hand.
    """
    if location == "-":
        return ""
    if location.startswith("git+"):
        return parse_git_location(location).identity
    if is_remote(location):
        return location.partition("#")[0]
    return os.path.abspath(location)


def project_identity(project: str) -> str:
    """Return what records have in place of a wish list for the single images of a project."""
    return f"project:{project}"


def is_wish_list(identity: str) -> bool:
    """Return whether records have the identity of a wish list, not that of single images."""
    return bool(identity) and not identity.startswith(project_identity(""))


def lock_location(location: str) -> str:
    """Return where the lock of a wish list is: beside it, with ".lock" after its name.

    Raises WishListError for standard input, which has no lock, and for a malformed address.
    """
    if location == "-":
        raise WishListError(
            "cannot use a lock with standard input",
            why="a lock is a file beside its list",
            hint="name the file of the list",
        )
    if location.startswith("git+"):
        file = parse_git_location(location)
        return f"{file.identity}.lock@{file.ref}"
    if is_remote(location):
        parts = urlsplit(location)
        return urlunsplit(parts._replace(path=f"{parts.path}.lock", fragment=""))
    return f"{location}.lock"


def read_wish_list_document(location: str, settings: Settings) -> bytes:
    """Return the content at `location`, or its first MAX_BYTES + 1 bytes.

    Raises WishListError if it cannot be read.
    """
    if location.startswith("git+"):
        return read_git_file(parse_git_location(location))
    if is_remote(location):
        return _read_web(location, settings)
    return read_list_file(location)


def read_list_file(path: str) -> bytes:
    """Return the content of a file, or its first MAX_BYTES + 1 bytes; raise WishListError."""
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error


def _read_web(location: str, settings: Settings) -> bytes:
    # Loaded for the web only: most lists are files.
    from publisher.sources.http.answer import BrokenBody
    from publisher.sources.http.exchange import Exchange

    _check_address(location)
    exchange = Exchange(settings, base_delay=0.5)
    try:
        deadline = exchange.deadline_after(WEB_SECONDS)
        with exchange.request("GET", location, deadline=deadline) as answer:
            if answer.status != 200:
                raise _unreadable(location, f"{answer.place} answers with status {answer.status}")
            data = b""
            for chunk in answer.chunks():
                data += chunk
                if len(data) > MAX_BYTES:
                    break
            if len(data) < min(answer.content_length or 0, MAX_BYTES):
                raise _unreadable(location, f"{len(data)} of {answer.content_length} bytes arrived")
            return data[: MAX_BYTES + 1]
    except SourceError as error:
        raise _unreadable(location, error.why, error.hint) from None
    except BrokenBody as error:
        raise _unreadable(location, str(error)) from None
    finally:
        exchange.close()


def _check_address(location: str) -> None:
    """Refuse an address that is invalid or has a password, before it is logged."""
    try:
        parts = urlsplit(location)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_host = False
    if not has_host:
        raise _unreadable(location, "its address is malformed")
    if parts.username or parts.password:
        raise WishListError(
            f"cannot read a wish list from {parts.hostname}",
            why="its address has a user name or password, which would end up in records and logs",
            hint="use git+https, and store the password with git's credential helper",
        )


def _unreadable(location: str, why: str, hint: str = "") -> WishListError:
    return WishListError(f"cannot read wish list {location}", why=why, hint=hint)
