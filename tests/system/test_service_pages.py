"""The pages about jobs in Chromium: a log is watched, a job cancelled, a failed wish retried."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.components import program
from tests.service import HostProcess, eventually, running_host, write_lists

pytestmark = pytest.mark.system

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
MILLISECONDS = 120_000
expect.set_options(timeout=MILLISECONDS)


@dataclass(slots=True)
class Pages:
    """A running service, and what pages that were opened reported."""

    browser: Browser
    url: str
    broken: Path
    fixed: Path
    slow: Path
    reports: list[str] = field(default_factory=list)

    def context(
        self, token: str = "editor", *, scripts: bool = True, dark: bool = False, width: int = 1280
    ) -> BrowserContext:
        return self.browser.new_context(
            viewport={"width": width, "height": 844},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
            extra_http_headers={"Authorization": f"Bearer secret-{token}"},
        )

    def open(self, context: BrowserContext, path: str) -> Page:
        page = context.new_page()
        page.set_default_timeout(MILLISECONDS)
        page.on("console", lambda message: self.reports.append(message.text))
        page.on("pageerror", lambda error: self.reports.append(str(error)))
        page.goto(self.url + path)
        return page

    def submit(self, **body: str) -> str:
        found = requests.post(
            f"{self.url}/api/v1/jobs",
            json={"repository": "images", **body},
            headers={"Authorization": "Bearer secret-editor"},
            timeout=60,
        )
        assert found.status_code == 202, found.text
        return str(found.json()["id"])

    def state(self, job: str) -> str:
        found = requests.get(
            f"{self.url}/api/v1/jobs/{job}",
            headers={"Authorization": "Bearer secret-editor"},
            timeout=60,
        )
        return str(found.json()["state"])


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    chromium = program("chromium")
    root = tmp_path_factory.mktemp("pages")
    lists = write_lists(root, lists=2, images=2)
    broken = root / "broken.yaml"  # one of its images is missing at first
    fixed = root / "layout1"
    broken.write_text(f"version: 2\nimages: ['oci:{fixed}:t0', 'oci:{fixed}:later']\n")
    slow = root / "slow.yaml"
    os.mkfifo(slow)  # an ingest of it waits
    sources = {"good": lists["list0"], "broken": broken, "slow": slow}

    def token(name: str, *verbs: str) -> dict[str, object]:
        hashed = hashlib.sha256(f"secret-{name}".encode()).hexdigest()
        return {"name": name, "sha256": hashed, "allows": list(verbs)}

    host = HostProcess(
        "serve",
        root / "a",
        {
            "repositories": {
                "images": {
                    "url": f"dir:{root}/images",
                    "lists": {name: {"source": str(path)} for name, path in sources.items()},
                    "projects": ["astro", "bio"],
                }
            },
            "projects": {
                "astro": {"prefix": "local/astro", "quota": {"images": 5, "bytes": "1 GB"}},
                "bio": {},
            },
            "tokens": [token("editor", "read", "submit", "cancel"), token("reader", "read")],
        },
    )
    with running_host(host), sync_playwright() as playwright:
        eventually(lambda: host.status("/readyz") == 200)
        # Tests may run as root, and in a machine without user namespaces.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield Pages(browser, f"http://127.0.0.1:{host.port}", broken, fixed, slow)
        browser.close()


def check(page: Page) -> None:
    found = Axe().run(page, options={"runOnly": RULES}).response["violations"]
    assert found == [], [(each["id"], each["nodes"][0]["html"]) for each in found]
    width = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0, page.url


def test_a_log_is_watched_a_job_cancelled_and_a_failed_wish_retried(
    pages: Pages, tmp_path: Path
) -> None:
    shots = Path(os.environ.get("PUBLISHER_SCREENSHOTS", tmp_path))
    with pages.context() as context:
        # A job that waits for its list: its log is followed, and the button ends it.
        waiting = pages.submit(kind="ingest-list", list="slow")
        page = pages.open(context, f"/jobs/{waiting}")
        expect(page.locator("[data-connection]")).to_have_text("Following the log.")
        expect(page.locator(".log li").first).to_contain_text("publisher ingest begins")
        check(page)
        page.screenshot(path=shots / "job-running.png", full_page=True)
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("[data-state]")).to_have_text("cancelled")  # by itself
        expect(page.locator(".warning")).to_contain_text("cancelled by editor")
        expect(page.get_by_role("button", name="Retry")).to_be_visible()

        # A list of which one image is missing fails; its wish is retried when it exists.
        failed = pages.submit(kind="ingest-list", list="broken")
        eventually(lambda: pages.state(failed) == "failed")
        page.goto(f"{pages.url}/jobs/{failed}")
        expect(page.locator(".log-error").first).to_contain_text("later")
        check(page)
        page.screenshot(path=shots / "job-failed.png", full_page=True)
        page.goto(f"{pages.url}/repositories/images/wishes.html")
        retry = page.get_by_role("button", name="Retry")
        expect(retry).to_have_count(1)
        check(page)
        page.screenshot(path=shots / "wishes.png", full_page=True)
        index = pages.fixed / "index.json"
        index.write_text(index.read_text().replace('"t1"', '"later"'))
        retry.click()
        expect(page.locator("h1")).to_have_text("ingest-list broken")
        expect(page.locator("[data-state]")).to_have_text("succeeded")
        page.get_by_role("link", name="Images of images").click()
        expect(page.locator("tbody tr th")).to_have_count(2)
        page.get_by_role("link", name="Jobs").click()
        expect(page.locator("tbody tr")).to_have_count(3)
        page.get_by_label("State").select_option("failed")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("tbody tr")).to_have_count(1)
        check(page)
    for dark, width in ((True, 1280), (False, 390)):
        with pages.context(dark=dark, width=width) as context:
            for name, path in (
                ("jobs", "/jobs"),
                ("job", f"/jobs/{failed}"),
                ("wishes", "/repositories/images/wishes.html"),
                ("projects", "/projects"),
                ("missing", "/jobs/none"),
            ):
                page = pages.open(context, path)
                check(page)
                kind = "dark" if dark else "small"
                page.screenshot(path=shots / f"{name}-{kind}.png", full_page=True)
    pages.reports[:] = [each for each in pages.reports if "404" not in each]  # of /jobs/none
    assert pages.reports == []


def test_pages_are_read_without_a_script_and_have_only_the_buttons_that_work(
    pages: Pages,
) -> None:
    with pages.context("reader", scripts=False) as context:
        waiting = pages.submit(kind="ingest-list", list="slow")
        eventually(lambda: pages.state(waiting) == "running")
        page = pages.open(context, "/jobs")
        page.get_by_role("link", name="ingest-list").first.click()
        expect(page.locator("[data-state]")).to_have_text("running")
        expect(page.locator("[data-connection]")).to_have_text("Reload the page for further lines.")
        assert page.get_by_role("button", name="Cancel").count() == 0
    with pages.context("editor", scripts=False) as context:
        page = pages.open(context, f"/jobs/{waiting}")
        page.get_by_role("button", name="Cancel").click()
        assert page.url == f"{pages.url}/jobs/{waiting}"
        eventually(lambda: pages.state(waiting) == "cancelled")
        page.reload()
        expect(page.get_by_role("button", name="Retry")).to_be_visible()
