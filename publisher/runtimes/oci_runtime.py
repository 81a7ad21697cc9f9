#!/bin/sh
""":"
# An OCI runtime for thin images: runc or crun, with the layers of a recipe as the root's layers.
#
# An engine starts it in place of runc. Before a container is created, whose root is an overlay with
# a thin image's layer among its lower directories, the overlay is mounted again, with the
# directories that the recipe (thin.json) names in place of that layer. Everything else is the same:
# the upper directory, in which the container's own changes are, the other layers, the mount point
# and the mount options. The engine unmounts it as it would have unmounted its own. This process
# then becomes the other runtime. No state is kept, and none is left, whenever it ends.
#
# This file is also installed as the program publisher-oci-runtime. It is started several times for
# each container, and only the creation of one concerns it. Python takes 15 ms to start, and a shell
# one: so the file is a shell script, which becomes the other runtime at once for all other calls.
# Its text is a string for Python, which imports the standard library alone, and little of it.
pass_on() {
  runtime='' left=$#
  while [ "$left" -gt 0 ]; do
    word=$1 name=${1%%=*} left=$((left - 1))
    name=${name#-}
    shift
    case $word in
      create | run | restore) return ;;
      -*) ;;
      *) set -- "$@" "$word" && break ;;
    esac
    name=${name#-} value=${word#*=}
    case $name in
      tree | runtime) ;;
      *) set -- "$@" "$word" ;;
    esac
    case $word in
      *=*) ;;
      *)
        case $name in
          tree | runtime | root | log | log-format | criu | rootless | cgroup-manager)
            [ "$left" -gt 0 ] || return
            value=$1 left=$((left - 1))
            shift
            ;;
        esac
        case $name in
          root | log | log-format | criu | rootless | cgroup-manager) set -- "$@" "$value" ;;
        esac
        ;;
    esac
    [ "$name" != runtime ] || runtime=$value
  done
  while [ "$left" -gt 0 ]; do
    word=$1 left=$((left - 1))
    shift
    set -- "$@" "$word"
  done
  if [ -e /etc/publisher/oci-runtime.json ]; then
    while IFS= read -r line || [ "$line" ]; do
      # It may name the runtime.
      case $line in *runtime* | *u00*) return ;; esac
    done </etc/publisher/oci-runtime.json
  fi
  case $runtime in
    '')
      for name in runc crun; do
        command -v "$name" >/dev/null && exec "$name" "$@"
      done
      ;;
    */*) case $runtime in /*) [ -x "$runtime" ] && exec "$runtime" "$@" ;; esac ;;
    *) command -v "$runtime" >/dev/null && exec "$runtime" "$@" ;;
  esac
}
pass_on "$@"
exec python3 -IS "$0" "$@"
":"""

from __future__ import annotations

import os
import stat
import sys

TYPE_CHECKING = False  # as in typing, whose import takes as long as all the others
if TYPE_CHECKING:
    from typing import Any

SETTINGS_FILE = "/etc/publisher/oci-runtime.json"
RECIPE = "thin.json"
SUPPORTED_VERSION = (1, 1)
"""The latest version of the recipe that is understood (thin-images/README.md)."""
RECIPE_LIMIT = 1 << 20
LAYERS_LIMIT = 500
"""How many lower directories an overlay of Linux has at most."""

_GLOBAL_OPTIONS_WITH_VALUE = {"root", "log", "log-format", "criu", "rootless", "cgroup-manager"}
_OPTIONS_WITH_VALUE = {"bundle", "b", "console-socket", "pid-file", "preserve-fds"}
_CREATING = {"create", "run", "restore"}
_KEPT_OPTIONS = {
    *("context", "fscontext", "defcontext", "rootcontext", "index", "metacopy", "nfs_export"),
    *("redirect_dir", "uuid", "fsync", "volatile", "xino", "userxattr"),
}
"""The options of an overlay that are not its directories."""
_MOUNT_FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "relatime": 1 << 21}
_MNT_DETACH = 2
_MS_RDONLY = 1
_CVMFS_NAME = "user.fqrn"
"""The attribute that the root of a CVMFS repository has for its clients."""
# Numbers of system calls and their arguments (linux/mount.h), the same for all processors.
_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 429, 430, 431, 432
_CLOEXEC, _SET_FLAG, _SET_STRING, _CREATE, _FROM_DESCRIPTOR = 1, 0, 1, 6, 4


