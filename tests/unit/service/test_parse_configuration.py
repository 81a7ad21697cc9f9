"""The configuration of the service: its values, and every mistake with its place."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from datetime import date, timedelta
from pathlib import Path

import jsonschema
import pytest
import yaml

from publisher.cli.service_arguments import check_arguments
from publisher.service.access import Access, Anonymous, Token, Verb
from publisher.service.configuration import (
    InvalidServiceConfiguration,
    ListConfiguration,
    Listen,
    ServiceConfiguration,
)
from publisher.service.jobs.model import JobKind
from publisher.service.parse_configuration import parse_configuration, read_configuration
from publisher.service.projects import Member, Project
from publisher.service.providers import JobRule, JobTokens, Login, Provider, Proxy
from publisher.service.verbs import Role
from publisher.wishlist.quota import Quota
from tests.schemas import ROOT

SCHEMA = json.loads((ROOT / "publisher/schemas/service-1.schema.json").read_text())
HEAD = "version: 1\nstate: /s\n"
REPOSITORY = f"{HEAD}repositories:\n  r:\n    url: dir:/r\n"
TOKEN = f"{{name: same, sha256: {'ab' * 32}, allows: [read]}}"
OF_PROJECT = f"{{name: of, sha256: {'ab' * 32}, allows: [read], projects: [a]}}"
GOOD = """\
version: 1
listen: '[::1]:9000'
database-file: db.url
state: /var/lib/publisher/service
environment: [HTTPS_PROXY]
limits: {jobs: 4, queued: 100, events: 1000, job-time: 6h}
history: {jobs: 500, age: 30d}
access: {anonymous: published}
tokens:
  - {name: ci, sha256: HASH, allows: [submit, cancel], expires: '2027-07-01'}
  - {name: bio, sha256: OTHER, allows: [read, administer], projects: [bio]}
url: https://Images.example.org/
login:
  issuer: https://id.example.org
  client: publisher
  client-secret-file: login.secret
  scopes: [groups]
  user: preferred_username
  session: 12h
  ca: /etc/ssl/lab.pem
proxy: {addresses: [127.0.0.1, 10.0.0.0/8], secret-file: proxy.secret, user: X-User}
job-tokens:
  gitlab:
    issuer: https://gitlab.example.org
    audience: https://images.example.org
    rules: [{project: bio, claims: {project_path: bio/images}, allows: [submit]}]
projects:
  astro:
    members:
      - {user: alice, role: maintainer}
      - {group: astro-staff, role: editor}
      - {claims: {unit: astro}, role: viewer}
    credentials: /c/astro.json
    settings: astro/settings.yaml
    prefix: registry.example.org/astro
    quota: {images: 200, bytes: 1.5 TB}
    registries: [Quay.io, index.docker.io, 'registry.example.org:5000', quay.io]
  bio: {quota: {images: 0}}
administrators: [{group: operators, role: admin}]
repositories:
  images:
    url: dir:/srv/images
    site: /srv/www/images
    projects: [astro]
    lists:
      astro:
        source: /srv/wishes/astro.yaml
        schedule: '*/15 * * * *'
      bio: {source: 'git+https://git.example.org/bio.git//bio.yaml@main', project: bio}
    schedules: {prune: '@daily', gc: '30 4 * * 1-5'}
    arguments:
      ingest-list: [--policy, /etc/publisher/policy.yaml]
