"""Bills of materials, as the validators of CycloneDX and SPDX accept them."""

from __future__ import annotations

import json
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document


def valid_cyclonedx(document: bytes) -> Any:
    errors = JsonStrictValidator(SchemaVersion.V1_6).validate_str(document.decode())
    assert errors is None, errors
    return json.loads(document)


def valid_spdx(document: bytes) -> Any:
    value = json.loads(document)
    parsed = JsonLikeDictParser().parse(json.loads(document))  # type: ignore[no-untyped-call]
    assert validate_full_spdx_document(parsed) == []
    return value
