"""A policy decides what check, plan and ingest accept."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import cosign
from tests.command import publisher, succeed
from tests.cosign import Key, Signed
from tests.layer_builder import Image, file, image, layer
from tests.registry import OwnRegistry
from tests.registry_faults import status
from tests.registry_images import noisy_layer, sample_image

POLICY = """\
version: 1
registries: {{deny: [denied.example.org]}}
forbid-tags: [latest]
max-size: 5 kB
max-tags: 1
labels: {{team: '*'}}
max-entries: 3
owners:
  big: {{max-size: 1 MB, max-images: 1}}
  astro: {{users: [alice]}}
  wide: {{max-images: 1, max-tags: 9}}
known-owners-only: false
images: {{deny: ['*/secret/*']}}
"""


def labelled(*layers: object, **labels: str) -> Image:
    return image(*layers, config={"Labels": labels})  # type: ignore[arg-type]


def test_check_plan_and_ingest_refuse_the_same_images(tmp_path: Path) -> None:
    small = labelled(noisy_layer(1000), team="a")
    with OwnRegistry() as registry:
        for name, tag, each in (
            ("good", "1", small),
            ("good", "latest", small),
            ("good", "2", small),
            ("secret/x", "1", small),
            ("large", "1", labelled(noisy_layer(9000), team="a")),
            ("allowed", "1", labelled(noisy_layer(9000), team="a")),
            ("wide", "1", small),
            ("wide", "2", small),
            ("plain", "1", sample_image(1000)),
            ("many", "1", labelled(layer(*(file(f"f{n}") for n in range(9))), team="a")),
        ):
            registry.add(name, tag, each)
        host = registry.url
        (tmp_path / "p.yaml").write_text(POLICY.format())
        wishes = (
            f"{host}/good:1",
            f"{host}/good:latest",
            f"{{image: {host}/good, tags: ['*']}}",
            f"{host}/secret/x:1",
            f"{host}/large:1",
            f"{{image: {host}/allowed:1, owner: big}}",
            f"{host}/plain:1",
            "denied.example.org/x:1",
            f"{{image: {host}/good:2, owner: big}}",
            f"{{image: {host}/wide, tags: ['*'], owner: wide}}",
        )
        text = "version: 2\nrepository: dir:tree\nimages:\n"
        path = tmp_path / "l.yaml"
        path.write_text(text + "".join(f"  - {wish}\n" for wish in wishes))
        words = ("l.yaml", "--policy", "p.yaml", "--output", "json")
        expected = {
            5: "forbid-tags, p.yaml:3",
            6: "max-tags, p.yaml:5",
            7: "images, p.yaml:13",
            8: "max-size, p.yaml:4",
            10: "labels, p.yaml:6",
            11: "registries, p.yaml:2",
            12: "max-images, p.yaml:9",
            13: "max-images, p.yaml:11",
        }
        for verb, key in (("check", "images"), ("plan", "images"), ("ingest", "outcomes")):
            result = publisher(verb, *words, cwd=tmp_path, home=tmp_path)
            assert result.code == 1, result.err
            found = {each["line"]: each for each in result.json[key]}
            assert {n for n, each in found.items() if each["status"] == "failed"} == set(expected)
            for line, rule in expected.items():
                assert f"(rule {rule})" in found[line]["error"], (verb, line)
        assert not registry.seen(path="secret|denied")
        assert len(registry.seen(path="plain/blobs")) == 3  # its config, three times; no layer

        # Entries are counted while a layer is unpacked; what is published then is known to check.
        path.write_text(f"{text}  - {host}/many:1\n")
        result = publisher("ingest", *words, cwd=tmp_path, home=tmp_path)
        error = result.json["outcomes"][0]["error"]
        assert "it has 10 entries, more than 3 (rule max-entries, p.yaml:7)" in error
        succeed("ingest", "l.yaml", cwd=tmp_path, home=tmp_path)
        result = publisher("check", *words, cwd=tmp_path, home=tmp_path)
        assert "(rule max-entries, p.yaml:7)" in result.json["images"][0]["error"]

        # A policy that denies what is published leaves it as it is.
        before = sorted((tmp_path / "tree").rglob("publication.json"))
        (tmp_path / "p.yaml").write_text("version: 1\nregistries: {allow: [nothing]}\n")
        assert publisher("ingest", *words, cwd=tmp_path, home=tmp_path).code == 1
        assert sorted((tmp_path / "tree").rglob("publication.json")) == before
        base = ("--base", "l.yaml")
        result = succeed("check", *words, *base, cwd=tmp_path, home=tmp_path)
        [note] = result.json["findings"]
        assert (note["file"], note["line"], note["level"]) == ("p.yaml", 2, "note")
        assert "1 unchanged wish violates the rule registries, for example" in note["message"]


def test_only_the_users_of_an_owner_change_its_wishes(tmp_path: Path) -> None:
    def wish(image: str, owner: str) -> str:
        return f"  - {{image: 'quay.io/{image}', owner: {owner}}}\n"

    (tmp_path / "p.yaml").write_text(POLICY.format())
    head = "version: 2\nimages:\n"
    old = head + wish("a:1", "astro") + wish("b:1", "astro") + wish("c:1", "bio")
    new = head + wish("a:1", "bio") + wish("c:1", "bio") + wish("d:1", "astro")
    (tmp_path / "old.yaml").write_text(old)
    (tmp_path / "l.yaml").write_text(new)
    words = ("check", "l.yaml", "--base", "old.yaml", "--policy", "p.yaml", "--offline")
    result = publisher(*words, "--changed-by", "bob", "--output", "json", cwd=tmp_path)
    assert result.code == 1
    found = [(f["line"], f["rule"], f["subject"]) for f in result.json["findings"]]
    assert found == [
        (0, "policy/users", "quay.io/b:1"),
        (3, "policy/users", "quay.io/a:1"),
        (5, "policy/users", "quay.io/d:1"),
    ]
    for more in ((), ("--changed-by", "alice")):
        succeed(*words, *more, cwd=tmp_path)
    for some in ((), ("--base", "old.yaml"), ("--policy", "p.yaml")):
        alone = publisher("check", "l.yaml", "--changed-by", "bob", *some, cwd=tmp_path)
        assert alone.code == 2 and "give --policy FILE and --base REVISION" in alone.err


def test_a_policy_with_mistakes_ends_the_command_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").write_text("version: 2\nimages: ['oci:nowhere:1']\n")
    (tmp_path / "p.yaml").write_text("version: 1\nmax-sizes: 1\n")
    (tmp_path / "k.yaml").write_text("version: 1\nsignatures: [{keys: [gone.pub]}]\n")
    for verb in ("check", "plan", "ingest"):
        for policy, why in (
            ("p.yaml", "p.yaml:2:1: error: unknown key 'max-sizes'"),
            ("none.yaml", "cannot read none.yaml"),
            ("k.yaml", "cannot read gone.pub"),
        ):
            words = (verb, "l.yaml", "--policy", policy)
            where = () if verb == "check" else ("--repository", "tree")
            result = publisher(*words, *where, "--output", "json", cwd=tmp_path)
            assert (result.code, why in result.err) == (2, True), result.err
            assert result.json["error"]["kind"] == "invalid-policy"
    assert not (tmp_path / "tree").exists()


SIGN = {"by tag": Key.sign, "in the API": Key.sign_as_referrer, "in a bundle": Key.sign_in_bundle}


@pytest.mark.parametrize("form", SIGN)
def test_images_without_a_required_signature_are_refused(tmp_path: Path, form: str) -> None:
    sign, listed = SIGN[form], form == "in the API"
    key, other = Key.generate(), Key.generate()
    key.write_public(tmp_path / "cosign.pub")
    (tmp_path / "p.yaml").write_text(
        "version: 1\nsignatures:\n  - {images: ['*/secure/*'], keys: [cosign.pub]}\n"
    )
    images = {n: sample_image(10, seed=s) for s, n in enumerate(("good", "other", "bad", "none"))}
    digests = {name: each.manifest.digest for name, each in images.items()}
    with OwnRegistry() as registry:
        registry.lists_referrers = listed

        def attach(name: str, signed: Signed) -> None:
            registry.blobs |= signed.blobs
            tag = cosign.tag_of(digests[name]) if form == "by tag" else None
            registry.add_document(f"secure/{name}", tag, signed.manifest)
            if form == "in a bundle":  # a registry without the API has a tag instead
                index = cosign.referrers_index(signed)
                registry.add_document(f"secure/{name}", digests[name].replace(":", "-"), index)

        for name, built in images.items():
            registry.add(f"secure/{name}", "1", built)
        registry.add("free/none", "1", images["none"])
        attach("good", sign(key, digests["good"]))
        attach("other", sign(other, digests["other"]))
        signed = sign(key, digests["none"])
        bad = (
            cosign.tampered(signed, digests["bad"])
            if form != "in a bundle"
            else (cosign.bundle_manifest(digests["bad"], other.bundle(digests["bad"])))
        )
        attach("bad", bad)
        names = [f"secure/{name}" for name in images] + ["free/none"]
        (tmp_path / "l.yaml").write_text(
            "version: 2\nrepository: dir:tree\nimages:\n"
            + "".join(f"  - {registry.url}/{name}:1\n" for name in names)
        )
        words = ("l.yaml", "--policy", "p.yaml", "--output", "json")
        for verb, field in (("check", "images"), ("ingest", "outcomes")):
            result = publisher(verb, *words, cwd=tmp_path, home=tmp_path)
            assert result.code == 1
            errors = {each["line"]: each.get("error", "") for each in result.json[field]}
            assert (errors[4], errors[8]) == ("", "")
            assert "none of its signatures is by an accepted key (rule signatures" in errors[5]
            assert "none of its signatures is by an accepted key (rule signatures" in errors[6]
            assert "it has no signature (rule signatures, p.yaml:3)" in errors[7]
            assert "cosign sign" in errors[7]
        published = {path.parent.name for path in (tmp_path / "tree").rglob("publication.json")}
        assert published == {"good:1", "none:1"}
        registry.misbehave(status(403), path=r"\.sig$|/referrers/|/sha256-")
        result = publisher("check", *words, cwd=tmp_path, home=tmp_path)
        assert "status 403" in result.json["images"][0]["error"]
