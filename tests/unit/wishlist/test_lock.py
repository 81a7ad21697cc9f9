"""The file of a lock is read as it was written, and anything else is refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.wishlist import parse_wish_list
from publisher.wishlist.lock import HEADER, Lock, LockError, locked_images, parse_lock

NAMES = st.sampled_from(
    ["docker.io/library/a:1", "http://x.example.org/a:1", "oci:/srv/ö:v", "local.example/a/b:x"]
)
DIGESTS = st.sampled_from(["", "sha256:" + "0" * 64, "sha512:" + "f" * 128])
PATTERNS = st.sampled_from(
    ['docker.io/library/a [">=1, <2"]', 'quay.io/x/y ["1.*","2"] except ["*-rc*"]']
)


@given(st.dictionaries(NAMES, DIGESTS), st.frozensets(PATTERNS))
def test_a_lock_is_read_as_it_was_written(
    digests: dict[str, str], patterns: frozenset[str]
) -> None:
    lock = Lock(digests, patterns)
    text = lock.to_text()
    assert parse_lock(text.encode(), "l.lock", "l") == lock
    lines = text.splitlines()[1:-1]
    assert lines == sorted(lines)


def test_a_lock_that_was_not_written_to_its_end_is_refused() -> None:
    data = Lock({"docker.io/library/a:1": "sha256:" + "0" * 64}).to_text().encode()
    for cut in range(len(data)):
        with pytest.raises(LockError):
            parse_lock(data[:cut], "l.lock", "l")


@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode)))
def test_anything_else_is_refused(data: bytes) -> None:
    for text in (data, f"{HEADER}\n".encode() + data + b"\n# end\n"):
        try:
            lock = parse_lock(text, "l.lock", "l")
        except LockError as error:
            assert error.problems
            assert error.hint == "publisher lock l"
        else:
            assert lock.to_text().encode() == text


def test_an_entry_of_a_wish_with_an_error_is_not_called_superfluous() -> None:
    wish_list = parse_wish_list("version: 2\nimages: [a:1, B:1]\n", "l")
    digests = {f"docker.io/library/{name}:1": "sha256:" + "0" * 64 for name in "ab"}
    lock = parse_lock(Lock(digests).to_text().encode(), "l.lock", "l")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    [images] = locked_images(lock, wish_list, "l.lock", now)
    assert [str(reference) for reference in images] == ["docker.io/library/a:1"]
    sound = parse_wish_list("version: 2\nimages: [a:1]\n", "l")
    with pytest.raises(LockError, match=r"no wish of l requests .*/b:1"):
        locked_images(lock, sound, "l.lock", now)
