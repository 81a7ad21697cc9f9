"""Check that each image has its flat image, its public link, and the record of its users."""

from __future__ import annotations

from publisher.entry import EntryType
from publisher.repository import Repository
from publisher.repository.reading import load_users
from publisher.runtimes import flat_files
from publisher.tree import layout
from publisher.tree import users as users_format
from publisher.tree.record import InvalidRecord
from publisher.tree.users import ImageUsers
from publisher.verify.expected import Expected
from publisher.verify.findings import Kind, Remedy
from publisher.verify.inventory import Inventory, LiveImage, read_record
from publisher.verify.published_layers import difference
from publisher.verify.record_versions import add_newer_version, is_newer

_OUTDATED = (
    "{} of the flat images lack files that runtimes of today need, or have those of an earlier "
    "release; the repair replaces them, and containers that run from them lose their files"
)


def check_images(repository: Repository, inventory: Inventory, expected: Expected) -> None:
    """Add findings about flat images, links and records of users."""
    for image_id in sorted({image.manifest.image_id for image in inventory.images if image.flat}):
        path = layout.flat_image(image_id)
        if repository.kind(path) is not EntryType.DIRECTORY:
            inventory.error(
                Kind.FLAT_MISSING,
                path,
                "the image's root file system is missing",
                Remedy.DERIVE,
                image=expected.image_names[image_id],
            )
    for image_id in sorted(expected.images):
        _check_users(repository, inventory, image_id, expected)
    outdated = outdated_flat_images(repository, inventory)
    if outdated:
        what = _OUTDATED.format(len(outdated))
        inventory.note(Kind.FLAT_OUTDATED, layout.FLAT, what, Remedy.DERIVE)
    dropped = {entry.key for entry in inventory.schedule if entry.link_dropped}
    for image in inventory.images:
        if image.linked:
            check_link(
                repository,
                inventory,
                image.name,
                layout.link_target(image.name, image.manifest.image_id),
                image.name,
                what="the image's public link",
                may_be_missing=(image.name, image.manifest_digest) in dropped,
            )


def outdated_flat_images(repository: Repository, inventory: Inventory) -> list[LiveImage]:
    """Return one image for each flat image with files for runtimes of an earlier release.

    Flat images that are missing or whose config is unknown are not among them.
    """
    found = {
        image.manifest.image_id: image
        for image in inventory.images
        if image.flat and image.config is not None
    }
    return [
        image
        for image_id, image in sorted(found.items())
        if inventory.users.get(image_id, ImageUsers()).runtime_files < flat_files.VERSION
        and repository.exists(layout.flat_image(image_id))
    ]


def current_users(repository: Repository, image_id: str) -> ImageUsers:
    """Return the record of an image ID as it is now; an empty one if it cannot be read."""
    try:
        return load_users(repository, image_id) or ImageUsers()
    except (InvalidRecord, OSError):
        return ImageUsers()  # a finding of its own


def _check_users(
    repository: Repository, inventory: Inventory, image_id: str, expected: Expected
) -> None:
    path, name = layout.image_users(image_id), expected.image_names[image_id]
    users = expected.images[image_id]
    data = read_record(repository, inventory, path)
    if data is None:
        what = "the record of the image's users is missing, so that it is never collected"
        inventory.warning(Kind.USERS_MISSING, path, what, Remedy.DERIVE, image=name)
        return
    try:
        record = ImageUsers.parse(data, path)
    except InvalidRecord as error:
        if is_newer(data, users_format.VERSION):
            add_newer_version(inventory, path, error, image=name)
        else:
            inventory.error(Kind.USERS_WRONG, path, error.why, Remedy.DERIVE, image=name)
        return
    inventory.users[image_id] = record
    missing = users - record.users
    surplus = record.users - users if inventory.certain else set()
    if missing or surplus:
        what = difference("users", {" ".join(u) for u in missing}, {" ".join(u) for u in surplus})
        inventory.error(Kind.USERS_WRONG, path, what, Remedy.DERIVE, image=name)


def check_link(
    repository: Repository,
    inventory: Inventory,
    path: str,
    target: str,
    image: str,
    *,
    what: str,
    may_be_missing: bool = False,
) -> None:
    """Add a finding unless `path` is a link to `target`; `what` describes it: "the link to …"."""
    text = repository.link_text(path)
    if text == target:
        return
    if text is not None:
        wrong = f"it points to {text}, expected {target}"
        inventory.error(Kind.LINK_WRONG, path, wrong, Remedy.DERIVE, image=image)
    elif repository.exists(path):
        inventory.error(
            Kind.LINK_WRONG,
            path,
            f"a file or directory is in the place of {what}",
            how="move it away; then: publisher verify --repair",
            image=image,
        )
    elif not may_be_missing:
        inventory.error(Kind.LINK_MISSING, path, f"{what} is missing", Remedy.DERIVE, image=image)
