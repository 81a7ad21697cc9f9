"""Files that describe one package: of Python, Conda, R and npm; and os-release."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import BinaryIO

from publisher.packages.model import Package, UnreadableDatabase
from publisher.packages.stanzas import stanzas


def read_python(file: BinaryIO) -> Iterator[Package]:
    """Yield the distribution that `METADATA` or `PKG-INFO` describes.

    Source: the Python packaging specification "Core metadata".
    """
    fields = next(stanzas(file, {"name", "version"}), {})
    yield Package(fields.get("name", ""), fields.get("version", ""))


def read_r(file: BinaryIO) -> Iterator[Package]:
    """Yield the package of R that `DESCRIPTION` describes, if it is installed.

    Only an installed package has the field `Built`. Source: "Writing R Extensions", 1.1.1.
    """
    fields = next(stanzas(file, {"package", "version", "built"}), {})
    if fields.get("built"):
        yield Package(fields.get("package", ""), fields.get("version", ""))


def read_conda(file: BinaryIO) -> Iterator[Package]:
    """Yield the package that a file in `conda-meta` describes.

    Of the channel only the name is kept: its URL may contain credentials.
    """
    value = _object(file)
    channel = _text(value, "channel").rstrip("/")
    for subdirectory in (_text(value, "subdir"), "noarch"):
        channel = channel.removesuffix(f"/{subdirectory}")
    yield Package(
        _text(value, "name"),
        _text(value, "version"),
        _text(value, "subdir"),
        "",
        _text(value, "build"),
        channel.rpartition("/")[2].rpartition("@")[2],
    )


def read_npm(file: BinaryIO) -> Iterator[Package]:
    """Yield the package that a `package.json` describes."""
    value = _object(file)
    yield Package(_text(value, "name"), _text(value, "version"))


def read_os_release(file: BinaryIO) -> Iterator[Package]:
    """Yield the distribution, named by its ID and VERSION_ID. Source: os-release(5).

    A distribution without a VERSION_ID, such as Debian's development release, has its
    VERSION_CODENAME or "rolling" as the version.
    """
    values: dict[str, str] = {}
    for line in file.read().decode("utf-8", "replace").splitlines():
        key, equals, text = line.strip().partition("=")
        if equals and not key.startswith("#"):
            values[key] = _unquoted(text)
    version = values.get("VERSION_ID") or values.get("VERSION_CODENAME") or "rolling"
    yield Package(values.get("ID") or "linux", version)


def _unquoted(text: str) -> str:
    try:
        return "".join(shlex.split(text)[:1])
    except ValueError:
        return ""


def _object(file: BinaryIO) -> dict[str, object]:
    try:
        value = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise UnreadableDatabase(f"it is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UnreadableDatabase("it is not a JSON object")
    return value


def _text(value: dict[str, object], key: str) -> str:
    """Return a text, without surrogates, which cannot be encoded."""
    text = value.get(key, "")
    if not isinstance(text, str):
        return ""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").strip()
