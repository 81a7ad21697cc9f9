"""The names of thin images: the output format of wish lists.

The variables have the same meaning as in version 1 of earlier tools: `$(reference)` is ":tag",
"@digest" or ":tag@digest", with its separator, and `$(image)` is `$(repository)` followed by it.
"""

from __future__ import annotations

from dataclasses import replace

from publisher.lazy import pattern
from publisher.oci.reference import ImageReference, Transport
from publisher.tree import layout

VARIABLES = ("scheme", "registry", "repository", "reference", "tag", "digest", "image")

_VARIABLE = pattern(r"\$\(([^()]*)\)")
_PINNED = pattern(r"(?P<tag>:[^:@/]+)?(?:[:@](?P<algorithm>sha256|sha512):(?P<hex>[0-9a-f]+))+\Z")


def unknown_variables(template: str) -> list[str]:
    """Return the names in `$(…)` that are not VARIABLES; "$(" for one that is not closed."""
    names = [name for name in _VARIABLE.findall(template) if name not in VARIABLES]
    return names + ["$("] * ("$(" in _VARIABLE.sub("", template))


def render_output_format(
    template: str, reference: ImageReference, digest: str, name: str | None = None
) -> str:
    """Return the name of the thin image of `reference`, whose manifest has the digest `digest`.

    For an image without a registry, the registry is "local", and the image repository is its public
    name (`name`, if the wish has one). A thin image has another digest than its original: at the
    end of the name, a digest after a tag is left out, and a digest alone becomes the tag
    "sha256-<hex>".
    """
    registry, repository = reference.registry, reference.repository
    if reference.transport is not Transport.REGISTRY:
        public = layout.public_name(replace(reference, tag="x", digest=None), name)
        registry, _, repository = public.removesuffix(":x").partition("/")
    tag = reference.tag or ("" if reference.digest else "latest")
    pinned = (f":{tag}" if tag else "") + (f"@{reference.digest}" if reference.digest else "")
    values = {
        "scheme": "http" if reference.plain_http else "https",
        "registry": registry,
        "repository": repository,
        "reference": pinned,
        "tag": tag,
        "digest": reference.digest or digest,
        "image": repository + pinned,
    }
    text = _VARIABLE.sub(lambda match: values[match[1]], template)
    return _PINNED.sub(lambda match: match["tag"] or f":{match['algorithm']}-{match['hex']}", text)
