"""The payloads of registries: each is parsed once, into the images that were pushed. Pure.

Sources of the formats:

- distribution: https://distribution.github.io/distribution/about/notifications/, "Events"
- Harbor: https://goharbor.io/docs/main/working-with-projects/project-configuration/configure-webhooks/,
  in both of its forms, "Default" and "CloudEvents"
- GitLab: https://docs.gitlab.com/user/project/integrations/webhook_events/, "Pipeline events". The
  webhooks of projects have none for images; a registry of its own sends those of distribution.
- GitHub: https://docs.github.com/en/webhooks/webhook-events-and-payloads, `package` and
  `registry_package`
- Quay: https://docs.redhat.com/en/documentation/red_hat_quay/, "Repository notifications", and the
  object of tags that earlier releases send
- Docker Hub: https://docs.docker.com/docker-hub/repos/manage/webhooks/
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, TypeVar

from publisher.codec import Codec, Malformed
from publisher.errors import InvalidManifest, InvalidReference
from publisher.lazy import dataclass
from publisher.oci.digest import is_digest
from publisher.oci.document import read_object
from publisher.oci.media_types import INDEX_TYPES, MANIFEST_TYPES
from publisher.oci.reference import ImageReference, parse_reference
from publisher.service.hooks.model import Hook, HookKind, InvalidPayload, Push

MOST_PUSHES = 1000
"""How many images one payload may report."""

_T = TypeVar("_T")
_Object = dict[str, Any]


def read_pushes(hook: Hook, body: bytes) -> tuple[Push, ...]:
    """Return the images that a payload reports as pushed; none for other events.

    Raises:
        InvalidPayload: The body is not JSON of this kind, or names what cannot be an image.
    """
    try:
        value = read_object(body, "the payload")
    except InvalidManifest as error:
        raise InvalidPayload(hook.kind, error.why) from error
    try:
        found = tuple(dict.fromkeys(_READERS[hook.kind](hook, value)))
    except Malformed as error:
        raise InvalidPayload(hook.kind, str(error)) from error
    except InvalidReference as error:
        raise InvalidPayload(hook.kind, f"{error.what}: {error.why}") from error
    if len(found) > MOST_PUSHES:
        raise InvalidPayload(hook.kind, f"it has more than {MOST_PUSHES} images")
    return found


def _snake(name: str) -> str:
    return name


def _read(kind: type[_T], value: object, place: str = "") -> _T:
    if not isinstance(value, dict):
        raise Malformed("is not an object" if place else "not a JSON object", place)
    try:
        return Codec(kind, naming=_snake).from_value(value)
    except Malformed as error:
        raise error.within(place) if place else error from None


def _push(hook: Hook, path: str, tag: str | None = None, digest: str | None = None) -> Push:
    """Return the push of PATH:TAG; raise InvalidReference or Malformed."""
    return Push(_image(hook, path, tag), tag, _digest(digest))


def _image(hook: Hook, path: str, tag: str | None) -> ImageReference:
    # Parsed by itself, so that nothing in `path` is taken for a host, a tag or a digest.
    if any(sign in path for sign in ":@*") or path.startswith("/"):
        raise Malformed(f"{path[:100]!r} is not the path of an image")
    text = f"https://{hook.registry}/{path}"
    if tag is not None:
        text += f":{tag}"
    reference = parse_reference(text)
    if tag is not None and reference.tag != tag:
        raise Malformed(f"{tag[:100]!r} is not a tag")
    return ImageReference(reference.transport, reference.registry, reference.repository)


def _digest(text: str | None) -> str | None:
    if text is not None and not is_digest(text):
        raise Malformed(f"{text[:100]!r} is not a digest")
    return text


# --- distribution -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Target:
    mediaType: str | None = None  # noqa: N815 - the names of the formats
    repository: str | None = None
    tag: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class _Event:
    action: str
    target: _Target = field(default_factory=_Target)


@dataclass(frozen=True, slots=True)
class _Envelope:
    events: tuple[_Event, ...]


def _distribution(hook: Hook, value: _Object) -> list[Push]:
    pushes = []
    for event in _read(_Envelope, value).events:
        target = event.target
        is_image = target.mediaType in (*MANIFEST_TYPES, *INDEX_TYPES)
        if event.action != "push" or not is_image:
            continue  # a pull, a layer, or something else than an image
        if target.repository is None:
            raise Malformed("a push has no repository", "events")
        pushes.append(_push(hook, target.repository, target.tag or None, target.digest))
    return pushes


# --- Harbor -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _HarborResource:
    digest: str | None = None
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class _HarborRepository:
    repo_full_name: str


@dataclass(frozen=True, slots=True)
class _HarborData:
    resources: tuple[_HarborResource, ...]
    repository: _HarborRepository


@dataclass(frozen=True, slots=True)
class _HarborEvent:
    type: str
    event_data: object = None
    data: object = None


def _harbor(hook: Hook, value: _Object) -> list[Push]:
    event = _read(_HarborEvent, value)
    if event.type == "PUSH_ARTIFACT":
        data = _read(_HarborData, event.event_data, "event_data")
    elif event.type == "harbor.artifact.pushed":
        data = _read(_HarborData, event.data, "data")
    else:
        return []
    path = data.repository.repo_full_name
    return [
        # An artifact without a tag has its digest in place of it.
        _push(hook, path, None if each.tag in ("", each.digest) else each.tag, each.digest)
        for each in data.resources
    ]


# --- GitLab -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _GitLabAttributes:
    status: str | None = None


@dataclass(frozen=True, slots=True)
class _GitLabProject:
    path_with_namespace: str


@dataclass(frozen=True, slots=True)
class _GitLabPipeline:
    object_attributes: _GitLabAttributes
    project: _GitLabProject


def _gitlab(hook: Hook, value: _Object) -> list[Push]:
    kind = value.get("object_kind")
    if not isinstance(kind, str):
        raise Malformed("is not a string", "object_kind")
    if kind != "pipeline":
        return []
    pipeline = _read(_GitLabPipeline, value)
    if pipeline.object_attributes.status != "success":
        return []
    path = pipeline.project.path_with_namespace.lower()
    return [Push(_image(hook, path, None), is_prefix=True)]


# --- GitHub -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _GitHubTag:
    name: str | None = None


@dataclass(frozen=True, slots=True)
class _GitHubContainer:
    tag: _GitHubTag | None = None


@dataclass(frozen=True, slots=True)
class _GitHubVersion:
    version: str | None = None
    container_metadata: _GitHubContainer | None = None


@dataclass(frozen=True, slots=True)
class _GitHubPackage:
    name: str
    namespace: str
    package_type: str | None = None
    package_version: _GitHubVersion | None = None


def _github(hook: Hook, value: _Object) -> list[Push]:
    keys = [key for key in ("package", "registry_package") if key in value]
    if not keys or value.get("action") not in ("published", "updated"):
        return []  # another event, such as the ping of a new webhook
    package = _read(_GitHubPackage, value[keys[0]], keys[0])
    if (package.package_type or "").lower() != "container":
        return []
    version = package.package_version or _GitHubVersion()
    metadata = version.container_metadata or _GitHubContainer()
    tag = (metadata.tag or _GitHubTag()).name or None
    path = f"{package.namespace}/{package.name}".lower()
    return [_push(hook, path, tag, version.version)]


# --- Quay, Docker Hub -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _QuayPush:
    repository: str
    updated_tags: object = None


def _quay(hook: Hook, value: _Object) -> list[Push]:
    push = _read(_QuayPush, value)
    if push.updated_tags is None:
        return []  # a build, a scan, or another event
    if not isinstance(push.updated_tags, list | dict):
        raise Malformed("is not a list", "updated_tags")
    tags = [tag for tag in push.updated_tags if isinstance(tag, str)]
    if len(tags) != len(push.updated_tags):
        raise Malformed("has other values than strings", "updated_tags")
    if len(tags) > MOST_PUSHES:
        raise Malformed(f"has more than {MOST_PUSHES} tags", "updated_tags")
    return [_push(hook, push.repository, tag) for tag in tags]


@dataclass(frozen=True, slots=True)
class _HubData:
    tag: str


@dataclass(frozen=True, slots=True)
class _HubRepository:
    repo_name: str


@dataclass(frozen=True, slots=True)
class _HubPush:
    push_data: _HubData
    repository: _HubRepository


def _docker_hub(hook: Hook, value: _Object) -> list[Push]:
    push = _read(_HubPush, value)
    return [_push(hook, push.repository.repo_name, push.push_data.tag)]


_READERS: dict[HookKind, Callable[[Hook, _Object], list[Push]]] = {
    HookKind.DISTRIBUTION: _distribution,
    HookKind.HARBOR: _harbor,
    HookKind.GITLAB: _gitlab,
    HookKind.GITHUB: _github,
    HookKind.QUAY: _quay,
    HookKind.DOCKER_HUB: _docker_hub,
}
