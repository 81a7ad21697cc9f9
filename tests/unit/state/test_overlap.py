from __future__ import annotations

from pathlib import Path

import pytest

from publisher.state.overlap import OtherRun, only_run
from tests.components import require_mounts, run


def test_runs_exclude_each_other_on_a_full_disk(tmp_path: Path) -> None:
    require_mounts()
    run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path)
    try:
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "filling").write_bytes(bytes(1 << 20))
        works = [("dir:/images", "/lists/a.yaml"), ("dir:/images", "/lists/b.yaml")]
        notes: list[str] = []
        with only_run(tmp_path, works, notes.append):
            for each in works:
                with pytest.raises(OtherRun), only_run(tmp_path, [each], notes.append):
                    pass
        assert notes == []
    finally:
        run("umount", tmp_path)
