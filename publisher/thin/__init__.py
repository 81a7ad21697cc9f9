"""Thin images: ordinary images whose only content is a recipe that names published trees.

Recipe, archive and image are pure; `save` writes files. `thin-images/README.md` specifies the
recipe for the plugins that read it.
"""

from publisher.thin.errors import ThinImageError

__all__ = ["ThinImageError"]
