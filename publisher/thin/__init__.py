"""Thin images: ordinary images whose only content is a recipe that names published trees.

Building them is pure (recipe, image); saving and pushing take what was built. The contract with the
plugins that read recipes is `thin-images/README.md`.
"""

from publisher.thin.errors import ThinImageError

__all__ = ["ThinImageError"]
