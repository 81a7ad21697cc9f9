"""What the configuration does not have any more is withdrawn, and comes back with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
import yaml
from dbos import DBOS

from publisher.service.configuration import ListConfiguration, RepositoryConfiguration
from publisher.service.jobs.database import connect, create_tables
from publisher.service.jobs.lists import ConfiguredLists
from publisher.service.jobs.model import JobKind, JobRequest
from publisher.service.jobs.running import job_words
from publisher.service.jobs.store import StoredJobs
from publisher.service.login.tokens import Tokens
from publisher.service.parse_configuration import read_configuration
from publisher.service.projects import Project
from publisher.service.verbs import Verb
from tests.command import Result, publisher, succeed
from tests.layer_builder import file, image, layer, write_index, write_layout


class Service:
    """A configuration in a file, its database, and a repository with the images of two lists."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "service.yaml"
        url = f"sqlite:///{directory}/jobs.sqlite"
        self.engine: sa.Engine = connect(url)
        create_tables(self.engine)
        DBOS.migrate(url)
        self.jobs = StoredJobs(self.engine, 100)
        self.lists = ConfiguredLists(self.engine)
        for name in ("astro/a", "bio/b", "both", "free"):
            built = image(layer(file(name, name.encode())))
            write_layout(built, directory / name.replace("/", "-"), "1")
        self.write("astro", "astro/a", "both")
        self.write("bio", "bio/b", "both")

    def wish(self, name: str) -> dict[str, str]:
        return {"image": f"oci:{self.directory}/{name.replace('/', '-')}:1", "name": name}

    def write(self, name: str, *images: str) -> None:
        document = {"version": 2, "images": [self.wish(each) for each in images]}
        (self.directory / f"{name}.yaml").write_text(yaml.safe_dump(document))

    def configure(self, *lists: str, projects: tuple[str, ...] = ("astro", "bio")) -> bool:
        """Write a configuration with these lists of projects of the same name; note them."""
        value = {
            "version": 1,
            "state": str(self.directory),
            "database": str(self.directory / "jobs.sqlite"),
            "projects": {each: {"prefix": f"local/{each}"} for each in projects},
            "repositories": {
                "images": {
                    "url": f"dir:{self.directory}/images",
                    "projects": list(projects),
                    "lists": {
                        each: {"source": f"{self.directory}/{each}.yaml", "project": each}
                        for each in lists
                    },
                }
            },
        }
        self.path.write_text(yaml.safe_dump(value))
        known = tuple(Project(each, prefix=f"local/{each}") for each in projects)
        return self.lists.note(self.repository(*lists, projects=projects), known)

    def repository(self, *lists: str, projects: tuple[str, ...] = ()) -> RepositoryConfiguration:
        found = (
            ListConfiguration(each, f"{self.directory}/{each}.yaml", project=each) for each in lists
        )
        url = f"dir:{self.directory}/images"
        return RepositoryConfiguration("images", url, tuple(found), projects=projects)

    def run(self, verb: str, *arguments: str) -> Result:
        return succeed(verb, *arguments, "--repository", f"dir:{self.directory}/images")

    def reconcile(self, *options: str) -> str:
        return self.run("reconcile", "--config", str(self.path), *options).out

    def scheduled(self) -> dict[str, str]:
        """The names of the scheduled images, with the reason."""
        entries = self.run("schedule", "--output=json").json["entries"]
        return {each["name"].removeprefix("local/"): each["reason"] for each in entries}

    def queued(self) -> list[str]:
        return sorted(each.request.subject for each in self.jobs.list().jobs)


def test_lists_that_are_gone_are_withdrawn_with_grace_and_restored_when_they_are_back(
    tmp_path: Path,
) -> None:
    service = Service(tmp_path)
    assert not service.configure("astro", "bio")
    for name in ("astro", "bio"):
        service.run("ingest", str(tmp_path / f"{name}.yaml"))
    free, single = service.wish("free"), service.wish("free")
    service.run("ingest-image", free["image"], "--name", "free")  # by hand
    service.run("ingest-image", single["image"], "--name", "astro/single", "--project", "astro")
    service.run("ingest-image", free["image"], "--name", "bio/unrequested")
    built = {each: image(layer(file(each)), architecture=each) for each in ("amd64", "arm64")}
    write_index({f"linux/{each}": built[each] for each in built}, tmp_path / "multi", "1")
    platforms = ("--platform", "linux/amd64", "--platform", "linux/arm64")
    service.run("ingest-image", f"oci:{tmp_path}/multi:1", "--name", "bio/multi", *platforms)
    # A list that the service never had.
    service.write("own", "free")
    service.run("ingest", str(tmp_path / "own.yaml"))

    # Nothing is gone: each list is ingested, so that what is missing is published.
    found = service.reconcile("--dry-run")
    assert "would be queued: ingest of astro" in found and service.queued() == []
    found = service.reconcile()
    assert service.scheduled() == {} and service.queued() == ["astro", "bio"]
    multi = [f"{top}local/bio/multi" for top in ("", ".multiarch/amd64/", ".multiarch/arm64/")]
    for name in ("local/bio/unrequested", *multi):
        assert f"not requested: {name}:1  is in the directory of the project bio" in found
    assert "astro/single" not in found and "4 images not requested" in found
    assert "queued" not in service.reconcile()  # they wait already

    # The project is gone with its list: what it shares with another one stays.
    assert service.configure("bio", projects=("bio",))
    before = sorted(tmp_path.glob("images/.metadata/**/publication.json"))
    planned = service.reconcile("--dry-run")
    assert "local/astro/a:1" in planned and service.scheduled() == {}
    service.reconcile()
    assert service.scheduled() == dict.fromkeys(("astro/a:1", "astro/single:1"), "withdrawn")
    assert sorted(tmp_path.glob("images/.metadata/**/publication.json")) == before
    [entry, _] = service.run("schedule", "--output=json").json["entries"]
    grace = datetime.fromisoformat(entry["notBefore"]) - datetime.fromisoformat(
        entry["scheduledAt"]
    )
    assert grace == timedelta(days=30)
    [shown] = [
        e for e in service.run("list", "--output=json").json["images"] if "both" in e["name"]
    ]
    record = service.run("show", shown["name"], "--output=json").json
    assert "bio.yaml" in str(record) and "astro.yaml" not in str(record)
    # It is done: a restart of the service finds nothing to do.
    assert not service.configure("bio", projects=("bio",))

    # The list is back within the grace period: its ingest is queued, and restores its images.
    assert service.configure("astro", "bio")
    found = service.reconcile()
    assert "queued: ingest of astro" not in found  # that of before waits still
    assert "restored: local/astro/single:1" in found
    assert service.scheduled() == {"astro/a:1": "withdrawn"}
    service.run("ingest", str(tmp_path / "astro.yaml"))
    assert service.scheduled() == {}

    # What was removed by hand is not restored.
    service.run("remove", "local/astro/single:1")
    service.reconcile()
    assert list(service.scheduled()) == ["astro/single:1"]
    service.engine.dispose()


