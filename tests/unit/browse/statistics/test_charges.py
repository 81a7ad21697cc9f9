"""What groups of lists are charged for, compared with fractions of each layer."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.browse.statistics.charges import Charges
from publisher.browse.statistics.holdings import Holdings
from publisher.wishlist.quota import Usage
from tests.unit.browse.statistics.test_shares import LAYERS, LISTS, all_holdings

GROUPS = {"one.yaml": "a", "two.yaml": "b", "project:b": "b"}


def expected(holdings: Holdings) -> dict[str, tuple[int, Fraction]]:
    """The number of images and the bytes of each group, from the definition; "" for the others."""
    lists: dict[str, set[str]] = {}
    parts: dict[str, set[str]] = {}
    for holder in holdings.holders:
        if holder.published:
            lists.setdefault(holder.plain_name, set()).update(holder.wish_lists)
            parts.setdefault(holder.plain_name, set()).update(holder.layers, [holder.image_id])
    requests = [(name, each) for name, of_name in lists.items() for each in of_name or {""}]
    sizes = {digest: size.stored for digest, size in holdings.layers.items()}
    sizes |= holdings.single_files
    users = Counter(part for name, _ in requests for part in parts[name])
    found = {}
    for group in ("a", "b", ""):
        own = [(name, each) for name, each in requests if GROUPS.get(each, "") == group]
        size = sum(Fraction(sizes.get(p, 0), users[p]) for name, _ in own for p in parts[name])
        found[group] = len({name for name, _ in own}), Fraction(size)
    return found


@settings(max_examples=60)
@given(all_holdings())
def test_each_request_pays_the_same_part_of_a_layer_and_all_pay_what_is_stored(
    holdings: Holdings,
) -> None:
    charges = Charges(holdings, GROUPS)
    definition = expected(holdings)
    for group, (images, size) in definition.items():
        usage = charges.usage(group)
        assert usage.images == images
        assert 0 <= size - usage.bytes < len(LAYERS) + 2  # each part is rounded down
    published = [each for each in holdings.holders if each.published]
    layers = {digest for each in published for digest in each.layers}
    files = {each.image_id for each in published} & holdings.single_files.keys()
    stored = holdings.stored(layers) + sum(holdings.single_files[each] for each in files)
    assert sum(size for _, size in definition.values()) == stored


@settings(max_examples=60)
@given(
    all_holdings(),
    st.lists(
        st.tuples(
            st.sampled_from(["a/x:1", "a/x:2", "new:1"]),
            LISTS.map(lambda lists: min(lists, default="")),
            st.sets(st.sampled_from([*LAYERS, "fetched"])),
        ),
        max_size=4,
    ),
)
def test_an_image_that_is_not_published_after_all_leaves_no_charge(
    holdings: Holdings, added: list[tuple[str, str, set[str]]]
) -> None:
    charges = Charges(holdings, GROUPS)
    before = [charges.usage(group) for group in ("a", "b", "")]
    replaced = [
        (name, charges.publish(name, wish_list, dict.fromkeys(layers, 50)))
        for name, wish_list, layers in added
    ]
    charges.resize({"fetched": 70})
    for name, image in reversed(replaced):
        charges.replace(name, image)
    # Layers whose size was unknown before have one now.
    if all(charges.knows(digest) for digest in holdings.layers.keys() | set(LAYERS)):
        fresh = [Charges(holdings, GROUPS).usage(group) for group in ("a", "b", "")]
        assert fresh == before
    after = [charges.usage(group) for group in ("a", "b", "")]
    assert [each.images for each in after] == [each.images for each in before]
    if holdings.layers.keys() == set(LAYERS):
        assert after == before


def test_an_image_in_place_of_another_one_is_charged_alone() -> None:
    charges = Charges(Holdings((), {}), {"l": "p"})
    charges.publish("a:1", "l", {"x": 100, "y": 10})
    charges.publish("b:1", "m", {"x": 100})
    assert charges.usage("p") == Usage(1, 60)
    charges.publish("a:1", "m", {"z": 7})
    assert charges.usage("p") == Usage(1, 3)  # both lists request it now, and pay half of it each
    assert charges.usage("") == Usage(2, 103)
