"""Find paths in all published images: the use case behind `publisher find`.

Layer indexes are sorted, and shared by images. A whole path is looked up in them; for a pattern,
each index is searched once for the longest part of the pattern that is literal. Only the entries
that a match depends on, which are those of its parent directories, are then merged.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from json.encoder import encode_basestring_ascii

from publisher.browse.contents import NoContents, as_file, layer_index, manifest_of
from publisher.browse.images import list_images
from publisher.entry import Entry
from publisher.errors import PublisherError, explain
from publisher.layers.errors import LayerError
from publisher.layers.index import LayerIndex
from publisher.layers.index_lines import decode_entry
from publisher.layers.merge import merge
from publisher.layers.partial_merge import merged_at
from publisher.lazy import dataclass
from publisher.repository import Repository, RepositoryChanged
from publisher.repository.published import PublishedImage

_MANY = 1000
"""The most matches in a layer; if there are more, its images are merged completely."""


@dataclass(frozen=True, slots=True)
class Found:
    """A path that matches, in the image published as `name`."""

    name: str
    entry: Entry


def find(
    repository: Repository, pattern: str, unknown: Callable[[str, PublisherError], None]
) -> Iterator[Found]:
    """Yield every path in every published image that matches the glob `pattern`.

    Args:
        repository: Opened for reading.
        pattern: Without a slash it matches names anywhere ("libssl.so*"), with one whole paths.
        unknown: Called with the name of each image whose contents are unknown, and the reason.
    """
    search = _Search(repository, _Pattern.parse(pattern))
    for image in list_images(repository):
        try:
            yield from search.image(image)
        except (NoContents, LayerError, RepositoryChanged, OSError) as error:
            unknown(image.name, explain(error))


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A glob. `path` is the only path that it matches, if it has slashes and no wildcards.

    `fragment` is its longest literal part, encoded as in a layer index.
    """

    matches: Callable[[str], bool]
    path: str | None
    fragment: str

    @classmethod
    def parse(cls, text: str) -> _Pattern:
        stripped = text.strip("/")
        compiled = re.compile(fnmatch.translate(stripped))
        literals = re.split(r"\[.*|[*?]", stripped, flags=re.DOTALL)
        whole = "/" in text.rstrip("/")
        longest = max((part for literal in literals for part in literal.split("/")), key=len)
        return cls(
            lambda path: compiled.match(path if whole else path.rpartition("/")[2]) is not None,
            stripped if whole and len(literals) == 1 else None,
            encode_basestring_ascii(longest)[1:-1],
        )


@dataclass(slots=True)
class _Search:
    """A search for one pattern. `known` has the matches of each layer, or None for too many."""

    repository: Repository
    pattern: _Pattern
    known: dict[str, list[str] | None] = field(default_factory=dict)

    def image(self, image: PublishedImage) -> Iterator[Found]:
        """Yield what matches in one image."""
        manifest = manifest_of(image)
        digests = [layer.digest for layer in manifest.layers]
        indexes = [layer_index(self.repository, digest) for digest in digests]
        for entry in self._merged(digests, indexes):
            if self.pattern.matches(entry.path):
                yield Found(image.name, as_file(entry))

    def _merged(self, digests: Sequence[str], indexes: Sequence[LayerIndex]) -> Iterator[Entry]:
        """Yield the entries of the image's flat form, or those that the matches depend on."""
        paths: set[str] = set()
        for digest, index in zip(digests, indexes, strict=True):
            matches = self._matches_in(digest, index)
            if matches is None:
                return (item.entry for item in merge(indexes))
            paths.update(matches)
        if not paths:
            return iter(())
        return (item.entry for item in merged_at(indexes, paths))

    def _matches_in(self, digest: str, index: LayerIndex) -> list[str] | None:
        if self.pattern.path is not None:
            return [self.pattern.path]
        if digest not in self.known:
            self.known[digest] = self._search(index)
        return self.known[digest]

    def _search(self, index: LayerIndex) -> list[str] | None:
        found: list[str] = []
        fragment = self.pattern.fragment
        for line in index.lines():
            if fragment in line:
                path = decode_entry(line).path
                if self.pattern.matches(path):
                    found.append(path)
                    if len(found) > _MANY:
                        return None
        return found
