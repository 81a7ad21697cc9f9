"""What a compromised worker process tries: each function is one attempt, which raises if it fails.

They run in a process that is confined, and in one that is not, where that is harmless.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import signal
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_COLUMN = {"x86_64": 0, "aarch64": 1}[platform.machine()]
NUMBERS = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "finit_module": (313, 273),
    "fsopen": (430, 430),
    "init_module": (175, 105),
    "io_uring_setup": (425, 425),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "mount": (165, 40),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "reboot": (169, 142),
    "setns": (308, 268),
    "swapon": (167, 224),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
"""The numbers of system calls on x86_64 and aarch64."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is attacked: the process `parent`, and files and sockets outside of the staging area.

    `outside` has the files `secret` and `program`. `handle` is the handle of `secret`
    (name_to_handle_at). `memory` is the address of bytes in the parent. The last three are the
    limits of the process: two in bytes, and a number.
    """

    outside: Path
    parent: int
    memory: int
    tcp_port: int
    udp_port: int
    unix_socket: str
    abstract_socket: str
    handle: str
    file_size: int
    address_space: int
    open_files: int

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Target:
        values = json.loads(text)
        return cls(**values | {"outside": Path(values["outside"])})


Attempt = Callable[[Target], object]
ATTEMPTS: dict[str, Attempt] = {}
"""The attempts by name."""
HARMFUL: set[str] = set()
"""Those with wrong arguments, as they would do harm. They are refused if they fail with EPERM."""


SUCCEEDED = "succeeded"


def results(target: Target) -> dict[str, str]:
    """The result of each attempt in this process: SUCCEEDED, or the name of the error."""
    return {name: _result(attempt, target) for name, attempt in ATTEMPTS.items()}


def permitted(results: Mapping[str, str]) -> set[str]:
    """The attempts that the machine did not refuse, by their results."""
    return {
        name
        for name, result in results.items()
        if result == SUCCEEDED or (name in HARMFUL and result != "EPERM")
    }


def _result(attempt: Attempt, target: Target) -> str:
    try:
        attempt(target)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return SUCCEEDED


def _attempt(function: Attempt) -> Attempt:
    ATTEMPTS[function.__name__.replace("_", " ")] = function
    return function


def _harmful(function: Attempt) -> Attempt:
    HARMFUL.add(function.__name__.replace("_", " "))
    return function


def _call(name: str, *arguments: int | ctypes.Array[ctypes.c_char] | None) -> int:
    values = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(_libc.syscall(ctypes.c_long(NUMBERS[name][_COLUMN]), *values))
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


# Files


@_attempt
def read_the_passwords_of_the_machine(target: Target) -> None:
    assert Path("/etc/shadow").read_bytes()


@_attempt
def read_a_file_with_credentials(target: Target) -> None:
    assert (target.outside / "secret").read_bytes()


@_attempt
def list_a_directory_outside(target: Target) -> None:
    assert os.listdir(target.outside)


@_attempt
def read_through_a_symbolic_link(target: Target) -> None:
    os.symlink(target.outside / "secret", "link")
    assert Path("link").read_bytes()


@_attempt
def read_through_parent_directories(target: Target) -> None:
    assert Path("../" * 40 + str(target.outside / "secret")).read_bytes()


@_attempt
def make_a_file_outside(target: Target) -> None:
    (target.outside / "new").write_bytes(b"x")


@_attempt
def make_a_file_through_a_symbolic_link(target: Target) -> None:
    os.symlink(target.outside / "newer", "link to a new file")
    Path("link to a new file").write_bytes(b"x")


@_attempt
def make_a_directory_outside(target: Target) -> None:
    (target.outside / "directory").mkdir()


@_attempt
def remove_a_file_outside(target: Target) -> None:
    (target.outside / "removable").unlink()


@_attempt
def truncate_a_file_outside(target: Target) -> None:
    os.truncate(target.outside / "truncatable", 0)


@_attempt
def link_a_file_out_of_the_staging_area(target: Target) -> None:
    Path("linked").write_bytes(b"x")
    os.link("linked", target.outside / "linked")


@_attempt
def rename_a_file_out_of_the_staging_area(target: Target) -> None:
    Path("renamed").write_bytes(b"x")
    os.rename("renamed", target.outside / "renamed")


@_attempt
def link_a_file_into_the_staging_area(target: Target) -> None:
    os.link(target.outside / "secret", "secret")


@_attempt
def make_a_file_outside_readable(target: Target) -> None:
    os.chmod(target.outside / "secret", 0o644)


@_attempt
def give_a_file_outside_away(target: Target) -> None:
    os.chown(target.outside / "owned", 1, 1)


@_attempt
def set_an_attribute_of_a_file_outside(target: Target) -> None:
    os.setxattr(target.outside / "secret", "user.test", b"x")


@_attempt
def set_the_time_of_a_file_outside(target: Target) -> None:
    os.utime(target.outside / "secret", (0, 0))


@_attempt
def make_a_set_user_id_file_outside(target: Target) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    os.close(os.open(target.outside / "set-user-ID", flags, 0o4755))


@_attempt
def make_a_program_outside_set_user_id(target: Target) -> None:
    os.chmod(target.outside / "program", 0o4755)


@_attempt
def make_a_set_user_id_file_in_the_staging_area(target: Target) -> None:
    os.close(os.open("set-user-ID", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o4755))


@_attempt
def make_a_file_in_the_staging_area_set_user_id(target: Target) -> None:
    Path("program").write_bytes(b"x")
    os.chmod("program", 0o4755)


@_attempt
def make_a_device_node_in_the_staging_area(target: Target) -> None:
    os.mknod("disk", stat.S_IFBLK | 0o600, os.makedev(7, 0))


@_attempt
def make_a_socket_in_the_staging_area(target: Target) -> None:
    os.mknod("socket", stat.S_IFSOCK | 0o600)


@_attempt
def mark_a_directory_for_the_overlay_mounts_of_root(target: Target) -> None:
    os.setxattr(".", "trusted.overlay.redirect", b"/etc")


@_attempt
def give_a_file_capabilities(target: Target) -> None:
    Path("capable").write_bytes(b"x")
    # version 2, effective; CAP_SETUID
    os.setxattr("capable", "security.capability", bytes.fromhex("0100000280000000" + "00" * 12))


@_attempt
def open_a_file_outside_by_its_number(target: Target) -> None:
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    value = bytes.fromhex(target.handle)
    handle = ctypes.create_string_buffer(value, len(value))
    assert os.read(_call("open_by_handle_at", directory, handle, os.O_RDONLY), 1)


@_attempt
def change_the_root_directory(target: Target) -> None:
    os.chroot(".")


# Network


@_attempt
def connect_by_tcp(target: Target) -> None:
    with socket.socket() as client:
        client.connect(("127.0.0.1", target.tcp_port))


@_attempt
def listen_by_tcp(target: Target) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))


@_attempt
def send_by_udp(target: Target) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b"x", ("127.0.0.1", target.udp_port))


@_attempt
def connect_to_a_unix_socket(target: Target) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(target.unix_socket)


@_attempt
def connect_to_an_abstract_unix_socket(target: Target) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(target.abstract_socket)


@_attempt
def make_a_pair_of_sockets(target: Target) -> None:
    socket.socketpair()


@_attempt
def ask_the_kernel_by_netlink(target: Target) -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)


# Other processes


@_attempt
def send_a_signal_to_the_parent(target: Target) -> None:
    os.kill(target.parent, signal.SIGCONT)


@_attempt
def send_a_signal_by_a_descriptor_of_the_parent(target: Target) -> None:
    _call("pidfd_send_signal", _call("pidfd_open", target.parent, 0), signal.SIGCONT, None, 0)


@_attempt
def let_the_kernel_send_signals_to_the_parent(target: Target) -> None:
    reader, _ = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, target.parent)


@_attempt
def trace_the_parent(target: Target) -> None:
    _call("ptrace", 0x4206, target.parent, 0, 0)  # PTRACE_SEIZE, which does not stop it


@_attempt
def read_the_environment_of_the_parent(target: Target) -> None:
    assert Path(f"/proc/{target.parent}/environ").read_bytes()


@_attempt
def read_the_memory_of_the_parent(target: Target) -> None:
    descriptor = os.open(f"/proc/{target.parent}/mem", os.O_RDONLY)
    assert os.pread(descriptor, 8, target.memory)


def _transfer(call: str, target: Target) -> None:
    here = ctypes.create_string_buffer(b"original", 8)
    both = ((ctypes.addressof(here), 8), (target.memory, 8))
    local, remote = (
        ctypes.create_string_buffer(b"".join(n.to_bytes(8, "little") for n in each), 16)
        for each in both
    )
    _call(call, target.parent, local, 1, remote, 1, 0)


@_attempt
def copy_from_the_memory_of_the_parent(target: Target) -> None:
    _transfer("process_vm_readv", target)


@_attempt
def copy_to_the_memory_of_the_parent(target: Target) -> None:
    _transfer("process_vm_writev", target)


@_attempt
def take_a_descriptor_of_the_parent(target: Target) -> None:
    _call("pidfd_getfd", _call("pidfd_open", target.parent, 0), 0, 0)


@_attempt
def start_a_process(target: Target) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


@_attempt
def start_a_program(target: Target) -> None:
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
    os.waitpid(os.posix_spawn("/bin/echo", ["echo", "x"], {}, file_actions=actions), 0)
    assert os.read(reader, 2) == b"x\n"


@_attempt
def replace_itself_by_a_program(target: Target) -> None:
    os.execv("/bin/true", ["true"])


@_attempt
def trace_itself_again(target: Target) -> None:
    result = _libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE
    if result:
        raise OSError(ctypes.get_errno(), "prctl")


# The kernel


@_attempt
def begin_a_mount(target: Target) -> None:
    name = ctypes.create_string_buffer(b"tmpfs")
    os.close(_call("fsopen", name, 0))


@_attempt
@_harmful
def mount_a_file_system(target: Target) -> None:
    os.mkdir("mount point")
    name = ctypes.create_string_buffer(b"tmpfs")
    _call("mount", name, ctypes.create_string_buffer(b"mount point"), name, 0, None)


@_attempt
@_harmful
def unmount_a_file_system(target: Target) -> None:
    _call("umount2", ctypes.create_string_buffer(b"missing"), 0)


@_attempt
def enter_a_new_mount_namespace(target: Target) -> None:
    _call("unshare", 0x00020000)


@_attempt
def enter_a_new_user_namespace(target: Target) -> None:
    _call("unshare", 0x10000000)


@_attempt
def enter_the_network_namespace_of_the_parent(target: Target) -> None:
    _call("setns", os.open(f"/proc/{target.parent}/ns/net", os.O_RDONLY), 0)


@_attempt
def use_a_keyring(target: Target) -> None:
    _call("keyctl", 0, -3, 0)  # KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING


@_attempt
def add_a_key(target: Target) -> None:
    kind, name = ctypes.create_string_buffer(b"user"), ctypes.create_string_buffer(b"test")
    _call("add_key", kind, name, ctypes.create_string_buffer(b"x"), 1, -1)  # that of the thread


@_attempt
@_harmful
def load_a_kernel_module(target: Target) -> None:
    _call("init_module", None, 0, ctypes.create_string_buffer(b""))


@_attempt
@_harmful
def load_another_kernel(target: Target) -> None:
    _call("kexec_load", 0, 0, None, 0)


@_attempt
@_harmful
def restart_the_machine(target: Target) -> None:
    _call("reboot", 0, 0, 0, None)  # without the numbers that make it do so


@_attempt
@_harmful
def use_swap_space(target: Target) -> None:
    _call("swapon", ctypes.create_string_buffer(b"missing"), 0)


@_attempt
def make_a_map_for_kernel_programs(target: Target) -> None:
    attributes = ctypes.create_string_buffer(
        b"".join(n.to_bytes(4, "little") for n in (2, 4, 4, 1)), 72
    )
    os.close(_call("bpf", 0, attributes, 72))


@_attempt
def measure_the_kernel(target: Target) -> None:
    kind_and_size = (1 | 128 << 32).to_bytes(8, "little")  # PERF_TYPE_SOFTWARE
    attributes = ctypes.create_string_buffer(kind_and_size, 128)
    os.close(_call("perf_event_open", attributes, 0, -1, -1, 0))


@_attempt
def handle_page_faults(target: Target) -> None:
    os.close(_call("userfaultfd", 0))


@_attempt
def queue_operations_for_the_kernel(target: Target) -> None:
    os.close(_call("io_uring_setup", 1, ctypes.create_string_buffer(120)))


# Limits


@_attempt
def write_a_file_beyond_the_limit(target: Target) -> None:
    descriptor = os.open("large", os.O_CREAT | os.O_WRONLY, 0o600)
    os.pwrite(descriptor, b"x", target.file_size)


@_attempt
def use_more_memory_than_the_limit(target: Target) -> None:
    not_reserved = 0x4000  # MAP_NORESERVE
    mmap.mmap(-1, target.address_space, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | not_reserved)


@_attempt
def open_more_files_than_the_limit(target: Target) -> None:
    for _ in range(target.open_files):
        os.dup(1)


@_attempt
def make_memory_executable(target: Target) -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
