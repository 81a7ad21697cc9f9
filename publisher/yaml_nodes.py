"""YAML nodes with line and column, and readers that report every mistake with its place.

PyYAML accepts a key twice and keeps the last value, reads 1.10 as the number 1.1, and expands a
few bytes of aliases to gigabytes. The readers therefore work on nodes, not on PyYAML's values.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath

import yaml

from publisher.errors import presentable
from publisher.problems import InvalidFile, Problem, Severity

MAX_NODES = 1_000_000
"""The most values a file may have, with aliases expanded."""

STRING = "tag:yaml.org,2002:str"
DATE = "tag:yaml.org,2002:timestamp"
NULL = "tag:yaml.org,2002:null"
MAPPING = "tag:yaml.org,2002:map"
_KINDS = {
    STRING: "a string",
    DATE: "a date",
    NULL: "nothing",
    "tag:yaml.org,2002:int": "a number",
    "tag:yaml.org,2002:float": "a number",
    "tag:yaml.org,2002:bool": "a Boolean",
}


class Problems:
    """Collects the mistakes of the file `name`, which is a `kind` ("wish list").

    `failure_type` is the exception for a file that is unusable as a whole.
    """

    def __init__(self, name: str, kind: str, failure_type: type[InvalidFile]) -> None:
        self.name = name
        self.kind = kind
        self.found: list[Problem] = []
        self.subject = ""  # the part that is being read, "" outside of parts
        self._failure_type = failure_type

    def error(self, node: yaml.Node, message: str, suggestion: str = "") -> None:
        """Add an error: the part being read, or outside of parts the whole file, is unusable."""
        line, column = place(node)
        self._add(Severity.ERROR, line, column, message, suggestion, self.subject)

    def error_at(self, line: int, column: int, message: str, suggestion: str, subject: str) -> None:
        """Add an error that makes the part `subject` unusable, found after its nodes were read."""
        self._add(Severity.ERROR, line, column, message, suggestion, subject)

    def warning(
        self, node: yaml.Node, message: str, suggestion: str = "", *, rule: str = ""
    ) -> None:
        """Add a warning; it makes nothing unusable."""
        line, column = place(node)
        self._add(Severity.WARNING, line, column, message, suggestion, rule=rule)

    def refuse(self, line: int, column: int, message: str, suggestion: str = "") -> InvalidFile:
        """Add an error, and return the exception that ends the reading."""
        self.subject = ""
        self._add(Severity.ERROR, line, column, message, suggestion)
        return self.failure()

    def failure(self) -> InvalidFile:
        """Return all problems as one exception."""
        return self._failure_type(f"cannot use {self.kind} {self.name}", problems=self.sorted())

    def sorted(self) -> tuple[Problem, ...]:
        """Return the problems in the order of the file."""
        return tuple(sorted(self.found, key=lambda problem: (problem.line, problem.column)))

    def errors(self) -> int:
        """Return the number of errors so far."""
        return sum(problem.severity is Severity.ERROR for problem in self.found)

    def _add(
        self,
        severity: Severity,
        line: int,
        column: int,
        message: str,
        suggestion: str,
        subject: str = "",
        rule: str = "",
    ) -> None:
        self.found.append(
            Problem(severity, self.name, line, column, message, suggestion, subject, rule)
        )


def place(node: yaml.Node) -> tuple[int, int]:
    """Return line and column of a node, from 1."""
    return node.start_mark.line + 1, node.start_mark.column + 1


def load(data: bytes | str, problems: Problems, max_bytes: int) -> yaml.Node | None:
    """Return the only document in `data`, or None if it is empty.

    Raises:
        InvalidFile: Of the type of `problems`; the data is too large, not one YAML document, or
            larger than MAX_NODES values with its aliases expanded.
    """
    text = _decode(data, problems, max_bytes)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if re.search("alias|quoted|flow", error.context or ""):
            mark = error.context_mark or mark  # where the string, or the bracket, begins
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        message = ", ".join(part for part in (error.context, error.problem) if part)
        raise problems.refuse(
            line, column, f"not valid YAML: {message}", _remedy(message)
        ) from error
    except yaml.reader.ReaderError as error:
        line, column = _position(text[: error.position])
        raise problems.refuse(
            line, column, f"not valid YAML: {error.reason}", "remove the character"
        ) from error
    except RecursionError as error:
        raise problems.refuse(1, 1, "lists and mappings are nested too deeply") from error
    if root is not None and not _is_bounded(root):
        raise problems.refuse(
            1,
            1,
            f"with its aliases expanded it has more than {MAX_NODES} values",
            "use fewer aliases",
        )
    return root


def load_mapping(
    data: bytes | str, problems: Problems, max_bytes: int, what: str
) -> yaml.MappingNode:
    """Return the only document in `data`, which is a mapping of version 1; raise as `load` does.

    `what` names it in messages ("a policy").
    """
    root = load(data, problems, max_bytes)
    if isinstance(root, yaml.MappingNode):
        return root
    found = "the file is empty" if root is None else f"this is {describe(root)}"
    raise problems.refuse(
        1, 1, f"{what} must be a mapping, but {found}", "begin with the line 'version: 1'"
    )


def _decode(data: bytes | str, problems: Problems, max_bytes: int) -> str:
    if len(data) > max_bytes:
        size = f"{max_bytes // 2**20} MiB"
        raise problems.refuse(1, 1, f"the file is larger than {size}", f"name a {problems.kind}")
    if isinstance(data, str):
        return data
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _position(data[: error.start].decode("utf-8-sig"))
        raise problems.refuse(
            line,
            column,
            f"the byte 0x{data[error.start]:02x} is not UTF-8",
            "save the file in the encoding UTF-8",
        ) from error


def _position(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _remedy(message: str) -> str:
    """Return what to write instead, from PyYAML's message."""
    for sign, remedy in (
        (r"'\\t'", "indent with spaces, not with tabs"),
        (r"alias", "a string that begins with '*' needs quotes, such as '1.*'"),
        (r"block scalar|'[>|]'", "a string that begins with '>' or '|' needs quotes"),
        (r"cannot start any token", "a string that begins with this character needs quotes"),
        (r"mapping values", "check the indentation; a string with ': ' in it needs quotes"),
        (r"expected <block end>|expected ':'", "check the indentation, and the line above"),
        (r"single document", "remove the line '---', or make two files"),
        (r"quoted scalar", "close the quotes that were opened"),
        (r"flow (sequence|mapping)", "close the bracket that was opened"),
    ):
        if re.search(sign, message):
            return remedy
    return "check this line and the lines above"


