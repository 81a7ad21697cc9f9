"""The page for new wishes in Chromium, with a registry that the check asks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from tests.components import program
from tests.layer_builder import file, image, layer
from tests.registry import OwnRegistry
from tests.service import HostProcess, eventually, running_host

pytestmark = pytest.mark.system

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
MILLISECONDS = 120_000
SHOTS = os.environ.get("PUBLISHER_SCREENSHOTS", "")


def test_a_wish_is_checked_without_scripts_and_its_lines_are_shown(tmp_path: Path) -> None:
    chromium = program("chromium")
    expect.set_options(timeout=MILLISECONDS)
    wishes = tmp_path / "wishes.yaml"
    token = {"name": "a", "sha256": SHA256, "allows": ["submit", "read"]}
    lists = {"astro": {"source": str(wishes)}}
    configuration: dict[str, object] = {
        "tokens": [token],
        "repositories": {"images": {"url": f"dir:{tmp_path}/images", "lists": lists}},
    }
    host = HostProcess("serve", tmp_path / "host", configuration)
    with OwnRegistry() as registry, running_host(host), sync_playwright() as playwright:
        registry.add("astro/app", "1", image(layer(file("motd"))))
        registry.add("astro/tools", "2", image(layer(file("tools"))))
        listed = {"version": 2, "images": [f"http://{registry.host}/astro/app:1"]}
        wishes.write_text(yaml.safe_dump(listed))
        eventually(lambda: host.status("/readyz") == 200)
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        context = browser.new_context(
            java_script_enabled=False, extra_http_headers={"Authorization": "Bearer topsecret"}
        )
        page = context.new_page()
        page.set_default_timeout(MILLISECONDS)
        page.goto(f"http://127.0.0.1:{host.port}/new-wish")
        page.get_by_role("textbox", name="Image").fill(f"http://{registry.host}/astro/tools:2")
        page.get_by_role("button", name="Check").click()
        expect(page.get_by_role("heading", name="The image can be published")).to_be_visible()
        expect(page.get_by_label("Lines to add")).to_contain_text("/astro/tools:2")
        _shot(page, "found")
        page.get_by_role("textbox", name="Image").fill(f"http://{registry.host}/astro/tools:3")
        page.get_by_role("button", name="Check").click()
        expect(page.get_by_role("heading", name="The wish cannot be added")).to_be_visible()
        expect(page.get_by_text("its nearest tags: 2")).to_be_visible()
        _shot(page, "missing")
        context.close()
        checked = browser.new_context(extra_http_headers={"Authorization": "Bearer topsecret"})
        page = checked.new_page()
        page.goto(f"http://127.0.0.1:{host.port}/new-wish", timeout=MILLISECONDS)
        _shot(page, "form")
        found = Axe().run(page, options={"runOnly": {"type": "tag", "values": RULES}})
        assert found.violations_count == 0, found.generate_report()
        browser.close()
    assert not (tmp_path / "images").exists()


SHA256 = "53336a676c64c1396553b2b7c92f38126768827c93b64d9142069c10eda7a721"
"""That of the token topsecret."""


def _shot(page: object, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/wish-{name}.png")  # type: ignore[attr-defined]
