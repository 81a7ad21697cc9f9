"""Parse image configs into typed values. No other module reads their JSON.

Source: OCI image specification 1.1, config page; `Healthcheck` is of Docker's image specification
1.2. A field that the specification names is refused if it has the wrong JSON type: Docker
and containerd do not decode such a config, so no engine could run the image. null is the same as
absent. Other fields are ignored here, and stay in the exact bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import NoReturn, TypeVar

from publisher.errors import InvalidManifest
from publisher.lazy import dataclass, pattern
from publisher.oci.digest import is_digest
from publisher.oci.document import read_object
from publisher.oci.platform import Platform

_T = TypeVar("_T")
_TIME = pattern(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)\Z", re.ASCII)
_LONE_SURROGATE = pattern("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """The command with which an engine checks a container. Durations are in nanoseconds.

    A duration or number of 0 is that of the base image, or the default.
    """

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """How a container of the image is started: the "config" object of an image config.

    `variables` are the environment as written ("NAME=value"); `user` is "", "name", "uid" or either
    with ":group"; `directory` is "/" where none is given. `ports` and `volumes` are the keys of
    their objects, in the order of the document.
    """

    variables: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    directory: str = "/"
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    health_check: HealthCheck | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables by name. The last one of a name counts, as in engines."""
        pairs = (variable.partition("=") for variable in self.variables)
        return {name: value for name, equals, value in pairs if name and equals}

    def arguments(self, given: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the program and its arguments; `given` replaces the command if not empty."""
        return (*self.entrypoint, *(given or self.command))


@dataclass(frozen=True, slots=True)
class HistoryStep:
    """One step of an image's build; `created` is "" if it is absent or not an RFC 3339 time."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """An image config.

    `platform` is as written (not normalized). `diff_ids` are the digests of the layers without
    compression, from bottom to top. `created` is an RFC 3339 time, or "" if the config has no
    valid one. `notes` are messages about ignored values.
    """

    platform: Platform
    diff_ids: tuple[str, ...] = ()
    container: ContainerConfig = field(default_factory=ContainerConfig)
    created: str = ""
    author: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    history: tuple[HistoryStep, ...] = ()
    notes: tuple[str, ...] = ()


def parse_config(data: bytes, digest: str) -> ImageConfig:
    """Read an image config from its exact bytes.

    Args:
        data: The config blob, whose digest the caller has verified.
        digest: The digest, for errors.

    Raises:
        InvalidManifest: The bytes are not a JSON object, or a field has the wrong type.
    """
    return _ConfigReader(read_object(data, f"config {digest}"), digest).image()


class _ConfigReader:
    """Reads one config; `_notes` collects messages about ignored values."""

    def __init__(self, value: Mapping[str, object], digest: str) -> None:
        self._value = value
        self._digest = digest
        self._notes: list[str] = []

    def image(self) -> ImageConfig:
        value = self._value
        for key in ("os", "architecture"):
            if not isinstance(value.get(key), str):
                self._refuse(key, "a string")
        rootfs = self._object(value, "", "rootfs")
        diff_ids = self._texts(rootfs, "rootfs.", "diff_ids")
        if not all(map(is_digest, diff_ids)):
            self._refuse("rootfs.diff_ids", "a list of digests")
        return ImageConfig(
            platform=Platform(
                self._text(value, "", "os"),
                self._text(value, "", "architecture"),
                self._text(value, "", "variant"),
            ),
            diff_ids=diff_ids,
            container=self._container(self._object(value, "", "config")),
            created=self._time(value, "", "created"),
            author=self._text(value, "", "author"),
            os_version=self._text(value, "", "os.version"),
            os_features=self._texts(value, "", "os.features"),
            history=self._history(),
            notes=tuple(self._notes),
        )

    def _container(self, value: Mapping[str, object]) -> ContainerConfig:
        where = "config."
        self._boolean(value, where, "ArgsEscaped")
        return ContainerConfig(
            variables=self._texts(value, where, "Env"),
            entrypoint=self._words(value, "Entrypoint"),
            command=self._words(value, "Cmd"),
            user=self._text(value, where, "User"),
            directory=self._text(value, where, "WorkingDir") or "/",
            labels=self._mapping(value, "Labels", self._as_text, "an object of strings"),
            ports=tuple(
                self._mapping(value, "ExposedPorts", self._as_empty, "an object of objects")
            ),
            volumes=tuple(self._mapping(value, "Volumes", self._as_empty, "an object of objects")),
            stop_signal=self._text(value, where, "StopSignal"),
            health_check=self._health_check(value),
        )

    def _health_check(self, value: Mapping[str, object]) -> HealthCheck | None:
        if value.get("Healthcheck") is None:
            return None
        check = self._object(value, "config.", "Healthcheck")
        where = "config.Healthcheck."
        return HealthCheck(
            self._texts(check, where, "Test"),
            *(
                self._number(check, where, key)
                for key in ("Interval", "Timeout", "StartPeriod", "Retries")
            ),
        )

    def _history(self) -> tuple[HistoryStep, ...]:
        steps = self._value.get("history")
        if steps is None:
            return ()
        if not isinstance(steps, list):
            self._refuse("history", "a list of objects")
        return tuple(self._step(step, f"history[{n}]") for n, step in enumerate(steps))

    def _step(self, step: object, where: str) -> HistoryStep:
        if step is None:
            return HistoryStep()
        if not isinstance(step, dict):
            self._refuse(where, "an object")
        where += "."
        return HistoryStep(
            self._time(step, where, "created"),
            self._text(step, where, "created_by"),
            self._text(step, where, "author"),
            self._text(step, where, "comment"),
            self._boolean(step, where, "empty_layer"),
        )

    def _object(self, holder: Mapping[str, object], where: str, key: str) -> Mapping[str, object]:
        value = holder.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._refuse(where + key, "an object")
        return value

    def _text(self, holder: Mapping[str, object], where: str, key: str) -> str:
        text = self._as_text(holder.get(key))
        if text is None:
            self._refuse(where + key, "a string")
        return text

    def _time(self, holder: Mapping[str, object], where: str, key: str) -> str:
        text = self._text(holder, where, key)
        if not text or _is_time(text):
            return text
        self._notes.append(f"{where}{key} is ignored: {text[:40]!r} is not a time (RFC 3339)")
        return ""

    def _texts(self, holder: Mapping[str, object], where: str, key: str) -> tuple[str, ...]:
        values = holder.get(key)
        if values is None:
            return ()
        texts = list(map(self._as_text, values)) if isinstance(values, list) else [None]
        found = tuple(text for text in texts if text is not None)
        if len(found) != len(texts):
            self._refuse(where + key, "a list of strings")
        return found

    def _words(self, holder: Mapping[str, object], key: str) -> tuple[str, ...]:
        text = holder.get(key)
        if isinstance(text, str):
            return (_unicode(text),)  # the form before Docker 1.2, which engines still accept
        return self._texts(holder, "config.", key)

    def _mapping(
        self,
        holder: Mapping[str, object],
        key: str,
        read: Callable[[object], _T | None],
        expected: str,
    ) -> dict[str, _T]:
        value = holder.get(key)
        if value is None:
            return {}
        items = value.items() if isinstance(value, dict) else [("", value)]
        found = {_unicode(name): read(item) for name, item in items}
        read_items = {name: item for name, item in found.items() if item is not None}
        if len(read_items) != len(found) or not isinstance(value, dict):
            self._refuse(f"config.{key}", expected)
        return read_items

    def _number(self, holder: Mapping[str, object], where: str, key: str) -> int:
        value = holder.get(key)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
            self._refuse(where + key, "a 64-bit integer")
        return value

    def _boolean(self, holder: Mapping[str, object], where: str, key: str) -> bool:
        value = holder.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            self._refuse(where + key, "true or false")
        return value

    def _as_text(self, value: object) -> str | None:
        """Return `value` if it is a string, "" for null as Go decodes it, else None."""
        if value is None:
            return ""
        return _unicode(value) if isinstance(value, str) else None

    def _as_empty(self, value: object) -> str | None:
        """Return "" for an object or null, else None. The values of some objects are unused."""
        return "" if value is None or isinstance(value, dict) else None

    def _refuse(self, field_name: str, expected: str) -> NoReturn:
        raise InvalidManifest(
            f"cannot read config {self._digest}",
            why=f"{field_name} is not {expected}",
            hint="build the image again with a current tool: no engine can run it",
        )


def single_layer_config(data: bytes, diff_id: str, variable: str, created_by: str) -> bytes:
    """Return a copy of an image config that has one layer in place of all layers.

    All other fields are kept, also unknown ones. Equal arguments give equal bytes.

    Args:
        data: A config that `parse_config` accepts.
        diff_id: The digest of the uncompressed layer.
        variable: "NAME=value", which replaces variables of that name.
        created_by: The text about the layer in the history.
    """
    original = read_object(data, "config")
    settings = _members(original.get("config"))
    name = variable.partition("=")[0]
    kept = [each for each in _items(settings.get("Env")) if str(each).partition("=")[0] != name]
    settings["Env"] = [*kept, variable]
    # The number of steps with a layer has to be the number of layers, which is one.
    steps = [_members(step) | {"empty_layer": True} for step in _items(original.get("history"))]
    last: dict[str, object] = {"created_by": created_by}
    if "created" in original:
        last = {"created": original["created"]} | last
    changed = dict(original) | {
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [*steps, last],
    }
    return json.dumps(changed, separators=(",", ":")).encode()


def _is_time(text: str) -> bool:
    """Return whether Go's time.Time accepts `text`: RFC 3339, up to nanoseconds, a valid date."""
    if not _TIME.match(text):
        return False
    try:
        datetime.fromisoformat(text[:19] + re.sub(r"\A[\d.]*", "", text[19:]))
    except ValueError:
        return False
    return True


def _unicode(text: str) -> str:
    """Return `text` with U+FFFD in place of lone surrogates, as engines decode it."""
    return _LONE_SURROGATE.sub("\ufffd", text)


def _members(value: object) -> dict[str, object]:
    """Return the members of a JSON object; none where it is null, as some tools write it."""
    return dict(value) if isinstance(value, dict) else {}


def _items(value: object) -> list[object]:
    """Return the items of a JSON list; none where it is null, as some tools write it."""
    return list(value) if isinstance(value, list) else []
