"""The files that Apptainer (formerly Singularity) expects in a directory that it runs. Pure.

Apptainer adds these files when it converts an image. Here they are added to the flat image, except
for those paths that the image has itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from publisher.entry import Entry, EntryType, Generated, Merged, sort_key
from publisher.oci.config import ContainerConfig
from publisher.runtimes.shell import is_variable_name, quote, words

_SOURCE_ENVIRONMENT = """\
#!/bin/sh
for __singularity_file in /.singularity.d/env/*.sh; do
    if [ -f "$__singularity_file" ]; then
        . "$__singularity_file"
    fi
done
unset __singularity_file
"""

_RUN_APP = """\
if [ -n "${SINGULARITY_APPNAME:-}" ]; then
    exec "/scif/apps/$SINGULARITY_APPNAME/scif/%s" "$@"
fi
"""

_ACTIONS = {
    "exec": 'exec "$@"\n',
    "run": _RUN_APP % "runscript" + 'exec /.singularity.d/runscript "$@"\n',
    "shell": """\
PS1="Singularity> "
export PS1
if [ -n "${SINGULARITY_SHELL:-}" ] && [ -x "$SINGULARITY_SHELL" ]; then
    exec "$SINGULARITY_SHELL" "$@"
elif [ -x /bin/bash ]; then
    exec /bin/bash --norc "$@"
fi
exec /bin/sh "$@"
""",
    "start": 'exec /.singularity.d/startscript "$@"\n',
    "test": _RUN_APP % "test"
    + """\
if [ -x /.singularity.d/test ]; then
    exec /.singularity.d/test "$@"
fi
echo "the image has no test" >&2
""",
}

_ENVIRONMENT = {
    "01-base.sh": "#!/bin/sh\n",
    "90-environment.sh": "#!/bin/sh\n# Of images that were built with Apptainer.\n",
    "95-apps.sh": """\
#!/bin/sh
if [ -n "${SINGULARITY_APPNAME:-}" ]; then
    PATH="/scif/apps/$SINGULARITY_APPNAME/bin:$PATH"
    export PATH
fi
""",
    "99-base.sh": """\
#!/bin/sh
# Libraries of the host's graphics driver are mounted there on request (--nv, --rocm).
for __singularity_library in /.singularity.d/libs/*; do
    if [ -e "$__singularity_library" ]; then
        LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs"
        export LD_LIBRARY_PATH
        break
    fi
done
unset __singularity_library
""",
    "99-runtimevars.sh": """\
#!/bin/sh
if [ -n "${SING_USER_DEFINED_PATH:-}" ]; then
    PATH="$SING_USER_DEFINED_PATH"
fi
if [ -n "${SING_USER_DEFINED_PREPEND_PATH:-}" ]; then
    PATH="$SING_USER_DEFINED_PREPEND_PATH:$PATH"
fi
if [ -n "${SING_USER_DEFINED_APPEND_PATH:-}" ]; then
    PATH="$PATH:$SING_USER_DEFINED_APPEND_PATH"
fi
export PATH
""",
}

_LINKS = {
    ".exec": ".singularity.d/actions/exec",
    ".run": ".singularity.d/actions/run",
    ".shell": ".singularity.d/actions/shell",
    ".test": ".singularity.d/actions/test",
    "environment": ".singularity.d/env/90-environment.sh",
    "singularity": ".singularity.d/runscript",
}

_DIRECTORIES = {
    "": 0o755,
    ".singularity.d": 0o755,
    ".singularity.d/actions": 0o755,
    ".singularity.d/env": 0o755,
    ".singularity.d/libs": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "sys": 0o755,
    "tmp": 0o1777,
    "var": 0o755,
    "var/tmp": 0o1777,
}
"""They include the mount points that runtimes cannot create in a read-only tree."""

_MOUNTED_FILES = ("etc/hosts", "etc/resolv.conf")


def runtime_files(config: ContainerConfig) -> list[Generated]:
    """Return the files, links and mount points for an image, sorted by path.

    Owner and times are fixed (0:0, 1970), so that equal configs give equal files.
    """
    scripts = {
        ".singularity.d/env/10-docker2singularity.sh": _image_environment(config),
        ".singularity.d/runscript": _runscript(config),
        ".singularity.d/startscript": "#!/bin/sh\n",
    }
    for name, action in _ACTIONS.items():
        scripts[f".singularity.d/actions/{name}"] = _SOURCE_ENVIRONMENT + action
    for name, script in _ENVIRONMENT.items():
        scripts[f".singularity.d/env/{name}"] = script
    found = [
        *(Generated(Entry(p, EntryType.DIRECTORY, mode)) for p, mode in _DIRECTORIES.items()),
        *(Generated(Entry(p, EntryType.SYMLINK, 0o777, target=t)) for p, t in _LINKS.items()),
        *(_file(path, script.encode(), 0o755) for path, script in scripts.items()),
        *(_file(path, b"", 0o644) for path in _MOUNTED_FILES),
    ]
    return sorted(found, key=lambda generated: sort_key(generated.entry.path))


def insert(plan: Iterable[Merged], generated: Iterable[Generated]) -> Iterator[Merged | Generated]:
    """Yield a flat image's plan together with those of `generated` that the image does not have.

    An entry of the image is never replaced, and nothing is added below an entry that is not a
    directory. Both inputs and the result are sorted by path.
    """
    waiting = [(sort_key(each.entry.path), each) for each in generated]
    waiting.reverse()
    for merged in plan:
        key = sort_key(merged.entry.path)
        while waiting and waiting[-1][0] < key:
            yield waiting.pop()[1]
        if waiting and waiting[-1][0] == key:
            waiting.pop()
        if merged.entry.type is not EntryType.DIRECTORY:
            while waiting and waiting[-1][0].startswith(key + b"\0"):
                waiting.pop()
        yield merged
    yield from (each for _, each in reversed(waiting))


def _file(path: str, content: bytes, mode: int) -> Generated:
    return Generated(Entry(path, EntryType.FILE, mode, size=len(content)), content)


def _image_environment(config: ContainerConfig) -> str:
    """Return the script that sets the image's variables unless they are set; PATH always."""
    lines = ["#!/bin/sh"]
    for name, value in config.environment.items():
        if not is_variable_name(name):
            continue  # a shell cannot set it
        assignment = f"{name}={quote(value)}"
        if name != "PATH":
            assignment = f'[ "${{{name}+set}}" ] || {assignment}'
        lines += [assignment, f"export {name}"]
    return "\n".join(lines) + "\n"


def _runscript(config: ContainerConfig) -> str:
    """Return the script that runs entry point and command as engines do."""
    lines = ["#!/bin/sh"]
    if config.command:
        lines += ['if [ "$#" -eq 0 ]; then', f"    set -- {words(config.command)}", "fi"]
    elif not config.entrypoint:
        lines += [
            'if [ "$#" -eq 0 ]; then',
            '    echo "the image says neither entry point nor command: name one" >&2',
            "    exit 125",
            "fi",
        ]
    entrypoint = f"{words(config.entrypoint)} " if config.entrypoint else ""
    return "\n".join([*lines, f'exec {entrypoint}"$@"']) + "\n"