class ThinRuntimeError(Exception):
    """A container of a thin image cannot be created; the text is for the user of the engine."""


class Call:
    """The words of one call: `command`, with its options by name, and those of all commands."""

    def __init__(self, words: list[str]) -> None:
        self.trees: list[str] = []
        self.runtime = ""
        self.options: dict[str, str] = {}
        self.command = ""
        self.words: list[str] = []
        """The words for the other runtime: all but the options of this program."""
        waiting = list(words)
        while waiting and not self.command:
            word = waiting.pop(0)
            if not word.startswith("-"):
                self.command = word
                self.words.append(word)
                break
            name, equals, value = word.lstrip("-").partition("=")
            own = name in ("tree", "runtime")
            if not own:
                self.words.append(word)
            if not equals and (own or name in _GLOBAL_OPTIONS_WITH_VALUE) and waiting:
                value = waiting.pop(0)
                if not own:
                    self.words.append(value)
            if name == "tree":
                self.trees.append(value)
            elif name == "runtime":
                self.runtime = value
            self.options[name] = value
        self.words += waiting
        self._read_command_options(waiting)

    def _read_command_options(self, words: list[str]) -> None:
        waiting = list(words)
        while waiting:
            word = waiting.pop(0)
            if word == "--" or not word.startswith("-"):
                break
            name, equals, value = word.lstrip("-").partition("=")
            if not equals and name in _OPTIONS_WITH_VALUE and waiting:
                value = waiting.pop(0)
            self.options["bundle" if name == "b" else name] = value


class Mount:
    """One line of /proc/self/mountinfo (proc(5)) that is an overlay."""

    def __init__(self, line: bytes) -> None:
        fields = line.split(b" ")
        separator = fields.index(b"-")
        self.point = _unescape(fields[4])
        self.flags = fields[5].decode().split(",")
        self.type = fields[separator + 1].decode()
        self.source = _unescape(fields[separator + 2])
        self.upper = self.work = ""
        self.lower: list[str] = []
        self.kept: list[str] = []
        for option in _split(os.fsdecode(fields[separator + 3]), ","):
            name, _, value = option.partition("=")
            if name == "lowerdir":
                self.lower = [_plain(path) for path in _split(value, ":")]
            elif name == "lowerdir+":
                self.lower.append(_plain(value))
            elif name == "upperdir":
                self.upper = _plain(value)
            elif name == "workdir":
                self.work = _plain(value)
            elif name in _KEPT_OPTIONS:
                self.kept.append(option)

    def directory(self, path: str) -> str:
        """Return the absolute path of a directory of this mount.

        Engines with many layers name them relative to the directory of their storage, two above the
        mount point.
        """
        home = os.path.dirname(os.path.dirname(self.point))
        return os.path.join(home, path)


def main(words: list[str]) -> None:
    """Mount the layers of a thin image if its container is created; become the other runtime."""
    call = Call(words)
    try:
        settings = read_settings(SETTINGS_FILE)
        call.trees += settings.get("trees", [])
        runtime = find_runtime(call.runtime or settings.get("runtime", ""))
        if call.command in _CREATING:
            prepare(call.options.get("bundle", "") or os.getcwd(), call.trees)
    except (ThinRuntimeError, OSError) as error:
        report(call.options, str(error))
        sys.exit(1)
    os.execv(runtime, [runtime, *call.words])


def read_settings(file: str) -> dict[str, Any]:
    """Return the settings of this machine: "trees", a list of paths, and "runtime", a program."""
    try:
        with open(file, "rb") as opened:
            data = opened.read()
    except FileNotFoundError:
        return {}
    import json

    try:
        settings = json.loads(data)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise ThinRuntimeError(f"cannot read {file}: it is not a JSON object")
    trees, runtime = settings.get("trees", []), settings.get("runtime", "")
    if not isinstance(trees, list) or not all(isinstance(tree, str) for tree in trees):
        raise ThinRuntimeError(f'cannot read {file}: "trees" is not a list of strings')
    if not isinstance(runtime, str):
        raise ThinRuntimeError(f'cannot read {file}: "runtime" is not a string')
    return settings


