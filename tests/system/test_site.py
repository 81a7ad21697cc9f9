"""The pages of `publisher site` in Chromium: with and without a script, large and small, safe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from publisher.site import addresses
from tests.command import succeed
from tests.components import program
from tests.site_images import HOSTILE, MARKUP, NAMED, publish_images

pytestmark = pytest.mark.system

BUSYBOX = "docker.io/library/busybox:1.36"
ANALYSIS = "quay.io/physics/analysis:2026.12"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


@dataclass(slots=True)
class Site:
    """A written site, and what pages that were opened reported."""

    browser: Browser
    folder: Path
    reports: list[str] = field(default_factory=list)

    def context(
        self, *, scripts: bool = True, dark: bool = False, width: int = 1280
    ) -> BrowserContext:
        return self.browser.new_context(
            viewport={"width": width, "height": 844},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
        )

    def open(self, context: BrowserContext, path: str) -> Page:
        page = context.new_page()
        page.on("console", lambda message: self.reports.append(message.text))
        page.on("pageerror", lambda error: self.reports.append(str(error)))
        page.on("dialog", lambda dialog: self.reports.append(dialog.message))
        page.on("request", lambda request: self._note_foreign(request.url))
        page.goto(f"file://{self.folder}/{path}")
        return page

    def _note_foreign(self, url: str) -> None:
        if not url.startswith(f"file://{self.folder}/"):
            self.reports.append(f"a request for {url}")

    def contents(self, name: str, page: str) -> str:
        """The path of the page about an image's contents, from its link."""
        text = (self.folder / addresses.image_page(name)).read_text()
        [found] = set(re.findall(rf'href="\.\./(contents/[0-9a-f]+/{page})"', text))
        return str(found)

    def kinds(self) -> list[str]:
        """A page of every kind."""
        layers = sorted((self.folder / "layers").iterdir(), key=lambda path: path.stat().st_size)
        return [
            addresses.INDEX,
            addresses.WISHES,
            addresses.REMOVALS,
            addresses.SPACE,
            addresses.image_page(ANALYSIS),
            addresses.image_page(HOSTILE),
            f"layers/{layers[-1].name}",
            self.contents(ANALYSIS, "index.html"),
            self.contents(ANALYSIS, "packages.html"),
            f"compare/{next((self.folder / 'compare').iterdir()).name}",
        ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    chromium = program("chromium")
    root = tmp_path_factory.mktemp("site")
    images = publish_images(root)
    succeed("site", root / "www", "--repository", images, "--title", "Images of the <cluster>")
    with sync_playwright() as playwright:
        # Tests may run as root, and in a machine without user namespaces.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield Site(browser, root / "www")
        browser.close()


def shown(page: Page) -> list[str]:
    return page.locator("tbody tr:visible th").all_inner_texts()


def test_images_are_searched_sorted_and_filtered(site: Site) -> None:
    with site.context() as context:
        page = site.open(context, addresses.INDEX)
        assert page.title() == "Images · Images of the <cluster>"
        everything = shown(page)
        assert len(everything) > 25
        page.keyboard.press("/")
        page.keyboard.type("PHYSICS analysis")
        assert len(shown(page)) == 4 and all("analysis" in name for name in shown(page))
        assert page.locator("[data-count]").inner_text() == f"4 of {len(everything)} shown"
        page.reload()  # the search is a part of the address
        assert len(shown(page)) == 4
        page.get_by_label("Search").fill("")
        page.get_by_label("Owner").select_option("astro")
        page.get_by_label("State").select_option("scheduled")
        assert [name.split("/")[-1] for name in shown(page)] == ["meqtrees:1.7.0"]
        page.get_by_label("State").select_option("pinned")
        assert shown(page) == [] and page.locator("[data-none]").is_visible()
        page.get_by_label("Owner").select_option("")
        assert len(shown(page)) == 1
        page.get_by_label("State").select_option("")

        head = page.get_by_role("columnheader", name="Size")
        head.get_by_role("button").focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        sizes = [
            int(each)
            for each in page.locator("tbody tr td:nth-child(5)").evaluate_all(
                "cells => cells.map((cell) => cell.dataset.value)"
            )
        ]
        assert sizes == sorted(sizes, reverse=True) and len(sizes) == len(everything)
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
    assert site.reports == []


def test_an_image_page_shows_how_to_run_the_image_and_its_files(site: Site) -> None:
    with site.context() as context:
        page = site.open(context, addresses.INDEX)
        page.get_by_role("link", name="analysis:2026.12").click()
        assert page.locator("h1").inner_text() == "analysis:2026.12"
        command = page.locator(".commands dd").first
        line = command.locator("code").inner_text()
        assert line.startswith("apptainer run /") and line.endswith(ANALYSIS)
        command.get_by_role("button").click()
        assert command.get_by_role("button").get_attribute("data-done") == "copied"
        page.get_by_role("link", name="Files", exact=True).click()
        summary = page.locator("summary", has_text="opt/").first
        summary.focus()
        page.keyboard.press("Enter")
        assert page.locator("summary", has_text="science/").is_visible()
        page.get_by_role("link", name="Space").click()
        page.locator("svg.map-wide a").first.click()
        assert "/layers/" in page.url
        page.goto(f"file://{site.folder}/{addresses.image_page(BUSYBOX)}")
        page.get_by_role("link", name="linux/arm64").click()
        assert page.locator(".chip").first.inner_text() == "linux/arm64"
        page.get_by_role("link", name="linux/amd64").click()
        assert page.url.endswith(addresses.image_page(BUSYBOX))
    assert site.reports == []


def test_the_theme_follows_the_system_until_it_is_chosen(site: Site) -> None:
    def background(page: Page) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    with site.context() as light, site.context(dark=True) as dark:
        one, other = (site.open(each, addresses.INDEX) for each in (light, dark))
        colours = background(one), background(other)
        assert len(set(colours)) == 2
        button = one.get_by_role("button", name="Colours")
        button.click()
        button.click()
        assert button.get_attribute("aria-label") == "Colours: Dark"
        assert background(one) == colours[1]
        one.goto(f"file://{site.folder}/{addresses.WISHES}")
        assert background(one) == colours[1]
    assert site.reports == []


def test_every_page_fits_a_phone_and_is_read_without_a_script(site: Site) -> None:
    with site.context(width=390, scripts=False) as context:
        for path in site.kinds():
            page = site.open(context, path)
            assert page.locator("h1").is_visible(), path
            assert not page.locator("[data-controls]:visible, .copy:visible").count(), path
            box = page.locator("main").bounding_box()
            assert box is not None and box["width"] <= 390, path
            page.close()
        page = site.open(context, addresses.INDEX)
        assert len(shown(page)) > 25
    with site.context(width=390) as context:
        for path in site.kinds():
            page = site.open(context, path)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            page.close()
        page = site.open(context, addresses.SPACE)
        assert page.locator(".map-narrow text").first.is_visible()
        assert not page.locator(".map-wide").is_visible()
    assert site.reports == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_barrier(site: Site, dark: bool) -> None:
    with site.context(dark=dark) as context:
        # The pages differ between light and dark by their colours alone.
        rules = ["color-contrast"] if dark else RULES
        for path in site.kinds()[:5] if dark else site.kinds():
            page = site.open(context, path)
            # Without the nodes that pass, of which large pages have thousands.
            options = {"runOnly": rules, "preload": False, "resultTypes": ["violations"]}
            found = Axe().run(page, options=options)
            problems = [
                f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}"
                for each in found.response["violations"]
            ]
            assert problems == [], path
            page.close()
    assert site.reports == []


