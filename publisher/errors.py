"""The root of the error hierarchy. Each part of the program derives its own kinds from it."""


class PublisherError(Exception):
    """Something failed in a way that we understand and can explain.

    `what` says what failed and on what ("cannot fetch docker.io/library/debian:stable"), `why` the
    cause as far as it is known, and `hint` what the reader can do about it. Secrets never belong in
    any of the three. What they quote may have been written by anybody: control characters are
    escaped, but for line breaks.
    """

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = _harmless(what)
        self.why = _harmless(why)
        self.hint = _harmless(hint)

    def __str__(self) -> str:
        text = f"{self.what}: {self.why}" if self.why else self.what
        return f"{text} ({self.hint})" if self.hint else text


def _harmless(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


class InvalidReference(PublisherError):
    """A text is not an image reference that we can use."""


class InvalidManifest(PublisherError):
    """A manifest, config or image index is malformed, or of a kind that cannot be published."""


class DigestMismatch(PublisherError):
    """Bytes are not the ones that their digest promised.

    `expected` and `actual` are full digests ("sha256:…"), so that a reader can search for both.
    """

    def __init__(self, what: str, *, expected: str, actual: str, hint: str = "") -> None:
        super().__init__(what, why=f"expected {expected}, got {actual}", hint=hint)
        self.expected = expected
        self.actual = actual
