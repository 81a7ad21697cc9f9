"""The configuration of container engines for the snapshotter, as text. Pure."""

from __future__ import annotations

from pathlib import Path

_CONTAINERD_2 = """\
version = 2

[proxy_plugins.publisher]
  type = "snapshot"
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "publisher"
  disable_snapshot_annotations = false
"""

_CONTAINERD_3 = """\
version = 3

[proxy_plugins.publisher]
  type = "snapshot"
  address = "{socket}"
  [proxy_plugins.publisher.exports]
    enable_remote_snapshot_annotations = "true"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "publisher"
  disable_snapshot_annotations = false

[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = "publisher"
"""

_DOCKER = """\
{{
  "features": {{"containerd-snapshotter": true}},
  "storage-driver": "publisher"
}}
"""

CONFIGURATIONS = {
    "containerd-2": _CONTAINERD_2,
    "containerd-3": _CONTAINERD_3,
    "docker": _DOCKER,
}
"""The configuration files by name; the number is the version of containerd's configuration."""


def configuration(name: str, socket: Path) -> str:
    """Return a configuration file that makes an engine use the snapshotter at `socket`."""
    return CONFIGURATIONS[name].format(socket=socket)
