"""What the projects use, as the interface and the page show it."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from publisher.repository.directory.repository import DirectoryRepository
from publisher.service.access import Access, Anonymous, Token, Verb
from publisher.service.configuration import ListConfiguration, RepositoryConfiguration
from publisher.service.projects import Project
from publisher.service.web.application import application
from publisher.service.web.context import Context, PublishedTree
from publisher.site.survey import Remembered
from publisher.tree.layout import RepositoryURL
from publisher.wishlist.quota import Quota
from tests.asgi import request
from tests.command import succeed
from tests.layer_builder import file, image, layer, write_layout
from tests.schemas import output_schema
from tests.unit.service.web.test_roles import secret
from tests.web_service import run_examples, serve


def test_the_use_of_each_project_is_shown_to_its_viewers(tmp_path: Path) -> None:
    shared = layer(file("shared", b"s" * 600))
    for name, built in (
        ("own", image(shared, layer(file("own", b"o" * 100)))),
        ("other", image(shared)),
        ("single", image(shared)),
    ):
        write_layout(built, tmp_path / name, "1")
    for name in ("own", "other"):
        wishes = {"version": 2, "images": [f"oci:{tmp_path}/{name}:1"]}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(wishes))
        succeed("ingest", tmp_path / f"{name}.yaml", "--repository", tmp_path / "images")
    single = (f"oci:{tmp_path}/single:1", "--project", "other", "--name", "single")
    succeed("ingest-image", *single, "--repository", tmp_path / "images")
    projects = (
        Project("own", prefix="local/own", quota=Quota("own", 5, 1000)),
        Project("other"),
        Project("idle"),
    )
    access = Access(
        Anonymous.NOTHING,
        (
            Token("own", secret("own"), frozenset({Verb.READ}), projects=("own",)),
            Token("all", secret("all"), frozenset({Verb.READ})),
        ),
        projects,
    )
    lists = tuple(
        ListConfiguration(name, f"{tmp_path}/{name}.yaml", project=name)
        for name in ("own", "other")
    )
    repositories = [
        RepositoryConfiguration("images", f"dir:{tmp_path}/images", lists),
        RepositoryConfiguration("missing", f"dir:{tmp_path}/none", projects=("own",)),
    ]

    def tree(each: RepositoryConfiguration) -> PublishedTree:
        url = RepositoryURL.parse(each.url)
        return PublishedTree(each.name, each.name, lambda: DirectoryRepository(url), Remembered)

    trees = [tree(each) for each in repositories]
    context = Context(
        lambda: trees, lambda: access, repositories=lambda: repositories, recheck=0, patience=60
    )
    app = application(context)
    base = "/api/v1/projects"
    assert request(app, "GET", base).status_code == 401
    found = {}
    for name, shown in (("own", ["own"]), ("all", ["own", "other", "idle"])):
        headers = {"Authorization": f"Bearer secret-{name}"}
        answered = request(app, "GET", base, headers)
        output_schema("projects/1").validate(answered.json())
        found = {each["name"]: each for each in answered.json()["projects"]}
        assert list(found) == shown
        page = request(app, "GET", "/projects", headers)
        assert page.status_code == 200 and (">other<" in page.text) == ("other" in shown)
        assert "local/own" in page.text and "1 of 5" in page.text and "300 B of 1.0 kB" in page.text
    assert found["own"]["quota"] == {"images": 5, "bytes": 1000}
    used, missing = found["own"]["repositories"]
    # A third of the layer that three images have, and its own layer.
    assert (used["images"], used["bytes"], used["lists"]) == (1, 300, ["own"])
    assert (missing["images"], missing["lists"]) == (None, []) and "none" in missing["error"]
    [used] = found["other"]["repositories"]
    assert (used["images"], used["bytes"]) == (2, 400)
    assert found["idle"]["repositories"] == []


def test_the_example_of_the_documentation_works() -> None:
    with serve({}, access=lambda: Access(Anonymous.EVERYTHING, projects=(Project("own"),))) as web:
        [printed] = run_examples(web, "Projects")
    assert [each["name"] for each in json.loads(printed)["projects"]] == ["own"]
