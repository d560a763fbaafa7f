"""Copies of a store's files: fetched once, and never more of them than the limit allows."""

from __future__ import annotations

import os
import time

import pytest

from catalog.far_store import FarStore
from catalog.near_cache import CacheLimitError, NearCache, near_copy


@pytest.fixture
def far(tmp_path):
    """A store of four files of 100 bytes."""
    store = FarStore(f"file://{tmp_path}/nas")
    for i in range(4):
        store.put_bytes(bytes([i]) * 100, f"{i}.index")
    return store


def used(copy, hours_ago):
    then = time.time() - 3600 * hours_ago
    os.utime(copy, (then, then))


def test_a_file_is_fetched_once_and_again_when_it_was_written_anew(far, tmp_path, monkeypatch):
    cache = NearCache(tmp_path / "cache", 10_000)
    fetched = []
    get = FarStore.get
    monkeypatch.setattr(FarStore, "get", lambda *a, **k: fetched.append(a[1]) or get(*a, **k))

    first, second = cache.copy_of(far, "0.index"), cache.copy_of(far, "0.index")
    far.put_bytes(b"new", "0.index")

    assert (first, fetched) == (second, ["0.index"])
    assert cache.copy_of(far, "0.index").read_bytes() == b"new"
    assert first.read_bytes() == bytes(100)


def test_what_was_not_used_for_longest_gives_way(far, tmp_path):
    """Room for two of four: the second was used a day ago, the third two days ago, the first just now."""
    folder = tmp_path / "cache"
    copies = [NearCache(folder, 1_000).copy_of(far, f"{i}.index") for i in range(3)]
    for copy, hours_ago in zip(copies, (72, 24, 48), strict=True):
        used(copy, hours_ago)
    cache = NearCache(folder, 250)
    cache.copy_of(far, "0.index")

    last = cache.copy_of(far, "3.index")

    assert [copy.is_file() for copy in (*copies, last)] == [True, False, False, True]
    assert len(list(folder.iterdir())) == 2


def test_what_was_used_within_the_hour_stays_above_the_limit(far, tmp_path):
    copies = [NearCache(tmp_path / "cache", 50).copy_of(far, f"{i}.index") for i in range(3)]

    assert all(copy.is_file() for copy in copies)


def test_remains_of_a_killed_fetch_give_way_too(far, tmp_path):
    folder = tmp_path / "cache"
    remains = folder / "0123" / "tmpabcd" / "9.index"
    remains.parent.mkdir(parents=True)
    remains.write_bytes(bytes(500))
    used(remains, 24)

    NearCache(folder, 300).copy_of(far, "0.index")

    assert not (folder / "0123").exists()


@pytest.mark.parametrize("limit", ["much", "nan", "inf"])
def test_a_limit_that_is_none_is_refused_by_its_name(far, tmp_path, monkeypatch, limit):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CLEANPLATE_CACHE_GB", limit)

    with pytest.raises(CacheLimitError, match=f"CLEANPLATE_CACHE_GB='{limit}' is not a number"):
        near_copy(far, "0.index")
