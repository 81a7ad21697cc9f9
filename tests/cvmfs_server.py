#!/usr/bin/env python3
"""Replaces `cvmfs_server` on machines without CVMFS: the same commands and refusals.

Tests start it thousands of times, which imports would make slow: at its start it imports only what
imports nothing else.

Everything lies below the directory that CVMFS_STANDIN_ROOT names, where a real machine has it below
/: the union mount at cvmfs/NAME, the configuration at etc/cvmfs/repositories.d/NAME/server.conf,
the server's working directory at var/spool/cvmfs/NAME, its storage at srv/cvmfs/NAME. It depends on
nothing but Python, and on no code of the product.

The published tree is read at var/spool/cvmfs/NAME/rdonly, which is a client mount on a real machine
and a directory here. With CVMFS_STANDIN_OVERLAY=1, `mkfs` makes cvmfs/NAME a real overlayfs mount
over it, as on a real machine; this needs root. Without it, cvmfs/NAME is the published tree itself
and rdonly a link to it. Of a repository with a gateway the published tree is at
srv/cvmfs/NAME/tree, and each machine shows it as it was when that machine last opened a
transaction.

In each case it does what was observed on CVMFS 2.12. CVMFS_STANDIN_KILL names a moment ("opened",
"streaming", "read", "applied", "publishing") at which the server dies as if the machine had failed;
CVMFS_STANDIN_HANG one ("applied", "abort") at which it waits for a remount that never ends, as long
as the file standin-hang exists in the root;
CVMFS_STANDIN_REFUSE is a part of a path: the server process aborts at a file with such a path, with
the message CVMFS_STANDIN_REFUSAL;
CVMFS_STANDIN_DISCARD throws away the content of files larger than that many bytes;
CVMFS_STANDIN_RECORD names a directory in which each stream is kept as it arrived;
CVMFS_STANDIN_PAUSE a file without which it stops, for a minute, in the middle of a long stream.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO, NoReturn

VERSION = "2.12.6"
OPEN_FAILURE = errno.EEXIST
LEASED = errno.EBUSY
LARGEST_FILE = 1 << 30
LARGEST_CATALOG = 500_000
SIGKILL = 9
ROOT_HASH = "user.root_hash"
"""The attribute in which a client shows the root hash of the mounted revision."""

USAGE = f"""CernVM-FS Server Tool {VERSION}
Usage: cvmfs_server COMMAND [options] <parameters>

Supported commands: mkfs rmfs list transaction publish abort ingest check
"""


class Path(str):
    """What is used here of pathlib's class, whose import takes longer than most commands."""

    __slots__ = ()

    def __truediv__(self, part: str) -> Path:
        return Path(f"{self}/{part}") if part else self

    @property
    def name(self) -> str:
        return self.rpartition("/")[2]

    @property
    def parent(self) -> Path:
        return Path(self.rpartition("/")[0])

    def exists(self) -> bool:
        return os.path.exists(self)

    def is_dir(self) -> bool:
        return os.path.isdir(self)

    def is_symlink(self) -> bool:
        return os.path.islink(self)

    def resolve(self) -> Path:
        return Path(os.path.realpath(self))

    def iterdir(self) -> Iterator[Path]:
        return (self / name for name in os.listdir(self))

    def read_text(self) -> str:
        with open(self, encoding="utf-8") as file:
            return file.read()

    def write_text(self, text: str) -> None:
        with open(self, "w", encoding="utf-8") as file:
            file.write(text)

    def touch(self) -> None:
        os.close(os.open(self, os.O_WRONLY | os.O_CREAT, 0o666))
        os.utime(self)

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            os.unlink(self)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        if parents:
            os.makedirs(self, exist_ok=exist_ok)
        elif not (exist_ok and self.is_dir()):
            os.mkdir(self)


def run(*command: str) -> int:
    """Run a program, and return its exit code."""
    process = os.posix_spawnp(command[0], command, os.environ)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def die(text: str, code: int = 1) -> NoReturn:
    print(text, file=sys.stderr, flush=True)
    raise SystemExit(code)


def assertion(text: str) -> NoReturn:
    """The server process aborts: nothing of the transaction is published."""
    print(f"cvmfs_swissknife: {text}", file=sys.stderr, flush=True)
    raise Aborted(text)


class Aborted(Exception):
    """The process that reads the archive died; the script around it ends the transaction."""


def die_at(moment: str, root: Path) -> None:
    """Be killed, and let the children that a real server has be killed with it."""
    wanted = os.environ.get("CVMFS_STANDIN_KILL", "")
    marker = root / "standin-killed"
    if wanted == moment and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), SIGKILL)


def hang_at(moment: str, root: Path) -> None:
    """Wait in a child process, as the real server waits for `mount` to return."""
    if os.environ.get("CVMFS_STANDIN_HANG", "") == moment:
        mount = root / "mount-rdonly"
        mount.write_text(f'while test -e "{root}/standin-hang"; do sleep 0.1; done\n')
        run("sh", mount)