def find_runtime(wanted: str) -> str:
    """Return the path of the other runtime: the program `wanted`, or the first of runc and crun."""
    names = [wanted] if wanted else ["runc", "crun"]
    directories = [
        *os.get_exec_path(),
        "/usr/local/sbin",
        "/usr/sbin",
        "/usr/local/bin",
        "/usr/bin",
    ]
    for name in names:
        for directory in [""] if "/" in name else directories:
            program = os.path.join(directory, name)
            if os.path.isabs(program) and os.access(program, os.X_OK):
                return program
    raise ThinRuntimeError(f"cannot find the runtime {' or '.join(names)}: install it")


def prepare(bundle: str, trees: list[str]) -> None:
    """Mount the root of the container in `bundle` with its layers, if it is of a thin image."""
    root = read_root(bundle)
    mount = find_mount(root)
    if mount is None or mount.type != "overlay":
        if _has_recipe(root):
            storage = mount.type if mount is not None else "a plain directory"
            raise ThinRuntimeError(
                f"cannot mount the thin image on {root}: the engine's storage is {storage}; "
                "use its overlay storage (overlay2, overlayfs, overlay)"
            )
        return
    lower = [mount.directory(path) for path in mount.lower]
    thin = [number for number, path in enumerate(lower) if _has_recipe(path)]
    if not thin:
        return
    top = thin[0]
    layers = recipe_layers(os.path.join(lower[top], RECIPE), trees)
    # What lies below a thin image's layer is hidden, as what a recipe names is a whole image.
    lower = lower[:top] + layers
    of_users = 0
    if "userxattr" not in mount.kept and len(layers) > 1 and any(map(is_of_a_user, layers)):
        of_users = len(layers)
    if len(lower) > LAYERS_LIMIT:
        raise ThinRuntimeError(
            f"cannot mount {len(lower)} layers: Linux mounts {LAYERS_LIMIT} at most; "
            "make a thin image of the flat image (publisher thin IMAGE --flat)"
        )
    remount(mount, lower, bundle, of_users)


def read_root(bundle: str) -> str:
    """Return the path of the root in the bundle's config.json."""
    import json

    file = os.path.join(bundle, "config.json")
    try:
        with open(file, "rb") as opened:
            config = json.loads(opened.read())
        root = config.get("root") or {}
        return os.path.realpath(os.path.join(bundle, root.get("path", "")))
    except (ValueError, AttributeError, TypeError):
        # A path with a NUL is a ValueError of realpath.
        raise ThinRuntimeError(
            f"cannot read {file}: it is not a configuration of the OCI runtime specification"
        ) from None


def find_mount(point: str) -> Mount | None:
    """Return the topmost mount at `point`, or None."""
    with open("/proc/self/mountinfo", "rb") as opened:
        lines = opened.read().splitlines()
    for line in reversed(lines):
        if _unescape(line.split(b" ")[4]) == point:
            return Mount(line)
    return None


def recipe_layers(file: str, trees: list[str]) -> list[str]:
    """Return the directories that a recipe names, from top to bottom; each exists."""
    import json

    try:
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as opened:
            recipe = json.loads(opened.read(RECIPE_LIMIT))
        version = tuple(int(number) for number in recipe["min_version"].split("."))
        urls = [layer["url"] for layer in recipe["layers"]]
        if not all(isinstance(url, str) for url in urls):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ThinRuntimeError(f"cannot read {file}: it is not a recipe of a thin image") from None
    if version[0] != SUPPORTED_VERSION[0] or version > SUPPORTED_VERSION:
        supported = ".".join(map(str, SUPPORTED_VERSION))
        raise ThinRuntimeError(
            f"cannot mount the thin image: its recipe needs version {recipe['min_version']}, and "
            f"this program supports {supported}; install a later version of it"
        )
    return [layer_directory(url, trees) for url in reversed(urls)]


