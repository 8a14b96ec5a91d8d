"""`wise cache` lists and removes what is kept for later runs."""

import errno
import json
import os

import pytest

from mergekit_wise.cache import KINDS, Cache
from mergekit_wise.options import CACHE_KINDS


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The user's cache, with two heads and decoded images; one head was used long ago."""
    monkeypatch.setenv("WISE_CACHE", str(tmp_path / "cache"))
    cache = Cache.open()
    for kind, key, size in (("heads", f"B-{'0' * 32}", 1500), ("heads", "old", 10), ("images", "photos", 2_000_000)):
        with cache.storing(kind, key) as path:
            path.write_bytes(bytes(size))
    os.utime(tmp_path / "cache" / "heads" / "old", (1, 1))
    return cache


def test_the_list_names_every_entry_with_its_size(cache, wise):
    """A row for each entry, without the digest of its key; then the folder, the sum and the limit."""
    done = wise("cache", "ls")
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.stdout.splitlines()]
    assert {("heads", "B", "1.5", "kB"), ("heads", "old", "10", "bytes"), ("images", "photos", "2", "MB")} <= {
        tuple(row[:4]) for row in rows
    }
    assert str(cache.folder) in done.stdout.replace("\n", "")
    assert "3 entries, 2 MB of" in done.stdout.replace("\n", " ")
    found = json.loads(wise("cache", "ls", "--json").stdout)
    assert (len(found["entries"]), found["size"]) == (3, 2_001_510)


def test_clearing_says_what_was_freed(cache, wise):
    """Entries go by kind and by age; an empty cache is no error."""
    assert "removed 1 entry, 10 bytes freed" in wise("cache", "clear", "heads", "--older-than", "30").stdout
    assert "removed 1 entry, 1.5 kB freed" in wise("cache", "clear", "heads").stdout
    assert json.loads(wise("cache", "clear", "--json").stdout)["removed"] == 1
    assert "removed 0 entries, 0 bytes freed" in wise("cache", "clear").stdout
    assert "0 entries" in wise("cache", "ls").stdout


def test_what_cannot_be_removed_is_an_error(cache, wise, monkeypatch):
    """On a read-only disk nothing is in use by other runs, and nothing is removed."""

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    done = wise("cache", "clear", "heads")
    assert done.exit_code == 1
    assert "2 entries there cannot be removed" in done.stderr.replace("\n", " ")
    assert len(cache.entries()) == 3


def test_an_unknown_kind_is_an_error(wise):
    """The message lists the kinds, which are those of the cache."""
    done = wise("cache", "clear", "head")
    assert done.exit_code == 2
    assert all(kind in done.stderr for kind in KINDS)
    assert CACHE_KINDS == KINDS
