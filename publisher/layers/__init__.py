"""Layers: a blob becomes a tree and an index; indexes become a flat image."""

from publisher.layers.errors import LayerError, LimitExceeded, UnsafeName
from publisher.layers.policy import Limits, Policy
from publisher.layers.unpack import LayerSummary, unpack

__all__ = [
    "LayerError",
    "LayerSummary",
    "LimitExceeded",
    "Limits",
    "Policy",
    "UnsafeName",
    "unpack",
]
