"""`python -m bench.real_site FOLDER`: the site of 30 real images, in Chromium.

The images are those of `tests.real_image` (Debian, Python and numpy), and these with packages of
Debian and distributions of Python that are installed on this machine, and a tree that rpm made.
They are published, and the pages of their site are opened: large and small, light and dark. Prints
what the browser and axe report, and leaves screenshots in FOLDER/pictures to look at. Needs root,
and the programs that tests need. FOLDER must not exist, and is not removed. Ends with 1 if
anything was reported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import yaml

from publisher.repository.directory.repository import DirectoryRepository
from publisher.site import addresses
from publisher.tree.layout import RepositoryURL
from tests.command import succeed
from tests.components import program, run
from tests.layer_builder import Layer, Member, file, image, layer, write_layout
from tests.real_image import build_real_images, layers_of

DEBIAN = (
    *("bash", "coreutils", "curl", "findutils", "gawk", "git", "gzip", "make", "mmdebstrap"),
    *("openssl", "patch", "perl-base", "rsync", "sed", "squashfs-tools", "tar", "xz-utils", "zstd"),
    *("skopeo", "umoci", "strace", "jq"),
)
PYTHON = (
    *("click", "cyclonedx-python-lib", "hypothesis", "jinja2", "packaging", "pip", "pygments"),
    *("pytest", "pyyaml", "requests", "rich", "urllib3"),
)
IMAGES = 30
"""How many images the list shows at least."""

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
_SITE_PACKAGES = "usr/local/lib/python3.11/dist-packages"


def main() -> int:
    """Make the site and look at it; return the exit code."""
    parser = argparse.ArgumentParser(prog="bench.real_site", description=__doc__)
    parser.add_argument("folder", type=Path, help="a directory that does not exist")
    folder = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True)
    images = folder / "images"
    wishes = [
        {"image": f"oci:{folder}/sources/{name}:1", "name": f"science/{name}", "owner": owner}
        for name, owner in _write_images(folder)
    ]
    wish_list = folder / "science.yaml"
    wish_list.write_text(yaml.safe_dump({"version": 2, "images": wishes}))
    print(f"{len(wishes)} images; publishing", flush=True)
    succeed("ingest", wish_list, "--repository", images, "-q")
    succeed("site", folder / "www", "--repository", images, "--title", "Scientific images")
    reports = _look(folder, images)
    for report in reports:
        print(report)
    print(f"{len(reports)} reports; look at {folder}/pictures")
    return 1 if reports else 0


def _write_images(folder: Path) -> Iterator[tuple[str, str]]:
    """Write the images as OCI layouts; yield the name and the owner of each."""
    layout = build_real_images().layout
    debian, python, numpy = (layers_of(layout, tag) for tag in ("base", "python", "numpy"))
    yield _write(folder, "debian", debian), "base"
    yield _write(folder, "python", python), "base"
    yield _write(folder, "numpy", numpy), "physics"
    for name in DEBIAN:
        found = _installed_package(name)
        if found:
            yield _write(folder, name, [*debian, layer(*found)]), "debian"
    for name in PYTHON:
        yield _write(folder, f"python-{name}", [*python, layer(*_distribution(name))]), "python"
    course = layer(file("srv/course.py", b"import numpy\n"))
    yield _write(folder, "course", [*numpy, course]), "teaching"
    yield _write(folder, "rpm", [layer(*_members(_rpm_tree(folder)))]), "rpm"


def _write(folder: Path, name: str, layers: Sequence[Layer]) -> str:
    config = {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/bin:/bin"], "Labels": {"made.by": "bench"}}
    write_layout(image(*layers, config=config), folder / "sources" / name, "1")
    return name


def _installed_package(name: str) -> list[Member]:
    """Return the files of a package of this machine, described as in images without dpkg.

    The list is empty if the package is not installed.
    """
    try:
        paths = run("dpkg-query", "-L", name).splitlines()
    except AssertionError:
        return []
    status = run("dpkg-query", "-s", name)
    members = [file(f"var/lib/dpkg/status.d/{name}", status.encode())]
    for path in sorted(Path(each) for each in paths):
        inside = path.as_posix().lstrip("/")
        if inside and path.is_file() and not path.is_symlink():
            members.append(file(inside, path.read_bytes(), mode=path.stat().st_mode & 0o755))
    return members


def _distribution(name: str) -> list[Member]:
    """Return the files of a distribution of Python that is installed here."""
    return [
        file(f"{_SITE_PACKAGES}/{each}", Path(str(each.locate())).read_bytes())
        for each in metadata.files(name) or ()
        if ".." not in each.parts and each.suffix != ".pyc" and Path(str(each.locate())).is_file()
    ]


def _rpm_tree(folder: Path) -> Path:
    """Return a tree with the database of rpm, in which two packages are installed."""
    tree, build = folder / "trees/rpm", folder / "rpmbuild"
    tree.mkdir(parents=True)
    for name in ("hello", "tool"):
        spec = folder / f"{name}.spec"
        spec.write_text(
            f"Name: {name}\nVersion: 1.2\nRelease: 3\nSummary: A test\nLicense: MIT\n"
            "BuildArch: noarch\n%description\nA test.\n%files\n"
        )
        run(program("rpmbuild"), "-bb", "--define", f"_topdir {build}", spec)
    packages = sorted((build / "RPMS/noarch").iterdir())
    options = ("--root", tree, "--dbpath", "/var/lib/rpm", "--nodeps", "--noscripts")
    run(program("rpm"), *options, "-i", *packages)
    return tree


def _members(tree: Path) -> Iterator[Member]:
    """Yield the files of a tree."""
    for path in sorted(tree.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield file(path.relative_to(tree).as_posix(), path.read_bytes())


def _look(folder: Path, images: Path) -> list[str]:
    """Open the pages, and return what the browser and axe report."""
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    site, pictures = folder / "www", folder / "pictures"
    pictures.mkdir()
    reports: list[str] = []
    repository = DirectoryRepository(RepositoryURL.parse(f"dir:{images}"), writable=False)
    names = list(repository.names())
    pages = {
        "list": addresses.INDEX,
        "image": addresses.image_page(next(n for n in names if "python-rich" in n)),
        "rpm": addresses.image_page(next(n for n in names if "/rpm" in n)),
        "space": addresses.SPACE,
        "wishes": addresses.WISHES,
        "removals": addresses.REMOVALS,
    }
    contents = sorted((site / "contents").iterdir())[0].name
    pages |= {f"contents-{n}": f"contents/{contents}/{n}.html" for n in ("index", "packages")}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program("chromium"), args=["--no-sandbox"]
        )
        for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light")):
            context = browser.new_context(
                viewport={"width": width, "height": 900},
                color_scheme="dark" if scheme == "dark" else "light",
            )
            for title, path in pages.items():
                page = context.new_page()
                page.on("console", lambda message: reports.append(message.text))
                page.on("pageerror", lambda error: reports.append(str(error)))
                page.goto(f"file://{site}/{path}")
                page.screenshot(path=pictures / f"{title}-{width}-{scheme}.png")
                if page.evaluate("document.documentElement.scrollWidth") > width:
                    reports.append(f"{path} is wider than {width}")
                options = {"runOnly": RULES, "preload": False, "resultTypes": ["violations"]}
                reports.extend(
                    f"{path}: {each['id']}: {each['nodes'][0]['html'][:120]}"
                    for each in Axe().run(page, options=options).response["violations"]
                )
                page.close()
            context.close()
        page = browser.new_page()
        page.goto(f"file://{site}/{addresses.INDEX}")
        rows = page.locator("tbody tr:visible")
        if rows.count() < IMAGES:
            reports.append(f"the list has {rows.count()} images")
        page.get_by_label("Search").fill("python requests")
        if rows.count() != 1:
            reports.append(f"a search finds {rows.count()} images")
        page.screenshot(path=pictures / "search.png")
        page.get_by_label("Search").fill("")
        head = page.get_by_role("columnheader", name="Size")
        head.get_by_role("button").click()
        if head.get_attribute("aria-sort") != "descending":
            reports.append("the list is not sorted")
        page.screenshot(path=pictures / "sorted.png")
        browser.close()
    return reports


if __name__ == "__main__":
    sys.exit(main())
