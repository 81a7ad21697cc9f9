"""What thin images are called: the output format of wish lists.

The variables mean what they mean to the tools that read version 1 before us: `$(reference)` is
":tag", "@digest" or ":tag@digest", with its separator, and `$(image)` is `$(repository)` followed
by it.
"""

from __future__ import annotations

import re
from dataclasses import replace

from publisher.oci.reference import ImageReference, Transport
from publisher.tree import layout

VARIABLES = ("scheme", "registry", "repository", "reference", "tag", "digest", "image")

_VARIABLE = re.compile(r"\$\(([^()]*)\)")
_PINNED = re.compile(
    r"(?P<tag>:[^:@/]+)?(?:[:@](?P<algorithm>sha256|sha512):(?P<hex>[0-9a-f]+))+\Z"
)


def unknown_variables(template: str) -> list[str]:
    """What stands in `$(…)` but is none of the VARIABLES; "$(" for one that is not closed."""
    names = [name for name in _VARIABLE.findall(template) if name not in VARIABLES]
    return names + ["$("] * ("$(" in _VARIABLE.sub("", template))


def render_output_format(
    template: str, reference: ImageReference, digest: str, name: str | None = None
) -> str:
    """The name of the thin image of `reference`, whose manifest has the digest `digest`.

    An image from no registry has "local" for its registry and its public name (`name`, if the wish
    gives one) for its image repository. What is pushed cannot have the original's digest: at the
    end, a digest after a tag is left out, and one that stands alone becomes the tag "sha256-<hex>".
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
