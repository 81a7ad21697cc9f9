"""Wish lists from where they are kept: a file, a web address, a file in a git repository.

    lists/astro.yaml
    https://lists.example.org/astro.yaml
    git+https://git.example.org/astro/wishes.git//lists/astro.yaml@main

git itself fetches from git repositories, with the credentials that it is configured with, and never
asks for any.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
import urllib3.exceptions

from publisher.sources.registry.faults import describe, place
from publisher.sources.registry.hosts import Host
from publisher.sources.settings import Settings
from publisher.wishlist import MAX_BYTES, WishListError

_TIMEOUTS = (10.0, 30.0)
_GIT_SECONDS = 120.0
_LONGEST = 120.0
"""Seconds for a whole list: a server that sends a byte now and then is none."""
_MAX_REDIRECTS = 5
_PORTS = {"http": 80, "https": 443}
_GIT = re.compile(r"git\+(?P<url>(?P<scheme>https?)://[^/]+(?:/[^/]+)+)//(?P<rest>.+)")
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


@dataclass(frozen=True, slots=True)
class _GitFile:
    scheme: str
    url: str
    path: str
    ref: str


def is_remote(location: str) -> bool:
    """Whether a wish list's place is an address, and not a file's path."""
    return location.startswith(("http://", "https://", "git+"))


def list_identity(location: str) -> str:
    """What a wish list is called in a repository's records, however it was written this time.

    A file by its absolute path, an address by itself, one in git without the revision. A list from
    standard input ("-") has no name: what it wishes counts as published by hand.
    """
    if location == "-":
        return ""
    if location.startswith("git+"):
        file = _parse_git(location)
        return f"git+{file.url}//{file.path}"
    if is_remote(location):
        return location.partition("#")[0]
    return os.path.abspath(location)


def read_wish_list_document(location: str, settings: Settings) -> bytes:
    """What is at `location`: all of it, or one byte more than a wish list may have.

    Raises WishListError where it cannot be had.
    """
    if location.startswith("git+"):
        return _read_git(location, _parse_git(location))
    if is_remote(location):
        return _read_web(location, settings)
    try:
        with Path(location).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(location, error.strerror or str(error)) from error


def _read_web(location: str, settings: Settings) -> bytes:
    url = location
    for _ in range(_MAX_REDIRECTS + 1):
        try:
            parts = urlsplit(url)
            if parts.username or parts.password:
                raise _with_password(parts.hostname or "")
            port = parts.port or _PORTS[parts.scheme]
            host = Host(parts.netloc.lower(), settings, parts.scheme, parts.hostname or "", port)
        except ValueError:
            raise _unreadable(location, "its address is malformed") from None
        try:
            request = requests.Request("GET", url, headers={"Accept-Encoding": "identity"})
            with host.send(request.prepare(), _TIMEOUTS) as response:
                if response.is_redirect:
                    url = _next(location, parts.scheme, url, response.headers["Location"])
                    continue
                if response.status_code != 200:
                    raise _unreadable(location, f"{response.status_code} {response.reason}")
                return _first_bytes(location, response)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise _unreadable(location, describe(error)) from None
        finally:
            host.close()
    raise _unreadable(location, f"more than {_MAX_REDIRECTS} redirects")


def _next(location: str, scheme: str, url: str, target: str) -> str:
    """Where a redirect leads: not away from HTTPS. Its query may be a secret, and is not shown."""
    try:
        found = urljoin(url, target)
        to = urlsplit(found)
    except ValueError:
        raise _unreadable(location, "it is moved to what is no address") from None
    if to.scheme not in ("https", scheme):
        raise _unreadable(location, f"it is moved to {place(found)}, which is not safe")
    return found


def _first_bytes(location: str, response: requests.Response) -> bytes:
    data = b""
    began = time.monotonic()
    for chunk in response.iter_content(65536):
        data += chunk
        if len(data) > MAX_BYTES:
            break
        if time.monotonic() - began > _LONGEST:
            raise _unreadable(location, f"only {len(data)} bytes came in {_LONGEST:.0f} seconds")
    return data[: MAX_BYTES + 1]


def _parse_git(location: str) -> _GitFile:
    match = _GIT.fullmatch(location)
    if match is None:
        raise WishListError(
            f"cannot read wish list {location}",
            why="that is not a file in a git repository",
            hint="write git+https://HOST/REPOSITORY.git//PATH@BRANCH",
        )
    _, at, host = match["url"].split("/")[2].rpartition("@")
    if at:
        raise _with_password(host)
    path, _, ref = (
        match["rest"].rpartition("@") if "@" in match["rest"] else (match["rest"], "", "")
    )
    if not _REF.fullmatch(ref or "HEAD") or ".." in path.split("/"):
        raise WishListError(
            f"cannot read wish list {location}",
            why=f"{ref!r} is not a branch, tag or commit" if ref else f"{path!r} holds '..'",
        )
    return _GitFile(match["scheme"], match["url"], path, ref or "HEAD")


def _read_git(location: str, file: _GitFile) -> bytes:
    with tempfile.TemporaryDirectory(prefix="publisher-git-") as folder:
        _git(location, folder, file, "init", "--quiet", "--bare")
        _git(
            location,
            folder,
            file,
            *("fetch", "--quiet", "--depth=1", "--no-tags", "--", file.url, file.ref),
        )
        content = f"FETCH_HEAD:{file.path}"
        size = int(_git(location, folder, file, "cat-file", "-s", content))
        if size > MAX_BYTES:
            raise _unreadable(location, f"it has {size} bytes, which no wish list needs")
        return _git(location, folder, file, "cat-file", "blob", content)


def _git(location: str, folder: str, file: _GitFile, *arguments: str) -> bytes:
    settings = {
        "protocol.allow": "never",
        f"protocol.{file.scheme}.allow": "always",
        "core.hooksPath": os.devnull,
        "http.lowSpeedLimit": "1000",
        "http.lowSpeedTime": "30",
    }
    options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    # `env` completes the environment, which is not ours to read.
    quiet = ("env", "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=false", "SSH_ASKPASS=false", "LC_ALL=C")
    command = [*quiet, "git", *options, "-C", folder, *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _unreadable(location, f"git did not end within {_GIT_SECONDS:.0f} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"git ended with {done.returncode}"
        if done.returncode == 127:
            raise WishListError(
                f"cannot read wish list {location}", why="git is not there", hint="install git"
            )
        raise _unreadable(location, why)
    return done.stdout


def _unreadable(location: str, why: str) -> WishListError:
    return WishListError(f"cannot read wish list {location}", why=why)


def _with_password(host: str) -> WishListError:
    return WishListError(
        f"cannot read a wish list from {host}",
        why="its address holds a user or a password, which would end up in records and logs",
        hint="use git+https, and let git's credential helper know the password",
    )
