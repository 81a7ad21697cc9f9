"""The pages about the files of an image have every file, and none is too long."""

from __future__ import annotations

from collections.abc import Iterator

from publisher.entry import Entry, EntryType, sort_key
from publisher.site.files import PER_PAGE, files_pages
from publisher.site.pages import FilesPage, Node


def directory(path: str) -> Entry:
    return Entry(path, EntryType.DIRECTORY)


def paths(page: FilesPage) -> Iterator[str]:
    def below(nodes: tuple[Node, ...], above: str) -> Iterator[str]:
        for node in nodes:
            yield above + node.name
            yield from below(node.children, f"{above}{node.name}/")

    yield from below(page.nodes, f"{page.path}/" if page.path else "")


def test_every_entry_is_on_one_page_and_every_page_is_linked() -> None:
    entries = [directory("")]
    for top in range(30):
        entries.append(directory(f"d{top}"))
        entries += [Entry(f"d{top}/f{n}", EntryType.FILE, size=n) for n in range(100 + top)]
    deep = "deep"
    while len(deep) < 4000:
        entries.append(directory(deep))
        deep += "/x"
    entries.append(Entry(deep.rpartition("/")[0] + "/end", EntryType.SYMLINK, target="../.."))
    entries.sort(key=lambda entry: sort_key(entry.path))
    pages = files_pages(entries, "contents/a")
    assert pages[0][0] == "contents/a/index.html"
    shown = [path for _, page in pages for path in paths(page)]
    assert sorted(shown) == sorted(entry.path for entry in entries if entry.path)
    assert all(len(list(paths(page))) <= PER_PAGE for _, page in pages)
    linked = {node.page for _, page in pages for node in all_nodes(page.nodes) if node.page}
    assert linked == {path for path, _ in pages[1:]}
    root = pages[0][1]
    assert (root.size, root.count) == (sum(e.size for e in entries), 30 * 100 + 435 + 1)


def all_nodes(nodes: tuple[Node, ...]) -> Iterator[Node]:
    for node in nodes:
        yield node
        yield from all_nodes(node.children)


def test_a_directory_with_too_many_files_is_cut() -> None:
    files = [Entry(f"f{number:05}", EntryType.FILE) for number in range(6000)]
    [(_, page)] = files_pages(files, "contents/a")
    assert page.is_cut and len(page.nodes) == 5000 and page.count == 6000
    [(path, empty)] = files_pages([], "contents/a")
    assert (path, empty.count, empty.nodes, empty.is_cut) == ("contents/a/index.html", 0, (), False)
