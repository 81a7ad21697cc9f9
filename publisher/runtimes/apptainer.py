"""The files that Apptainer (formerly Singularity) expects in a directory that it runs. Pure.

Apptainer adds these files when it converts an image.
"""

from __future__ import annotations

import json

from publisher.entry import Entry, EntryType, Generated
from publisher.oci.config import ContainerConfig
from publisher.runtimes.shell import is_variable_name, quote, words

DIRECTORY = ".singularity.d"

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
# Apptainer mounts libraries of the host there (--nv, --rocm), and has the path in any container.
# Other runtimes set only the variables of the image, unless such libraries are mounted.
__singularity_container="${APPTAINER_CONTAINER-${SINGULARITY_CONTAINER-}}"
for __singularity_library in /.singularity.d/libs/*; do
    if [ -n "$__singularity_container" ] || [ -e "$__singularity_library" ]; then
        LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs"
        export LD_LIBRARY_PATH
        break
    fi
done
unset __singularity_library __singularity_container
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

_DIRECTORIES = ("", "/actions", "/env", "/libs")


def apptainer_files(config: ContainerConfig) -> list[Generated]:
    """Return the directory `.singularity.d` of an image, and the links into it."""
    scripts = {
        ".singularity.d/env/10-docker2singularity.sh": _image_environment(config),
        ".singularity.d/runscript": _runscript(config),
        ".singularity.d/startscript": "#!/bin/sh\n",
    }
    for name, action in _ACTIONS.items():
        scripts[f".singularity.d/actions/{name}"] = _SOURCE_ENVIRONMENT + action
    for name, script in _ENVIRONMENT.items():
        scripts[f".singularity.d/env/{name}"] = script
    return [
        *(Generated(Entry(DIRECTORY + p, EntryType.DIRECTORY, 0o755)) for p in _DIRECTORIES),
        *(Generated(Entry(p, EntryType.SYMLINK, 0o777, target=t)) for p, t in _LINKS.items()),
        *(_file(path, script.encode(), 0o755) for path, script in scripts.items()),
        _file(".singularity.d/labels.json", _labels(config), 0o644),
    ]


def empty_file(path: str) -> Generated:
    """Return an empty file, on which a runtime mounts another one."""
    return _file(path, b"", 0o644)


def _file(path: str, content: bytes, mode: int) -> Generated:
    return Generated(Entry(path, EntryType.FILE, mode, size=len(content)), content)


def _labels(config: ContainerConfig) -> bytes:
    """Return the image's labels in the form that `apptainer inspect` reads."""
    return json.dumps(dict(config.labels), indent="\t", sort_keys=True).encode() + b"\n"


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