class Server:
    """One repository as its server sees it."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name
        self.configuration = root / "etc/cvmfs/repositories.d" / name / "server.conf"
        self.mount = root / "cvmfs" / name
        self.spool = root / "var/spool/cvmfs" / name
        self.storage = root / "srv/cvmfs" / name
        self.lock = self.spool / "in_transaction.lock"
        self.publishing = self.spool / "is_publishing.lock"
        self.before = self.spool / "before"
        self.rdonly = self.spool / "rdonly"
        self.upper = self.spool / "scratch/current"
        self.work = self.spool / "ofs_workdir"
        if not self.configuration.exists():
            die(f"The repository {name} does not exist.")
        lines = self.configuration.read_text().splitlines()
        self.settings = dict(line.split("=", 1) for line in lines if "=" in line)
        self.gateway = self.settings["CVMFS_UPSTREAM_STORAGE"].startswith("gw,")
        self.is_overlay = "CVMFS_STANDIN_OVERLAY" in self.settings
        shown = self.rdonly if self.is_overlay else self.mount
        self.tree = self.storage / "tree" if self.gateway else shown

    def require_owner(self) -> None:
        owner = self.settings["CVMFS_USER"]
        pretended = os.environ.get("CVMFS_STANDIN_USER")
        user = pretended or pwd.getpwuid(os.geteuid()).pw_name
        if user not in (owner, "root"):
            die(f"Permission denied: Repository {self.name} is owned by {owner}")

    def require_free(self, code: int) -> None:
        if self.lock.exists():
            die(f"Repository {self.name} is already in a transaction", code)

    def require_valid(self) -> None:
        if (self.storage / "whitelist-expired").exists():
            die(f"Repository whitelist for {self.name} is expired!")

    @property
    def unhealthy(self) -> bool:
        if not self.lock.exists() or not (self.spool / "ingesting").exists():
            return False
        return not is_alive(self.lock.read_text().strip())

    def published(self) -> dict[str, str]:
        lines = (self.storage / ".cvmfspublished").read_text().splitlines()
        return {line[0]: line[1:] for line in lines if line and line != "--"}

    def bump(self) -> None:
        revision = int(self.published()["S"]) + 1
        write_published(self.storage, self.name, revision)

    def acquire_lease(self, path: str) -> Path | None:
        """A gateway's lease of one subtree; leases that overlap exclude each other."""
        if not self.gateway:
            return None
        path = path.strip("/")
        parent = path.rpartition("/")[0]
        if path and not (self.tree / parent).is_dir():
            die(f"Could not acquire a new lease: {parent} does not exist", errno.ENOENT)
        leases = self.storage / "leases"
        leases.mkdir(exist_ok=True)
        with Exclusive(self.storage / "leases.lock"):
            for other in leases.iterdir():
                if overlaps(path, other.read_text().partition("\n")[2]):
                    die(f"Could not acquire a new lease for repository {self.name}: busy", LEASED)
            lease = leases / f"{os.getpid()}-{time.monotonic_ns()}"
            lease.write_text(f"{self.spool}\n{path}")
        return lease

    def mount_union(self, options: str = "ro") -> None:
        """Mount the overlayfs, if there is one, as the real server does: without redirect_dir."""
        if not self.is_overlay:
            return
        remove(self.work)
        for directory in (self.upper, self.work):
            directory.mkdir(parents=True, exist_ok=True)
        layers = f"lowerdir={self.rdonly},upperdir={self.upper},workdir={self.work}"
        run_mount("mount", "-t", "overlay", "overlay", "-o", f"{options},{layers}", self.mount)

    def unmount_union(self) -> None:
        if self.is_overlay and os.path.ismount(self.mount):
            run_mount("umount", "-l", self.mount)

    def renew_mount(self) -> None:
        """Let a gateway's mount show what is published now."""
        pinned = self.published()["C"].encode()
        if not self.gateway or self.mounted_hash() == pinned:
            return
        self.unmount_union()
        with Exclusive(self.storage / "commit.lock"):
            restore(self.tree, self.rdonly if self.is_overlay else self.mount)
            self.pin()
        self.mount_union()

    def mounted_hash(self) -> bytes:
        try:
            return os.getxattr(self.rdonly, ROOT_HASH)
        except OSError:
            return b""

    def pin(self) -> None:
        """Note which revision is mounted; at a gateway, client.local does not hold it."""
        pinned = self.published()["C"]
        os.setxattr(self.rdonly, ROOT_HASH, pinned.encode())
        text = "" if self.gateway else f"CVMFS_ROOT_HASH={pinned}\n"
        (self.spool / "client.local").write_text(text)

    def publish_union(self) -> None:
        """Publish the changes of a transaction."""
        if self.is_overlay:
            self.unmount_union()
        at_the_gateway(self, self.commit_union)

    def commit_union(self) -> None:
        if self.is_overlay:
            merge_upper(self.upper, self.tree)
        elif self.gateway:
            restore(self.mount, self.tree)
        self.bump()

    def drop_leases(self) -> None:
        if not self.gateway:
            return
        with Exclusive(self.storage / "leases.lock"):
            leases = self.storage / "leases"
            for lease in list(leases.iterdir()) if leases.exists() else []:
                if lease.read_text().partition("\n")[0] == self.spool:
                    lease.unlink()

    def open_transaction(self) -> None:
        self.spool.mkdir(parents=True, exist_ok=True)
        self.lock.write_text(f"{os.getpid()}\n")

    def close_transaction(self) -> None:
        remove(self.spool / "tmp")
        if self.before.exists():  # as a whole: an abort must not use what is left of it
            os.rename(self.before, f"{self.before}.draft")
        remove(Path(f"{self.before}.draft"))
        self.unmount_union()
        remove(self.upper)
        if not self.gateway:
            self.pin()
        self.mount_union()
        (self.spool / "ingesting").unlink(missing_ok=True)
        self.publishing.unlink(missing_ok=True)
        self.drop_leases()
        self.lock.unlink(missing_ok=True)

    def ask_about_open_files(self, dialog: bool) -> None:
        """Treat processes that use the mounted repository as the real server does."""
        holders = processes_below(self.mount)
        if not holders:
            return
        print(f"\nWARNING! There are open read-only file descriptors in /cvmfs/{self.name}")
        print("  --> This is potentially harmful and might cause problems later on.")
        for pid, what in holders:
            print(f"  {pid} {what}")
        if not dialog:
            return
        print("\n         Do you want to proceed anyway? (y/N) ", end="", flush=True)
        reply = sys.stdin.buffer.readline(4096).strip()
        if reply not in (b"y", b"Y"):
            self.close_transaction()
            die("aborting!")


