"""`make demo`: from two sample images to a published tree, with every claim checked on the way."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

from docs.demo import samples
from docs.demo.stage import DemoError, check, explain, file, heading, publisher, tree
from tests.layer_builder import digest_of, write_layout
from tests.trees import describe_tree, tree_identity

FOLDER = Path(__file__).parents[2] / "demo"
TREE = Path("tree")
OWN_STATE = ".metadata/.publisher"
TOOLS = "local/tools:stable"

WISH_LIST = """\
version: 2
repository: dir:tree
images:
  - image: oci:./images/tools:stable
    name: tools
    owner: astro
    note: for the survey pipeline
  - image: oci:./images/analysis:2024
    name: analysis
"""


def main() -> int:
    """Run the demo; return 1 if a claim does not hold."""
    started = time.monotonic()
    try:
        prepare()
        publish()
        look_at_the_tree()
        look_at_the_metadata()
        publish_again()
        move_a_tag()
    except DemoError as error:
        print(f"\ndemo failed: {error}", file=sys.stderr)
        return 1
    print_next_steps(time.monotonic() - started)
    return 0


def prepare() -> None:
    heading("1. Images, and a wish list that requests them")
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    FOLDER.mkdir()
    os.chdir(FOLDER)
    samples.write_samples(Path("images"))
    Path("wishlist.yaml").write_text(WISH_LIST)
    explain(
        """Two sample images are in ./demo/images, as OCI image layouts: folders that have what a
        registry would serve, so that no network is needed. Both have the same base layer of 2 MiB.
        The upper layers of "tools" delete a manual and replace the greeting in /etc/motd."""
    )
    file(Path("wishlist.yaml"))


def publish() -> None:
    heading("2. Publish the images of the list")
    publisher("check", "wishlist.yaml")
    publisher("ingest", "wishlist.yaml")
    for name in (TOOLS, "local/analysis:2024"):
        check(
            (TREE / name / "etc/os-release").read_bytes() == samples.RELEASE, f"{name} is published"
        )


def look_at_the_tree() -> None:
    heading("3. The tree")
    tree(TREE)
    explain(
        """Each image has one merged root file system below .flat, which its public name links to,
        and each layer one tree below .layers. Directories are named by digest, in 256 shards."""
    )
    flat, base = TREE / TOOLS, layer_tree(samples.BASE.digest)
    check(
        (flat / "etc/motd").read_text() == "Look up!\n",
        "the flat image has the greeting of the upper layer",
    )
    check((base / "etc/motd").read_text() != "Look up!\n", "the base layer has its own")
    manual = "usr/share/doc/manual.txt"
    check((base / manual).exists() and not (flat / manual).exists(), "the manual is deleted")
    library = "usr/lib/libsample.so.1.0"
    places = (base / library, flat / library, TREE / "local/analysis:2024" / library)
    check(
        len({place.stat().st_ino for place in places}) == 1,
        "base layer and both images share the library's 2 MiB: one inode",
    )


def look_at_the_metadata() -> None:
    heading("4. The metadata")
    manifest = TREE / ".metadata" / TOOLS / "manifest.json"
    wanted = samples.tools().manifest.digest
    check(digest_of(manifest.read_bytes()) == wanted, f"{manifest} has the source's exact bytes")
    print()
    origin = layer_tree(samples.BASE.digest).with_name(".metadata") / "origin.json"
    file(origin)
    check(
        json.loads(origin.read_bytes())["origin"]
        == sorted([samples.tools().image_id, samples.analysis().image_id]),
        "the record of the base layer names both images that use it",
    )
    print()
    publisher("list", "--repository", "dir:tree")
    publisher("show", TOOLS, "--repository", "dir:tree")


def publish_again() -> None:
    heading("5. A second run changes nothing")
    before = published()
    started = time.monotonic()
    output = publisher("ingest", "wishlist.yaml")
    seconds = time.monotonic() - started
    check("2 unchanged" in output, "both images are current")
    check(published() == before, "no inode and no time in the tree has changed")
    check(seconds < 10, f"it took {seconds:.1f} s, including the start of Python")


def move_a_tag() -> None:
    heading("6. A tag moves")
    explain(
        """A newer "tools:stable" is pushed. The next run finds that the tag names another image,
        and publishes that one."""
    )
    old_flat, old = (TREE / TOOLS).resolve(), describe_tree((TREE / TOOLS).resolve())
    write_layout(samples.newer_tools(), Path("images/tools"), "stable")
    publisher("ingest", "wishlist.yaml")
    program = (TREE / TOOLS / "usr/bin/sort-stars").read_text()
    check("version 2" in program, "the public name leads to the new image")
    check(
        {path: node.sha256 for path, node in describe_tree(old_flat).items()}
        == {path: node.sha256 for path, node in old.items()},
        "the old image is unchanged, for jobs that still use it",
    )
    print()
    value = samples.tools().manifest.digest.removeprefix("sha256:")
    schedule = TREE / ".metadata/.retired" / value[:2] / value / "schedule.json"
    file(schedule)
    check(
        TOOLS in schedule.read_text(),
        "the old image is scheduled for removal after its grace period",
    )


def print_next_steps(seconds: float) -> None:
    heading(f"Done in {seconds:.0f} s. What next")
    explain("The tree stays in ./demo; make demo starts again. With the virtual environment:")
    print("  source .venv/bin/activate")
    print("  publisher list --repository dir:demo/tree")
    print("  publisher show local/analysis:2024 --repository dir:demo/tree --output json")
    print("  publisher ingest-image docker.io/library/debian:stable --repository dir:demo/tree")
    print("  publisher --help\n")


def layer_tree(digest: str) -> Path:
    value = digest.removeprefix("sha256:")
    return TREE / ".layers" / value[:2] / value / "layerfs"


def published() -> dict[str, tuple[int, int, int]]:
    """Return the published files, by inode and times, without the publisher's own state."""
    return {
        path: identity
        for path, identity in tree_identity(TREE).items()
        if not path.startswith(OWN_STATE)
    }


if __name__ == "__main__":
    sys.exit(main())