""".replace("HASH", "ab" * 32).replace("OTHER", "cd" * 32)


def parse(text: str) -> ServiceConfiguration:
    def read(path: str) -> bytes:
        if path == "/etc/publisher/db.url":
            return b"postgresql://publisher:hidden@db.example.org/jobs\n"
        if path.endswith(".secret"):
            return b"hidden secret text\n"
        if path == "/etc/publisher/wrong.url":
            return b"mysql://publisher:hidden@db.example.org/jobs"
        raise FileNotFoundError(2, "No such file or directory", path)

    return parse_configuration(text, "/etc/publisher/service.yaml", read)


def test_a_configuration_has_repositories_lists_schedules_and_limits() -> None:
    found = parse(GOOD)
    [images] = found.repositories
    assert found.repository("images") is images and found.repository("other") is None
    assert found.listen == Listen("::1", 9000)
    assert found.database == "postgresql://publisher:hidden@db.example.org/jobs"
    assert found.is_shared and "hidden" not in repr(found)
    assert (found.limits.jobs, found.limits.job_time) == (4, timedelta(hours=6))
    assert (found.history.jobs, found.history.age) == (500, timedelta(days=30))
    assert images.list_named("astro") == ListConfiguration(
        "astro", "/srv/wishes/astro.yaml", "*/15 * * * *"
    )
    assert images.list_named("physics") is None
    assert images.schedules == {JobKind.PRUNE: "0 0 * * *", JobKind.GC: "30 4 * * 1-5"}
    assert images.arguments[JobKind.INGEST_LIST] == ("--policy", "/etc/publisher/policy.yaml")
    assert found.access.anonymous is Anonymous.PUBLISHED
    token, of_bio = found.access.tokens
    allowed = frozenset({Verb.SUBMIT, Verb.CANCEL})
    assert token == Token("ci", "ab" * 32, allowed, date(2027, 7, 1))
    assert of_bio.grants == {"bio": frozenset({Verb.READ, Verb.ADMINISTER})}
    assert "abab" not in repr(found)
    assert found.access.projects == (
        Project(
            "astro",
            (
                Member(Role.MAINTAINER, user="alice"),
                Member(Role.EDITOR, group="astro-staff"),
                Member(Role.VIEWER, claims={"unit": "astro"}),
            ),
            Path("/c/astro.json"),
            Path("/etc/publisher/astro/settings.yaml"),
            "registry.example.org/astro",
            Quota("astro", 200, 1_500_000_000_000),
            ("quay.io", "docker.io", "registry.example.org:5000"),
        ),
        Project("bio", quota=Quota("bio", 0)),
    )
    assert found.access.administrators == (Member(Role.ADMIN, group="operators"),)
    assert [each.project for each in images.lists] == ["", "bio"]
    access = found.access
    assert access.url == "https://images.example.org"
    assert access.login == Login(
        Provider("https://id.example.org", ca=Path("/etc/ssl/lab.pem")),
        "publisher",
        "hidden secret text",
        ("groups",),
        "preferred_username",
        session=timedelta(hours=12),
    )
    networks = tuple(map(ipaddress.ip_network, ("127.0.0.1", "10.0.0.0/8")))
    assert access.proxy == Proxy(networks, "hidden secret text", "X-User")
    rule = JobRule("bio", {"project_path": "bio/images"}, frozenset({Verb.SUBMIT}))
    provider = Provider("https://gitlab.example.org")
    assert access.job_tokens == (JobTokens("gitlab", provider, access.url, (rule,)),)
    assert images.may_publish("astro") and images.may_publish("bio")
    assert not images.may_publish("other") and not images.may_publish("")
    jsonschema.validate(yaml.safe_load(GOOD), SCHEMA)


def test_without_access_nothing_is_allowed_and_the_deployed_example_is_valid() -> None:
    assert parse(REPOSITORY).access == Access(Anonymous.NOTHING, ())
    example = (ROOT / "deploy/systemd/service.yaml").read_text()
    assert parse(example).access == Access(Anonymous.PUBLISHED, ())
    head, commented, rest = re.split(r"(?ms)^(# tokens:\n.*?)(?=^repositories)", example)
    example = head + commented.replace("# ", "").replace("HASH", "cd" * 32) + rest
    [token] = parse(example).access.tokens
    assert (token.name, token.allows) == ("dashboard", frozenset({Verb.READ}))


def test_without_a_database_jobs_are_in_a_file_of_the_state() -> None:
    found = parse(REPOSITORY)
    assert (found.state, found.database) == (Path("/s"), "sqlite:////s/jobs.sqlite")
    assert not found.is_shared and found.listen == Listen()
    assert parse(f"database: /d/j.sqlite\n{REPOSITORY}").database == "sqlite:////d/j.sqlite"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("", ["1:1: error: a service configuration must be a mapping, but the file is empty"]),
        (
            "a: 1",
            ["unknown key 'a'", "no version", "no directory for the state", "no repositories"],
        ),
        ("version: 2\nstate: s", ["1:10: error: ", "2:8: error: state must be an absolute path"]),
        (f"{HEAD}repositories: []", ["3:15: error: repositories must be a mapping"]),
        (f"{HEAD}repositories: {{'a b': 1}}", ["3:16: error: 'a b' is not a name"]),
        (
            f"{HEAD}repositories: {{'a b': {{urll: 'dir:/r', lists: {{l!: {{source: a}}}}}}}}",
            [
                "'a b' is not a name",
                "unknown key 'urll'",
                "no url",
                "'l!' is not",
                "neither an abs",
            ],
        ),
        (
            f"{REPOSITORY}    schedules: {{gc: '@weekley'}}",
            ["not a cron expression: '@weekley' (write minute, ", "@hourly, @daily, @weekly, @mon"],
        ),
        (f"{HEAD}repositories: {{a: 1}}", ["3:19: error: a repository must be a mapping"]),
        (f"{HEAD}repositories: {{a: {{}}}}", ["it has no url"]),
        (f"{HEAD}repositories: {{a: {{url: 'ftp:x'}}}}", ["cannot use repository 'ftp:x'"]),
        (f"{HEAD}repositories: {{a: {{url: 'dir:x'}}}}", ["the path of the repository is not abs"]),
        (f"{REPOSITORY}  q: {{url: 'dir:/r'}}", ["q and r are the same repository"]),
        (f"{REPOSITORY}    lists: {{l: 1}}", ["6:16: error: a list must be a mapping"]),
        (f"{REPOSITORY}    lists: {{l: {{}}}}", ["the list has no source"]),
        (f"{REPOSITORY}    lists: {{l: {{source: a.yaml}}}}", ["neither an absolute path nor"]),
        (
            f"{REPOSITORY}    lists: {{l: {{source: /a, schedule: '61 * * * *'}}}}",
            ["6:39: error: the schedule is not a cron expression: '61 * * * *'"],
        ),
        (f"{REPOSITORY}    schedules: {{gc: '* * * * * *'}}", ["the schedule of gc is not a cron"]),
        (f"{REPOSITORY}    schedules: {{gc: '0 0 30 2 *'}}", ["the schedule of gc is at no time"]),
        (f"{REPOSITORY}    schedules: {{gcc: '@daily'}}", ["unknown key 'gcc'", "'gc'"]),
        (f"{REPOSITORY}    schedules: {{site: '@daily'}}", ["a site has a schedule, but no dir"]),
        (f"{REPOSITORY}    schedules: []", ["schedules must be a mapping"]),
        (f"{REPOSITORY}    arguments: {{gc: x}}", ["gc must be a list"]),
        (f"listen: 8080\n{REPOSITORY}", ["1:9: error: listen must be an address and a port"]),
        (f"listen: 'a:70000'\n{REPOSITORY}", ["1:9: error: listen must be an address and a port"]),
        (
            f"limits: {{jobs: 0, job-time: 1s}}\n{REPOSITORY}",
            ["jobs must be a number", "job-time is shorter than 1m"],
        ),
        (f"history: {{age: x}}\n{REPOSITORY}", ["1:16: error: age: 'x' is not a duration"]),
        (f"environment: ['A=b']\n{REPOSITORY}", ["1:15: error: 'A=b' is not the name of a var"]),
        (
            f"database: postgresql://a:pw123@h/d\n{REPOSITORY}",
            ["1:11: error: the database URL has a password", "database-file"],
        ),
        (f"database: postgresql://h/d?a=b&password=pw123\n{REPOSITORY}", ["URL has a password"]),
        (
            f"access: {{anonymous: all, other: 1}}\n{REPOSITORY}",
            ["1:21: error: anonymous must be one of nothing, published, everything", "'other'"],
        ),
        (f"tokens: {{}}\n{REPOSITORY}", ["1:9: error: tokens must be a list, with one to 1000"]),
        (f"tokens: [a]\n{REPOSITORY}", ["a token must be a mapping"]),
        (
            f"tokens: [{{sha256: pw123, allows: [write], expires: soon}}]\n{REPOSITORY}",
            [
                "the token has no name",
                "sha256 is not a hash of 64 hexadecimal digits",
                "a token cannot allow 'write' (known are read, submit, cancel, remove, administer)",
                "is not a date",
            ],
        ),
        (
            f"tokens: [{{name: a b, sha256: {'AB' * 32}, allows: []}}]\n{REPOSITORY}",
            ["'a b' is not a name", "sha256 is not a hash", "allows is an empty list"],
        ),
        (
            f"tokens: [{TOKEN}, {TOKEN}, {TOKEN.replace('same', 'next')}]\n{REPOSITORY}",
            ["the token same is given twice", "next and same are the same token"],
        ),
        (f"tokens: [{OF_PROJECT}]\n{REPOSITORY}", ["there is no project 'a' (define the project"]),
        (f"projects: {{}}\n{REPOSITORY}", ["1:11: error: projects must be a mapping, with at"]),
        (
            f"projects: {{a b: {{members: [x]}}, c: 1, d: {{memberss: 1}}}}\n{REPOSITORY}",
            ["'a b' is not a name", "a member must be a m", "the project c must be", "memberss"],
        ),
        (
            f"projects: {{a: {{members: [{{user: u, group: g, role: boss}}, {{role: admin}}, "
            f"{{claims: {{}}, role: admin}}]}}}}\n{REPOSITORY}    projects: [q]",
            [
                "1:26: error: a member has one of user, group, claims",
                "role must be one of viewer, editor, maintainer, admin",
                "claims must be a mapping",
                "there is no project 'q' (known are a)",
            ],
        ),
        (
            f"projects: {{a: {{credentials: [], settings: '', registries: []}}}}\n{REPOSITORY}",
            ["1:29: error: credentials must be", "settings has no value", "registries is an empty"],
        ),
        (
            f"projects: {{a: {{registries: ['https://q.io', 'q.io/a', 'a b']}}}}\n{REPOSITORY}",
            ["'https://q.io' is not a host", "'q.io/a' is not a host", "'a b' is not a host"],
        ),
        (
            f"projects: {{a: {{prefix: 'r.example.org/a/'}}, b: {{prefix: 'a b'}}, "
            f"c: {{prefix: [x]}}}}\n{REPOSITORY}",
            [
                "1:24: error: 'r.example.org/a/' is not a directory of public names (such as",
                "'a b' is not a directory",
                "prefix must be a string, but this is a list",
            ],
        ),
        (
            f"projects: {{a: {{quota: {{images: -1, bytes: 5, files: 1}}}}, b: {{quota: 5 GB}}}}\n"
            f"{REPOSITORY}",
            [
                "1:32: error: images must be a whole number (such as images: 200)",
                "bytes must be a size with its unit (such as bytes: 500 GB)",
                "unknown key 'files'",
                "the quota of b must be a mapping",
            ],
        ),
        (
            f"projects: {{p1: {{prefix: local/a/b}}, p2: {{prefix: local/a-b}}, "
            f"p3: {{prefix: local/a}}, p4: {{prefix: local/a-b}}}}\n{REPOSITORY}",
            [
                "the prefixes of p3 and p1 are the same, or nested",
                "the prefixes of p2 and p4 are the same, or nested",
            ],
        ),
        (
            f"login: {{client: c, issuer: 'http://id.example.org', session: 90d}}\n{REPOSITORY}",
            [
                "a login needs the address of the service",
                "issuer is not an address that begins with https://",
                "session is not between one minute and 30 days",
            ],
        ),
        (
            f"url: https://a.example.org/path\nlogin: {{}}\n{REPOSITORY}",
            ["url has more than a scheme", "the login has no issuer and no client"],
        ),
        (f"url: 'https://user:pw123@a.example.org'\n{REPOSITORY}", ["1:6: error: url is not an"]),
        (
            f"proxy: {{addresses: [here], secret-file: none, user: 'a b'}}\n{REPOSITORY}",
            [
                "a proxy needs the address of the service",
                "'here' is neither an address nor a network",
                "cannot read none",
                "'a b' is not the name of a header",
            ],
        ),
        (f"proxy: {{}}\n{REPOSITORY}", ["the proxy has no addresses and no secret-file"]),
        (
            "job-tokens: {a: {issuer: 'https://a', audience: x, rules: [y, {}]}, "
            "b: {issuer: 'https://a', rules: [{project: p, claims: {}, allows: [write]}]}}\n"
            + REPOSITORY,
            [
                "b and a have the same issuer",
                "a rule must be a mapping",
                "the rule has no project and no claims and no allows",
                "the job tokens b has no audience",
                "there is no project 'p'",
                "claims must be a mapping",
                "a token cannot allow 'write'",
            ],
        ),
        (f"administrators: alice\n{REPOSITORY}", ["1:17: error: members must be a list, with one"]),
        (
            f"{REPOSITORY}    lists: {{l: {{source: /a, project: p}}}}\nprojects: {{o: {{}}}}",
            ["6:38: error: there is no project 'p' (known are o)"],
        ),
        (
            f"{REPOSITORY}    lists: {{l: {{source: /a, project: p}}, m: {{source: /a}}}}\n"
            "projects: {p: {}}",
            ["l and m are the same list in different projects"],
        ),
        (f"database: mysql://h/d\n{REPOSITORY}", ["neither a path nor a URL of PostgreSQL"]),
        (f"database: postgresql://h:port/d\n{REPOSITORY}", ["the URL of the database is malf"]),
        (f"database: sqlite:///x\n{REPOSITORY}", ["the path of the SQLite database is not abs"]),
        (f"database-file: none\n{REPOSITORY}", ["cannot read none: No such file or directory"]),
        (f"database-file: wrong.url\n{REPOSITORY}", ["1:16: error: the database is neither"]),
        (
            f"database: /d\ndatabase-file: db.url\n{REPOSITORY}",
            ["2:16: error: the database is giv"],
        ),
    ],
)
def test_mistakes_are_reported_with_their_places_and_without_passwords(
    text: str, messages: list[str]
) -> None:
    with pytest.raises(InvalidServiceConfiguration) as caught:
        parse(text)
    for message in messages:
        assert message in str(caught.value)
    for secret in ("pw123", "hidden"):
        assert secret not in str(caught.value)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(_checkable(text), SCHEMA)


NOT_IN_A_SCHEMA = re.compile(
    r"name: same|name: of|project: p|61 \*|30 2 \*|h:port|"
    r"ftp:|dir:x|url: 'dir:/r'|none|wrong\.url|70000|pw123|schedules: \{site|job-time: 1s|"
    r"session: 90d|local/a-b"
)


def _checkable(text: str) -> object:
    """What the schema is to refuse; nothing where only the parser can see the mistake."""
    return {} if NOT_IN_A_SCHEMA.search(text) else yaml.safe_load(text)


def test_the_schema_and_the_parser_know_the_same_keys() -> None:
    for pointer, head in (
        (SCHEMA, ""),
        (SCHEMA["properties"]["limits"], "limits: "),
        (SCHEMA["properties"]["history"], "history: "),
        (SCHEMA["properties"]["access"], "access: "),
        (SCHEMA["$defs"]["repository"], "repositories: {r: "),
        (SCHEMA["$defs"]["project"], "projects: {p: "),
        (
            SCHEMA["$defs"]["project"]["properties"]["quota"],
            "projects: {p: {quota: ",
        ),
        (SCHEMA["properties"]["login"], "login: "),
        (SCHEMA["properties"]["proxy"], "proxy: "),
        (SCHEMA["$defs"]["jobTokens"], "job-tokens: {p: "),
        (SCHEMA["$defs"]["list"], "repositories: {r: {lists: {l: "),
        (
            SCHEMA["$defs"]["repository"]["properties"]["schedules"],
            "repositories: {r: {schedules: ",
        ),
        (
            SCHEMA["$defs"]["repository"]["properties"]["arguments"],
            "repositories: {r: {arguments: ",
        ),
    ):
        with pytest.raises(InvalidServiceConfiguration) as caught:
            parse(f"{head}{{unknown: 1}}{'}' * head.count('{')}")
        [known] = re.findall(r"known keys are ([a-z, -]+)\)", str(caught.value))
        assert set(known.split(", ")) == set(pointer["properties"])


def test_a_fifo_in_the_place_of_a_configuration_is_not_waited_for(tmp_path: Path) -> None:
    fifo, named = tmp_path / "fifo", tmp_path / "service.yaml"
    os.mkfifo(fifo)
    named.write_text(f"{REPOSITORY}database-file: {fifo}\n")
    for path in (fifo, named):
        with pytest.raises(InvalidServiceConfiguration, match="it is a FIFO"):
            read_configuration(str(path))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("database-file", "secret"),
        ("login", "{issuer: 'https://id.example.org', client: c, client-secret-file: secret}"),
        ("proxy", "{addresses: [127.0.0.1], secret-file: secret}"),
        ("hooks", "{lab: {kind: quay, secret-file: secret}}"),
        ("harbor", "{url: 'https://h.example.org', user: a, password-file: secret}"),
    ],
)
def test_a_file_with_a_secret_that_other_users_can_read_is_refused(
    tmp_path: Path, key: str, value: str
) -> None:
    path, secret = tmp_path / "service.yaml", tmp_path / "secret"
    path.write_text(f"{REPOSITORY}url: https://a.example.org\n{key}: {value}\n")
    secret.write_text("postgresql://h.example.org/" if key == "database-file" else "hidden" * 6)
    for mode in (0o600, 0o400, 0o640, 0o604, 0o602, 0o644):
        secret.chmod(mode)
        if mode & 0o077 == 0:
            read_configuration(str(path))
            continue
        with pytest.raises(InvalidServiceConfiguration) as caught:
            read_configuration(str(path))
        [found] = caught.value.problems
        assert found.message == "secret has a secret, and other users can read it"
        assert f"chmod 600 {secret}" in str(caught.value) and "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "arguments", "mistake"),
    [
        ("ingest-list", "[--jobs, '4', --policy, /none.yaml, --group=8]", ""),
        ("gc", "[--no-such]", "No such option"),
        ("gc", "[extra]", "extra is not an option"),
        ("ingest-list", "[--policy]", "requires an argument"),
        ("ingest-list", "[--group, many]", "not a valid integer"),
    ],
)
def test_arguments_are_checked_as_the_command_reads_them(
    tmp_path: Path, kind: str, arguments: str, mistake: str
) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(f"{REPOSITORY}    arguments:\n      {kind}: {arguments}\n")
    if not mistake:
        assert read_configuration(str(path), check_arguments).repositories[0].arguments
        return
    with pytest.raises(InvalidServiceConfiguration) as caught:
        read_configuration(str(path), check_arguments)
    [found] = caught.value.problems
    assert mistake in found.message and found.line == 7, found


def test_only_repositories_of_cvmfs_have_several_ingests_at_the_same_time() -> None:
    gateway = f"{REPOSITORY.replace('dir:/r', 'cvmfs:r.example.org')}    jobs: 4\n"
    assert parse(gateway).repositories[0].jobs == 4
    assert parse(gateway.replace("    jobs: 4\n", "")).repositories[0].jobs is None
    with pytest.raises(InvalidServiceConfiguration, match="a directory has one writer"):
        parse(f"{REPOSITORY}    jobs: 2\n")
