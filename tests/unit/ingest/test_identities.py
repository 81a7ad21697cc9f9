"""Signatures without keys are verified by the identities of their signers, without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from publisher.ingest.identities import SigstoreIdentities
from publisher.policy import InvalidPolicy
from publisher.policy.model import Signer
from tests import cosign
from tests.command import publisher
from tests.cosign import Key, Signed
from tests.registry import OwnRegistry
from tests.registry_images import sample_image
from tests.sigstore_instance import SigstoreInstance

ONE, TWO = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
ISSUER = "https://login.example.org"
WORKFLOW = "https://github.com/team/images/.github/workflows/build.yml@refs/heads/main"
SIGNER = Signer(ISSUER, "https://github.com/team/images/*")


def bundle_of(signed: Signed) -> bytes:
    return next(data for data in signed.blobs.values() if b"dsseEnvelope" in data)


def test_a_signature_counts_for_its_image_its_subject_and_its_issuer_only(tmp_path: Path) -> None:
    instance = SigstoreInstance()
    root = instance.write_trusted_root(tmp_path / "root.json")
    identities = SigstoreIdentities(str(root))
    bundle = bundle_of(instance.sign(ONE, WORKFLOW, ISSUER))

    def why(data: bytes, digest: str = ONE, *signers: Signer) -> str:
        return identities.why_unsigned(data, digest, signers or (SIGNER,))

    assert why(bundle) == ""
    assert why(bundle, ONE, Signer(ISSUER, "x"), SIGNER) == ""
    assert "for another image" in why(bundle, TWO)
    provenance = instance.sign(ONE, WORKFLOW, ISSUER, "https://slsa.dev/provenance/v1")
    assert "for another image" in why(bundle_of(provenance))
    for refused in (
        why(bundle, ONE, Signer(ISSUER, "https://github.com/other/*")),
        why(bundle, ONE, Signer("https://other.example.org", "*")),
        why(bundle_of(SigstoreInstance().sign(ONE, WORKFLOW, ISSUER))),
        why(json.dumps(Key.generate().bundle(ONE)).encode()),
        why(b"{}"),
        why(b""),
    ):
        assert refused.startswith("its signature is not by an accepted identity: ")
    # Another statement in the envelope, or another entry of the log, is not what was signed.
    value = json.loads(bundle)
    other = json.loads(bundle_of(instance.sign(TWO, WORKFLOW, ISSUER)))
    exchanged = value | {"dsseEnvelope": other["dsseEnvelope"]}
    assert "accepted identity" in why(json.dumps(exchanged).encode(), TWO)
    logged = value["verificationMaterial"] | {
        "tlogEntries": other["verificationMaterial"]["tlogEntries"]
    }
    changed = value | {"verificationMaterial": logged}
    assert "accepted identity" in why(json.dumps(changed).encode())
    for broken in ("{}", "no JSON"):
        root.write_text(broken)
        with pytest.raises(InvalidPolicy, match="cannot use the trusted root"):
            SigstoreIdentities(str(root))


def test_a_policy_accepts_images_that_a_workflow_has_signed(tmp_path: Path) -> None:
    instance, key = SigstoreInstance(), Key.generate()
    instance.write_trusted_root(tmp_path / "root.json")
    key.write_public(tmp_path / "cosign.pub")
    (tmp_path / "p.yaml").write_text(
        "version: 1\nsignatures:\n"
        f"  - identities: [{{issuer: '{ISSUER}', subject: 'https://github.com/team/*'}}]\n"
        "    keys: [cosign.pub]\n    trusted-root: root.json\n"
    )
    names = ("workflow", "key", "elsewhere", "none")
    with OwnRegistry() as registry:
        registry.lists_referrers = True
        for seed, name in enumerate(names):
            built = sample_image(10, seed=seed)
            digest = registry.add(name, "1", built)
            signed = {
                "workflow": instance.sign(digest, WORKFLOW, ISSUER),
                "key": key.sign(digest),
                "elsewhere": instance.sign(digest, "https://github.com/other/x", ISSUER),
            }.get(name)
            if signed is not None:
                registry.blobs |= signed.blobs
                tag = cosign.tag_of(digest) if name == "key" else None
                registry.add_document(name, tag, signed.manifest)
        (tmp_path / "l.yaml").write_text(
            "version: 2\nimages:\n" + "".join(f"  - {registry.url}/{name}:1\n" for name in names)
        )
        words = ("check", "l.yaml", "--policy", "p.yaml", "--output", "json")
        result = publisher(*words, cwd=tmp_path, home=tmp_path)
    errors = [each.get("error", "") for each in result.json["images"]]
    assert errors[:2] == ["", ""]
    assert "its signature is not by an accepted identity: " in errors[2]
    assert "it has no signature (rule signatures, p.yaml:3)" in errors[3]
