"""`publisher site` writes pages about images, and writes again only what changed."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest

from publisher.errors import printable
from publisher.runtimes.squashfs_file import PROGRAM
from publisher.site import addresses, directory
from publisher.site.directory import NotASite, open_site
from publisher.sizes import human_size
from publisher.tree import layout
from tests.command import Result, run_here
from tests.components import require, require_root, run
from tests.layer_builder import file, image, layer, write_layout
from tests.schemas import output_schema
from tests.site_images import CONTROLS, LONG, MARKUP, SCRIPT, hostile_image

BASE = layer(file("etc/os", b"base"))
OLD, NEW = "local/old:1", "local/new:1"


def ask(root: Path, *arguments: str | Path) -> Result:
    return run_here(*arguments, "--repository", root / "images")


def publish(root: Path, name: str, content: bytes = b"x") -> None:
    write_layout(image(BASE, layer(file("data", content))), root / "layouts" / name, "1")
    arguments = ("ingest-image", f"oci:{root}/layouts/{name}:1", "--name", name)
    assert ask(root, *arguments).code == 0


def site(root: Path) -> tuple[int, int, int]:
    """Write the site; the numbers of files that were written, unchanged and removed."""
    result = ask(root, "site", root / "www", "--output", "json")
    assert result.code == 0, result.err
    output_schema("site/1").validate(result.json)
    return result.json["written"], result.json["unchanged"], result.json["removed"]


def pages(root: Path) -> dict[str, str]:
    www = root / "www"
    return {str(p.relative_to(www)): p.read_text() for p in sorted(www.rglob("*.html"))}


def test_a_further_run_writes_only_what_changed(tmp_path: Path) -> None:
    publish(tmp_path, "old")
    first = site(tmp_path)[0]
    assert site(tmp_path) == (0, first, 0)
    old = tmp_path / "www" / addresses.image_page(OLD)
    assert "<td>exclusive" in old.read_text()

    # The base is shared now, which the page of the other image shows.
    publish(tmp_path, "new", b"yy")
    before = {path: path.stat().st_ino for path in (tmp_path / "www").rglob("*") if path.is_file()}
    site(tmp_path)
    assert "2 to 9 images" in old.read_text()
    assert addresses.image_page(NEW) in pages(tmp_path)["index.html"]
    kept = {path for path, inode in before.items() if path.stat().st_ino == inode}
    assert {path.name for path in kept} >= {"site.css", "site.js", "icon.svg"}
    inode = old.stat().st_ino

    # A third image changes no page about the others.
    publish(tmp_path, "third", b"zzz")
    site(tmp_path)
    assert old.stat().st_ino == inode
    number = site(tmp_path)[1]

    # Files that were damaged or removed come back; others at the top stay, and those below go.
    (tmp_path / "www/robots.txt").write_text("")
    (tmp_path / "www/images/stray.html").write_text("")
    whole = old.read_text()
    old.write_text(whole[:1000])
    (tmp_path / "www/static/site.css").unlink()
    assert site(tmp_path)[2] == 1
    assert old.read_text() == whole
    assert (tmp_path / "www/robots.txt").exists() and (tmp_path / "www/static/site.css").exists()
    assert site(tmp_path) == (0, number, 0)

    assert ask(tmp_path, "remove", NEW, "--grace", "0s").code == 0
    assert "scheduled" in (site(tmp_path), pages(tmp_path)[addresses.image_page(NEW)])[1]
    assert ask(tmp_path, "gc").code == 0
    assert site(tmp_path)[2] >= 1
    assert addresses.image_page(NEW) not in pages(tmp_path)
    assert addresses.image_page(NEW) not in pages(tmp_path)["index.html"]


def test_pages_agree_on_the_sums_and_damaged_records_are_named(tmp_path: Path) -> None:
    publish(tmp_path, "old", b"a" * 1000)
    publish(tmp_path, "old", b"b" * 200)  # the tag moves: the earlier image waits for its removal
    site(tmp_path)
    totals = ask(tmp_path, "stats", "--output", "json").json["totals"]
    assert totals["retiredBytes"] == 1000
    for page in ("index.html", "space.html"):
        for title, key in (("Stored", "bytes"), ("Without shared layers", "bytesWithoutSharing")):
            figure = f"<dt>{title}</dt><dd>{human_size(totals[key])}</dd>"
            assert figure in pages(tmp_path)[page], (page, title)

    (tmp_path / "images" / layout.manifest_file(OLD)).write_bytes(b"{")
    result = ask(tmp_path, "site", tmp_path / "www")
    assert (result.code, f"cannot read {OLD}: " in result.err) == (1, True)
    assert "try: publisher verify" in result.err


def test_a_damaged_index_and_a_directory_in_place_of_a_page_are_named(tmp_path: Path) -> None:
    publish(tmp_path, "old")
    index, *_ = (tmp_path / "images").glob(f"{layout.LAYERS}/*/*/{layout.LAYER_INDEX}")
    whole = index.read_bytes()
    index.write_bytes(b"damaged")
    result = ask(tmp_path, "site", tmp_path / "www", "--contents", "0")
    assert (result.code, "index" in result.err) == (1, True), result.err
    index.write_bytes(whole)
    page = tmp_path / "www" / addresses.image_page(OLD)
    page.unlink()
    page.mkdir()
    refused = ask(tmp_path, "site", tmp_path / "www")
    assert "a directory is in its place" in refused.err
    assert f"try: rm -r {shlex.quote(str(page))}" in refused.err
    page.rmdir()
    site(tmp_path)
    assert page.is_file()


def test_what_a_removal_frees_includes_the_squashfs_file(tmp_path: Path) -> None:
    require(PROGRAM)
    write_layout(image(layer(file("f", bytes(range(256)) * 64))), tmp_path / "one", "1")
    source = f"oci:{tmp_path}/one:1"
    wish = f"{{image: '{source}', name: one, outputs: [layers, squashfs]}}"
    (tmp_path / "wishes.yaml").write_text(f"version: 2\nimages:\n  - {wish}\n")
    assert ask(tmp_path, "ingest", tmp_path / "wishes.yaml").code == 0
    [single] = (tmp_path / "images").glob(f"{layout.SQUASHFS}/*/*")
    site(tmp_path)
    freed = human_size(256 * 64 + single.stat().st_size)
    assert f'<td class="figure">{freed}</td></tr>' in pages(tmp_path)["space.html"]


def test_the_run_after_a_full_disk_completes_the_site(tmp_path: Path) -> None:
    require_root()
    publish(tmp_path, "old")
    www = tmp_path / "www"
    www.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", www)
    try:
        failed = ask(tmp_path, "site", www)
        assert failed.code not in (0, 1)
        assert "No space left on device" in failed.err
        run("mount", "-o", "remount,size=8m", www)
        site(tmp_path)
        assert pages(tmp_path).keys() >= {"index.html", "space.html", addresses.image_page(OLD)}
        assert site(tmp_path)[0] == 0
    finally:
        run("umount", www)


def test_a_directory_that_is_not_a_site_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, "old")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    result = ask(tmp_path, "site", tmp_path / "full")
    assert result.code == 1 and "it has files, and is not a site" in result.err
    assert os.listdir(tmp_path / "full") == ["file"]
    result = ask(tmp_path, "site", tmp_path / "images/www")
    assert result.code == 1 and "it is in the published tree" in result.err
    assert not (tmp_path / "images/www").exists()

    site(tmp_path)
    record = tmp_path / "www" / directory.RECORD
    for damaged in ("{", '{"version":1,"units":[["a","b",[["../x",1,"c"]]]],"layers":[]}'):
        record.write_text(damaged)
        site(tmp_path)
        assert site(tmp_path)[0] == 0
    with open(tmp_path / "www/.publisher-site.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = ask(tmp_path, "site", tmp_path / "www")
    assert result.code == 1 and "another `publisher site` is writing it" in result.err
    (tmp_path / "www/images").rename(tmp_path / "elsewhere")
    (tmp_path / "www/images").symlink_to(tmp_path / "elsewhere")
    result = ask(tmp_path, "site", tmp_path / "www")
    assert result.code == 1 and "images in it is not a directory" in result.err


@pytest.mark.parametrize("killed_at", range(8))
def test_the_run_after_a_killed_one_completes_the_site(tmp_path: Path, killed_at: int) -> None:
    class Killed(BaseException):
        pass

    def write(number: int, stop: int | None) -> None:
        with open_site(tmp_path / "www") as opened:
            names = [f"images/{each}.html" for each in range(number, number + 3)]
            for position, name in enumerate([*names, "index.html"]):
                if position == stop:
                    raise Killed
                text = f"{name} of {number}".encode()
                opened.put(name, text, partial(list, [(name, text)]))
            if stop == 4:
                raise Killed
            opened.finish({})

    write(0, None)
    if killed_at < 5:
        with pytest.raises(Killed):
            write(2, killed_at)
    else:  # in a new directory, and before anything is recorded
        with pytest.raises(Killed):
            write(1, killed_at - 5)
    write(2, None)
    names = {str(p.relative_to(tmp_path / "www")) for p in (tmp_path / "www").rglob("*.html")}
    assert names == {"images/2.html", "images/3.html", "images/4.html", "index.html"}
    assert (tmp_path / "www/index.html").read_text() == "index.html of 2"
    hidden = {directory.RECORD, ".publisher-site.lock", "images", "index.html"}
    assert set(os.listdir(tmp_path / "www")) == hidden


def test_no_page_is_written_through_a_link_in_place_of_a_directory(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for content in (b"old", b"new"):
        with open_site(tmp_path / "www") as opened:
            opened.put("page", content, partial(list, [("contents/a/index.html", content)]))
            opened.finish({})
        page = tmp_path / "www/contents/a/index.html"
        assert page.read_bytes() == content
        if content == b"old":
            page.parent.rename(tmp_path / "aside")
            page.parent.symlink_to(outside)
    assert not list(outside.iterdir())
    assert not page.parent.is_symlink()


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((NotASite, FileExistsError)), open_site(tmp_path / "file"):
        pass


ALLOWED = {
    "form": set[str](),
    "script": {"src"},
    "link": {"rel", "href", "type"},
    "meta": {"charset", "http-equiv", "content", "name"},
}


class Page(HTMLParser):
    """What of a page could execute or load something, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name.startswith("on") or name in ("style", "srcdoc", "formaction"):
                self.problems.append(f"{tag} {name}={value}")
            if name in ("href", "src"):
                self.links.append(value or "")
        if tag in ALLOWED and not {name for name, _ in attrs} <= ALLOWED[tag]:
            self.problems.append(f"{tag} {attrs}")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_texts_are_shown_as_text_on_every_page(tmp_path: Path) -> None:
    write_layout(hostile_image(), tmp_path / "hostile", "1")
    name = "local/hostile:1"
    wishes = [
        {"image": f"oci:{tmp_path}/hostile:1", "owner": MARKUP, "note": SCRIPT + LONG},
        {"image": f"oci:{tmp_path}/{MARKUP}:1", "owner": MARKUP},
    ]
    wish_list = tmp_path / "list.yaml"
    wish_list.write_text(json.dumps({"version": 2, "images": wishes}))
    assert ask(tmp_path, "ingest", wish_list).code == 1
    metadata = tmp_path / "images" / layout.METADATA
    # Other tools may publish names that the publisher refuses.
    other = f"local/{MARKUP}/{SCRIPT.replace('/', '|')}/a\x1bb\u202ec\udcff:1"
    (metadata / name).rename(metadata / "moved")
    (metadata / other).parent.mkdir(parents=True)
    (metadata / "moved").rename(metadata / other)
    site(tmp_path)
    written = pages(tmp_path)
    assert len(written) > 1
    for path, text in written.items():
        assert all(c.isprintable() or c == "\n" for c in text), path
        page = Page(text)
        assert not page.problems, path
        assert not page.tags & {"img", "iframe", "object", "embed", "base", "style", "form"}
        for link in page.links:
            if link.startswith("https://example.org/"):
                continue  # of a label
            assert (
                ":" not in link
                and (tmp_path / "www" / path)
                .parent.joinpath(link.partition("#")[0].partition("?")[0])
                .exists()
            ), link
        assert "default-src 'none'; script-src 'self'" in text
    shown = Page(written[addresses.image_page(other)])
    for text in (MARKUP, SCRIPT, printable(CONTROLS), LONG):
        assert text in shown.text
    assert "https://example.org/docs" in shown.links