def write_published(storage: Path, name: str, revision: int) -> None:
    text = f"C{revision:040x}\nB4096\nRd41d8cd98f00b204e9800998ecf8427e\nD240\nS{revision}\n"
    text += f"Gno\nAno\nN{name}\nT{int(time.time())}\n--\n"
    draft = storage / ".cvmfspublished.draft"
    draft.write_text(text)
    os.rename(draft, storage / ".cvmfspublished")


def run_mount(*command: str) -> None:
    if run(*command):  # it has printed why
        die(f"{command[0]} failed")


def merge_upper(upper: Path, tree: Path) -> None:
    """Apply an overlayfs' upper directory, which is not mounted now, to the tree below it."""
    for entry in list(os.scandir(upper)):
        old, new = tree / entry.name, Path(entry.path)
        status = os.lstat(new)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            remove(old)
        elif entry.is_dir(follow_symlinks=False):
            if (
                not old.is_dir()
                or old.is_symlink()
                or "trusted.overlay.opaque" in os.listxattr(new)
            ):
                remove(old)
                old.mkdir()
            merge_upper(new, old)
            os.chown(old, status.st_uid, status.st_gid)
            os.chmod(old, stat.S_IMODE(status.st_mode))
            os.utime(old, ns=(status.st_atime_ns, status.st_mtime_ns))
        else:
            remove(old)
            for name in os.listxattr(new, follow_symlinks=False):
                if name.startswith("trusted.overlay."):
                    os.removexattr(new, name, follow_symlinks=False)
            os.rename(new, old)


