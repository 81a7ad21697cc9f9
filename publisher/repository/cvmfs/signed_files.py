"""The signed files of a CVMFS repository: its manifest and its whitelist. Pure.

`.cvmfspublished` is the manifest: it names the published revision. `.cvmfswhitelist` names the
certificates that may sign manifests. Both have the form of a letter in CVMFS
(cvmfs/crypto/signature.cc, VerifyLetter): lines of text, the line "--", a line with the hash of the
text, and a signature of that line in binary form until the end of the file.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta

from publisher.lazy import dataclass, pattern

MANIFEST_FILE = ".cvmfspublished"
WHITELIST_FILE = ".cvmfswhitelist"
MAX_BYTES = 256 * 1024
"""The most bytes of one of these files. Real ones have less than 4 kB."""

_SEPARATOR = b"\n--\n"
_HASH = pattern(r"(?P<hex>[0-9a-f]{40})(?P<algorithm>|-rmd160|-shake128)")
_NUMBER = pattern(r"[0-9]{1,18}")
_NAME = pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_EXPIRY = pattern(r"E[0-9]{14}")
_LAST_SECOND = 253_402_300_799
"""The last second that a datetime can be."""
_CERTIFICATE_SUFFIX = "X"


class DamagedFile(ValueError):
    """A file does not have the form that it should have; the text names what is wrong."""


class UnsupportedHash(DamagedFile):
    """A hash cannot be computed: this Python does not have its algorithm."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A signed text: `hash_line` is the signed line with the hash of `text`."""

    text: bytes
    hash_line: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class RepositoryManifest:
    """The published revision of a repository.

    Attributes:
        name: The fully qualified name of the repository.
        revision: Its number; each publication increases it.
        root_hash: The hash of its root catalog.
        published_at: When it was published, by the clock of the publishing host.
        ttl: How long clients use a manifest before they ask for a new one.
        certificate: The hash of the certificate that signs the manifest; "" if it is not named.
    """

    name: str
    revision: int
    root_hash: str
    published_at: datetime
    ttl: timedelta
    certificate: str = ""

    @property
    def certificate_path(self) -> str:
        """The path of the certificate, relative to the address of the repository."""
        return f"data/{self.certificate[:2]}/{self.certificate[2:]}{_CERTIFICATE_SUFFIX}"


@dataclass(frozen=True, slots=True)
class Whitelist:
    """The certificates that may sign the manifest of the repository `name`, until `expires`.

    `fingerprints` are hashes of the certificates in DER form, in the form of `hash_of`. `rules` are
    the lines that require another check than the signature by the repository's key.
    """

    name: str
    expires: datetime
    fingerprints: frozenset[str]
    rules: tuple[str, ...] = ()

    def is_expired(self, now: datetime) -> bool:
        """Return whether clients refuse it at the moment `now`; they compare whole hours."""
        return now >= self.expires.replace(minute=0, second=0)


def split_letter(data: bytes) -> Letter:
    """Return the parts of a signed file whose text matches its hash.

    Raises DamagedFile if a part is missing, or the text does not match.
    """
    text, separator, rest = data.partition(_SEPARATOR)
    if not separator:
        raise DamagedFile("it ends before its signature")
    line, newline, signature = rest.partition(b"\n")
    if not newline or not signature:
        raise DamagedFile("it ends before its signature")
    hash_line = line.decode("ascii", "replace")
    text += b"\n"
    if not is_hash(hash_line):
        raise DamagedFile("the line before its signature is not a hash")
    if hash_of(text, like=hash_line) != hash_line:
        raise DamagedFile("its text does not match its hash")
    return Letter(text, hash_line, signature)


def parse_manifest(data: bytes) -> RepositoryManifest:
    """Return the content of a manifest, with or without its signature; raise DamagedFile."""
    fields = {line[:1]: line[1:] for line in _lines(data)}
    seconds = _number(fields, "T", "time")
    if seconds > _LAST_SECOND:
        raise DamagedFile("its time is not valid")
    certificate = fields.get("X", "")
    if certificate and not is_hash(certificate):
        raise DamagedFile("the hash of its certificate is not valid")
    root_hash = fields.get("C", "")
    if not is_hash(root_hash):
        raise DamagedFile("it has no valid root hash")
    return RepositoryManifest(
        _name(fields.get("N", "")),
        _number(fields, "S", "revision"),
        root_hash,
        datetime.fromtimestamp(seconds, UTC),
        timedelta(seconds=min(_number(fields, "D", "time to live"), 10**9)),
        certificate,
    )


def parse_whitelist(data: bytes) -> Whitelist:
    """Return the content of a whitelist, with or without its signature; raise DamagedFile."""
    lines = _lines(data)
    if len(lines) < 3 or not _EXPIRY.fullmatch(lines[1]) or not lines[2].startswith("N"):
        raise DamagedFile("its first lines are not a time, its expiry and a name")
    try:
        expires = datetime.strptime(lines[1], "E%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise DamagedFile("its expiry is not a time") from error
    rest = lines[3:]
    rules = tuple(line for line in rest if line.startswith(("V", "W")))
    fingerprints = (_fingerprint(line) for line in rest if line not in rules)
    return Whitelist(_name(lines[2][1:]), expires, frozenset(filter(is_hash, fingerprints)), rules)


def is_hash(text: str) -> bool:
    """Return whether `text` is a hash as CVMFS writes one: hex, and a suffix except for SHA-1."""
    return _HASH.fullmatch(text) is not None


def hash_of(data: bytes, *, like: str) -> str:
    """Return the hash of `data`, by the algorithm of the hash `like`.

    Raises UnsupportedHash if this Python does not have the algorithm.
    """
    found = _HASH.fullmatch(like)
    suffix = found["algorithm"] if found else ""
    if suffix == "-shake128":
        return hashlib.shake_128(data).hexdigest(20) + suffix
    try:
        algorithm = "ripemd160" if suffix else "sha1"
        return hashlib.new(algorithm, data, usedforsecurity=False).hexdigest() + suffix
    except ValueError as error:
        raise UnsupportedHash(
            f"this machine does not have the hash algorithm {suffix[1:]}"
        ) from error


def _lines(data: bytes) -> list[str]:
    # The separator of a file without signature may be missing.
    text = data.partition(_SEPARATOR)[0]
    return text.decode("ascii", "replace").removesuffix("\n").split("\n")


def _number(fields: dict[str, str], key: str, meaning: str) -> int:
    text = fields.get(key, "")
    if not _NUMBER.fullmatch(text):
        raise DamagedFile(f"it has no valid {meaning}")
    return int(text)


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise DamagedFile("it has no valid name of a repository")
    return text


def _fingerprint(line: str) -> str:
    """Return the hash in a line such as "AB:CD:… # comment"."""
    return re.split(r"[ \t#]", line, maxsplit=1)[0].replace(":", "").lower()