def test_hostile_texts_execute_nothing(site: Site) -> None:
    with site.context() as context:
        for name in (HOSTILE, NAMED):
            contents = [site.contents(name, each) for each in ("index.html", "packages.html")]
            for path in (addresses.image_page(name), *contents, addresses.WISHES):
                page = site.open(context, path)
                page.wait_for_load_state("load")
                assert "executed" not in page.title() or MARKUP[:4] in page.title()
                assert page.evaluate("document.title").endswith("· Images of the <cluster>")
                assert not page.locator("main img, main script, [onerror]").count()
                page.close()
    assert site.reports == []


def test_the_policy_of_pages_forbids_what_escaping_would_have_missed(site: Site) -> None:
    page_file = site.folder / addresses.REMOVALS
    bad = (
        "<script>document.title='executed'</script>"
        "<img src=x onerror=\"document.title='executed'\">"
        "<p style='color:red' onclick=\"document.title='executed'\" id=bad>x</p>"
        "<iframe src=\"javascript:parent.document.title='executed'\"></iframe>"
        "<a id=link href=\"javascript:document.title='executed'\">y</a>"
        "<link rel=stylesheet href=http://127.0.0.1:9/x.css>"
    )
    whole = page_file.read_text()
    page_file.write_text(whole.replace("</main>", f"{bad}</main>"))
    try:
        with site.context() as context:
            page = site.open(context, addresses.REMOVALS)
            page.locator("#bad").click()
            page.locator("#link").click()
            assert page.title() == "Removals · Images of the <cluster>"
            assert any("Content Security Policy" in report for report in site.reports)
    finally:
        page_file.write_text(whole)
        site.reports.clear()
