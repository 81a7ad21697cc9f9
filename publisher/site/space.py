"""The contents of the page about space: what images share, and how the repository grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

from publisher.browse.statistics.shares import images_of, ordered, owners_of, shares
from publisher.browse.statistics.totals import totals
from publisher.lazy import dataclass
from publisher.site import addresses
from publisher.site.pages import Bar, Block, Group, Link, Map, ShareRow, SpacePage
from publisher.site.survey import Survey
from publisher.site.treemap import Rectangle, squarify
from publisher.tree import layout

_TITLE = 20
_MARGIN = 2
_LETTER = 6.6
"""The width of a letter."""

_MONTHS = 36
WIDTH = 1000
"""The width of the picture of growth, in its own units."""

_WIDEST_BAR = 80
_LABEL = 140
"""The width of a label there, on a phone, where letters are large in these units."""

_LARGEST = 50


@dataclass(frozen=True, slots=True)
class _Size:
    """The size of a picture in its own units, and how many groups and blocks it has at most."""

    kind: str
    width: int
    height: int
    groups: int
    blocks: int


_SIZES = (_Size("wide", 1000, 560, 80, 300), _Size("narrow", 358, 520, 20, 60))
"""The narrow one fills a phone, so that its letters have the size of other text there."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the picture, before it has a place; `name` is that of an image, with its tag."""

    label: str
    page: str
    size: int
    is_shared: bool
    note: str = ""
    name: str = ""


_Named = tuple[str, Sequence[Part], int]
"""The title of a group of parts, the parts, and the size of all of them."""


def space_page(survey: Survey) -> SpacePage:
    """Return the page about the space that images and layers take."""
    holdings = survey.holdings
    sums = totals(holdings)
    groups = _groups(survey)
    return SpacePage(
        stored=sums.stored,
        separate=sums.separate,
        shared=sum(size for title, _, size in groups if title == _SHARED),
        maps=tuple(
            Map(
                size.kind,
                size.width,
                size.height,
                tuple(_place(arranged(groups, size.groups), size)),
            )
            for size in _SIZES
            if groups
        ),
        images=tuple(
            ShareRow(
                Link(name, addresses.image_page(name)),
                1,
                share.stored + share.single_files,
                share.freed,
            )
            for name, share in ordered(shares(holdings, images_of))[:_LARGEST]
        ),
        owners=tuple(
            ShareRow(Link(name), share.manifests, share.stored + share.single_files, share.freed)
            for name, share in ordered(shares(holdings, owners_of))[:_LARGEST]
        ),
        growth=_bars(survey),
    )


_SHARED = "Layers of several images"
_RETIRED = "Images without a name"
_OTHERS = "Smaller ones"


def _groups(survey: Survey) -> list[_Named]:
    """Return the parts of the picture by group, the largest first, and the size of each group.

    Shared layers are parts of their own. What an image alone uses is the part of its first name, in
    the group of its image repository.
    """
    alone: dict[str, int] = {}
    parts: dict[str, list[Part]] = {}
    for digest, size in survey.sizes.items():
        if survey.is_exclusive(digest):
            (image_id,) = survey.users[digest]
            alone[image_id] = alone.get(image_id, 0) + size.stored
        elif size.stored:
            label, note = _sharers(survey, digest)
            page = addresses.layer_page(digest)
            part = Part(label, page, size.stored, is_shared=True, note=note)
            parts.setdefault(_SHARED, []).append(part)
    for image_id, size_alone in alone.items():
        names = survey.names.get(image_id, ())
        if not size_alone:
            continue
        if not names:
            part = Part(layer_name(image_id), addresses.REMOVALS, size_alone, is_shared=False)
            parts.setdefault(_RETIRED, []).append(part)
            continue
        plain = layout.split_platform(names[0])[1]
        group = layout.without_tag(plain)
        label = plain[len(group) :].lstrip(":@") or plain
        page = addresses.image_page(names[0])
        note = f"only {plain}"
        part = Part(label, page, size_alone, False, note, plain.rpartition("/")[2])
        parts.setdefault(group, []).append(part)
    return _largest_first(parts)


def _largest_first(parts: Mapping[str, Sequence[Part]]) -> list[_Named]:
    groups = [(title, each, sum(part.size for part in each)) for title, each in parts.items()]
    return sorted(groups, key=lambda group: (-group[2], group[0]))


def arranged(groups: Sequence[_Named], most: int) -> Sequence[_Named]:
    """Return the groups; if there are more than `most`, those of image repositories become parts.

    Their groups are then the directories above them.
    """
    if len(groups) <= most:
        return groups
    parts: dict[str, list[Part]] = {}
    for title, each, size in groups:
        if title in (_SHARED, _RETIRED):
            parts.setdefault(title, []).extend(each)
            continue
        above, _, last = title.rpartition("/")
        [*others, first] = each
        if others:
            page = f"{addresses.INDEX}#q={quote(title)}"
            first = Part(last, page, size, False, f"{len(each)} images of {title}")
        else:
            first = replace(first, label=first.name)
        parts.setdefault(above or title, []).append(first)
    return _largest_first(parts)


