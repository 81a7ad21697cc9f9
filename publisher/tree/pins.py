"""pins.json: images that are neither updated nor removed."""

from __future__ import annotations

from datetime import UTC, date, datetime

from publisher.codec import Codec
from publisher.errors import PublisherError
from publisher.lazy import dataclass
from publisher.tree.record import Digest, read_record

VERSION = 1


class ImagePinned(PublisherError):
    """An operation would replace or schedule an image that is pinned.

    `name` is the image's public name; `until` and `reason` are those of its `Pin`. `source_digest`
    is what the image's reference names now, or None if that was not looked up.
    """

    def __init__(
        self, what: str, *, name: str, until: date | None, reason: str, why: str, hint: str
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.name = name
        self.until = until
        self.reason = reason
        self.source_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Pin:
    """A pinned image: it is neither updated nor scheduled nor collected.

    A pin concerns one manifest under one name. `until` is the last day on which it is in force
    (UTC), or None for a pin without an end.
    """

    name: str
    manifest_digest: Digest
    pinned_at: datetime
    until: date | None = None
    reason: str = ""

    def holds(self, moment: datetime) -> bool:
        """Return whether the pin is in force at `moment`."""
        return self.until is None or moment.astimezone(UTC).date() <= self.until

    def to_value(self) -> dict[str, object]:
        """Return the pin as it is written in the file."""
        value: dict[str, object] = _PIN.to_value(self)
        return value


@dataclass(frozen=True, slots=True)
class Pins:
    """The contents of pins.json, in the order of pinning."""

    pins: tuple[Pin, ...] = ()

    @classmethod
    def parse(cls, data: bytes, path: str) -> Pins:
        """Read the file's bytes; `path` names it in InvalidRecord."""
        return read_record(_CODEC.parse, data, path)

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return _CODEC.dump(self)

    def with_pin(self, pin: Pin) -> Pins:
        """Return the pins with `pin`, which replaces an earlier one of the same image."""
        return Pins((*self.without(pin.name, pin.manifest_digest).pins, pin))

    def without(self, name: str, manifest_digest: str) -> Pins:
        """Return the pins without that of one manifest under one name."""
        unwanted = (name, manifest_digest)
        return Pins(tuple(p for p in self.pins if (p.name, p.manifest_digest) != unwanted))

    def find(self, name: str, manifest_digest: str, moment: datetime) -> Pin | None:
        """Return the pin of that manifest under that name that is in force at `moment`, or None."""
        wanted = (name, manifest_digest)
        return next(
            (p for p in self.pins if (p.name, p.manifest_digest) == wanted and p.holds(moment)),
            None,
        )


def check_pin(
    pins: Pins, name: str, manifest_digest: str, now: datetime, action: str = "move the tag of"
) -> None:
    """Raise ImagePinned if that manifest is pinned under `name` at the moment `now`.

    `action` is the prevented action, for the error: "cannot ACTION NAME".
    """
    pin = pins.find(name, manifest_digest, now)
    if pin is not None:
        until = f" until {pin.until}" if pin.until else ""
        why = f": {pin.reason}" if pin.reason else ""
        raise ImagePinned(
            f"cannot {action} {name}",
            name=name,
            until=pin.until,
            reason=pin.reason,
            why=f"it is pinned{until}{why}",
            hint=f"publisher unpin {name}",
        )


_PIN = Codec(Pin)
_CODEC = Codec(Pins, version=VERSION, required=["pins"])
