"""The JSON Schemas that the project documents, ready to validate with."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, ValidationError

ROOT = Path(__file__).parent.parent


@functools.cache
def layout_schema(name: str) -> Draft202012Validator:
    """The schema of a metadata file in the published tree: "origin", "publication", …"""
    return _validator(ROOT / "layout" / "schemas" / f"{name}.schema.json")


@functools.cache
def output_schema(kind: str) -> Draft202012Validator:
    """The schema of what a command prints with `--output json`: "list/1", …"""
    return _validator(ROOT / "docs" / "schemas" / f"{kind.replace('/', '-')}.schema.json")


@functools.cache
def recipe_schema() -> Draft202012Validator:
    """The schema of thin.json."""
    return _validator(ROOT / "thin-images" / "recipe.schema.json")


def refuses(validator: Draft202012Validator, value: Any) -> bool:
    """Whether the schema does not accept `value`."""
    try:
        validator.validate(value)
    except ValidationError:
        return True
    return False


def _validator(path: Path) -> Draft202012Validator:
    schema = json.loads(path.read_bytes())
    Draft202012Validator.check_schema(schema)
    # Formats (dates) are asserted, not only annotated.
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def strict(validator: Draft202012Validator) -> Draft202012Validator:
    """The same schema, refusing keys that it does not describe: all written keys are documented.

    The published schemas allow them, since readers must expect what later releases add.
    """
    return Draft202012Validator(
        _closed(validator.schema), format_checker=Draft202012Validator.FORMAT_CHECKER
    )


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("additionalProperties") is True:
        closed["additionalProperties"] = False
    return closed