def _sharers(survey: Survey, digest: str) -> tuple[str, str]:
    """Return a label and a note for a shared layer: the smallest of its images, and how many more.

    The smallest image is often the one that the others were built on.
    """
    users = survey.users[digest]
    named = [
        (len(image.manifest.layers), name)
        for image_id in users
        for name in survey.names.get(image_id, ())[:1]
        if (image := survey.images[name]).manifest
    ]
    if not named:
        return layer_name(digest), f"layer {layer_name(digest)} of {len(users)} images"
    smallest = min(named)[1]
    label = f"{smallest.rpartition('/')[2]} + {len(users) - 1}"
    return label, f"layer {layer_name(digest)} of {smallest} and {len(users) - 1} more"


def layer_name(digest: str) -> str:
    """Return the beginning of a digest, as a name for pictures."""
    return digest.partition(":")[2][:12]


def _place(groups: Sequence[_Named], picture: _Size) -> list[Group]:
    """Give each part its place in the picture; the smallest parts become one."""
    sizes = sorted((part.size for _, parts, _ in groups for part in parts), reverse=True)
    least = sizes[picture.blocks] + 1 if len(sizes) > picture.blocks else 0
    kept = [group for group in groups if group[2] >= max(1, least)]
    rest = [part for group in groups if group[2] < least for part in group[1]]
    if rest:
        size = sum(part.size for part in rest)
        note = f"{len(rest)} more"
        kept.append((_OTHERS, [Part(note, addresses.INDEX, size, False, note)], size))
        kept.sort(key=lambda group: (-group[2], group[0]))
    places = squarify([size for _, _, size in kept], Rectangle(0, 0, picture.width, picture.height))
    return [
        _group(title, parts, size, place, least)
        for (title, parts, size), place in zip(kept, places, strict=True)
    ]


def _group(title: str, parts: Sequence[Part], size: int, place: Rectangle, least: int) -> Group:
    has_title = place.height > 3 * _TITLE and place.width > 60
    inner = place.inset(_TITLE if has_title else _MARGIN, _MARGIN)
    if len(parts) == 1 and parts[0].name:  # the title may have no place, and a tag is no name
        parts = [replace(parts[0], label=parts[0].name)]
    large = sorted((p for p in parts if p.size >= least), key=lambda p: (-p.size, p.label))
    small = [part for part in parts if part.size < least]
    if small:
        total, note = sum(part.size for part in small), f"{len(small)} smaller ones"
        page = small[0].page if len(small) == 1 else addresses.INDEX
        # Without a larger one, the block is the whole group.
        label = note if large or has_title else title.rpartition("/")[2]
        large.append(Part(label, page, total, small[0].is_shared, f"{note} of {title}"))
        large.sort(key=lambda part: -part.size)
    blocks = [
        _block(part, spot)
        for part, spot in zip(large, squarify([part.size for part in large], inner), strict=True)
    ]
    return Group(
        title,
        _group_title(title, place.width - 12) if has_title else "",
        size,
        *_corners(place),
        tuple(blocks),
    )


def _group_title(title: str, width: float) -> str:
    """Return the title if it fits, else as much as fits of its last part."""
    whole = _fitting(title, width)
    return whole if whole == title else _fitting(title.rpartition("/")[2], width)


def _block(part: Part, place: Rectangle) -> Block:
    label = _fitting(part.label, place.width - 8) if place.height >= 18 else ""
    return Block(
        part.note or part.label, label, part.page, part.size, part.is_shared, *_corners(place)
    )


def _corners(place: Rectangle) -> tuple[float, float, float, float]:
    """Return the place with a gap to the next one, rounded to tenths."""
    numbers = (place.x, place.y, max(0.0, place.width - 1), max(0.0, place.height - 1))
    x, y, width, height = (round(number, 1) for number in numbers)
    return x, y, width, height


def _fitting(text: str, width: float) -> str:
    """Return the text, or its beginning, so that it is not wider than `width`; or ""."""
    letters = int(width / _LETTER)
    if len(text) <= letters:
        return text
    return f"{text[: letters - 1]}…" if letters > 4 else ""


def _bars(survey: Survey) -> tuple[Bar, ...]:
    periods = survey.growth[-_MONTHS:]
    step = min(WIDTH / len(periods), _WIDEST_BAR) if periods else 0.0
    labelled = labels([each.month for each in periods], step)
    return tuple(
        Bar(
            month=each.month,
            stored=each.stored,
            images=each.images,
            published=each.published,
            removed=each.removed,
            x=round(at * step + 2, 1),
            width=round(step - 4, 1),
            label=each.month if at in labelled else "",
        )
        for at, each in enumerate(periods)
    )


def labels(months: Sequence[str], step: float) -> list[int]:
    """Return which months have labels: the first, each January and the last, if they have place.

    Args:
        months: As "2026-11".
        step: The width of a month in the picture.
    """
    chosen: list[int] = []
    for at, month in enumerate(months):
        is_wanted = not chosen or month.endswith("-01") or at == len(months) - 1
        fits = not chosen or (at - chosen[-1]) * step >= _LABEL
        if is_wanted and fits and at * step + _LABEL <= max(WIDTH, _LABEL):
            chosen.append(at)
    return chosen
