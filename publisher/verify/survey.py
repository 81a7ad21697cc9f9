"""Survey a repository without reading contents: its images, and the findings about them."""

from __future__ import annotations

from contextlib import suppress

from publisher.layers.errors import LayerError
from publisher.layers.policy import policy_from_values
from publisher.repository import Repository, RepositoryError
from publisher.times import utc_now
from publisher.tree import layout, pins, settings
from publisher.tree.record import InvalidRecord
from publisher.verify.expected import Expected
from publisher.verify.findings import Kind, Remedy
from publisher.verify.image_metadata import add_image
from publisher.verify.inventory import Inventory, metadata_directories, read_record
from publisher.verify.rebuild import pins_of_history
from publisher.verify.record_versions import add_newer_version, is_newer
from publisher.verify.schedule import add_schedule
from publisher.verify.structure import check_structure

_NAMED = 3
"""How many of the lost pins are named."""


def survey(repository: Repository) -> tuple[Inventory, Expected]:
    """Return the images, and all findings that do not require reading contents.

    Returns:
        The inventory with all findings, and the content that its images require.
    """
    inventory = take_inventory(repository)
    _check_transaction(repository, inventory)
    _check_history(repository, inventory)
    return inventory, check_structure(repository, inventory)


def take_inventory(repository: Repository) -> Inventory:
    """Read the metadata of everything that is published or scheduled."""
    inventory = Inventory()
    for name in metadata_directories(repository, inventory):
        add_image(repository, inventory, name)
    add_schedule(repository, inventory)
    _check_pins(repository, inventory)
    _check_settings(repository, inventory)
    return inventory


def _check_history(repository: Repository, inventory: Inventory) -> None:
    def note(why: str) -> None:
        how = "none needed; delete such lines to end this note"
        inventory.note(Kind.RECORD_DAMAGED, layout.STATE, f"the history: {why}", how=how)

    with suppress(RepositoryError):  # only the user who publishes can read it
        for _ in repository.history(note):
            pass


def _check_transaction(repository: Repository, inventory: Inventory) -> None:
    try:
        unfinished = repository.unfinished()
    except RepositoryError as error:
        what = f"{error.what}: {error.why}; no command can write until it is repaired"
        inventory.error(Kind.TRANSACTION_DAMAGED, "", what, how=error.hint)
        return
    if unfinished:
        inventory.warning(
            Kind.UNFINISHED,
            "",
            "a committed transaction was interrupted; the next command that writes completes it",
            Remedy.DERIVE,
        )


def _check_pins(repository: Repository, inventory: Inventory) -> None:
    data = read_record(repository, inventory, layout.PINS)
    if data is None:
        _check_lost_pins(repository, inventory)
        return
    try:
        pins.Pins.parse(data, layout.PINS)
    except InvalidRecord as error:
        if is_newer(data, pins.VERSION):
            add_newer_version(inventory, layout.PINS, error)
        else:
            inventory.error(
                Kind.RECORD_DAMAGED,
                layout.PINS,
                f"{error.why}; no tag is moved and nothing is removed until it is repaired",
                Remedy.DERIVE,
            )


def _check_lost_pins(repository: Repository, inventory: Inventory) -> None:
    """Without a file of pins, none may have been set: only the last of them leaves an empty one."""
    if repository.exists(layout.PINS):
        return  # a finding of its own
    try:
        lost = sorted({p.name for p in pins_of_history(repository, inventory, utc_now())})
    except RepositoryError:
        return  # only the user who publishes can read the history
    if lost:
        names = ", ".join(lost[:_NAMED]) + (", …" if len(lost) > _NAMED else "")
        what = f"it is missing, although the history has pins of {names}"
        inventory.warning(Kind.PINS_MISSING, layout.PINS, what, Remedy.DERIVE)


def _check_settings(repository: Repository, inventory: Inventory) -> None:
    path = layout.REPOSITORY_SETTINGS
    data = read_record(repository, inventory, path)
    if data is None:
        return
    try:
        policy_from_values(settings.RepositorySettings.parse(data, path).policy)
    except (InvalidRecord, LayerError) as error:
        if isinstance(error, InvalidRecord) and is_newer(data, settings.VERSION):
            add_newer_version(inventory, path, error)
        else:
            inventory.error(
                Kind.RECORD_DAMAGED,
                path,
                f"{error.why}; nothing is published until the policy is set again",
                how=f"publisher init {repository.url}, with the options that it was given before",
            )
