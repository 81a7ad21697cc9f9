"""The pages in Chromium: a user signs in, watches a log, cancels a job, retries a failed wish."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    StorageState,
    expect,
    sync_playwright,
)

from tests.components import program
from tests.oidc_provider import CLIENT, SECRET, OidcProvider
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
    provider: OidcProvider
    reports: list[str] = field(default_factory=list)

    def context(
        self,
        token: str = "",
        *,
        session: StorageState | None = None,
        scripts: bool = True,
        dark: bool = False,
        width: int = 1280,
    ) -> BrowserContext:
        """A browser with a token, or with the cookies of a session, or of a stranger."""
        return self.browser.new_context(
            viewport={"width": width, "height": 844},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
            extra_http_headers={"Authorization": f"Bearer secret-{token}"} if token else {},
            storage_state=session,
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
            "access": {"anonymous": "published"},
            "administrators": [{"user": "alice", "role": "maintainer"}],
        },
    )
    secret = root / "login.secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    url = f"http://127.0.0.1:{host.port}"
    with OidcProvider() as provider, sync_playwright() as playwright:
        login = {"issuer": provider.issuer, "client": CLIENT, "client-secret-file": str(secret)}
        host.write(url=url, login=login)
        with running_host(host):
            eventually(lambda: host.status("/readyz") == 200)
            # Tests may run as root, and in a machine without user namespaces.
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            yield Pages(browser, url, broken, fixed, slow, provider)
            browser.close()


def check(page: Page) -> None:
    found = Axe().run(page, options={"runOnly": RULES}).response["violations"]
    assert found == [], [(each["id"], each["nodes"][0]["html"]) for each in found]
    width = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0, page.url


def test_a_user_signs_in_watches_a_log_cancels_a_job_and_retries_a_failed_wish(
    pages: Pages, tmp_path: Path
) -> None:
    shots = Path(os.environ.get("PUBLISHER_SCREENSHOTS", tmp_path))
    with pages.context() as context:
        # A page that needs a login leads to the provider, and the login back to the page: a job
        # that waits for its list. Its log is followed, and the button ends it.
        waiting = pages.submit(kind="ingest-list", list="slow")
        page = pages.open(context, f"/jobs/{waiting}")
        assert page.url == f"{pages.url}/jobs/{waiting}" and "/authorize" in pages.provider.asked
        expect(page.locator(".account")).to_contain_text("Signed in as alice")
        expect(page.locator("[data-connection]")).to_have_text("Following the log.")
        expect(page.locator(".log li").first).to_contain_text("publisher ingest begins")
        check(page)
        page.screenshot(path=shots / "job-running.png", full_page=True)
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("[data-state]")).to_have_text("cancelled")  # by itself
        expect(page.locator(".warning")).to_contain_text("cancelled by alice")
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
        # Until the repository has been read again, its pages are those of before.
        rows = page.locator("tbody tr th")
        eventually(lambda: page.reload() and rows.count() == 2)
        page.get_by_role("link", name="Jobs").click()
        expect(page.locator("tbody tr")).to_have_count(3)
        page.get_by_label("State").select_option("failed")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("tbody tr")).to_have_count(1)
        check(page)
        session = context.storage_state()
    for dark, width in ((True, 1280), (False, 390)):
        with pages.context(session=session, dark=dark, width=width) as context:
            for name, path in (
                ("images", "/repositories/images/index.html"),
                ("account", "/account"),
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


def test_a_user_signs_out_and_in_again_and_reads_why_a_login_leads_nowhere(
    pages: Pages, tmp_path: Path
) -> None:
    shots = Path(os.environ.get("PUBLISHER_SCREENSHOTS", tmp_path))
    index = "/repositories/images/index.html"
    first = pages.submit(kind="ingest-list", list="good")  # makes the repository
    eventually(lambda: pages.state(first) == "succeeded")
    with pages.context(width=390) as context:
        page = pages.open(context, index)
        check(page)
        page.screenshot(path=shots / "stranger-small.png", full_page=True)
        page.get_by_role("link", name="Sign in").click()
        expect(page.locator(".account")).to_contain_text("alice")
        assert page.url == pages.url + index
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator("h1")).to_have_text("Not signed in")
        assert page.url == f"{pages.url}/account" and context.cookies() == []
        check(page)

        # Nothing is known of this login.
        page.goto(f"{pages.url}/login/callback?code=a&state=b")
        expect(page.locator(".warning")).to_contain_text("the browser has begun no login")
        check(page)
        page.screenshot(path=shots / "lost-small.png", full_page=True)

        pages.provider.user = {"sub": "mallory"}
        page.goto(f"{pages.url}/jobs")
        expect(page.locator(".warning")).to_contain_text("mallory has no role that allows to read")
        check(page)
        page.screenshot(path=shots / "no-role-small.png", full_page=True)
    pages.reports[:] = [each for each in pages.reports if "403" not in each]
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
