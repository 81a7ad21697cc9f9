"""Replicas (Stratum 1) of a CVMFS repository: signed files, made by openssl, and a web server.

The files have the form in which `cvmfs_server` writes them, and its commands of openssl sign them:
`dgst -sha1 -sign` the manifest, and a signature without a hash algorithm the whitelist.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.components import program, run

NAME = "images.example.org"
EXPIRES = datetime(2038, 1, 1, tzinfo=UTC)
PUBLISHED = 1_790_000_000
"""The Unix time of revision 1; each revision is a minute later."""


@dataclass(frozen=True, slots=True)
class Signer:
    """A private RSA key and its public key, as PEM files; and a certificate of the key."""

    key: Path
    public: Path
    certificate: Path

    @property
    def fingerprint(self) -> str:
        """The line of a whitelist for the certificate."""
        printed = _openssl("x509", "-in", self.certificate, "-noout", "-fingerprint", "-sha1")
        return printed.partition("=")[2].strip()

    def sign(self, line: str, *, master: bool = False) -> bytes:
        """Sign the line of a hash, as the master key or as the key of a certificate."""
        with tempfile.TemporaryDirectory() as place:
            given, signed = Path(place, "given"), Path(place, "signed")
            given.write_text(line)
            if master:
                _openssl("pkeyutl", "-sign", "-inkey", self.key, "-in", given, "-out", signed)
            else:
                _openssl("dgst", "-sha1", "-sign", self.key, "-out", signed, given)
            return signed.read_bytes()


@functools.cache
def signer(name: str) -> Signer:
    """A key of this process' tests; the same for the same `name`."""
    place = Path(tempfile.mkdtemp(prefix="publisher-keys-"))
    made = Signer(place / "key", place / "key.pub", place / "certificate")
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
        *("-keyout", made.key, "-out", made.certificate),
    )
    _openssl("rsa", "-in", made.key, "-pubout", "-out", made.public)
    return made


def _openssl(*words: str | Path) -> str:
    return run(program("openssl"), *words)


@dataclass(frozen=True, slots=True)
class Files:
    """What makes up the signed files of one revision. The defaults are a sound repository."""

    revision: int = 1
    name: str = NAME
    whitelist_name: str = NAME
    expires: datetime = EXPIRES
    master: str = "master"
    """The name of the key that signs the whitelist."""
    signer: str = "publisher"
    """The name of the key that signs the manifest, and whose certificate it names."""
    listed: str = "publisher"
    """The name of the key whose certificate is in the whitelist."""
    algorithm: str = ""
    """The suffix of the hashes, "-rmd160" or "-shake128"."""

    def hash(self, data: bytes) -> str:
        if self.algorithm == "-shake128":
            return hashlib.shake_128(data).hexdigest(20) + self.algorithm
        return hashlib.new("ripemd160" if self.algorithm else "sha1", data).hexdigest() + (
            self.algorithm
        )

    @property
    def certificate(self) -> bytes:
        """The certificate, as it is stored."""
        return zlib.compress(signer(self.signer).certificate.read_bytes())

    @property
    def manifest(self) -> bytes:
        root, history = (f"{self.revision:x}".zfill(40) + self.algorithm for _ in range(2))
        text = (
            f"C{root}\nB36864\nRd41d8cd98f00b204e9800998ecf8427e\nD240\nS{self.revision}\n"
            f"Gyes\nAno\nN{self.name}\nX{self.hash(self.certificate)}\nH{history}\n"
            f"T{PUBLISHED + 60 * self.revision}\nY{history}\n"
        )
        return self._letter(text, signer(self.signer), master=False)

    @property
    def whitelist(self) -> bytes:
        line = signer(self.listed).fingerprint
        if self.algorithm:
            encoded = _der(signer(self.listed).certificate)
            line = self.hash(encoded).upper()
        return self.whitelist_of(line)

    def whitelist_of(self, line: str) -> bytes:
        """A whitelist with this line, or these lines, about certificates."""
        text = (
            f"20260101000000\nE{self.expires:%Y%m%d%H%M%S}\nN{self.whitelist_name}\n"
            f"{line} # certificate of the publisher\n"
        )
        return self._letter(text, signer(self.master), master=True)

    def _letter(self, text: str, by: Signer, *, master: bool) -> bytes:
        line = self.hash(text.encode())
        return f"{text}--\n{line}\n".encode() + by.sign(line, master=master)

    def write(self, place: Path) -> None:
        """Write the files where a web server has the repository, replacing earlier ones."""
        found = self.hash(self.certificate)
        stored = place / "data" / found[:2] / f"{found[2:]}X"
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_bytes(self.certificate)
        (place / ".cvmfswhitelist").write_bytes(self.whitelist)
        draft = place / "draft"
        draft.write_bytes(self.manifest)
        draft.rename(place / ".cvmfspublished")


def _der(certificate: Path) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        out = Path(place, "der")
        _openssl("x509", "-in", certificate, "-outform", "DER", "-out", out)
        return out.read_bytes()


@dataclass(slots=True)
class Stratum1:
    """A replica on a web server; `requests` are the paths that it was asked for.

    While `hangs` is set, it answers no request. `endless`: the manifest has no end.
    """

    root: Path
    requests: list[str] = field(default_factory=list)
    hangs: threading.Event = field(default_factory=threading.Event)
    endless: bool = False
    url: str = ""

    @property
    def place(self) -> Path:
        return self.root / "cvmfs" / NAME

    def serve(self, files: Files) -> None:
        """Serve these files from now on."""
        self.place.mkdir(parents=True, exist_ok=True)
        files.write(self.place)

    def serve_revision(self, revision: int) -> None:
        """Serve a sound revision from now on."""
        self.serve(replace(Files(), revision=revision))


@contextmanager
def stratum1(root: Path, revision: int = 1) -> Iterator[Stratum1]:
    """A replica that serves `revision`, until the block ends."""
    replica = Stratum1(root)
    replica.serve_revision(revision)
    ended = threading.Event()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            replica.requests.append(self.path)
            while replica.hangs.is_set() and not ended.wait(0.02):
                pass
            if replica.endless:
                self.send_response(200)
                self.end_headers()
                try:
                    while not ended.is_set():
                        self.wfile.write(b"x" * 65536)
                except OSError:
                    return
            super().do_GET()

        def log_message(self, format: str, *arguments: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True, args=(0.02,))
    thread.start()
    replica.url = f"http://127.0.0.1:{server.server_address[1]}/cvmfs/{NAME}"
    try:
        yield replica
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
