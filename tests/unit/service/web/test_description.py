"""What the service answers to generated requests is what its OpenAPI document states."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest
import requests
from dbos import DBOS

from publisher.service.access import Access, Anonymous, Verb
from publisher.service.audit import Audit
from publisher.service.configuration import ListConfiguration, RepositoryConfiguration
from publisher.service.jobs.database import connect, create_tables
from publisher.service.jobs.store import StoredJobs
from publisher.service.web.jobs import BASE
from tests.command import succeed
from tests.layer_builder import file, image, layer, write_layout
from tests.unit.service.web.test_audit import token
from tests.web_service import Web, serve

ROUNDS = 8
STRANGE = (
    "",
    "0",
    "-1",
    "é\u202e",
    "a" * 300,
    "%00",
    "../..",
    "[" * 40,
    "{}",
    "null",
    "\u2028",
    " ",
)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    root = tmp_path_factory.mktemp("description")
    write_layout(image(layer(file("etc/motd", b"hello"))), root / "layout", "1")
    arguments = (f"oci:{root}/layout:1", "--name", "team/a", "--repository", root / "images")
    succeed("ingest-image", *arguments)
    url = f"sqlite:///{root}/jobs.sqlite"
    engine = connect(url)
    create_tables(engine)
    DBOS.migrate(url)
    access = Access(Anonymous.EVERYTHING, (token("all", Verb.READ, Verb.SUBMIT, Verb.CANCEL),))
    lists = (ListConfiguration("astro", "/w/astro.yaml"),)
    configured = RepositoryConfiguration("main", f"dir:{root}/images", lists)
    with serve(
        {"main": root / "images"},
        StoredJobs(engine, 1000),
        lambda: access,
        repositories=(configured,),
        audit=Audit(engine),
    ) as served:
        yield served


def test_generated_requests_have_the_answers_that_the_description_states(web: Web) -> None:
    document = web.get("/api/v1/openapi.json").json()
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    session = requests.Session()
    session.headers["Authorization"] = "Bearer secret-all"
    submitted = {"kind": "verify", "repository": "main"}
    body = {"kind": "plan", "repository": "main", "list": "astro"}
    job = session.post(web.url + BASE, json=body, timeout=60).json()["id"]
    known = {"repository": "main", "name": "local/team/a:1", "job": job}
    statuses = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path.endswith("/live"):
                continue  # a stream
            for _ in range(ROUNDS):
                address, options = _request(chance, path, operation, known, submitted)
                found = session.request(method, web.url + address, timeout=60, **options)
                where = method, address, options, found.status_code, found.text[:300]
                statuses.add(found.status_code)
                _check(document, operation, found, where)
    assert {200, 400, 404} <= statuses and max(statuses) < 500, statuses


def _request(
    chance: random.Random, path: str, operation: Any, known: dict[str, str], body: dict[str, str]
) -> tuple[str, dict[str, Any]]:
    query: list[tuple[str, str]] = []
    for each in operation["parameters"]:
        schema = each["schema"]
        choices = [*map(str, schema.get("enum", ())), *STRANGE, str(schema.get("maximum", 7))]
        value = chance.choice(choices)
        if each["in"] == "path":
            value = known.get(each["name"], "x") if chance.random() < 0.7 else value or "x"
            path = path.replace(f"{{{each['name']}}}", quote(value, safe=""))
        elif each["in"] == "query" and chance.random() < 0.3:
            query.append((each["name"], value))
    options: dict[str, Any] = {"params": query}
    if "requestBody" in operation:
        sent = body | {
            chance.choice(("kind", "list", "image", "reason", "extra")): chance.choice(
                (*STRANGE, "plan", "astro", "debian:12")
            )
            for _ in range(chance.randrange(3))
        }
        options["json"] = sent
    return path, options


def _check(document: Any, operation: Any, found: requests.Response, where: object) -> None:
    status = str(found.status_code)
    assert status in operation["responses"], where
    content = operation["responses"][status].get("content", {})
    media_type = found.headers["content-type"].partition(";")[0]
    assert media_type in content, where
    schema = content[media_type].get("schema", {})
    if "$ref" in schema:
        root = {**schema, "components": document["components"]}
        jsonschema.Draft202012Validator(root).validate(json.loads(found.text))
