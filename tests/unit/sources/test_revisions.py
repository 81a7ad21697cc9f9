"""The earlier version of a wish list is read from git, or from a file."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from publisher.sources.revisions import UnknownBase, earlier_list
from tests.command import error_data
from tests.git_checkout import checkout, commit_files, git

OLD, NEW = "version: 2\nimages: [a:1]\n", "version: 2\nimages: [a:1, b:1]\n"


def refused(location: Path | str, base: str) -> UnknownBase:
    with pytest.raises(UnknownBase) as caught:
        earlier_list(str(location), base)
    assert caught.value.why
    assert caught.value.hint
    assert error_data(caught.value)["base"] == base
    return caught.value


def test_a_revision_means_the_commit_at_which_the_branch_left_it(tmp_path: Path) -> None:
    clone = checkout(tmp_path / "clone")
    first = commit_files(clone, {"lists/a.yaml": OLD})
    git(clone, "checkout", "--quiet", "-b", "wish")
    commit_files(clone, {"lists/a.yaml": NEW, "lists/new.yaml": NEW})
    git(clone, "checkout", "--quiet", "main")
    commit_files(clone, {"lists/a.yaml": "version: 2\nimages: [other:1]\n"})
    git(clone, "checkout", "--quiet", "wish")
    found = earlier_list(str(clone / "lists/a.yaml"), "main")
    assert (found.data, found.note) == (OLD.encode(), "")
    assert found.name == f"main ({first[:12]})"
    assert earlier_list(str(clone / "lists/new.yaml"), "main").data is None
    assert earlier_list(str(clone / "lists/a.yaml"), "HEAD").data == NEW.encode()
    (tmp_path / "link.yaml").symlink_to(clone / "lists/a.yaml")
    assert earlier_list(str(tmp_path / "link.yaml"), "main").data == OLD.encode()


def test_a_renamed_list_is_compared_with_the_one_under_its_former_name(tmp_path: Path) -> None:
    long = OLD + "".join(f"# {number}\n" for number in range(20))
    clone = checkout(tmp_path / "clone", **{"old name.yaml": long})
    git(clone, "config", "diff.renames", "false")
    (clone / "lists").mkdir()
    git(clone, "mv", "old name.yaml", "lists/new.yaml")
    (clone / "lists/new.yaml").write_text(long + "# more\n")
    found = earlier_list(str(clone / "lists/new.yaml"), "main")
    assert (found.data, found.note) == (long.encode(), "it was old name.yaml there")


def test_a_file_is_an_earlier_version_even_outside_of_git(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text(OLD)
    found = earlier_list(str(tmp_path / "new.yaml"), str(tmp_path / "old.yaml"))
    assert found.data == OLD.encode()
    error = refused(tmp_path / "new.yaml", "main")
    assert "is not in a git repository, and there is no file main" in error.why
    for location in ("-", "https://lists.example.org/a.yaml"):
        assert "--base FILE" in refused(location, "main").hint


def test_an_unknown_revision_and_a_shallow_clone_are_explained(tmp_path: Path) -> None:
    origin = checkout(tmp_path / "origin", **{"a.yaml": OLD})
    git(origin, "checkout", "--quiet", "-b", "wish")
    commit_files(origin, {"a.yaml": NEW})
    error = refused(origin / "a.yaml", "no/such-branch")
    assert str(error.why) == "'no/such-branch' is neither a file nor a revision that git knows here"
    assert refused(origin / "a.yaml", "--output=x").why
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{origin}", str(shallow))
    error = refused(shallow / "a.yaml", "HEAD~1")
    assert error.why.endswith(": the clone is shallow")
    assert "--unshallow" in error.hint
    git(shallow, "fetch", "--quiet", "--depth=1", "origin", "main:main")
    found = earlier_list(str(shallow / "a.yaml"), "main")
    assert found.data == OLD.encode()
    assert found.note == "compared with main itself, since the clone is shallow"


def test_files_that_a_change_adds_neither_replace_the_revision_nor_run_programs(
    tmp_path: Path,
) -> None:
    clone = checkout(tmp_path / "clone", **{"lists/a.yaml": OLD})
    marker = tmp_path / "executed"
    git(clone, "config", "filter.f.clean", f"touch {marker}; cat")
    git(clone, "config", "core.fsmonitor", f"touch {marker}; false")
    (clone / ".gitattributes").write_text("*.yaml filter=f\n")
    (clone / "lists/a.yaml").write_text(NEW)
    (clone / "lists/new.yaml").write_text(NEW)
    (clone / "main").write_text(NEW)
    with contextlib.chdir(clone):
        assert earlier_list("lists/a.yaml", "main").data == OLD.encode()
        assert earlier_list("lists/new.yaml", "main").data is None
        found = earlier_list("lists/a.yaml", "./main")
        assert (found.data, found.is_file) == (NEW.encode(), True)
        assert "there is no file ./no" in refused("lists/a.yaml", "./no").why
    other = checkout(tmp_path / "other", **{"lists/a.yaml": NEW, "a.yaml": NEW})
    for name in ("HEAD", "objects", "refs", "config"):
        (other / ".git" / name).rename(clone / "lists" / name)
    git(clone, "config", "--file", "lists/config", "core.worktree", str(clone / "lists"))
    git(clone, "config", "--file", "lists/config", "core.bare", "false")
    git(clone, "config", "--file", "lists/config", "core.fsmonitor", f"touch {marker}; false")
    for base in ("main", "HEAD"):
        for name in ("a.yaml", "new.yaml"):
            assert "cannot use bare repository" in refused(clone / "lists" / name, base).why
    with contextlib.chdir(clone):
        assert "remove the files HEAD" in refused("lists/a.yaml", "main").hint
    assert not marker.exists()


def test_a_link_to_another_list_does_not_take_the_place_of_a_list(tmp_path: Path) -> None:
    lists = {"lists/a.yaml": OLD, "mine/a.yaml": NEW, "mine.yaml": NEW}
    clone = checkout(tmp_path / "clone", **lists)
    (tmp_path / "way").symlink_to(clone)
    assert earlier_list(str(tmp_path / "way/lists/a.yaml"), "main").data == OLD.encode()
    (clone / "lists/a.yaml").unlink()
    (clone / "lists/a.yaml").symlink_to("../mine.yaml")
    error = refused(clone / "lists/a.yaml", "main")
    assert "is or passes a symlink" in error.why and error.hint == f"check {clone}/mine.yaml"
    shutil.rmtree(clone / "lists")
    (clone / "lists").symlink_to("mine")
    for location in (clone / "lists/a.yaml", tmp_path / "way/lists/a.yaml"):
        assert "is or passes a symlink" in refused(location, "main").why


def test_variables_of_git_do_not_name_another_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = checkout(tmp_path / "clone", **{"a.yaml": OLD})
    other = checkout(tmp_path / "other", **{"a.yaml": NEW})
    for name in ("GIT_DIR", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"):
        monkeypatch.setenv(name, str(other / ".git"))
    monkeypatch.setenv("GIT_NAMESPACE", "other")
    assert earlier_list(str(clone / "a.yaml"), "main").data == OLD.encode()
