"""What the service answers to generated requests is what its OpenAPI document states.

schemathesis generates the requests, valid and not, and compares the answers with the document.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from dbos import DBOS
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode, checks
from schemathesis.core.result import Ok

from publisher.service.access import Access, Anonymous, Token
from publisher.service.audit import Audit
from publisher.service.configuration import ListConfiguration, RepositoryConfiguration
from publisher.service.jobs.database import connect, create_tables, digest
from publisher.service.jobs.store import StoredJobs
from publisher.service.projects import Project
from publisher.service.verbs import ROLES, Role, Verb
from publisher.service.web.jobs import BASE
from tests.command import succeed
from tests.layer_builder import file, image, layer, write_layout
from tests.web_service import Web, serve

CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.negative_data_rejection,
]
ONCE = hypothesis.settings(
    max_examples=3,  # for each operation and sender
    database=None,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.generate],
)
STREAM = BASE + "/{job}/live"
SENDERS = ("", *map(str, Role), "administrator")

Operation = APIOperation[Any, Any, Any, Any]
Operations = list[tuple[Operation, "st.SearchStrategy[Case[Any]]"]]


def token(name: str, verbs: frozenset[Verb], *projects: str) -> Token:
    return Token(name, digest(f"secret-{name}"), verbs, projects=projects)


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
    roles = (token(str(role), verbs, "astro") for role, verbs in ROLES.items())
    tokens = (*roles, token("administrator", ROLES[Role.ADMIN]))
    access = Access(Anonymous.PUBLISHED, tokens, (Project("astro"), Project("bio")))
    lists = (
        ListConfiguration("astro", "/w/astro.yaml", project="astro"),
        ListConfiguration("bio", "/w/bio.yaml", project="bio"),
    )
    configured = RepositoryConfiguration("main", f"dir:{root}/images", lists)
    with serve(
        {"main": root / "images"},
        StoredJobs(engine, 1000),
        lambda: access,
        repositories=(configured,),
        audit=Audit(engine),
        database=engine,
    ) as served:
        yield served
    engine.dispose()


@pytest.fixture(scope="module")
def operations(web: Web) -> Operations:
    """All operations but the stream, and their requests: valid ones, and others."""
    document = web.get("/api/v1/openapi.json").json()
    found = []
    for each in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(each, Ok)
        operation = each.ok()
        if operation.path != STREAM:
            cases = st.one_of(*(operation.as_strategy(mode) for mode in GenerationMode))
            found.append((operation, cases))
    return found


@pytest.fixture(scope="module")
def known(web: Web) -> dict[str, str]:
    """Values of parts of paths that exist, among which a job of another project."""
    body = {"kind": "plan", "repository": "main", "list": "bio"}
    headers = authorization("administrator")
    job = requests.post(web.url + BASE, json=body, headers=headers, timeout=60).json()["id"]
    return {"repository": "main", "name": "local/team/a:1", "job": job}


def authorization(sender: str) -> dict[str, str]:
    return {"Authorization": f"Bearer secret-{sender}"} if sender else {}


def allowed(sender: str) -> set[str]:
    """The descriptions of what a sender may do in at least one project."""
    verbs = {Verb.BROWSE}
    if sender:
        verbs |= ROLES[Role.ADMIN if sender == "administrator" else Role(sender)]
    return {"For each sender.", *(f"Needs the verb {verb}." for verb in verbs)}


@pytest.mark.parametrize("sender", SENDERS)
def test_generated_requests_have_the_answers_that_the_description_states(
    web: Web, operations: Operations, known: dict[str, str], sender: str
) -> None:
    headers, may, statuses = authorization(sender), allowed(sender), set[int]()
    with requests.Session() as session:

        def send(operation: Operation, case: Case[Any], exists: bool) -> None:
            if exists:
                parts = case.path_parameters
                parts.update({name: known.get(name, text) for name, text in parts.items()})
            found = case.call(base_url=web.url, session=session, headers=headers, timeout=60)
            statuses.add(found.status_code)
            case.validate_response(found, checks=CHECKS)
            needed = operation.definition.raw["description"]
            assert found.status_code > 299 or needed in may, (case, found.text)

        for operation, cases in operations:
            ONCE(hypothesis.given(st.just(operation), cases, st.booleans())(send))()
    assert len(statuses) > 2


def test_the_document_states_by_what_senders_are_known(web: Web) -> None:
    document = web.get("/api/v1/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert schemes["session"]["name"].startswith("__Host-") and set(schemes) == {
        "token", "session", "csrf",
    }  # fmt: skip
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            security = operation["security"]
            assert {"token": []} in security, path
            assert ({"session": []} in security) is (method == "get"), path
            assert ({"session": [], "csrf": []} in security) is (method != "get"), path
            is_open = any(
                f" {verb}." in operation["description"] for verb in ("sender", "browse", "read")
            )
            assert ({} in security) is is_open, path
    assert document["paths"]["/api/v1/identity"]["get"]["operationId"] == "showIdentity"