class Exclusive:
    """A lock between processes, held for moments, which ends with its process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        self._descriptor = os.open(self.path, os.O_CREAT | os.O_WRONLY)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def is_alive(pid: str) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return (Path("/proc") / pid / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def overlaps(one: str, other: str) -> bool:
    return (
        not one
        or not other
        or f"{one}/".startswith(f"{other}/")
        or f"{other}/".startswith(f"{one}/")
    )


def processes_below(mount: Path) -> list[tuple[int, str]]:
    """(pid, what) of each process with an open file or its working directory in the tree."""
    top = str(mount.resolve())
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        process = f"/proc/{pid}"
        try:
            links = [f"{process}/cwd", *(f"{process}/fd/{n}" for n in os.listdir(f"{process}/fd"))]
        except OSError:
            continue
        for link in links:
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith(top) and (target == top or target.startswith(f"{top}/")):
                found.append((int(pid), target))
                break
    return found


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        if os.geteuid() != 0:
            for directory, _, _ in os.walk(path):
                os.chmod(directory, 0o700)
        if run("rm", "-rf", path):
            die(f"rm -rf {path} failed")
    elif os.path.lexists(path):
        path.unlink()


def mkfs(root: Path, arguments: list[str]) -> None:
    """`mkfs [-zg] [-o OWNER] [-f UNION] [-u gw,…] NAME`, as far as tests need it."""
    owner, upstream, more = pwd.getpwuid(os.geteuid()).pw_name, "", ""
    while len(arguments) > 1:
        option, *arguments = arguments
        if option == "-o":
            owner, *arguments = arguments
        elif option == "-u":
            upstream, *arguments = arguments
        elif option == "-f":
            union, *arguments = arguments
            if union != "overlayfs":
                die(f"{union} is not supported here")
        elif option == "-z":
            more += "CVMFS_GARBAGE_COLLECTION=true\n"
        elif option == "-g":
            more += "CVMFS_AUTO_TAG=false\n"
        else:
            die(f"Unrecognized option: {option}")
    [name] = arguments
    storage, mount = root / "srv/cvmfs" / name, root / "cvmfs" / name
    spool = root / "var/spool/cvmfs" / name
    configuration = root / "etc/cvmfs/repositories.d" / name
    for directory in (mount, spool, configuration, storage):
        directory.mkdir(parents=True, exist_ok=True)
    if os.environ.get("CVMFS_STANDIN_OVERLAY"):
        more += "CVMFS_STANDIN_OVERLAY=true\n"
        (spool / "rdonly").mkdir()
    else:
        os.symlink(mount, spool / "rdonly")
    upstream = upstream or f"local,{storage}/data/txn,{storage}"
    (configuration / "server.conf").write_text(
        f"CVMFS_CREATOR_VERSION=143\nCVMFS_REPOSITORY_NAME={name}\n"
        f"CVMFS_REPOSITORY_TYPE=stratum0\nCVMFS_USER={owner}\nCVMFS_UNION_DIR={mount}\n"
        f"CVMFS_SPOOL_DIR={spool}\nCVMFS_STRATUM0=file://{storage}\n"
        f"CVMFS_UPSTREAM_STORAGE={upstream}\nCVMFS_UNION_FS_TYPE=overlayfs\n{more}"
    )
    if not (storage / ".cvmfspublished").exists():
        write_published(storage, name, 1)
        top = storage / "tree" if upstream.startswith("gw,") else spool / "rdonly"
        top.mkdir(exist_ok=True)
        (top / "new_repository").write_text("")
        until = time.strftime("%Y%m%d%H%M%S", time.gmtime(time.time() + 30 * 86400))
        (storage / ".cvmfswhitelist").write_text(f"20260101000000\nE{until}\nN{name}\n00:00\n--\n")
    server = Server(root, name)
    server.renew_mount()
    if not server.gateway:
        server.pin()
        server.mount_union()


def rmfs(root: Path, arguments: list[str]) -> None:
    """`rmfs -f NAME`: remove the repository completely."""
    server = Server(root, arguments[-1])
    if "-f" not in arguments:
        die("Are you sure? (y/N) aborting!")
    server.unmount_union()
    for place in (server.mount, server.spool, server.storage, server.configuration.parent):
        remove(place)


def list_repositories(root: Path) -> None:
    repositories = root / "etc/cvmfs/repositories.d"
    for name in sorted(os.listdir(repositories)) if repositories.exists() else []:
        if not (repositories / name / "server.conf").exists():
            continue
        server = Server(root, name)
        kind = server.settings["CVMFS_UPSTREAM_STORAGE"].partition(",")[0]
        state = " - in transaction" if server.lock.exists() else ""
        state += " - whitelist expired" if (server.storage / "whitelist-expired").exists() else ""
        state += " - unhealthy" if server.unhealthy else ""
        print(f"{server.name} (stratum0 / {kind}{state})  ")


def transaction(root: Path, arguments: list[str]) -> None:
    """Make the tree writable; keep its former state for an abort."""
    name, _, path = arguments[-1].partition("/")
    server = Server(root, name)
    server.require_owner()
    server.require_free(OPEN_FAILURE)
    server.require_valid()
    server.acquire_lease(path)
    server.open_transaction()
    server.renew_mount()
    if server.is_overlay:
        server.unmount_union()
        server.mount_union("rw")
    elif not path:  # a part is only leased here, and never changed
        keep(server.mount, server.before)


def keep(source: Path, target: Path) -> None:
    """A copy of the directories, with hard links to everything else, or none if this is killed."""
    draft = Path(f"{target}.draft")
    remove(draft)
    if run("cp", "-al", f"{source}/.", draft):
        die(f"cannot keep {source}")
    os.rename(draft, target)


def at_the_gateway(server: Server, commit: Callable[[], None]) -> None:
    """Commit at the gateway, which is another machine: it is not killed with this one."""
    if not server.gateway:
        commit()
        return
    sys.stdout.flush()
    sys.stderr.flush()
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            os.close(receiving)
            code = b"\1"
            try:
                with Exclusive(server.storage / "commit.lock"):
                    commit()
                code = b"\0"
            except Aborted:
                code = b"\2"
            finally:
                os.write(sending, code)
                os._exit(0)
        os._exit(0)
    os.close(sending)
    os.waitpid(child, 0)
    code = os.read(receiving, 1)
    os.close(receiving)
    if code == b"\2":
        raise Aborted("at the gateway")
    if code != b"\0":
        die("the gateway failed")


def restore(before: Path, now: Path) -> None:
    """Make `now` what `before` is, touching only what differs: other processes may be reading."""
    import shutil

    with os.scandir(before) as entries:
        wanted = {entry.name: entry for entry in entries}
    with os.scandir(now) as entries:
        there = {entry.name: entry for entry in entries}
    for name in there.keys() - wanted.keys():
        remove(now / name)
    for name, old in wanted.items():
        found = there.get(name)
        if old.is_dir(follow_symlinks=False):
            if found is None or not found.is_dir(follow_symlinks=False):
                remove(now / name)
                (now / name).mkdir()
            restore(before / name, now / name)
        elif found is None or found.inode() != old.inode():
            remove(now / name)
            os.link(old.path, now / name, follow_symlinks=False)
    shutil.copystat(before, now)


def publish(root: Path, arguments: list[str]) -> None:
    server = Server(root, arguments[-1].partition("/")[0])
    server.require_owner()
    if not server.lock.exists():
        die(f"Repository {server.name} is not in a transaction")
    server.ask_about_open_files("-f" not in arguments)
    die_at("publishing", root)
    server.publish_union()
    server.close_transaction()


def abort(root: Path, arguments: list[str]) -> None:
    server = Server(root, arguments[-1].partition("/")[0])
    server.require_owner()
    if not server.lock.exists():
        die(f"Repository {server.name} is not in a transaction")
    if (server.spool / "ingesting").exists() and not server.unhealthy:
        die(f"Repository {server.name} is currently published (aborting abort)")
    if "-f" not in arguments:
        print(
            "You are about to DISCARD ALL CHANGES OF THE CURRENT TRANSACTION for "
            f"{server.name}!  Are you sure (y/N)? ",
            end="",
            flush=True,
        )
        if sys.stdin.readline().strip() not in ("y", "Y"):
            return
    hang_at("abort", root)
    if server.before.exists():
        restore(server.before, server.mount)
    server.close_transaction()


def check(root: Path, arguments: list[str]) -> None:
    """Find catalogs that are too large, as the real check does."""
    server = Server(root, arguments[-1])
    for directory, _, _ in os.walk(server.rdonly):
        if (Path(directory) / ".cvmfscatalog").exists():
            count = catalog_entries(Path(directory))
            if count > LARGEST_CATALOG:
                die(f"catalog at {directory} has {count} entries")
    print("no problems found")


def catalog_entries(top: Path) -> int:
    count = 0
    for directory, subdirectories, files in os.walk(top):
        count += len(subdirectories) + len(files)
        subdirectories[:] = [
            name
            for name in subdirectories
            if not (Path(directory) / name / ".cvmfscatalog").exists()
        ]
    return count


def ingest(root: Path, arguments: list[str]) -> None:
    base, archive, deletions, keeps_owner = "", "", [], False
    while len(arguments) > 1:
        option = arguments.pop(0)
        if option in ("-b", "--base_dir"):
            # The word is not quoted in the script: a space ends it.
            base = (arguments.pop(0).split() or [""])[0]
        elif option in ("-t", "--tar_file"):
            archive = arguments.pop(0)
        elif option in ("-d", "--delete"):
            deletions.append(arguments.pop(0))
        elif option in ("-k", "--keep-ownership"):
            keeps_owner = True
        else:
            die(f"Unrecognized option: {option}")
    server = Server(root, arguments[0])
    if not archive and not deletions:
        die("Please provide some parameters, use -t $TAR_FILE")
    if bool(archive) != bool(base):
        die("Please set the base directory where to extract the tarball, use -b $BASE_DIR")
    if server.gateway and len(deletions) > 1:
        die("Could not delete multiple paths using a gateway in a single transaction.")
    if server.gateway and archive and deletions:
        die("Could not delete and add a file in the same transaction while using gateway.")
    server.require_owner()
    server.require_free(1)
    server.require_valid()
    server.acquire_lease(base or (deletions[0] if deletions else ""))
    if any(character in path for path in deletions for character in "'\"`$\\;&|<>()"):
        server.drop_leases()
        die("sh: 1: Syntax error: Unterminated quoted string", 2)
    server.open_transaction()
    (server.spool / "ingesting").touch()
    die_at("opened", root)
    server.ask_about_open_files(dialog=True)
    server.publishing.touch()
    try:
        run_ingest(server, base.strip("/"), archive, deletions, keeps_owner)
    except Aborted:
        server.close_transaction()
        die("Synchronization failed\n\nExecuted Command:\n cvmfs_swissknife ingest")
    server.close_transaction()


def run_ingest(
    server: Server, base: str, archive: str, deletions: list[str], keeps_owner: bool
) -> None:
    gone = [part for path in deletions for part in path.split(":")]
    for path in gone:
        if not os.path.lexists(server.tree / path.strip("/")):
            print(f"WARNING: cannot remove {path}, it does not exist", file=sys.stderr)
    stream = Archive(server, base, keeps_owner)
    if archive == "-":
        stream.read(sys.stdin.buffer)
    elif archive:
        with open(archive, "rb") as file:
            stream.read(file)
    die_at("read", server.root)
    both = {path.strip("/") for path in gone} & stream.entries.keys()
    if both:
        assertion(f"deleted and added in one call: {sorted(both)[0]}")
    at_the_gateway(server, lambda: finish(server, stream, gone))
    die_at("applied", server.root)
    hang_at("applied", server.root)


def finish(server: Server, stream: Archive, gone: list[str]) -> None:
    stream.check_links(gone)
    # From here on nothing fails: the new catalog is signed, and visible at once.
    if not server.gateway:
        server.unmount_union()
    for path in gone:
        # Only the entry of the path goes from the catalog: the directory above keeps its times.
        place = server.tree / path.strip("/")
        above = os.stat(place.parent) if place.parent.is_dir() else None
        remove(place)
        if above is not None and place.parent.is_dir():
            os.utime(place.parent, ns=(above.st_atime_ns, above.st_mtime_ns))
    stream.apply()
    server.bump()


BLOCK = 512
PIECE = 1 << 20
FILE, LINK, SYMLINK, CHARACTER, BLOCKS, DIRECTORY, FIFO = b"0123456"
LONG_TARGET, LONG_NAME, SPARSE = b"KLS"
NODES = {CHARACTER: stat.S_IFCHR, BLOCKS: stat.S_IFBLK, FIFO: stat.S_IFIFO}
"""What a file is that is made by mknod."""


class Malformed(Exception):
    """The stream is not a tar archive in GNU's format."""


