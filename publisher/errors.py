"""The root of the error hierarchy, and how text from outside is made fit for a terminal."""


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
