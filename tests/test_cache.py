"""Tests of the cache: entries appear whole, are private, and make room for newer ones."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mergekit_wise.cache import KINDS, Cache, cache_folder, key_of
from mergekit_wise.checkpoint.writing import partial_name
from mergekit_wise.errors import UsageError


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def store(cache, key, content=b"x", kind="heads", used=None):
    with cache.storing(kind, key) as path:
        path.write_bytes(content)
    if used is not None:
        os.utime(cache.folder / kind / key, (used, used))


def keys(cache):
    return [entry.key for entry in cache.entries()]


def test_what_is_stored_is_found_by_a_later_run(folder):
    """An entry has the bytes that were written, and is found under its kind and key alone."""
    store(Cache(folder, 1000), "a", b"content")
    cache = Cache(folder, 1000)
    found = cache.find("heads", "a")
    assert found.read_bytes() == b"content"
    assert cache.find("images", "a") is cache.find("heads", "b") is None
    assert [(entry.kind, entry.key, entry.size) for entry in cache.entries()] == [("heads", "a", 7)]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
def test_a_failing_block_stores_nothing(failure, folder):
    """Exceptions pass through; there is no entry and no partial file, and an earlier entry stays."""
    cache = Cache(folder, 1000)
    store(cache, "earlier", b"1")
    for key in ("earlier", "new"):
        with pytest.raises(failure), cache.storing("heads", key) as path:
            path.write_bytes(b"2")
            raise failure
    assert [path.name for path in (folder / "heads").iterdir()] == ["earlier"]
    assert cache.find("heads", "earlier").read_bytes() == b"1"


def test_a_full_disk_ends_no_run_and_is_noted_once(folder):
    """Where writing fails there is no entry, one note says why, and the run goes on."""
    notes = []
    cache = Cache(folder, 1000, notes.append)
    for key in ("a", "b"):
        with cache.storing("heads", key) as path:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list((folder / "heads").iterdir()) == []
    assert len(notes) == 1
    assert "No space left on device" in notes[0]
    assert str(folder) in notes[0]


def test_a_folder_that_cannot_be_written_ends_no_run(tmp_path):
    """Where the cache folder cannot be created, a block fails to write, and one note says why."""
    (tmp_path / "file").touch()
    notes = []
    cache = Cache(tmp_path / "file" / "cache", 1000, notes.append)
    for _ in range(2):
        with cache.storing("heads", "a") as path:
            path.write_bytes(b"x")
            pytest.fail("written somewhere")
    assert cache.find("heads", "a") is None
    assert cache.entries() == []
    assert len(notes) == 1
    assert "Not a directory" in notes[0]


def test_the_least_recently_used_entries_make_room(folder):
    """Beyond the limit the entry goes that was stored or found the longest time ago; finding one counts as use."""
    cache = Cache(folder, 100)
    for number, key in enumerate("abcd"):
        store(Cache(folder, 1000), key, bytes(30), used=1000 + number)
    assert cache.find("heads", "a")
    store(Cache(folder, 100), "e", bytes(30))
    assert keys(cache) == ["a", "d", "e"]


def test_an_entry_larger_than_the_limit_is_not_kept(folder):
    """It removes no other entry, whether its size is known before or when it is written, and is noted."""
    notes = []
    cache = Cache(folder, 100, notes.append)
    store(cache, "a", bytes(90))
    assert not cache.make_room(101)
    assert keys(cache) == ["a"]
    assert cache.make_room(10)
    assert keys(cache) == ["a"]
    store(cache, "b", bytes(101))
    assert keys(cache) == ["a"]
    assert [path.name for path in (folder / "heads").iterdir()] == ["a"]
    assert "its limit is 100 bytes" in notes[0]


def test_an_entry_makes_room_for_its_successor(folder):
    """What replaces an entry may take its room, so that no other is removed; one that is too large leaves it alone."""
    cache = Cache(folder, 100)
    store(cache, "other", bytes(40), used=1)
    store(cache, "a", bytes(50))
    store(cache, "a", bytes(60))
    assert [(entry.key, entry.size) for entry in cache.entries()] == [("a", 60), ("other", 40)]
    store(cache, "a", bytes(101))
    assert [(entry.key, entry.size) for entry in cache.entries()] == [("a", 60), ("other", 40)]


def test_no_more_than_half_of_what_the_disk_has_free_is_taken(folder, monkeypatch):
    """With 30 bytes free beside 50 used, entries may take 40, whatever limit is given."""
    cache = Cache(folder, 1000)
    store(cache, "a", bytes(50))
    monkeypatch.setattr("mergekit_wise.cache.free_bytes", lambda _: 30)
    assert cache.limit == 40
    assert not cache.make_room(41)
    assert keys(cache) == ["a"]
    monkeypatch.setattr("mergekit_wise.cache.free_bytes", lambda _: 20)  # ten bytes of which are now in a file
    store(cache, "b", bytes(10))
    assert keys(cache) == ["b"]


@pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be removed there anyway")
def test_entries_in_use_are_not_removed(folder):
    """What another process has found is removed neither for room nor by clearing, until that process ends."""
    store(Cache(folder, 100), "a", bytes(60), used=1)
    program = (
        "import sys; from pathlib import Path; from mergekit_wise.cache import Cache; "
        "cache = Cache(Path(sys.argv[1]), 100); print(cache.find('heads', 'a'), flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout.readline().strip() == str(folder / "heads" / "a")
        os.utime(folder / "heads" / "a", (1, 1))
        store(Cache(folder, 100), "b", bytes(60))
        assert keys(Cache(folder, 100)) == ["a"]
        removed, in_use = Cache(folder, 100).clear()
        assert ([entry.key for entry in removed], [entry.key for entry in in_use]) == ([], ["a"])
        user.communicate("\n")
    removed, in_use = Cache(folder, 100).clear()
    assert ([entry.key for entry in removed], in_use) == (["a"], [])


def test_file_systems_without_locks_have_a_limit_too(folder, monkeypatch):
    """Where nothing can be locked, entries are found, and removed to make room."""

    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    cache = Cache(folder, 100)
    store(cache, "a", bytes(60), used=1)
    assert cache.find("heads", "a")
    os.utime(folder / "heads" / "a", (1, 1))
    store(cache, "b", bytes(60))
    assert keys(cache) == ["b"]


def test_clearing_leaves_other_kinds_and_recent_entries(folder):
    """`clear` removes the entries of the given kinds that have not been used for some days."""
    cache = Cache(folder, 1000)
    store(cache, "old", used=1)
    store(cache, "new")
    store(cache, "old", kind="images", used=1)
    removed, _ = cache.clear(("heads",), older_than=1)
    assert [entry.key for entry in removed] == ["old"]
    assert [(entry.kind, entry.key) for entry in cache.entries()] == [("heads", "new"), ("images", "old")]


def test_what_a_killed_run_left_is_removed(folder):
    """Partial files that nobody has locked are removed when the cache is read; other files are left alone."""
    cache = Cache(folder, 1000)
    store(cache, "a")
    partial_name(folder / "heads" / "b").write_bytes(b"half")
    (folder / "heads" / ".own").touch()
    assert keys(cache) == ["a"]
    assert sorted(path.name for path in (folder / "heads").iterdir()) == [".own", "a"]


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_the_cache_is_private_and_trusts_no_links(folder, tmp_path):
    """Folders are for the user alone; a folder or entry that is a link, or that others may write, is not used."""
    cache = Cache(folder, 1000)
    store(cache, "a")
    assert (folder / "heads").stat().st_mode & 0o777 == 0o700
    (folder / "heads" / "link").symlink_to(folder / "heads" / "a")
    assert cache.find("heads", "link") is None
    assert keys(cache) == ["a"]
    (folder / "heads").chmod(0o777)
    assert Cache(folder, 1000).find("heads", "a") is None
    other = tmp_path / "other"
    other.mkdir()
    (other / "heads").symlink_to(folder / "heads")
    notes = []
    store(Cache(other, 1000, notes.append), "b")
    assert Cache(other, 1000).find("heads", "a") is None
    assert not (folder / "heads" / "b").exists()
    assert "link" in notes[0]


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    """WISE_CACHE comes first, then XDG_CACHE_HOME, then the home folder; empty variables count as none.

    By the XDG specification, so does a relative path in XDG_CACHE_HOME.
    """
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("WISE_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own"
    monkeypatch.setenv("WISE_CACHE", "")
    assert cache_folder() == Path("/xdg/mergekit_wise")
    for relative in ("cache", "./cache", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
        assert cache_folder() == tmp_path / ".cache" / "mergekit_wise"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / ".cache" / "mergekit_wise"


def test_a_user_without_a_home_folder_has_a_cache(monkeypatch, tmp_path):
    """As in containers under any number; it is beside temporary files. A home that WISE_CACHE names must exist."""
    for name in ("HOME", "XDG_CACHE_HOME", "WISE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache_folder() == tmp_path / f"mergekit_wise-{os.getuid()}"
    monkeypatch.setenv("WISE_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(UsageError, match="WISE_CACHE=~nobody-of-this-name/cache"):
        cache_folder()


def test_a_folder_that_may_not_be_entered_ends_no_run(tmp_path, monkeypatch):
    """As the home folder of another user: its limit is asked for before anything is stored."""
    locked = tmp_path / "home"
    locked.mkdir()

    def refusing(path, **kwargs):
        if Path(os.fsdecode(path)).is_relative_to(locked / "cache"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return stat(path, **kwargs)

    stat = os.stat
    monkeypatch.setattr("os.stat", refusing)
    cache = Cache(locked / "cache" / "own", 1000)
    assert cache.make_room(10)
    assert cache.entries() == []


def test_the_limit_follows_the_environment(monkeypatch, tmp_path):
    """WISE_CACHE_LIMIT is a size with a unit; anything else is an error that names it."""
    monkeypatch.setenv("WISE_CACHE", str(tmp_path))
    monkeypatch.setenv("WISE_CACHE_LIMIT", "2MB")
    assert Cache.open().limit == 2_000_000
    monkeypatch.setenv("WISE_CACHE_LIMIT", "much")
    with pytest.raises(UsageError, match="WISE_CACHE_LIMIT much"):
        Cache.open()


def test_keys_are_readable_file_names_that_differ_with_every_fact(tmp_path):
    """A key begins with its label, is a name that the cache takes, and changes with each fact it is made of."""
    facts = {"weights": "1f", "versions": {"torch": "2"}}
    key = key_of("ViT-B/32 openai: 10 classes", facts)
    assert key.startswith("ViT-B-32-openai-10-classes-")
    assert key == key_of("ViT-B/32 openai: 10 classes", dict(reversed(facts.items())))
    assert key != key_of("ViT-B/32 openai: 10 classes", facts | {"versions": {"torch": "3"}})
    cache = Cache(tmp_path, 1000)
    for label in ("..", "x" * 500, "\u00e9\x1b[0m", ""):
        store(cache, key_of(label, facts))
    assert {entry.label for entry in cache.entries()} == {"entry", "x" * 80, "0m"}
    with pytest.raises(ValueError, match="name"):
        cache.find("heads", "../heads/a")
    with pytest.raises(ValueError, match="name"):
        cache.find("other", "a")
    assert "heads" in KINDS
