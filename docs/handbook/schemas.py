"""Tables of the keys of JSON and YAML files, from their JSON Schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from docs.handbook.text import code, escaped, table

Schema = Mapping[str, Any]
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "minLength": "characters: at least",
    "maxLength": "characters: at most",
    "minItems": "items: at least",
    "maxItems": "items: at most",
}
_Row = tuple[str, str, str]


def schema_section(text: str, anchor: str) -> str:
    """Return a section with a table of the keys that the JSON Schema `text` describes.

    Args:
        text: The schema.
        anchor: The label of the section; those of the definitions in it begin with the same.
    """
    page = _Page(json.loads(text), anchor)
    schema = page.root
    parts = [f"({anchor})=\n## {escaped(schema.get('title', 'Keys'))}"]
    if "description" in schema:
        parts.append(escaped(schema["description"]))
    parts.append(page.keys(schema))
    while page.waiting:
        name = page.waiting.pop(0)
        definition = schema["$defs"][name]
        parts += [f"({page.anchor(name)})=\n### {escaped(name)}"]
        if "description" in definition:
            parts.append(escaped(definition["description"]))
        parts.append(page.keys(definition))
    return "\n\n".join(part for part in parts if part) + "\n"


@dataclass
class _Page:
    root: Schema
    prefix: str
    waiting: list[str] = field(default_factory=list)
    """Definitions that a table links to and that have no section yet."""
    linked: set[str] = field(default_factory=set)

    def anchor(self, name: str) -> str:
        """Return the label of a definition."""
        return f"{self.prefix}-{re.sub(r'[^a-z0-9]+', '-', name.lower())}"

    def keys(self, schema: Schema) -> str:
        rows = list(self.rows(schema, ""))
        if rows:
            return table(("key", "value", "meaning"), rows)
        return f"Value: {self.kind(schema)}." if schema.get("type") != "object" else ""

    def rows(self, schema: Schema, prefix: str) -> Iterator[_Row]:
        """Yield the keys of an object, those of objects inside it with their path."""
        required = set(schema.get("required", ()))
        for key, value in schema.get("properties", {}).items():
            path = f"{prefix}{key}"
            needed = " (required)" if key in required else ""
            yield code(path) + needed, self.kind(value), self.meaning(value)
            yield from self.nested(value, path)
        extra = schema.get("additionalProperties")
        if isinstance(extra, Mapping) and extra:
            yield f"{code(f'{prefix}NAME')}", self.kind(extra), self.meaning(extra)
            yield from self.nested(extra, f"{prefix}NAME")
        for each in (*schema.get("allOf", ()), *schema.get("oneOf", ()), *schema.get("anyOf", ())):
            if "properties" in each and "properties" not in schema:
                yield from self.rows(each, prefix)

    def nested(self, schema: Schema, path: str) -> Iterator[_Row]:
        for each in (schema, *schema.get("oneOf", ()), *schema.get("anyOf", ())):
            if "properties" in each or isinstance(each.get("additionalProperties"), Mapping):
                yield from self.rows(each, f"{path}.")
            items = each.get("items")
            if isinstance(items, Mapping) and "$ref" not in items:
                yield from self.nested(items, f"{path}[]")

    def resolve(self, reference: str) -> Schema:
        found: Any = self.root
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        assert isinstance(found, Mapping)
        return found

    def meaning(self, schema: Schema) -> str:
        own = schema.get("description")
        if own is None and "$ref" in schema:
            return self.meaning(self.resolve(schema["$ref"]))
        if own is None and isinstance(schema.get("items"), Mapping):
            own = schema["items"].get("description")
        text = escaped(own or "")
        if "default" in schema:
            text += f" Default: {code(json.dumps(schema['default']))}."
        if schema.get("examples"):
            shown = ", ".join(code(json.dumps(each)) for each in schema["examples"][:3])
            text += f" Example: {shown}."
        return text

    def kind(self, schema: Schema) -> str:
        """Return which values the schema allows, in words."""
        if "$ref" in schema:
            return self._reference(schema["$ref"])
        for combined in ("oneOf", "anyOf"):
            if combined in schema and "type" not in schema:
                return " or ".join(dict.fromkeys(self.kind(each) for each in schema[combined]))
        if "const" in schema:
            return code(json.dumps(schema["const"]))
        if "enum" in schema:
            return ", ".join(code(json.dumps(each)) for each in schema["enum"])
        types = schema.get("type", ())
        names = [types] if isinstance(types, str) else list(types)
        return " or ".join(self._one_kind(name, schema) for name in names) or "any"

    def _one_kind(self, name: str, schema: Schema) -> str:
        if name == "array":
            items = schema.get("items")
            return f"array of {self.kind(items)}" if items else "array"
        limits = [f"{_BOUNDS[key]} {schema[key]}" for key in _BOUNDS if key in schema]
        if name in ("integer", "number", "string") and limits:
            return f"{name}, {', '.join(limits)}"
        return name

    def _reference(self, reference: str) -> str:
        target = self.resolve(reference)
        parent, _, name = reference.removeprefix("#/").rpartition("/")
        if parent != "$defs" or not ("properties" in target or "oneOf" in target):
            return self.kind(target)
        if name not in self.linked:
            self.linked.add(name)
            self.waiting.append(name)
        return f"[{escaped(name)}](#{self.anchor(name)})"
