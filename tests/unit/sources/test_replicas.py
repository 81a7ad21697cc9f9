"""The revision of a replica is read, and trusted only if its signatures are good."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from publisher.repository.cvmfs.signed_files import MAX_BYTES
from publisher.sources.replica_revision import (
    ReplicaError,
    ReplicaRevision,
    UntrustedReplica,
    UnusableKey,
)
from publisher.sources.replicas import Replicas, read_public_keys, replica_address
from publisher.sources.settings import Settings
from tests.stratum1 import EXPIRES, NAME, PUBLISHED, Files, Stratum1, signer, stratum1

SECONDS = 20.0


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Stratum1]:
    with stratum1(tmp_path / "web", 41) as replica:
        yield replica


def read(
    replica: Stratum1, key: str = "master", seconds: float = SECONDS
) -> ReplicaRevision | ReplicaError:
    keys = read_public_keys(NAME, signer(key).public, Path()) if key else ()
    with Replicas([replica.url], NAME, keys, Settings()) as replicas:
        return replicas.read(replicas.urls, seconds)[replica.url]


def why(replica: Stratum1, key: str = "master") -> str:
    found = read(replica, key)
    assert isinstance(found, ReplicaError)
    assert found.url == replica.url
    kind = "untrusted" if isinstance(found, UntrustedReplica) else "error"
    return f"{kind}: {found.why}"


@pytest.mark.parametrize("algorithm", ["", "-rmd160", "-shake128"])
def test_signatures_by_openssl_are_good_for_each_hash_algorithm(
    replica: Stratum1, algorithm: str
) -> None:
    replica.serve(Files(revision=42, algorithm=algorithm))
    found = read(replica)
    assert isinstance(found, ReplicaRevision)
    assert found.verified
    assert found.manifest.revision == 42
    assert found.manifest.root_hash == f"{42:x}".zfill(40) + algorithm
    assert found.manifest.published_at == datetime.fromtimestamp(PUBLISHED + 60 * 42, UTC)
    assert found.manifest.ttl == timedelta(minutes=4)


def test_a_replica_is_not_trusted_if_a_link_of_its_chain_is_wrong(replica: Stratum1) -> None:
    sound = Files(revision=42)
    for files, reason in (
        (
            replace(sound, expires=datetime(2026, 5, 1, 12, 30, tzinfo=UTC)),
            "its whitelist expired at 2026-05-01T12:30:00Z",
        ),
        (replace(sound, master="other"), "its whitelist is not signed by the key of the"),
        (replace(sound, whitelist_name="b.org"), "its whitelist is that of the repository b.org"),
        (replace(sound, signer="other"), "its certificate is not in the whitelist"),
        (replace(sound, name="b.org"), f"it serves the repository b.org, and not {NAME}"),
    ):
        replica.serve(files)
        assert why(replica).startswith(f"untrusted: {reason}")
    replica.serve(sound)
    assert why(replica, key="other") == (
        "untrusted: its whitelist is not signed by the key of the repository"
    )


def test_a_manifest_that_another_key_signed_is_not_trusted(replica: Stratum1) -> None:
    sound, forged = Files(revision=42), Files(revision=99)
    replica.serve(sound)
    text, _, _ = forged.manifest.partition(b"--\n")
    line = forged.hash(text)
    signature = signer("other").sign(line)
    (replica.place / ".cvmfspublished").write_bytes(
        b"%s--\n%s\n%s" % (text, line.encode(), signature)
    )
    assert why(replica) == "untrusted: its signature is not by its certificate"
    assert isinstance(read(replica, key=""), ReplicaRevision)  # which the result states
    # The signature of an earlier revision is of another hash.
    old = sound.manifest.partition(b"--\n")[2].partition(b"\n")[2]
    (replica.place / ".cvmfspublished").write_bytes(b"%s--\n%s\n%s" % (text, line.encode(), old))
    assert why(replica) == "untrusted: its signature is not by its certificate"


def test_without_a_key_the_form_and_the_name_are_checked(replica: Stratum1) -> None:
    found = read(replica, key="")
    assert isinstance(found, ReplicaRevision)
    assert not found.verified
    assert replica.requests == [f"/cvmfs/{NAME}/.cvmfspublished"]
    replica.serve(Files(name="b.org"))
    assert why(replica, key="").startswith("untrusted: it serves the repository b.org")


@pytest.mark.parametrize("key", ["", "master"])
def test_a_damaged_manifest_is_an_error_and_not_a_revision(replica: Stratum1, key: str) -> None:
    file = replica.place / ".cvmfspublished"
    sound = file.read_bytes()
    end = sound.index(b"--\n")

    def answer(data: bytes) -> str:
        file.write_bytes(data)
        return why(replica, key).removeprefix("error: what it serves is damaged: ")

    for data, reason in (
        (b"", "it ends before its signature"),
        (b"<html>sign in</html>", "it ends before its signature"),
        (sound[: end - 20], "it ends before its signature"),
        (sound[: end + 3], "it ends before its signature"),
        (sound[: end + 44], "it ends before its signature"),
        (sound[:end] + b"--\nno hash\nx", "the line before its signature is not a hash"),
        (sound.replace(b"\nS41\n", b"\nS99\n"), "its text does not match its hash"),
    ):
        assert answer(data) == reason
    for text, reason in (
        ("", "it has no valid root hash"),
        (f"C{1:040x}\n", "it has no valid name of a repository"),
        (f"T{10**17}\nC{1:040x}\n", "its time is not valid"),
        (f"T1\nC{1:040x}\nNa/../b\n", "it has no valid name of a repository"),
        (f"T1\nC{1:040x}\nN{NAME}\nS-1\n", "it has no valid revision"),
        (f"T1\nC{1:040x}\nN{NAME}\nS1\nXdata/../..\n", "the hash of its certificate is not valid"),
    ):
        body = f"T1\n{text}\n".encode()
        assert answer(b"%s--\n%s\nsignature" % (body, Files().hash(body).encode())) == reason


def test_damaged_certificates_and_whitelists_are_errors(replica: Stratum1) -> None:
    [certificate] = (replica.place / "data").rglob("*X")
    whitelist = replica.place / ".cvmfswhitelist"
    for file, data, reason in (
        (certificate, b"junk", "its certificate does not match its hash"),
        (certificate, b"x" * 100_000, "is longer than 65536 bytes"),
        (whitelist, b"20260101000000\n", "it ends before its signature"),
        (whitelist, Files(revision=2).manifest, "its whitelist is not signed by the key"),
    ):
        before = file.read_bytes()
        file.write_bytes(data)
        assert reason in why(replica)
        file.write_bytes(before)
    certificate.unlink()
    assert "answers with status 404" in why(replica)


def test_a_certificate_with_an_unknown_key_is_an_error(replica: Stratum1) -> None:
    pem = signer("publisher").certificate.read_text().splitlines()
    encoded = base64.b64decode("".join(pem[1:-1]))
    rsa, unknown = (bytes.fromhex(f"06092a864886f70d0101{each}0500") for each in ("01", "7f"))
    assert encoded.count(rsa) == 1
    changed = encoded.replace(rsa, unknown)
    text = base64.encodebytes(changed).decode()
    lines = f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"

    class WithUnknownKey(Files):
        __slots__ = ()
        certificate = zlib.compress(lines.encode())
        fingerprint = hashlib.sha1(changed).hexdigest()

    files = WithUnknownKey(revision=42)
    whitelist = files.whitelist_of(files.fingerprint)
    replica.serve(files)
    (replica.place / ".cvmfswhitelist").write_bytes(whitelist)
    assert why(replica) == "untrusted: its certificate has a key of an unknown type"


def test_a_hash_that_this_python_cannot_compute_is_named_unless_another_one_matches(
    replica: Stratum1, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica.serve(Files(revision=42))
    listed = signer("publisher").fingerprint
    known = hashlib.new

    def without_ripemd(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "ripemd160":
            raise ValueError("unsupported hash type ripemd160")
        return known(name, *arguments, **options)

    monkeypatch.setattr(hashlib, "new", without_ripemd)
    for lines, reason in (
        ([40 * "A" + "-RMD160", listed], None),
        ([40 * "A" + "-RMD160"], "this machine does not have the hash algorithm rmd160"),
    ):
        whitelist = Files().whitelist_of("\n".join(lines))
        (replica.place / ".cvmfswhitelist").write_bytes(whitelist)
        if reason:
            assert why(replica) == f"error: its files cannot be checked: {reason}"
        else:
            assert isinstance(read(replica), ReplicaRevision)


def test_an_endless_answer_ends_at_the_limit(replica: Stratum1) -> None:
    replica.endless = True
    assert f"is longer than {MAX_BYTES} bytes" in why(replica)


def test_a_replica_that_hangs_delays_no_other_one(replica: Stratum1, tmp_path: Path) -> None:
    replica.hangs.set()
    with stratum1(tmp_path / "other", 7) as other:
        with Replicas([replica.url, other.url], NAME, (), Settings()) as replicas:
            found = replicas.read(replicas.urls, 1)
            hanging, working = found[replica.url], found[other.url]
            assert isinstance(hanging, ReplicaError)
            assert hanging.why == "it has not answered yet"
            assert isinstance(working, ReplicaRevision)
            # The request is still under way: it is not sent again.
            replica.hangs.clear()
            found = replicas.read([replica.url], SECONDS)
            assert isinstance(found[replica.url], ReplicaRevision)
            assert len(replica.requests) == 1


def test_signatures_are_checked_once_for_each_manifest_until_the_whitelist_expires(
    replica: Stratum1,
) -> None:
    now = EXPIRES - timedelta(days=1)

    def clock() -> datetime:
        return now

    keys = read_public_keys(NAME, signer("master").public, Path())
    with Replicas([replica.url], NAME, keys, Settings(), clock) as replicas:
        read: Callable[[], object] = lambda: replicas.read(replicas.urls, SECONDS)[replica.url]  # noqa: E731
        assert isinstance(read(), ReplicaRevision)
        assert len(replica.requests) == 3
        assert isinstance(read(), ReplicaRevision)
        assert len(replica.requests) == 4
        replica.serve_revision(42)
        assert isinstance(read(), ReplicaRevision)
        assert len(replica.requests) == 7
        now = EXPIRES
        assert isinstance(read(), UntrustedReplica)


def test_public_keys_are_found_by_the_name_of_the_repository(tmp_path: Path) -> None:
    key = signer("master").public.read_bytes()
    assert read_public_keys(NAME, None, tmp_path) == ()
    (tmp_path / "example.org").mkdir()
    for file in ("example.org/1.pub", "example.org/2.pub", "example.org.pub", "other.org.pub"):
        (tmp_path / file).write_bytes(key)
    assert len(read_public_keys(NAME, None, tmp_path)) == 3
    (tmp_path / f"{NAME}.pub").write_bytes(key)
    assert len(read_public_keys(NAME, None, tmp_path)) == 1
    (tmp_path / f"{NAME}.pub").write_bytes(b"junk")
    with pytest.raises(UnusableKey, match="not a public key in PEM form"):
        read_public_keys(NAME, None, tmp_path)
    with pytest.raises(UnusableKey, match="No such file"):
        read_public_keys(NAME, tmp_path / "missing", tmp_path)


def test_addresses_are_those_of_cvmfs_and_have_no_password() -> None:
    wanted = f"http://s1.example.org/cvmfs/{NAME}"
    for text in (wanted, f"{wanted}/", "http://s1.example.org/cvmfs/@fqrn@"):
        assert replica_address(text, NAME) == wanted
    assert replica_address("http://s1/@org@", NAME) == "http://s1/images"
    for text in ("s1.example.org", "file:///srv/cvmfs", "http://", "http://s1:0/x", "http://[/"):
        with pytest.raises(ReplicaError, match="not an http or https address"):
            replica_address(text, NAME)
    with pytest.raises(ReplicaError, match="user name or password") as caught:
        replica_address("http://user:secret@s1.example.org/x", NAME)
    assert "secret" not in str(caught.value)
