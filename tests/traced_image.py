"""An image whose command opens files in every way: through links, by the kernel, by a loader."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.components import program
from tests.layer_builder import (
    Image,
    directory,
    file,
    hardlink,
    image,
    layer,
    symlink,
    write_layout,
)

_START = r"""#!/bin/sh
# Opens directories and unreadable names, too.
ls /data > /dev/null
[ -e /etc/tested ]
read line < /missing
while read line; do :; done < /data/link/linked
(read line < '/data/a >"b\') & wait
cd /opt
read line < "$(echo /data/nam*)"
./true && ./second
exec /usr/bin/cat /proc/self/maps
"""
MAIN = "opt/start"
UNUSED = ("etc/tested", "tmp/hidden", "data/unused")
"""Files of the image that its command does not open."""


def libraries() -> list[str]:
    """The dynamic loader and the libraries of this machine's `cat`."""
    listed = subprocess.run(["ldd", program("cat")], capture_output=True, text=True, check=True)
    return re.findall(r"(/\S+) \(", listed.stdout)


def traced_image() -> Image:
    """busybox, which is static, this machine's `cat`, which is not, and scripts."""
    busybox = Path(program("busybox")).read_bytes()
    loaded = [path.lstrip("/") for path in libraries()]
    base = layer(
        directory("bin"),
        file("bin/busybox", busybox, mode=0o755),
        *(symlink(f"bin/{name}", "busybox") for name in ("sh", "ls", "true")),
        hardlink("opt/true", "bin/busybox"),
        file("usr/bin/cat", Path(program("cat")).read_bytes(), mode=0o755),
        # Each library is a link to a file beside it, as usual.
        *(file(f"{path}.real", Path(f"/{path}").read_bytes(), mode=0o755) for path in loaded),
        *(symlink(path, f"{path.rpartition('/')[2]}.real") for path in loaded),
        file(MAIN, _START.encode(), mode=0o755),
        file("opt/second", b"#!/opt/sh\n", mode=0o755),
        symlink("opt/sh", "/bin/sh"),
        file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"),
        file("etc/tested"),
        symlink("data/link", "../data/."),
        symlink("data/linked", "/data/target"),
        file("data/target", b"1\n2\n"),
        file("data/unused"),
        file('data/a >"b\\', b"x"),
        file("data/name-ä\n".encode() + b"\xff", b"y"),
        file("tmp/hidden"),
        *(directory(name) for name in ("proc", "dev")),
    )
    return image(base, config={"Cmd": [f"/{MAIN}"], "Env": ["PATH=/bin"]})


def write_traced_image(folder: Path) -> str:
    """The image in an OCI layout."""
    return f"oci:{write_layout(traced_image(), folder, '1')}:1"
