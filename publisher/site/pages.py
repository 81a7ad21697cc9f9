"""The contents of each page, before they become HTML. Pure."""

from __future__ import annotations

from publisher.lazy import dataclass


@dataclass(frozen=True, slots=True)
class Link:
    """The name of something that has a page, and the page's path; "" if it has none."""

    text: str
    page: str = ""


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One published image in the list of images.

    Attributes:
        place: The beginning of the name, up to the last part.
        last: The last part of the name, with tag or digest.
        page: The page about the image.
        size: The bytes of all files of its layers; None if that is unknown.
        exclusive: Those of them in layers that no other image uses.
        published_at: A time as `publisher.times` writes it, or "".
        state: The condition of its wish, in one word.
        removable_from: From when it may be removed, or "".
    """

    place: str
    last: str
    page: str
    platform: str
    owner: str
    lists: tuple[str, ...]
    note: str
    size: int | None
    exclusive: int | None
    layers: int
    published_at: str
    state: str
    pinned: bool
    removable_from: str


@dataclass(frozen=True, slots=True)
class ListPage:
    """All published images.

    Attributes:
        layers: The number of layers; of images without a name, too, as on the page about space.
        size: The bytes of all these layers together, each counted once.
        separate: The bytes that the images would take without shared layers.
        largest: The size of the largest image.
    """

    rows: tuple[ImageRow, ...]
    owners: tuple[str, ...]
    lists: tuple[str, ...]
    platforms: tuple[str, ...]
    states: tuple[str, ...]
    layers: int
    size: int
    separate: int
    largest: int


@dataclass(frozen=True, slots=True)
class Command:
    """How a runtime starts an image. `lines` is what is typed, `note` what it needs, or ""."""

    runtime: str
    lines: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """One layer of an image, with the build step that made it.

    `sharing` is in how many images it is, as a range: see `compose.sharing`.
    """

    digest: str
    page: str
    compressed: int
    size: int | None
    entries: int | None
    sharing: str
    exclusive: bool
    made_by: str


@dataclass(frozen=True, slots=True)
class Setting:
    """A variable of the environment or a label."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class ConfigView:
    """What of an image's config its page shows."""

    entrypoint: str
    command: str
    user: str
    directory: str
    created: str
    author: str
    ports: tuple[str, ...]
    volumes: tuple[str, ...]
    stop_signal: str
    health_check: str
    environment: tuple[Setting, ...]
    labels: tuple[Setting, ...]


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """A change of what a name points to. `detail` is a digest or a reason."""

    time: str
    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class Removal:
    """An entry of the remove schedule."""

    image: Link
    digest: str
    reason: str
    scheduled_at: str
    removable_from: str
    link_dropped: bool
    frees: int | None


@dataclass(frozen=True, slots=True)
class Details:
    """The pages with the contents of an image. Paths are "" where there is no such page."""

    files: str = ""
    packages: str = ""


@dataclass(frozen=True, slots=True)
class ImagePage:
    """The page about one published name. `problem` is why its metadata is unreadable, or ""."""

    row: ImageRow
    name: str
    reference: str
    manifest_digest: str
    source_digest: str
    image_id: str
    outputs: tuple[str, ...]
    flat_path: str
    compressed: int
    pinned_until: str
    pin_reason: str
    problem: str
    failure: str
    other_names: tuple[Link, ...]
    other_platforms: tuple[Link, ...]
    details: Details
    commands: tuple[Command, ...]
    layers: tuple[ImageLayer, ...]
    config: ConfigView | None
    config_problem: str
    history: tuple[HistoryLine, ...]
    removals: tuple[Removal, ...]
    comparisons: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class WishRow:
    """One wish, or a published image without one.

    Attributes:
        name: The public name, or the text of a wish whose images are not known.
        state: Its condition, in one word.
        detail: Why it fails, or is not published; "" if there is nothing to explain.
        failing_since: A time, or "".
        next_try: When a failing image is tried again: a time, or "".
        last_success: When it was last found to be current, or published: a time, or "".
        is_behind: Whether its registry then had another image than what is published.
    """

    name: Link
    wish_list: str
    owner: str
    state: str
    detail: str
    failing_since: str
    next_try: str
    last_success: str
    is_behind: bool


@dataclass(frozen=True, slots=True)
class Run:
    """The last run of a command."""

    command: str
    ended: str
    exit_code: int
    error: str


