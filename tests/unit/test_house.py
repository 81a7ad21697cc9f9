"""The files at the top of the checkout agree with each other and with the tree."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.command import succeed

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def rooms() -> dict[str, int]:
    """The package directories that the map in CONTRIBUTING.md has, with their floors."""
    rows = re.findall(r"^\| (\d+) \| `(publisher/[a-z_/]+)` \| \S", CONTRIBUTING, re.MULTILINE)
    return {room: int(floor) for floor, room in rows}


def test_the_map_of_the_house_is_one_table() -> None:
    """Markdown takes a row for the head of a table if the line below it has the dashes."""
    head = "| floor | room | contents |\n| --- | --- | --- |\n| 0 | `publisher/cli` |"
    assert f"\n\n{head}" in CONTRIBUTING


def test_the_map_of_the_house_has_every_package_directory_and_no_other() -> None:
    package = ROOT / "publisher"
    directories = {
        str(path.parent.relative_to(ROOT))
        for pattern in ("*.py", "*.json")
        for path in package.rglob(pattern)
        if path.parent != package
    }
    assert set(rooms()) == directories


def test_the_floors_of_the_map_are_those_of_the_import_contract() -> None:
    [contract] = [c for c in PROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "layers"]
    floors = [
        frozenset(f"publisher/{name}" for name in layer.split(" | "))
        for layer in contract["layers"]
    ]
    by_floor = {
        frozenset(room for room, at in rooms().items() if at == floor and room.count("/") == 1)
        for floor in rooms().values()
    }
    packages = [
        frozenset(name for name in floor if (ROOT / name).is_dir()) - {"publisher/schemas"}
        for floor in floors
    ]
    assert [floor for floor in packages if floor] == sorted(
        (floor - {"publisher/schemas"} for floor in by_floor),
        key=lambda floor: min(rooms()[room] for room in floor),
    )


def test_the_paths_that_the_guide_for_contributors_names_exist() -> None:
    named = re.findall(
        r"`((?:[a-z_0-9]+/)+[a-z_0-9.-]*|[a-z_0-9-]+\.(?:py|md|toml))`", CONTRIBUTING
    )
    [figure] = re.findall(r"^ cli/ingest\.py.*?(?=^```)", CONTRIBUTING, re.DOTALL | re.MULTILINE)
    named += re.findall(r"[a-z_]+(?:/[a-z_]+)+\.py", figure)
    assert len(named) > 70
    for path in named:
        assert (ROOT / path).exists() or (ROOT / "publisher" / path).exists(), path


UNIT_TESTS = ROOT / "tests/unit"
NOT_OF_ONE_MODULE = {
    "test_documents.py": "the documentation, compared with the program",
    "test_handbook.py": "the documentation site and the man pages",
    "test_distribution.py": "the wheel and the source archive",
    "test_console_blocks.py": "the commands that pages show",
    "test_deployment.py": "the scheduled jobs in deploy/",
    "test_kubernetes.py": "the manifests in deploy/kubernetes",
    "test_prometheus.py": "the alerts and the dashboard in deploy/prometheus",
    "test_audit.py": "the target of the Makefile",
    "test_house.py": "the files at the top of the checkout",
    "test_results.py": "the page of results and its figures",
}
WITHOUT_TESTS_OF_ITS_OWN = {
    "schemas": "one JSON file, compared with the parser in tests/unit/wishlist/test_schema.py",
}
IMPORTS_THE_OTHER_BACKEND = {
    "repository/cvmfs/test_same_tree.py": "what CVMFS publishes is compared with a directory",
}


def unit_tests() -> list[Path]:
    """The modules in tests/unit, relative to it."""
    return sorted(path.relative_to(UNIT_TESTS) for path in UNIT_TESTS.rglob("test_*.py"))


def test_each_module_of_unit_tests_belongs_to_a_module_or_package() -> None:
    at_the_top = {path.name for path in unit_tests() if path.parent == Path()}
    assert set(NOT_OF_ONE_MODULE) <= at_the_top
    for name in at_the_top - set(NOT_OF_ONE_MODULE):
        assert (ROOT / "publisher" / name.removeprefix("test_")).exists(), name
    for path in unit_tests():
        assert (ROOT / "publisher" / path.parent / "__init__.py").exists(), path


def test_each_package_has_unit_tests() -> None:
    packages = {room.partition("/")[2] for room in rooms()}
    tested = {str(path.parent) for path in unit_tests()} - {"."}
    assert packages - tested == set(WITHOUT_TESTS_OF_ITS_OWN)


def test_unit_tests_of_a_package_inside_a_room_are_in_its_own_directory() -> None:
    """A module that imports from such a package, and not from its own, is in the wrong place."""
    packages = {Path(room).relative_to("publisher") for room in rooms()}
    misplaced = set()
    for path in unit_tests():
        names = re.findall(r"^from publisher\.([\w.]+)", (UNIT_TESTS / path).read_text(), re.M)
        modules = {Path(name.replace(".", "/")) for name in names}
        imported = {module if module in packages else module.parent for module in modules}
        beside = {each for each in imported if each.parts[:1] == path.parts[:1]}
        beside -= set(path.parent.parents)
        if beside and path.parent not in beside:
            misplaced.add(str(path))
    assert misplaced == set(IMPORTS_THE_OTHER_BACKEND)


AT_THE_TOP = {
    *(".dockerignore", ".git_archival.txt", ".gitattributes", ".gitignore"),
    *(".pre-commit-hooks.yaml", "CHANGELOG.md", "CONTRIBUTING.md", "Dockerfile", "LICENSE"),
    *("Makefile", "README.md", "constraints.txt", "hatch_build.py", "pyproject.toml"),
    "wishlist.yaml",
    *(".ci/", ".github/", "bench/", "deploy/", "docs/", "layout/", "publisher/", "tests/"),
    "thin-images/",
}
"""What is tracked in the checkout's top directory; directories end with a slash."""