def _is_bounded(root: yaml.Node) -> bool:
    """Return whether the document is a tree of at most MAX_NODES with its aliases expanded."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) in open_nodes:
            return MAX_NODES + 1  # it contains itself
        if id(node) not in sizes:
            open_nodes.add(id(node))
            sizes[id(node)] = 1 + sum(size(child) for child in children(node))
            open_nodes.remove(id(node))
        return sizes[id(node)]

    def children(node: yaml.Node) -> list[yaml.Node]:
        if isinstance(node, yaml.MappingNode):
            return [part for pair in node.value for part in pair]
        return list(node.value)

    return size(root) <= MAX_NODES


# --- reading nodes --------------------------------------------------------------------------


def quoted(text: str) -> str:
    """Return `text` as a YAML string in single quotes."""
    return "'" + text.replace("'", "''") + "'"


def describe(node: yaml.Node) -> str:
    """Return what kind of value a node is, for a message."""
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a mapping (key: value)"
    return _KINDS.get(node.tag, f"a value of the kind {node.tag}")


def read_mapping(
    node: yaml.MappingNode,
    problems: Problems,
    where: str,
    known: Sequence[str],
    moved: Mapping[str, str],
) -> dict[str, yaml.Node]:
    """Return the values of the `known` keys; other keys and second values are errors.

    `moved` holds suggestions for keys that belong elsewhere.
    """
    found: dict[str, yaml.Node] = {}
    for key_node, value in read_entries(node, problems):
        key: str = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
        if key in known:
            found[key] = value
            continue
        if key == "<<":
            _refuse_merge(key_node, value, problems)
            continue
        near = difflib.get_close_matches(key.lower(), known, 1)
        if key in moved:
            suggestion = moved[key]
        elif near:
            suggestion = f"did you mean {near[0]!r}?"
        else:
            suggestion = f"known keys are {', '.join(known)}"
        name = repr(presentable(key)) if key else describe(key_node)
        problems.error(key_node, f"unknown key {name} {where}", suggestion)
    return found


def _refuse_merge(key_node: yaml.Node, value: yaml.Node, problems: Problems) -> None:
    """Report a merge key, with the keys to write instead of it."""
    pairs = value.value if isinstance(value, yaml.MappingNode) else []
    keys = [key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
    named = f" ({', '.join(map(presentable, keys))})" if keys else ""
    problems.error(
        key_node, "merge keys ('<<') are not supported", f"write its keys{named} here instead"
    )


def read_entries(
    node: yaml.MappingNode, problems: Problems
) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """Yield keys and values of a mapping; a key that is given twice is an error."""
    lines: dict[str, int] = {}
    for key_node, value in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if key is not None and key in lines:
            problems.error(
                key_node,
                f"{presentable(key)!r} is given twice; line {lines[key]} has it already",
                "keep one of the two",
            )
            continue
        if key is not None:
            lines[key] = place(key_node)[0]
        yield key_node, value


def read_text(node: yaml.Node, problems: Problems, what: str) -> str | None:
    """Return a non-empty string of printable characters, or None after reporting an error."""
    if not isinstance(node, yaml.ScalarNode):
        problems.error(
            node, f"{what} must be a string, but this is {describe(node)}", "write one string"
        )
    elif node.tag == NULL or (node.tag == STRING and not node.value.strip()):
        problems.error(node, f"{what} has no value", "write one, or remove the line")
    elif node.tag != STRING:
        problems.error(
            node,
            f"{what} must be a string, but YAML reads {node.value} as {describe(node)}",
            f"write it in quotes: {quoted(node.value)}",
        )
    elif not all(letter.isprintable() or letter == "\n" for letter in node.value):
        problems.error(node, f"{what} contains control characters", "remove them")
    else:
        return str(node.value)
    return None


def read_texts(node: yaml.Node, problems: Problems, what: str) -> list[tuple[str, yaml.Node]]:
    """Return the strings of a list, each with its node; others are reported and left out."""
    if not isinstance(node, yaml.SequenceNode):
        write = quoted(node.value) if isinstance(node, yaml.ScalarNode) and node.value else "…"
        problems.error(
            node,
            f"{what} must be a list, but this is {describe(node)}",
            f"write {what}: [{write}]",
        )
        return []
    if not node.value:
        problems.error(node, f"{what} is an empty list", "add an item, or remove the line")
    texts = [(read_text(item, problems, f"an item of {what}"), item) for item in node.value]
    return [(text, item) for text, item in texts if text is not None]


class ExposedFile(OSError):
    """A file with a secret can be read by other users."""


def read_named_file(
    node: yaml.Node,
    path: str,
    problems: Problems,
    read_file: Callable[[str], bytes],
    max_bytes: int,
) -> str | None:
    """Return the content of a file that `node` names, or None after reporting an error.

    Args:
        path: Relative to the directory of the file that is parsed.
        read_file: Returns the content of a file; raises OSError, also ExposedFile.
        max_bytes: The content beyond these is left out.
    """
    whole = str(PurePath(problems.name).parent / path)
    try:
        return read_file(whole)[:max_bytes].decode().strip()
    except UnicodeDecodeError:
        why = "it is not UTF-8"
    except ExposedFile:
        message = f"{presentable(path)} has a secret, and other users can read it"
        problems.error(node, message, f"chmod 600 {presentable(whole)}")
        return None
    except OSError as error:
        why = error.strerror or type(error).__name__
    message = f"cannot read {presentable(path)}: {why}"
    problems.error(node, message, "make it readable for this user, or correct the path")
    return None