def layer_directory(url: str, trees: list[str]) -> str:
    """Return the path of a layer's directory.

    An image comes from anywhere; its recipe must not show other directories of the machine to a
    container. Allowed are layers and flat images, of CVMFS and of the `trees`.
    """
    scheme, _, rest = url.partition("://")
    path = "/cvmfs/" + rest if scheme == "cvmfs" else _unquote(rest)
    if scheme not in ("cvmfs", "file") or not path.startswith("/"):
        raise ThinRuntimeError(f"cannot mount {url}: it is neither a cvmfs:// nor a file:/// URL")
    parts = path.split("/")
    is_layer = parts[-4:-3] == [".layers"] and parts[-1:] == ["layerfs"]
    is_flat = parts[-3:-2] == [".flat"]
    tree = "/".join(parts[: -4 if is_layer else -3])
    allowed = [each.rstrip("/") for each in trees]
    is_cvmfs = len(tree.split("/")) == 3 and tree.startswith("/cvmfs/")
    if not (is_layer or is_flat) or {"", ".", ".."} & set(parts[1:]):
        raise ThinRuntimeError(f"cannot mount {path}: it is not a layer of a published tree")
    if not is_cvmfs and tree not in allowed:
        raise ThinRuntimeError(
            f"cannot mount {path}: {tree} is not one of the trees of this machine; "
            f"add it to trees in {SETTINGS_FILE}, or call this runtime with --tree {tree}"
        )
    if not os.path.isdir(path):
        where = tree if not os.path.isdir(tree) else path
        raise ThinRuntimeError(f"cannot mount {path}: {where} is missing; mount the tree there")
    real = os.path.realpath(path)
    if not real.startswith(os.path.realpath(tree) + "/"):
        raise ThinRuntimeError(f"cannot mount {path}: it leads out of the tree, to {real}")
    return real


def is_of_a_user(layer: str) -> bool:
    """Return whether an ordinary user has unpacked a layer of a published tree.

    The layer's opaque directories are then marked for mounts with the option `userxattr` alone. In
    CVMFS, layers have whiteouts in their place.
    """
    if os.stat(os.path.dirname(layer)).st_uid == 0:
        return False
    tree = layer
    for _ in range(4):
        tree = os.path.dirname(tree)
    try:
        os.getxattr(tree, _CVMFS_NAME)
    except OSError:
        return True
    return False