class Member:
    """The header of a member. Times are in seconds, `size` is that of the file with its holes."""

    __slots__ = ("device", "gid", "kind", "mode", "mtime", "name", "size", "target", "uid")

    def __init__(self, header: bytes, kind: int, name: bytes, target: bytes, size: int) -> None:
        self.kind = kind
        self.name = os.fsdecode(name)
        self.target = os.fsdecode(target)
        self.size = size
        self.mode, self.uid, self.gid = (number(header[at : at + 8]) for at in (100, 108, 116))
        self.mtime = number(header[136:148])
        major, minor = (number(header[at : at + 8]) for at in (329, 337))
        self.device = os.makedev(major, minor) if kind in (CHARACTER, BLOCKS) else 0


def members(stream: Counted) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Yield each member with its content, which is read to its end before the next member.

    The format is that of GNU tar, as its manual describes it. The module tarfile takes longer to
    import than most commands of the server take.
    """
    long_name = long_target = b""
    while True:
        header = stream.read(BLOCK)
        if not header.strip(b"\0"):
            if len(header) % BLOCK:
                raise Malformed("truncated header")
            break
        if len(header) < BLOCK:
            raise Malformed("truncated header")
        if number(header[148:156]) != sum(header[:148]) + sum(header[156:]) + 8 * ord(" "):
            raise Malformed("bad checksum")
        kind, size = header[156] or FILE, number(header[124:136])
        if kind in (LONG_NAME, LONG_TARGET):
            text = b"".join(stored(stream, size)).rstrip(b"\0")
            if kind == LONG_NAME:
                long_name = text
            else:
                long_target = text
            continue
        if kind not in (*NODES, FILE, LINK, SYMLINK, DIRECTORY, SPARSE):
            raise Malformed(f"a member of the type {chr(kind)}")
        name = long_name or header[:100].partition(b"\0")[0]
        target = long_target or header[157:257].partition(b"\0")[0]
        if kind == SPARSE:
            size = number(header[483:495])
            content = with_holes(stream, sparse_map(stream, header), size)
            kind = FILE
        else:
            content = stored(stream, size if kind == FILE else 0)
        yield Member(header, kind, name, target, size if kind == FILE else 0), content
        for _ in content:
            pass
        long_name = long_target = b""
    while stream.read(PIECE):
        pass


def number(field: bytes) -> int:
    """A number in octal digits, or in base 256."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        return (
            value - (1 << 8 * len(field))
            if field[0] == 0xFF
            else value - (0x80 << 8 * len(field) - 8)
        )
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        raise Malformed("not a number") from None