def test_the_top_directory_has_only_the_files_and_directories_that_belong_there() -> None:
    """What a test or a command wrote there must not be committed by accident."""
    tracked = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True
    ).stdout
    names = (path.partition("/") for path in tracked.split("\0")[:-1])
    assert {name + slash for name, slash, _ in names} == AT_THE_TOP


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_dependency_is_pinned_to_a_version_that_it_allows() -> None:
    project = PROJECT["project"]
    requirements = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    for extra in project["optional-dependencies"].values():
        requirements += extra
    versions = pinned()
    for requirement in map(Requirement, requirements):
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} does not allow {version}"


def test_every_dependency_of_the_program_is_imported_by_it() -> None:
    modules = {"pyyaml": "yaml", "prometheus-client": "prometheus_client"}
    text = "\n".join(path.read_text() for path in (ROOT / "publisher").rglob("*.py"))
    for requirement in map(Requirement, PROJECT["project"]["dependencies"]):
        module = modules.get(requirement.name, requirement.name)
        assert re.search(rf"^\s*(?:import|from) {module}\b", text, re.MULTILINE), requirement


def test_plain_make_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    output = subprocess.run(["make", "-C", ROOT], capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^make ([\w-]+) ", output, re.MULTILINE)
    assert sorted(listed) == sorted(phony.split())


def test_the_readme_has_two_commands_and_leads_to_all_pages() -> None:
    readme = (ROOT / "README.md").read_text()
    assert re.findall(r"^\$ (make \w+)", readme, re.MULTILINE) == ["make demo", "make test"]
    assert len(readme.splitlines()) < 60
    assert {"docs/tutorial.md", "docs/installation.md", "docs/README.md", "CONTRIBUTING.md"} <= set(
        re.findall(r"\]\(([^)#]+)\)", readme)
    )


def test_the_exit_codes_are_the_same_in_help_and_documents() -> None:
    pattern = re.compile(r"^\|? *(\d+) +(?:\| )?(?=\S)", re.MULTILINE)
    shown = set(pattern.findall(succeed("--help").out.partition("Exit codes:")[2]))
    assert len(shown) == 9
    table = (ROOT / "docs/output.md").read_text().partition("| code | meaning |")[2]
    assert set(pattern.findall(table.partition("\n\n")[0])) == shown


def test_commands_print_through_the_function_that_escapes_control_characters() -> None:
    allowed = {"completion.py", "failures.py", "main.py", "rendering.py"}
    for path in (ROOT / "publisher/cli").glob("*.py"):
        printing = re.findall(r"(?:click\.echo|[^.\w]print)\(.*", path.read_text())
        assert path.name in allowed or not [p for p in printing if "to_bytes()" not in p], path


UNCLEAR = re.compile(
    r"\b(?:nobody|somebody|someone|everybody|whoever|as whom|(?-i:is none)|hears?|says?|said|told"
    r"|lets? go|stands?(?!-in)|mend(?:s|ed)?|gi(?:ve|ves|ven|ving) up|carr(?:y|ies|ied) out|ours?"
    r"|theirs|we|filesystems?|room (?:for|on)|riddles?)\b",
    re.IGNORECASE,
)
"""Words that CONTRIBUTING.md replaces by others."""

UNCLEAR_WHO = re.compile(r"(?<!user )(?<!users )\bwhom?\b", re.IGNORECASE)


def is_unclear(text: str) -> bool:
    """Whether a text has one of these words."""
    return bool(UNCLEAR.search(text) or UNCLEAR_WHO.search(text))


KEPT = {
    # A change of these texts would change what is published.
    "publisher/runtimes/apptainer.py": "the image says neither entry point nor command",
    "publisher/thin/image.py": "as thin.json says",
    # The title of another document.
    "publisher/thin/save.py": r"Combined Image JSON \+ Filesystem Changeset Format",
    # Keys and values of JSON that were replaced.
    "CHANGELOG.md": r"`mend` and `mended`|`ours`",
}


def prose() -> Iterator[tuple[str, int, str]]:
    """The lines of the package, its documents and its schemas, with path and number."""
    for pattern in (
        "publisher/**/*.py",
        "publisher/**/*.json",
        "docs/**/*.py",
        "docs/**/*.md",
        "docs/**/*.json",
        "layout/*.md",
        "layout/schemas/*.json",
        "thin-images/*.md",
        "thin-images/*.json",
        "README.md",
        "CHANGELOG.md",
    ):
        for path in sorted(ROOT.glob(pattern)):
            name = str(path.relative_to(ROOT))
            for number, line in enumerate(path.read_text().splitlines(), 1):
                yield name, number, re.sub(KEPT.get(name, "\0"), "", line)


def prose_of_tests() -> Iterator[tuple[str, int, str]]:
    """The comments, docstrings and names of tests: their strings may contain any word."""
    for path in sorted((*ROOT.glob("tests/**/*.py"), *ROOT.glob("bench/**/*.py"))):
        name = str(path.relative_to(ROOT))
        source = path.read_text()
        if not is_unclear(source.replace("_", " ")):
            continue  # to take it apart would find nothing, and takes a while
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                yield name, token.start[0], token.string
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield name, node.lineno, node.name.replace("_", " ")
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                yield name, getattr(node, "lineno", 1), ast.get_docstring(node) or ""


def test_texts_do_not_have_the_words_that_the_guide_for_contributors_replaces() -> None:
    found = [
        f"{name}:{number}: {line.strip()}"
        for name, number, line in (*prose(), *prose_of_tests())
        if is_unclear(line)
    ]
    assert not found, "\n".join(found)


def test_catalogs_are_those_of_cvmfs() -> None:
    catalog = re.compile(r"\bcatalog", re.IGNORECASE)
    wrong = {
        name
        for name, _, line in prose()
        if catalog.search(line) and "cvmfs" not in (ROOT / name).read_text().lower()
    }
    assert not wrong


def test_the_words_that_the_guide_replaces_are_found() -> None:
    for text in (
        "Nobody reads on.",
        "the file says so",
        "a text is none",
        "who locks it",
        "we",
        "room for it",
    ):
        assert is_unclear(text), text
    for text in ("if value is None:", "the user who runs it", "a room imports"):
        assert not is_unclear(text), text