def remount(mount: Mount, lower: list[str], bundle: str, of_users: int = 0) -> None:
    """Replace the overlay `mount` by one with `lower`, at the same place.

    The options of a mount have one page, so that directories are named by short links. The last
    `of_users` of `lower` are layers that an ordinary user has unpacked.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    links = os.path.join(bundle, f"thin-{os.getpid()}")
    os.mkdir(links)
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(links)
    try:
        names = [format(number, "x") for number in range(len(lower))]
        for name, path in zip(names, lower, strict=True):
            os.symlink(path, name)
        options = list(mount.kept)
        for name, path in (("upperdir", mount.upper), ("workdir", mount.work)):
            if path:
                os.symlink(mount.directory(path), name)
                options.append(f"{name}={name}")
        flags = sum(_MOUNT_FLAGS.get(flag, 0) for flag in mount.flags)
        point = os.fsencode(mount.point)
        if libc.umount2(point, _MNT_DETACH) != 0:
            raise _failure("unmount", mount.point, ctypes.get_errno())
        if mount.work:
            _forget_volatile(mount.directory(mount.work))
        if of_users:
            os.symlink(mount.point, "users")
            shown = ":".join(names[-of_users:])
            _mount(libc, point, _MS_RDONLY, ["userxattr", f"lowerdir={shown}"])
            _mount_on_itself(libc, point, flags, options, [*names[:-of_users], "users"])
        else:
            _mount(libc, point, flags, [*options, f"lowerdir={':'.join(names)}"])
    finally:
        for name in os.listdir():
            os.unlink(name)
        os.fchdir(here)
        os.rmdir(links)


def _mount(libc: Any, point: bytes, flags: int, options: list[str]) -> None:
    import ctypes

    text = os.fsencode(",".join(options))
    if libc.mount(b"publisher-thin", point, b"overlay", flags, text) != 0:
        raise _failed_mount(point, ctypes.get_errno())


def _mount_on_itself(
    libc: Any, point: bytes, flags: int, options: list[str], lower: list[str]
) -> None:
    """Replace what is mounted at `point` by an overlay with it among `lower`.

    An overlay keeps its lower file systems after they are unmounted. A process that is killed
    leaves at most one mount at `point`, which the engine unmounts as its own.
    """
    import ctypes

    def call(number: int, *arguments: bytes | int | None) -> int:
        done = libc.syscall(number, *arguments)
        if done < 0:
            raise _failed_mount(point, ctypes.get_errno())
        return int(done)

    context = call(_FSOPEN, b"overlay", _CLOEXEC)
    settings = [option.partition("=") for option in options]
    for name, _, value in [("source", "=", "publisher-thin"), *settings]:
        kind = _SET_STRING if value else _SET_FLAG
        call(_FSCONFIG, context, kind, os.fsencode(name), os.fsencode(value) or None, 0)
    call(_FSCONFIG, context, _SET_STRING, b"lowerdir", ":".join(lower).encode(), 0)
    call(_FSCONFIG, context, _CREATE, None, None, 0)
    if libc.umount2(point, _MNT_DETACH) != 0:
        raise _failed_mount(point, ctypes.get_errno())
    made = call(_FSMOUNT, context, _CLOEXEC, flags & 0b1111)
    call(_MOVE_MOUNT, made, b"", -100, point, _FROM_DESCRIPTOR)


def report(options: dict[str, str], text: str) -> None:
    """Write the error where engines read those of runc: the log that the call names, and stderr."""
    import json
    import time

    message = f"publisher-oci-runtime: {text}"
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if options.get("log-format") == "json":
        line = json.dumps({"level": "error", "msg": message, "time": now})
    else:
        line = f'time="{now}" level=error msg={json.dumps(message)}'
    if options.get("log"):
        try:
            with open(options["log"], "a") as log:
                log.write(line + "\n")
        except OSError as error:
            sys.stderr.write(f"cannot write to {options['log']}: {error.strerror}\n")
    sys.stderr.write(message + "\n")


def _forget_volatile(work: str) -> None:
    """Remove the mark with which Linux refuses to mount a volatile overlay again.

    It is meant for overlays that a crash ended; the engine's was unmounted just now. Podman mounts
    containers of `podman run --rm` like that.
    """
    mark = os.path.join(work, "work", "incompat", "volatile")
    for remove, path in ((os.unlink, os.path.join(mark, "dirty")), (os.rmdir, mark)):
        try:
            remove(path)
        except FileNotFoundError:
            continue


def _failed_mount(point: bytes, number: int) -> ThinRuntimeError:
    return _failure("mount the layers of the thin image on", os.fsdecode(point), number)


def _failure(what: str, where: str, number: int) -> ThinRuntimeError:
    return ThinRuntimeError(f"cannot {what} {where}: {os.strerror(number)}")


def _has_recipe(directory: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(os.path.join(directory, RECIPE)).st_mode)
    except OSError:
        return False


def _split(text: str, separator: str) -> list[str]:
    r"""Split at each separator that no backslash precedes, nor quotes enclose."""
    parts = [""]
    quoted = escaped = False
    for character in text:
        if character == separator and not quoted and not escaped:
            parts.append("")
            continue
        if character == '"' and not escaped:
            quoted = not quoted
        escaped = character == "\\" and not escaped
        parts[-1] += character
    return parts


def _plain(path: str) -> str:
    r"""Return a path of the mount options as it is: \040 is a space, and \: a colon."""
    path = _unescape(os.fsencode(path))
    return path.replace("\\:", ":").replace("\\,", ",").replace("\\\\", "\\")


def _unescape(text: bytes) -> str:
    r"""Return a field of mountinfo, where some characters are octal numbers: a space is \040."""
    first, *others = text.split(b"\\")
    found = first
    for part in others:
        digits = part[:3]
        if len(digits) == 3 and digits.isdigit():
            found += bytes([int(digits, 8)]) + part[3:]
        else:
            found += b"\\" + part
    return os.fsdecode(found)


def _unquote(text: str) -> str:
    """Return the text of a percent-encoded path; urllib takes longer to import than all else."""
    first, *others = os.fsencode(text).split(b"%")
    found = first
    for part in others:
        try:
            found += bytes.fromhex(part[:2].decode("ascii")) + part[2:]
        except ValueError:
            found += b"%" + part
    return os.fsdecode(found)


if __name__ == "__main__":
    main(sys.argv[1:])
