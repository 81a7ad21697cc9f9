"""Certificates for tests, made by openssl: an authority, and the certificates that it signs."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from tests.components import program, run

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority for tests."""

    folder: Path
    own: Certificate

    @classmethod
    def create(cls, folder: Path, name: str = "authority") -> Authority:
        """Return a new authority, whose files are in `folder`."""
        own = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
        run(
            *(program("openssl"), "req", "-x509", *_KEY, "-keyout", own.key, "-out"),
            *(own.certificate, "-subj", f"/CN={name}", "-days", "2"),
            # Python 3.13 verifies strictly: RFC 5280 section 4.2.1.3 requires this of an authority.
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
        return cls(folder, own)

    def issue(self, name: str, *, expired: bool = False, host: str = "IP:127.0.0.1") -> Certificate:
        """Return a certificate for `host` that is valid for two days, or has expired."""
        issued = Certificate(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        request = self.folder / f"{name}.csr"
        openssl = program("openssl")
        run(
            *(openssl, "req", *_KEY, "-keyout", issued.key, "-out", request),
            *("-subj", f"/CN={name}", "-addext", f"subjectAltName={host}"),
        )
        run(
            *(openssl, "x509", "-req", "-in", request, "-CA", self.own.certificate),
            *("-CAkey", self.own.key, "-CAcreateserial", "-out", issued.certificate),
            *(*_validity(expired), "-copy_extensions", "copy"),
        )
        return issued


def _validity(expired: bool) -> tuple[str, ...]:
    if not expired:
        return ("-days", "2")
    version = re.match(r"OpenSSL (\d+)\.(\d+)", run(program("openssl"), "version"))
    if version and tuple(map(int, version.groups())) >= (3, 4):  # which refuses negative days
        return ("-not_before", "20200101000000Z", "-not_after", "20200102000000Z")
    return ("-days", "-1")


def server_context(certificate: Certificate, clients: Authority | None = None) -> ssl.SSLContext:
    """Return a context for a server; with `clients`, it requires a certificate signed by them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients.own.certificate)
    return context
