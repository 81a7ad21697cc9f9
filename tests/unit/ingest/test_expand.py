"""`publisher expand` prints the images that wish lists request now."""

from __future__ import annotations

from pathlib import Path

from tests.command import publisher
from tests.registry import OwnRegistry
from tests.registry_images import sample_image
from tests.schemas import output_schema, strict


def test_patterns_are_replaced_by_the_tags_that_match(tmp_path: Path) -> None:
    wish_list = tmp_path / "l.yaml"
    with OwnRegistry() as registry:
        for tag in ("1.9", "1.10", "2.0", "1.10-rc1"):
            registry.add("team/app", tag, sample_image())
        host = registry.host
        wish_list.write_text(
            f"version: 2\nrepository: dir:/srv/x\nimages:\n- {{image: 'http://{host}/team/app', "
            f"tags: ['1.*'], exclude: ['*-rc*']}}\n- http://{host}/team/app:1.9\n"
            f"- http://{host}/team/other:1\n- {{image: debian, expires: 2020-01-01}}\n"
        )
        sound = publisher("expand", wish_list)
        assert (sound.code, sound.err) == (0, "")
        assert sound.out.splitlines() == [
            f"http://{host}/team/app:1.9",
            f"http://{host}/team/app:1.10",
            f"http://{host}/team/other:1",
        ]
        assert [request.path for request in registry.requests] == ["/v2/team/app/tags/list"]
        with wish_list.open("a") as file:
            file.write(f"- http://{host}/team/app:3.*\n- A/b\n")
        result = publisher("expand", wish_list, "--output", "json")
        assert result.code == 1
        strict(output_schema("expand/1")).validate(result.json)
        found = [(i["line"], i["reference"], bool(i["error"])) for i in result.json["images"]]
        assert found == [
            (4, f"http://{host}/team/app:1.9", False),
            (4, f"http://{host}/team/app:1.10", False),
            (6, f"http://{host}/team/other:1", False),
            (8, f"http://{host}/team/app", True),
            (9, "A/b", True),
        ]
        failed = publisher("expand", wish_list)
        assert (failed.code, failed.out) == (1, sound.out)
        assert f"{wish_list}:8:3: failed: http://{host}/team/app:3.*: no tag matches" in failed.err
        assert f"{wish_list}:9:3: failed: A/b: 'A/b' is not an image reference" in failed.err