@dataclass(frozen=True, slots=True)
class WishesPage:
    """All wishes and their states; those that need attention are first."""

    rows: tuple[WishRow, ...]
    counts: tuple[tuple[str, int], ...]
    owners: tuple[str, ...]
    lists: tuple[str, ...]
    states: tuple[str, ...]
    has_state: bool
    last_run: Run | None


@dataclass(frozen=True, slots=True)
class RemovalsPage:
    """The remove schedule. `frees` are the bytes that no image uses once all of it is removed."""

    rows: tuple[Removal, ...]
    frees: int


@dataclass(frozen=True, slots=True)
class LayerPage:
    """The page about one layer.

    Attributes:
        images: The names of published images that use it, of which the first are shown.
        more: How many further names there are.
        kept: How many images use it that no name leads to, and that may be removed.
    """

    digest: str
    path: str
    compressed: int
    size: int | None
    entries: int | None
    images: tuple[Link, ...]
    more: int
    kept: int


@dataclass(frozen=True, slots=True)
class Node:
    """An entry on a page of files.

    Attributes:
        kind: The letter of its type, as in layer indexes.
        size: In bytes; of a directory, that of all files below it.
        count: The entries below a directory that are not directories.
        target: What a link leads to, or "".
        page: The page of a directory that has its own, or "".
        children: What is in a directory without a page of its own.
    """

    name: str
    kind: str
    size: int
    count: int
    target: str = ""
    page: str = ""
    children: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class FilesPage:
    """A directory of an image.

    Attributes:
        above: The directories above it that have pages.
        is_cut: Whether it has more entries than a page shows.
    """

    path: str
    above: tuple[Link, ...]
    size: int
    count: int
    nodes: tuple[Node, ...]
    is_cut: bool


@dataclass(frozen=True, slots=True)
class PackageRow:
    """A package of an image; `path` is the database that lists it."""

    type: str
    name: str
    version: str
    source: str
    path: str


@dataclass(frozen=True, slots=True)
class PackagesPage:
    """The packages of an image. `skipped` are databases that could not be read, and why."""

    rows: tuple[PackageRow, ...]
    types: tuple[str, ...]
    distribution: str
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the picture of space, with its place. `text` is its label, as far as it fits."""

    title: str
    text: str
    page: str
    size: int
    is_shared: bool
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Group:
    """Blocks that belong together, and the place of all of them."""

    title: str
    text: str
    size: int
    x: float
    y: float
    width: float
    height: float
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class ShareRow:
    """What an image, or the images of an owner, use; `exclusive` is what no other image uses."""

    name: Link
    images: int
    stored: int
    exclusive: int


@dataclass(frozen=True, slots=True)
class Bar:
    """One month: what had been published by its end, and how often that changed in it.

    `x` and `width` are its place in the picture, and `label` is "" where there is no place for it.
    """

    month: str
    stored: int
    images: int
    published: int
    removed: int
    x: float
    width: float
    label: str


@dataclass(frozen=True, slots=True)
class Map:
    """A picture of the space, for pages of one kind of width; its size is in its own units."""

    kind: str
    width: int
    height: int
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class SpacePage:
    """The space that images take. `shared` are the bytes of layers that several images use."""

    stored: int
    separate: int
    shared: int
    maps: tuple[Map, ...]
    images: tuple[ShareRow, ...]
    owners: tuple[ShareRow, ...]
    growth: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class FileChange:
    """A path that differs between two images; a size is None where there is no such file."""

    path: str
    change: str
    fields: tuple[str, ...]
    old_size: int | None
    new_size: int | None


@dataclass(frozen=True, slots=True)
class VersionChange:
    """A package that differs between two images; a text is "" where it is missing."""

    type: str
    name: str
    change: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Compared:
    """One side of a comparison: the image, and the digest of its manifest."""

    name: Link
    digest: str


@dataclass(frozen=True, slots=True)
class ComparePage:
    """What differs between two images.

    Attributes:
        counts: How many paths were added, removed and changed.
        grown: By how many bytes the files have grown; negative if they shrank.
        more: How many further paths there are.
        problem: Why files or packages could not be compared, or "".
    """

    old: Compared
    new: Compared
    counts: tuple[tuple[str, int], ...]
    grown: int
    files: tuple[FileChange, ...]
    more: int
    packages: tuple[VersionChange, ...]
    problem: str