def test_an_image_whose_record_is_damaged_is_kept_and_named(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.configure("astro", "bio")
    service.run("ingest", str(tmp_path / "astro.yaml"))
    [record] = tmp_path.glob("images/.metadata/local/astro/**/publication.json")
    record.write_text("{")
    service.configure("bio")
    options = ("--config", str(service.path), "--repository", f"dir:{tmp_path}/images")
    found = publisher("reconcile", *options)
    assert found.code == 1 and "kept: local/astro/a:1: " in found.err
    assert service.scheduled() == {"both:1": "withdrawn"} and service.queued() == ["bio"]
    # The list counts as gone until its images are known.
    assert service.configure("bio")
    service.engine.dispose()


def test_an_image_that_cannot_be_restored_does_not_keep_the_rest_from_being_done(
    tmp_path: Path,
) -> None:
    service = Service(tmp_path)
    service.configure("astro", "bio")
    for name in ("free", "both"):
        wish, options = service.wish(name), ("--name", f"astro/{name}", "--project", "astro")
        service.run("ingest-image", wish["image"], *options)
    service.configure("bio", projects=("bio",))
    service.reconcile()
    (tmp_path / "images/.metadata/local/astro/free:1/manifest.json").write_text("{")
    service.configure("astro", "bio")
    options = ("--config", str(service.path), "--repository", f"dir:{tmp_path}/images")
    found = publisher("reconcile", *options)
    assert found.code == 1 and "kept: local/astro/free:1: " in found.err
    assert "restored: local/astro/both:1" in found.out and "queued: ingest of astro" in found.out
    service.engine.dispose()


def test_a_repository_that_cannot_be_used_does_not_keep_the_others_from_being_reconciled(
    tmp_path: Path,
) -> None:
    service = Service(tmp_path)
    service.configure("astro")
    value = yaml.safe_load(service.path.read_text())
    (tmp_path / "a-file").touch()
    broken = {"broken": {"url": f"dir:{tmp_path}/a-file"}}
    value["repositories"] = broken | value["repositories"]
    service.path.write_text(yaml.safe_dump(value, sort_keys=False))
    found = publisher("reconcile", "--config", service.path)
    assert found.code == 1 and "cannot reconcile broken: " in found.err
    assert "queued: ingest of astro" in found.out
    only = publisher("reconcile", "--config", service.path, "--repository", broken["broken"]["url"])
    assert only.code == 3
    service.engine.dispose()


def test_tokens_that_have_expired_are_removed_and_those_of_missing_projects_stay(
    tmp_path: Path,
) -> None:
    service = Service(tmp_path)
    service.configure("astro")
    tokens, now = Tokens(service.engine), datetime.now(UTC)
    read = frozenset({Verb.READ})
    for name, projects, days in (("old", ["astro"], -1), ("gone", ["x"], 9), ("kept", ["bio"], 9)):
        tokens.create(name, projects, read, "", now - timedelta(9), now + timedelta(days))
    assert "1 expired token would be removed" in service.reconcile("--dry-run")
    listed = succeed("token", "list", "--config", str(service.path)).out.splitlines()[1:]
    assert [line.split()[1] for line in listed if "nothing any more" in line] == ["gone"]
    assert "1 expired token removed" in service.reconcile()
    assert sorted(each.name for each in tokens.list()) == ["gone", "kept"]
    service.engine.dispose()


def test_a_job_reconciles_its_repository_by_the_configuration_of_its_host(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.configure("astro")
    configuration = read_configuration(str(service.path))
    words = job_words(configuration, JobRequest(JobKind.RECONCILE, "images"))
    assert words[0] == "reconcile" and f"--config={service.path}" in words
    found = publisher(*words, home=tmp_path)
    assert found.code == 0, found.err
    assert service.queued() == ["astro"]
    # The file is edited, and the service did not read it yet.
    service.path.write_text(service.path.read_text() + "\n")
    found = publisher(*words, home=tmp_path)
    assert found.code == 2 and "has changed since the service read it" in found.err + found.out
    other = publisher("reconcile", "--config", service.path, "--repository", "dir:/other")
    assert other.code == 2 and "it is not a repository of the configuration" in other.err
    service.engine.dispose()
