"""The quota of one run: each image is counted before its layers are fetched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from publisher.browse.statistics.charges import Charges, Image
from publisher.browse.statistics.holdings import Unreadable, read_holdings
from publisher.errors import PublisherError
from publisher.layers.index import read_header
from publisher.repository import Repository
from publisher.wishlist.quota import Quota, QuotaExceeded, Usage

_GROUP = "project"


class RunQuota:
    """Refuses images that are more than is left of a quota. Safe to use from several threads.

    What is published is read when the first image is counted: a run without new images needs no
    sizes.

    Args:
        quota: What is allowed.
        lists: The identities of the wish lists whose images count.
        repository: Where the images are published.
        unreadable: Called with each image, layer or record that is not counted.
    """

    def __init__(
        self,
        quota: Quota,
        lists: Collection[str],
        repository: Repository,
        unreadable: Unreadable,
    ) -> None:
        self._quota = quota
        self._lists = frozenset(lists)
        self._repository = repository
        self._unreadable = unreadable
        self._lock = threading.Lock()
        self._charges: Charges | None = None
        self._estimated: set[str] = set()

    @property
    def rules(self) -> object:
        """What is allowed."""
        return self._quota

    @contextmanager
    def counted(
        self, name: str, wish_list: str, layers: Mapping[str, int]
    ) -> Iterator[Callable[[], None]]:
        """Count an image until the block ends with an exception; afterwards it counts as published.

        Yields a function that counts its layers again, with their sizes in the tree: to be called
        when they are unpacked, before the image is published. It raises QuotaExceeded as well.

        Args:
            name: The plain public name.
            wish_list: The list that requests it.
            layers: The sizes of its layers, of all platforms, as they are downloaded. They count
                for layers that the repository does not have yet.

        Raises:
            QuotaExceeded: The image needs more than is left.
        """
        with self._lock:
            charges = self._read()
            sizes = {digest: self._size(charges, digest, layers[digest]) for digest in layers}
            used = charges.usage(_GROUP)
            before = charges.publish(name, wish_list, sizes)
            is_estimate = not self._estimated.isdisjoint(layers)
            self._check(charges, name, before, used, is_estimate=is_estimate)
        try:
            yield lambda: self._check_unpacked(charges, name, before, layers)
        except BaseException:
            with self._lock:
                charges.replace(name, before)
            raise

    def _read(self) -> Charges:
        if self._charges is None:
            holdings = read_holdings(self._repository, self._unreadable)
            self._charges = Charges(holdings, dict.fromkeys(self._lists, _GROUP))
        return self._charges

    def _size(self, charges: Charges, digest: str, downloaded: int) -> int:
        if charges.knows(digest):
            return downloaded
        stored = self._stored(digest)
        if stored is None:
            self._estimated.add(digest)
        return downloaded if stored is None else stored

    def _stored(self, digest: str) -> int | None:
        """Return the size of a layer that is published or staged, None for any other."""
        if not self._repository.has_layer(digest):
            return None
        try:
            with self._repository.open_index(digest) as file:
                return read_header(file, digest).stored_size
        except (PublisherError, OSError):
            return None  # the publication reports what is wrong

    def _check_unpacked(
        self, charges: Charges, name: str, before: Image | None, layers: Mapping[str, int]
    ) -> None:
        with self._lock:
            found = {digest: self._stored(digest) for digest in layers.keys() & self._estimated}
            known = {digest: size for digest, size in found.items() if size is not None}
            self._estimated -= known.keys()
            charges.resize(known)
            image = charges.replace(name, before)
            used = charges.usage(_GROUP)
            charges.replace(name, image)
            self._check(charges, name, before, used)

    def _check(
        self,
        charges: Charges,
        name: str,
        before: Image | None,
        used: Usage,
        *,
        is_estimate: bool = False,
    ) -> None:
        """Check what is used now. An image that is too much is not counted by any other thread."""
        try:
            self._quota.check(name, used, charges.usage(_GROUP), is_estimate=is_estimate)
        except QuotaExceeded:
            charges.replace(name, before)
            raise