def stored(stream: Counted, size: int) -> Iterator[bytes]:
    """Yield `size` bytes of the stream in pieces, and read the rest of the last block."""
    left = size
    while left:
        data = stream.read(min(left, PIECE))
        if len(data) < min(left, PIECE):
            raise Malformed("unexpected end of data")
        left -= len(data)
        yield data
    if len(stream.read(-size % BLOCK)) < -size % BLOCK:
        raise Malformed("unexpected end of data")


def sparse_map(stream: Counted, header: bytes) -> list[tuple[int, int]]:
    """Return the stored regions of a sparse file: the offset and the length of each."""
    numbers, more = [header[at : at + 12] for at in range(386, 482, 12)], header[482]
    while more:
        block = stream.read(BLOCK)
        if len(block) < BLOCK:
            raise Malformed("unexpected end of data")
        numbers += [block[at : at + 12] for at in range(0, 504, 12)]
        more = block[504]
    found = [number(each) for each in numbers if each[0]]
    return list(zip(found[::2], found[1::2], strict=True))


def with_holes(stream: Counted, regions: list[tuple[int, int]], size: int) -> Iterator[bytes]:
    """Yield the content of a sparse file, with zeros for what is not stored."""
    at = 0
    pieces = stored(stream, sum(length for _, length in regions))
    held = b""
    for offset, length in [*regions, (size, 0)]:
        while at < offset:
            hole = bytes(min(offset - at, PIECE))
            at += len(hole)
            yield hole
        end = at + length
        while at < end:
            held = held or next(pieces)
            data, held = held[: end - at], held[end - at :]
            at += len(data)
            yield data
    yield from pieces


