"""The templates show what the pages have."""

from __future__ import annotations

import dataclasses
import inspect
import re
from importlib import resources

from publisher.site import pages


def test_the_templates_use_every_field_of_the_pages() -> None:
    package = resources.files("publisher.site")
    files = [*(package / "templates").iterdir(), package / "rendering.py"]
    text = "\n".join(file.read_text() for file in files)
    used = set(re.findall(r"\.([a-z_]+)", text))
    for name, page in inspect.getmembers(pages, dataclasses.is_dataclass):
        assert isinstance(page, type)
        missing = {field.name for field in dataclasses.fields(page)} - used
        assert not missing, f"no template shows {missing} of {name}"
