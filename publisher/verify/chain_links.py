"""Check the links by chain ID, by which clients find layers whose digests they do not know."""

from __future__ import annotations

from collections.abc import Mapping

from publisher.oci.digest import is_digest
from publisher.repository import Repository
from publisher.repository.records import RecordSet
from publisher.tree import layout
from publisher.tree.origin import Origin
from publisher.verify.expected import Expected
from publisher.verify.findings import Kind, Remedy
from publisher.verify.inventory import Inventory
from publisher.verify.leftovers import COLLECT, sharded

_LINKS = frozenset({Kind.CHAIN_WRONG, Kind.ORPHAN_CHAIN})
_MISSING = (
    "layers without a link by chain ID, or without a record of it: containerd downloads them "
    "unless its client names their digests"
)


def check_chains(
    repository: Repository,
    inventory: Inventory,
    expected: Expected,
    origins: Mapping[str, Origin],
) -> None:
    """Add what is wrong with the links by chain ID.

    Args:
        repository: The repository.
        inventory: Receives the findings.
        expected: What the images require.
        origins: The records of the layers that are published, by digest.
    """
    recorded: dict[str, set[str]] = {}
    for digest, origin in origins.items():
        for chain in origin.chains:
            recorded.setdefault(chain, set()).add(digest)
    complete = True
    for chain, digests in sorted(expected.chains.items()):
        published = {digest for digest in digests if digest in origins}
        if published:
            # A layer of the same content is as good, also if only other stacks still use it.
            known = recorded.get(chain, set())
            linked = _check_link(repository, inventory, chain, published | known)
            complete = complete and linked and published <= known
    if not complete:
        inventory.note(Kind.CHAIN_MISSING, layout.CHAINS, _MISSING, Remedy.DERIVE)
    if inventory.certain:
        _check_others(repository, inventory, expected, origins)


def relink_chains(records: RecordSet, inventory: Inventory) -> None:
    """Remove the links that `check_chains` found wrong, and link the images that have a config."""
    for finding in inventory.findings:
        if finding.kind in _LINKS and finding.remedy is Remedy.DERIVE:
            records.remove_link(finding.path)
    for image in inventory.images:
        layers = [layer.digest for layer in image.manifest.layers]
        if image.config is None or len(image.config.diff_ids) != len(layers):
            continue
        if all(records.origin(digest) is not None for digest in layers):
            records.add_chains(layers, image.config.diff_ids)


def _check_link(
    repository: Repository, inventory: Inventory, chain: str, digests: set[str]
) -> bool:
    """Check the link of a stack whose top layer is one of `digests`; return whether it exists."""
    path = layout.chain_link(chain)
    text = repository.link_text(path)
    if text is None:
        if not repository.exists(path):
            return False
        what = "a file or directory is in the place of a link by chain ID"
        how = "move it away; then: publisher verify --repair"
        inventory.warning(Kind.CHAIN_WRONG, path, what, how=how)
    elif text not in {layout.chain_target(digest) for digest in digests}:
        what = f"it points to {text}, which is not the layer with that chain ID"
        inventory.error(Kind.CHAIN_WRONG, path, what, Remedy.DERIVE)
    return True


def _check_others(
    repository: Repository,
    inventory: Inventory,
    expected: Expected,
    origins: Mapping[str, Origin],
) -> None:
    """Find links that no image needs, and that are not removed with a layer either."""
    needed = {layout.chain_link(chain) for chain in expected.chains}
    kept = {
        (layout.chain_link(chain), layout.chain_target(digest))
        for digest, origin in origins.items()
        for chain in origin.chains
        if is_digest(chain)
    }
    for path, _ in sharded(repository, inventory, layout.CHAINS):
        text = repository.link_text(path)
        if path in needed or (path, text) in kept:
            continue
        what = "a link by chain ID to a layer that is not published, or does not record it"
        linked = None if text is None else layout.chained_layer(text)
        if text is None:
            what = "not a link by chain ID"
            inventory.warning(Kind.ORPHAN_CHAIN, path, what, how=COLLECT)
        elif linked is None or linked in origins or not _is_published(repository, linked):
            inventory.warning(Kind.ORPHAN_CHAIN, path, what, Remedy.DERIVE)
        else:  # the record may be repaired, or the layer is an orphan as well
            inventory.warning(Kind.ORPHAN_CHAIN, path, what, how=COLLECT)


def _is_published(repository: Repository, digest: str) -> bool:
    return repository.exists(layout.layer_directory(digest))
