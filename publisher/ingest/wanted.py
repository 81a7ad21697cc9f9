"""What is wished of an image, held against what is published: questions that change nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from publisher.oci.image import PlatformImage
from publisher.repository import Repository, RepositoryChanged
from publisher.repository.reading import load_pins, load_publication
from publisher.runtimes.podman import store as podman_store
from publisher.tree import layout
from publisher.tree.pins import check_pin
from publisher.tree.publication import Publication
from publisher.wishlist import OUTPUTS


class PublishedMeanwhile(RepositoryChanged):
    """Another run published under an image's name since its source was asked: ask it again."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image to be published under one name.

    `before` is what was recorded of that name when the source was asked what to publish.
    """

    name: str
    image: PlatformImage
    publication: Publication
    before: Publication | None


def is_current(
    repository: Repository,
    found: Publication | None,
    wanted: Publication,
    scheduled: Collection[tuple[str, str]],
) -> bool:
    """Whether exactly `wanted` is published: same source, platform, outputs, and a sound link.

    `found` is what is recorded under its name. Its wish list has to be among those in there, and
    what that says of it as well.

    Of `wanted` only what is known before anything was fetched is compared. What is among the
    `scheduled` (name, manifest digest) has to be taken off the schedule first.
    """
    if found is None or found.source_digest != wanted.source_digest:
        return False
    if (found.name, found.manifest_digest) in scheduled:
        return False
    if (found.platform, found.outputs) != (wanted.platform, wanted.outputs):
        return False
    if not wished_alike(found, joined(found, wanted)):
        return False
    if not podman_store.is_there(repository, found):
        return False
    if "flat" not in wanted.outputs:
        return True
    target = layout.link_target(wanted.name, found.image_id)
    return repository.link_text(wanted.name) == target and repository.exists(
        layout.flat_image(found.image_id)
    )


def has_content(repository: Repository, item: Item) -> bool:
    """Whether everything that `item` is to show is published: only records may be missing."""
    paths = [layout.layer_directory(layer.digest) for layer in item.image.manifest.layers]
    if "flat" in item.publication.outputs:
        paths.append(layout.flat_image(item.image.manifest.image_id))
    return all(map(repository.exists, paths))


def check_place(repository: Repository, item: Item) -> None:
    """Under the lock: raise PublishedMeanwhile if what `item` was made from is not so any more.

    Its source may have been asked hours ago, and another run later: what that one published is the
    newer answer. Or it published the same in forms that would be taken away again.
    """
    found = load_publication(repository, item.name)
    known = {each.source_digest for each in (item.before, item.publication) if each is not None}
    if found is not None and found.source_digest not in known:
        why = f"another run has published {found.source_digest} there meanwhile"
    elif widened(found, item.publication) != item.publication:
        why = "another run has published it in other forms meanwhile"
    else:
        return
    raise PublishedMeanwhile(f"cannot publish {item.name}", why=why, hint="run it again")


def check_pins(
    repository: Repository, names: Iterable[str], source_digest: str, now: datetime
) -> None:
    """Raise ImagePinned if one of `names` is pinned to what is not at `source_digest` any more."""
    pins = load_pins(repository)
    for name in names if pins.pins else ():
        found = load_publication(repository, name)
        if found is not None and found.source_digest != source_digest:
            check_pin(pins, name, found.manifest_digest, now)


def widened(found: Publication | None, wanted: Publication) -> Publication:
    """`wanted`, in those forms as well that other lists wish it in, as `found` says."""
    if found is None or not found.wish_lists - wanted.wish_lists:
        return wanted
    forms = {*found.outputs, *wanted.outputs}
    return replace(wanted, outputs=tuple(output for output in OUTPUTS if output in forms))


def joined(found: Publication | None, wanted: Publication) -> Publication:
    """`wanted`, wished by the lists that wished the image before as well.

    Of several lists' grace periods the longest counts; owner and note are those of the first list.
    """
    if found is None:
        return wanted
    joined = wanted.with_wish_lists(found.wish_lists | wanted.wish_lists)
    if found.wish_list in joined.wish_lists:
        joined = replace(joined, wish_list=found.wish_list).with_wish_lists(joined.wish_lists)
    if joined.wish_lists - wanted.wish_lists:
        joined = replace(joined, grace_seconds=max(found.grace_seconds, wanted.grace_seconds))
    if joined.wish_list != wanted.wish_list:
        joined = replace(joined, owner=found.owner, note=found.note)
    return joined


def wished_alike(one: Publication, other: Publication) -> bool:
    """Whether two records say the same of who wishes an image, and how."""
    keys = ("wish_lists", "grace_seconds", "owner", "note")
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def says_the_same(one: Publication, other: Publication) -> bool:
    """Whether two records differ at most in when they were written."""
    keys = ("source_digest", "manifest_digest", "image_id", "platform", "outputs", "reference")
    return wished_alike(one, other) and all(getattr(one, k) == getattr(other, k) for k in keys)
