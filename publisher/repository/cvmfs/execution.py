"""Execute the server calls of a transaction, also those of an interrupted publisher."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator, Sequence

from publisher.entry import EntryType
from publisher.layers.index import read_index
from publisher.layers.replay import ReadContents
from publisher.lazy import dataclass
from publisher.repository import ContentRefused, RepositoryError
from publisher.repository.cvmfs import pending
from publisher.repository.cvmfs.changes import Call, Changes, Edit, Ingest, NewLayer
from publisher.repository.cvmfs.configuration import Configuration
from publisher.repository.cvmfs.guard import Guard
from publisher.repository.cvmfs.mirror import Mirror
from publisher.repository.cvmfs.mount import PublishedTree
from publisher.repository.cvmfs.sending import send
from publisher.repository.cvmfs.server import NO_SPACE, NOT_PERMITTED, ServerRefused
from publisher.repository.cvmfs.union import apply_edit
from publisher.repository.damaged import read_damaged
from publisher.repository.disk import sync_filesystem
from publisher.tree import layout
from publisher.tree.history import Record
from publisher.tree.layout import RepositoryURL

_RENEWAL = ".publisher-renewal"
"""A path that is never published: a lease of it conflicts only with one of the whole repository."""

_SHARED_CAUSES = {NO_SPACE: errno.ENOSPC, NOT_PERMITTED: errno.EACCES}
"""The causes of refusals that may affect other content, and do not prevent a transaction."""


@dataclass(frozen=True, slots=True)
class Execution:
    """The parts of one repository that are needed to execute server calls.

    With `verify`, `require_visible` also reads the content of new layers. `read` reads the contents
    of staged layers, in whichever process.
    """

    url: RepositoryURL
    configuration: Configuration
    tree: PublishedTree
    mirror: Mirror
    guard: Guard
    verify: bool
    read: ReadContents

    def execute(self, calls: Sequence[Call], check: Callable[[], None]) -> None:
        """Execute `calls` in order; wait for other transactions, leases and processes.

        If the last call is an edit, `check` is called once its transaction is open. At a gateway no
        other publisher can change the repository from then on. Reading threads of this process
        wait meanwhile.
        """
        with self.tree.lock.publishing():
            for call in calls:
                self._execute(call, check if call is calls[-1] else lambda: None)

    def _execute(self, call: Call, check: Callable[[], None]) -> None:
        if isinstance(call, Edit):
            self.guard.retry(lambda: self._edit(call, check))
        else:
            self._renew()  # links may refer to content of the previous call
            self.guard.retry(lambda: self._ingest(call))

    def finish_pending(self) -> None:
        """Complete a transaction whose publisher ended after the deciding server call."""
        left = pending.read(self.mirror.pending)
        if left is None:
            return
        self.renew_mount()  # at a gateway, it need not show the deciding call yet
        if left.is_decided(self.tree, self.configuration.published().revision):
            self.execute(left.rest, lambda: None)
            self.append_to_history(left.record)
            self.mirror.mark_current(False)
            for digest in left.layers:
                self.mirror.discard(digest)
        self.mirror.pending.unlink()

    def append_to_history(self, record: Record | None) -> None:
        """Append the transaction, unless this has been done; wait until it is on disk."""
        if record is not None and self.mirror.append_to_history(record):
            sync_filesystem(self.mirror.tree.root)

    def open_transaction(self) -> None:
        """Open a transaction of the server, which makes the union mount writable."""
        configuration = self.configuration
        if not configuration.is_mounted:
            raise RepositoryError(
                f"cannot change names in {self.url}",
                why="they contain characters that cvmfs_server accepts only through "
                f"{configuration.union}, which is not mounted",
                hint=f"mount it: cvmfs_server mount {configuration.name}",
            )
        self.guard.server.run(["transaction", configuration.name])

    def publish_edit(self, edit: Edit) -> None:
        """Apply `edit` to the union mount, in the open transaction, and publish it."""
        try:
            apply_edit(edit, self.configuration.union)
        except OSError as error:
            raise RepositoryError(
                f"cannot change {error.filename or self.configuration.union} in {self.url}",
                why=error.strerror or str(error),
                hint=f"run cvmfs_server check {self.configuration.name}, and try again",
            ) from error
        self.guard.server.run(["publish", self.configuration.name])

    def renew_mount(self) -> None:
        """Update the mount to the latest revision, which another publisher may have published.

        At a gateway the server updates it at the beginning of a transaction only.
        """
        with self.tree.lock.publishing():
            self._renew()

    def explained(self, refused: ServerRefused) -> ContentRefused | None:
        """Return the error for content that the server refused, or None if it is unusable as such.

        It is usable if an empty transaction can be opened and aborted. That needs the mount:
        without it, a known cause is taken for one of the server.

        Raises:
            RepositoryBusy: Another transaction is open.
        """
        if self.configuration.is_mounted:
            try:
                with self.tree.lock.publishing():
                    self.guard.recover()
                    self._open_and_abort()
            except ServerRefused:
                return None
        elif refused.known_cause:
            return None
        shared_cause = _SHARED_CAUSES.get(refused.known_cause, 0)
        return ContentRefused(
            f"cannot publish its content to {self.url}",
            why=refused.why,
            hint=refused.hint if shared_cause else "repeat it with --debug, which shows all output",
            shared_cause=shared_cause,
        )

    def require_visible(self, tree: pending.Tree, changes: Changes) -> None:
        """Raise RepositoryError unless `tree` shows what `changes` added and removed.

        The exit code of the server does not imply that.
        """
        indexes = [layout.layer_index(layer.digest) for layer in changes.layers]
        missing = [
            *(t.path for t in changes.trees if tree.kind(t.path) is not EntryType.DIRECTORY),
            *(p for p in (*indexes, *changes.large) if tree.kind(p) is not EntryType.FILE),
            *(p for p, content in changes.files.items() if read_damaged(tree, p) != content),
            *(p for p, text in changes.links.items() if tree.link_text(p) != text),
            *(p for p in changes.removals if tree.kind(p) is not None),
        ]
        if self.verify:
            missing += [
                f"{layer.digest}: {path}"
                for layer in changes.layers
                for path in self._differing(layer)
            ]
        if missing:
            more = f", and so do {len(missing) - 1} others" if len(missing) > 1 else ""
            raise RepositoryError(
                f"cannot verify the publication to {self.url}",
                why=f"{missing[0]} differs from what was sent{more}",
                hint=f"run cvmfs_server check {self.configuration.name}, and then "
                "publisher verify --repair",
            )

    def _renew(self) -> None:
        configuration = self.configuration
        if not configuration.is_gateway or not configuration.is_mounted:
            return
        if configuration.mounted_hash() != configuration.published().root_hash:
            self._open_and_abort()

    def _open_and_abort(self) -> None:
        """Open an empty transaction, and abort it."""
        name = self.configuration.name
        place = f"{name}/{_RENEWAL}" if self.configuration.is_gateway else name

        def open_and_abort() -> None:
            self.guard.server.run(["transaction", place])
            self.guard.server.run(["abort", "-f", name])

        self.guard.retry(open_and_abort)

    def _edit(self, edit: Edit, check: Callable[[], None]) -> None:
        self.open_transaction()
        check()
        self.publish_edit(edit)

    def _ingest(self, call: Ingest) -> None:
        name = self.configuration.name
        arguments = ["ingest"]
        for path in call.deletions:
            arguments += ["-d", path]
        if not call.additions.has_additions:
            self.guard.server.run([*arguments, name])
            return
        arguments += ["-t", "-", "-b", call.base or "/", "-k", name]
        kind, owner = self.tree.published_kinds(), self.configuration.owner_ids()
        self.guard.server.run(
            arguments, lambda write: send(call, write, kind, owner, self.mirror, self.read)
        )

    def _differing(self, layer: NewLayer) -> Iterator[str]:
        """Yield the files of a layer whose content in the mount is wrong."""
        tree = self.configuration.mount / layout.layer_tree(layer.digest)
        with self.mirror.staged(layer.digest).index.open("rb") as index:
            for entry in read_index(index):
                if entry.type is not EntryType.FILE:
                    continue
                try:
                    with (tree / entry.path).open("rb") as file:
                        actual = hashlib.file_digest(file, "sha256").hexdigest()
                except OSError:
                    actual = ""
                if actual != entry.sha256:
                    yield entry.path