class Archive:
    """The members of one stream, kept aside until the stream has ended as it should."""

    def __init__(self, server: Server, base: str, keeps_owner: bool) -> None:
        self.server = server
        self.base = base
        self.keeps_owner = keeps_owner
        self.owner = pwd.getpwnam(server.settings["CVMFS_USER"])
        self.scratch = server.spool / "tmp"
        self.scratch.mkdir()
        self.entries: dict[str, Member] = {}
        self.contents: dict[str, Path] = {}
        self.implied: set[str] = set()
        self.implied_before: set[str] = set()
        self.links: list[tuple[str, str]] = []
        self.discard = int(os.environ.get("CVMFS_STANDIN_DISCARD", "0"))
        self.refused = os.environ.get("CVMFS_STANDIN_REFUSE", "")

    def read(self, file: IO[bytes]) -> None:
        counted = Counted(file)
        try:
            for number, (member, content) in enumerate(members(counted)):
                if number == 3:
                    die_at("streaming", self.server.root)
                self.take(member, content)
        except Malformed as error:
            if counted.total:  # no bytes at all are an empty archive
                assertion(f"Fatal error in reading the archive: {error}")
        # A stream that ends between two members looks like one that is complete.
        if counted.total % BLOCK:
            assertion("Fatal error in reading the archive. Truncated tar archive")

    def take(self, member: Member, content: Iterator[bytes]) -> None:
        path = "/".join(part for part in (self.base, sanitized(member.name)) if part)
        name = path.rpartition("/")[2]
        self.imply(path.rpartition("/")[0])
        if member.kind == LINK:
            target = "/".join(part for part in (self.base, member.target) if part)
            self.links.append((path, target.lstrip("/")))
            return
        known = self.entries.get(path)
        if known is not None and {known.kind, member.kind} != {DIRECTORY}:
            assertion(f"Assertion failed: {path} is in the archive twice")
        if member.kind != DIRECTORY and path in self.implied:
            assertion(f"Assertion failed: {path} is a directory")
        if name == ".cvmfscatalog" and member.kind != FILE:
            assertion("Found entity called as a catalog marker that is not a regular file, abort")
        if member.kind == DIRECTORY and path in self.implied:
            self.implied_before.add(path)  # it comes after what is in it, and loses its metadata
        self.entries[path] = member
        if member.kind == FILE:
            if self.refused and self.refused in path:
                assertion(os.environ.get("CVMFS_STANDIN_REFUSAL", f"panic at {path}"))
            if member.size > LARGEST_FILE:
                print(f"WARNING: {path} is larger than 1 GiB", file=sys.stderr)
            place = self.scratch / str(len(self.contents))
            with open(place, "wb") as copy:
                if not self.discard or member.size <= self.discard:
                    copy_sparse(content, copy)
            self.contents[path] = place

    def imply(self, path: str) -> None:
        while path and path not in self.implied and path not in self.entries:
            self.implied.add(path)
            path = path.rpartition("/")[0]

    def check_links(self, gone: list[str]) -> None:
        names = {link for link, _ in self.links}
        removed = [path.strip("/") for path in gone]
        for path, target in self.links:
            if path in self.entries:
                assertion(f"Assertion failed: {path} is in the archive twice")
            there = os.path.lexists(self.server.tree / target) and not any(
                overlaps(path, target) and f"{target}/".startswith(f"{path}/") for path in removed
            )
            if target not in self.entries and target not in names and not there:
                assertion(f"Assertion failed: hard link target {target} not found")

    def apply(self) -> None:
        wanted = {path: m for path, m in self.entries.items() if m.kind == DIRECTORY}
        # Existing directories are left as they are: their times, too.
        existing = {self.server.tree / path for path in self.implied | wanted.keys()}
        kept = {d: os.stat(d) for d in existing if d.is_dir() and not d.is_symlink()}
        directories = self.make_directories(wanted)
        for path, member in self.entries.items():
            if member.kind != DIRECTORY:
                self.make_entry(path, member)
        self.make_links()
        for place, member in reversed(directories):
            self.describe(place, member)
        for place, status in kept.items():
            os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))

    def make_directories(self, wanted: dict[str, Member]) -> list[tuple[Path, Member]]:
        """Make the directories that are missing; those whose metadata the archive has come back."""
        made = []
        for path in sorted(self.implied | wanted.keys(), key=lambda p: p.count("/")):
            place = self.server.tree / path
            if place.is_dir() and not place.is_symlink():
                continue
            if os.path.lexists(place):
                place.unlink()
            place.mkdir()
            if path in wanted and path not in self.implied_before:
                made.append((place, wanted[path]))
            elif self.keeps_owner:
                give(place, 65534, 65534)
        return made

    def make_entry(self, path: str, member: Member) -> None:
        """Make what is neither a directory nor a hard link."""
        place = self.server.tree / path
        if os.path.lexists(place):
            remove(place)
        if member.kind == FILE:
            os.rename(self.contents[path], place)
        elif member.kind == SYMLINK:
            os.symlink(member.target, place)
        else:
            os.mknod(place, NODES[member.kind] | 0o600, member.device)
        self.describe(place, member)

    def make_links(self) -> None:
        """Make the hard links. On a real server they are entries of their own that share content,
        and a link does not differ from its target."""
        waiting = list(self.links)
        while waiting:
            path, target = waiting.pop(0)
            place, source = self.server.tree / path, self.server.tree / target
            if not os.path.lexists(source):
                waiting.append((path, target))
                continue
            if os.path.lexists(place):
                remove(place)
            os.link(source, place, follow_symlinks=False)

    def describe(self, place: Path, member: Member) -> None:
        if self.keeps_owner:
            give(place, member.uid, member.gid)
        else:
            give(place, self.owner.pw_uid, self.owner.pw_gid)
        if member.kind != SYMLINK:
            os.chmod(place, member.mode & 0o7777)
        os.utime(place, (member.mtime, member.mtime), follow_symlinks=False)


