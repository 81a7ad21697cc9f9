"""Thin images: ordinary images whose only content is a recipe that names published trees.

Building them is pure (recipe, image); saving and pushing take what was built. The contract with the
plugins that read recipes is `thin-images/README.md`.
"""

from publisher.errors import PublisherError

__all__ = ["ThinImageError"]


class ThinImageError(PublisherError):
    """A thin image could not be built, saved or pushed. What is published is not concerned."""
