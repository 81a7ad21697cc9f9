"""The wishes of lists, as webhooks see them."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from publisher.cli.served_lists import FRESH_SECONDS, ServedLists
from publisher.wishlist import WishListError
from tests.http_server import Received, http_server
from tests.registry import wait_for


def write(path: Path, *images: str) -> None:
    path.write_text("version: 2\nimages:\n" + "".join(f"  - {each}\n" for each in images))


def texts(lists: ServedLists, source: str) -> list[str]:
    return [str(wish) for wish in lists(source)]


def test_a_file_is_read_again_after_each_change(tmp_path: Path) -> None:
    path, lists = tmp_path / "list.yaml", ServedLists()
    with pytest.raises(WishListError, match="cannot read wish list"):
        lists(str(path))
    write(path, "quay.io/a/b:1", "not a reference !")
    assert texts(lists, str(path)) == ["quay.io/a/b:1"]
    assert lists(str(path)) is lists(str(path))
    write(path, "quay.io/a/b:1", "quay.io/a/c:1")
    assert len(lists(str(path))) == 2
    os.unlink(path)  # what was read last counts
    assert len(lists(str(path))) == 2


def test_an_address_is_read_each_minute_by_one_thread(tmp_path: Path) -> None:
    go, asked = threading.Event(), []

    def respond(request: Received) -> None:
        asked.append(request.path)
        go.wait(60)
        request.answer(b"version: 2\nimages: ['quay.io/a/b:%d']\n" % len(asked))

    now = [0.0]
    lists = ServedLists(lambda: now[0], patience=60)
    hasty = ServedLists(patience=0.01)
    with http_server(respond) as url:
        source = f"{url}/list.yaml"
        with ThreadPoolExecutor(4) as pool:
            found = [pool.submit(texts, lists, source) for _ in range(4)]
            wait_for(lambda: bool(asked))
            go.set()
            assert [each.result() for each in found] == [["quay.io/a/b:1"]] * 4
        now[0] = FRESH_SECONDS - 1
        assert texts(lists, source) == ["quay.io/a/b:1"]
        now[0] = FRESH_SECONDS
        assert texts(lists, source) == ["quay.io/a/b:2"] and len(asked) == 2
        go.clear()
        with pytest.raises(WishListError, match="it was not read in time"):
            hasty(source)
        go.set()
