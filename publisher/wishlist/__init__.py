"""Read wish lists, the requested images, from YAML, and report every mistake with its place. Pure.

Version 1 is the format of earlier tools (thesis, section "Administrator interface"). Version 2 is
specified by `schemas/wishlist-2.schema.json`.
"""

from publisher.problems import Problem, Severity
from publisher.wishlist.model import (
    DEFAULT_OUTPUTS,
    DEFAULT_PLATFORMS,
    MAX_BYTES,
    OUTPUTS,
    Wish,
    WishList,
    WishListError,
)
from publisher.wishlist.parse import parse_wish_list, wish_for
from publisher.wishlist.places import Places
from publisher.wishlist.thin_name import render_output_format

__all__ = [
    "DEFAULT_OUTPUTS",
    "DEFAULT_PLATFORMS",
    "MAX_BYTES",
    "OUTPUTS",
    "Places",
    "Problem",
    "Severity",
    "Wish",
    "WishList",
    "WishListError",
    "parse_wish_list",
    "render_output_format",
    "wish_for",
]