def copy_sparse(content: Iterator[bytes], copy: IO[bytes]) -> None:
    """Copy a file; what is zero becomes a hole."""
    for data in content:
        if data.count(0) == len(data):
            copy.seek(len(data), os.SEEK_CUR)
        else:
            copy.write(data)
    copy.truncate()


def give(place: Path, user: int, group: int) -> None:
    if os.geteuid() == 0:
        os.chown(place, user, group, follow_symlinks=False)


def sanitized(name: str) -> str:
    """A leading "./" or "/" goes; `..` stays, and makes a broken entry."""
    if name.startswith("./"):
        name = name[2:]
    elif name.startswith("/"):
        name = name[1:]
    name = name.strip("/")
    return "" if name == "." else name


class Counted:
    """Counts what is read; half-way it may wait for a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.total = 0
        folder = os.environ.get("CVMFS_STANDIN_RECORD")
        self.pause: str = os.environ.get("CVMFS_STANDIN_PAUSE", "")
        self.record = open(f"{folder}/{time.time_ns()}.tar", "wb") if folder else None  # noqa: SIM115

    def pause_once(self) -> None:
        Path(f"{self.pause}.paused").touch()
        deadline = time.monotonic() + 60
        while not Path(self.pause).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.pause = ""

    def read(self, size: int) -> bytes:
        parts = []
        while size:
            data = self.file.read(size)
            if not data:
                break
            parts.append(data)
            size -= len(data)
            self.total += len(data)
            if self.pause and self.total > 3_000_000:
                self.pause_once()
            if self.record is not None:
                self.record.write(data)
                self.record.flush()
        return b"".join(parts)


def main() -> None:
    root = Path(os.environ["CVMFS_STANDIN_ROOT"])
    if len(sys.argv) < 2:
        print(USAGE)
        raise SystemExit(1)
    command, arguments = sys.argv[1], sys.argv[2:]
    log = root / "standin.log"
    with open(log, "a") as file:
        file.write(f"{sys.argv[1:]!a}\n")
    if os.environ.get("CVMFS_STANDIN_CWD_CHECK", "1") and command != "mkfs":
        here = os.getcwd()
        if here.startswith(str(root / "cvmfs")):
            die("Current working directory is in /cvmfs.  Please release, e.g. by 'cd $HOME'.")
    if command == "list":
        list_repositories(root)
        return
    commands = {
        "mkfs": mkfs,
        "rmfs": rmfs,
        "transaction": transaction,
        "publish": publish,
        "abort": abort,
        "ingest": ingest,
        "check": check,
    }
    if command not in commands or not arguments:
        print(USAGE)
        raise SystemExit(1)
    commands[command](root, arguments)


if __name__ == "__main__":
    main()
