"""An instance of Sigstore without a network: certificate authority, logs, and their trusted root.

It signs images as `cosign sign` without a key does: the certificate of the signer has an identity,
and the signature is in a transparency log. Sources: the specifications of Fulcio and Rekor, RFC
6962 (certificate transparency), and the formats of sigstore/protobuf-specs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from tests.cosign import SIGN, Signed, bundle_manifest, statement_envelope

NOW = datetime(2026, 1, 1, tzinfo=UTC)
_ISSUER = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_SCT_LIST = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_SHA256 = ec.ECDSA(hashes.SHA256())


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def der(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


def key_id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(der(key)).digest()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass(frozen=True, slots=True)
class SigstoreInstance:
    """The keys of an instance."""

    authority: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    certificates_log: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    signatures_log: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    def sign(self, digest: str, subject: str, issuer: str, predicate: str = SIGN) -> Signed:
        """Sign the image `digest` as `subject`, a URI that `issuer` has confirmed."""
        key = new_key()
        certificate = self._certificate(key, subject, issuer)
        envelope = statement_envelope(digest, predicate, key)
        return bundle_manifest(digest, self._bundle(envelope, certificate))

    def write_trusted_root(self, path: Path) -> Path:
        """Write the keys and certificates by which signatures are verified."""
        root = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [self._log(self.signatures_log, "https://rekor.example.org")],
            "ctlogs": [self._log(self.certificates_log, "https://ctfe.example.org")],
            "certificateAuthorities": [
                {
                    "subject": {"organization": "test", "commonName": "test"},
                    "uri": "https://fulcio.example.org",
                    "certChain": {"certificates": [{"rawBytes": b64(_bytes(self._root()))}]},
                    "validFor": {"start": "2020-01-01T00:00:00Z"},
                }
            ],
            "timestampAuthorities": [],
        }
        path.write_text(json.dumps(root))
        return path

    def _log(self, key: ec.EllipticCurvePrivateKey, url: str) -> dict[str, Any]:
        return {
            "baseUrl": url,
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": b64(der(key)),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": {"start": "2020-01-01T00:00:00Z"},
            },
            "logId": {"keyId": b64(key_id(key))},
        }

    def _root(self) -> x509.Certificate:
        public = self.authority.public_key()
        usage = dict.fromkeys(_USAGES, False) | {"key_cert_sign": True, "crl_sign": True}
        return (
            _certificate_for(public, "test authority", NOW - timedelta(3650), NOW + timedelta(3650))
            .serial_number(1)
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self.authority, hashes.SHA256())
        )

    def _certificate(
        self, key: ec.EllipticCurvePrivateKey, subject: str, issuer: str
    ) -> x509.Certificate:
        usage = dict.fromkeys(_USAGES, False) | {"digital_signature": True}
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key())
        text = issuer.encode()
        builder = (
            _certificate_for(key.public_key(), "", NOW, NOW + timedelta(minutes=10))
            .serial_number(x509.random_serial_number())
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False
            )
            .add_extension(authority, critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(subject)]),
                critical=True,
            )
            .add_extension(
                x509.UnrecognizedExtension(_ISSUER, b"\x0c" + bytes([len(text)]) + text),
                critical=False,
            )
        )
        unlogged = builder.sign(self.authority, hashes.SHA256())
        stamp = self._certificate_timestamp(unlogged.tbs_certificate_bytes)
        listed = struct.pack("!HH", len(stamp) + 2, len(stamp)) + stamp
        value = b"\x04" + _der_length(len(listed)) + listed
        return builder.add_extension(
            x509.UnrecognizedExtension(_SCT_LIST, value), critical=False
        ).sign(self.authority, hashes.SHA256())

    def _certificate_timestamp(self, unlogged: bytes) -> bytes:
        """Return what the log of certificates adds to a certificate (RFC 6962, section 3.2)."""
        moment = int(NOW.timestamp() * 1000)
        entry = key_id(self.authority) + struct.pack("!I", len(unlogged))[1:] + unlogged
        signed = struct.pack("!BBQH", 0, 0, moment, 1) + entry + struct.pack("!H", 0)
        signature = self.certificates_log.sign(signed, _SHA256)
        head = struct.pack("!B32sQH", 0, key_id(self.certificates_log), moment, 0)
        return head + struct.pack("!BBH", 4, 3, len(signature)) + signature

    def _bundle(self, envelope: dict[str, Any], certificate: x509.Certificate) -> dict[str, Any]:
        payload = base64.b64decode(envelope["payload"])
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        entry = {
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": _hash(json.dumps(envelope).encode()),
                "payloadHash": _hash(payload),
                "signatures": [
                    {"signature": envelope["signatures"][0]["sig"], "verifier": b64(pem)}
                ],
            },
        }
        body = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
        return {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(_bytes(certificate))},
                "tlogEntries": [self._log_entry(body)],
            },
            "dsseEnvelope": envelope,
        }

    def _log_entry(self, body: bytes) -> dict[str, Any]:
        """Return the only entry of the log of signatures."""
        moment = int(NOW.timestamp()) + 60
        log = key_id(self.signatures_log)
        promised = {
            "body": b64(body),
            "integratedTime": moment,
            "logID": log.hex(),
            "logIndex": 0,
        }
        canonical = json.dumps(promised, sort_keys=True, separators=(",", ":")).encode()
        root = hashlib.sha256(b"\0" + body).digest()
        note = f"rekor.example.org\n1\n{b64(root)}\n"
        signature = b64(log[:4] + self.signatures_log.sign(note.encode(), _SHA256))
        return {
            "logIndex": "0",
            "logId": {"keyId": b64(log)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(moment),
            "inclusionPromise": {
                "signedEntryTimestamp": b64(self.signatures_log.sign(canonical, _SHA256))
            },
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": b64(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n\u2014 rekor.example.org {signature}\n"},
            },
            "canonicalizedBody": b64(body),
        }


_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def _certificate_for(
    key: ec.EllipticCurvePublicKey, name: str, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name) if name else x509.Name([]))
        .issuer_name(_name("test authority"))
        .public_key(key)
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _bytes(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _hash(data: bytes) -> dict[str, str]:
    return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}


def _der_length(size: int) -> bytes:
    return bytes([size]) if size < 128 else bytes([0x81, size])
