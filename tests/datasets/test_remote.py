"""Tars on a server are the data set that they are in a folder; what a server does wrong is a sentence."""

import io
import pickle
import re
import tarfile
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from mergekit_wise.datasets import remote
from mergekit_wise.datasets.addresses import is_address
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.datasets.own_folders import open_folder, open_remote
from mergekit_wise.datasets.remote import addresses
from mergekit_wise.datasets.remote_tars import RemoteShards, _in_threads
from mergekit_wise.datasets.subsets import few_shot
from mergekit_wise.errors import SuiteError
from mergekit_wise.training.features import digest_of_images
from tests.hub_server import Replies, serving

CLASSES = ("bee", "wasp", "fly")


@dataclass
class Disk:
    """Files by path; what was asked for; and what the server does to a path: the values of `Handler.do_GET`."""

    files: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)
    does: dict = field(default_factory=dict)
    tag: str = '"1"'
    url: str = ""


class Handler(Replies):
    def do_GET(self, body=True):
        disk, path = self.server.hub, self.path.partition("?")[0]
        disk.asked.append((path, self.headers.get("Range"), self.headers.get("Authorization")))
        does = disk.does.get(path)
        if isinstance(does, list):
            does = does.pop(0) if does else None
        if isinstance(does, int):
            return self.reply(does, b"", {})
        if isinstance(does, str) and does.startswith("to "):
            return self.reply(302, b"", {"Location": does.removeprefix("to ")})
        path = path.partition("/resolve/main/")[2] or path.lstrip("/")
        if path not in disk.files:
            return self.reply(404, b"", {})
        data = disk.files[path]
        if does == "ignore":
            return self.reply(200, data, {})
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        part = data[first : last + 1]
        headers = {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"}
        if isinstance(does, str) and does.startswith("bytes "):
            headers["Content-Range"] = does
        headers |= {"ETag": disk.tag} if disk.tag else {}
        return self.reply(206, part, headers, cut=len(part) // 2 if does == "cut" else None)


def tar_of(numbers):
    """A tar of images with a label each, as bytes."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for number in numbers:
            image = io.BytesIO()
            Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(image, "PNG")
            for ending, data in (("png", image.getvalue()), ("cls", str(number % 3).encode())):
                info = tarfile.TarInfo(f"{number:04}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return content.getvalue()


@pytest.fixture
def disk(monkeypatch, tmp_path):
    """A server with the folder insects/test of two tars; pauses are short, and the cache is empty."""
    monkeypatch.setenv("WISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_PAUSES", (0.0, 0.0))
    monkeypatch.setenv("no_proxy", "*")
    files = {f"insects/test/{shard}.tar": tar_of(range(20 * shard, 20 * shard + 20)) for shard in (0, 1)}
    files |= {"insects/test/nshards.txt": b"2\n", "insects/classnames.txt": "\n".join(CLASSES).encode()}
    with serving(Disk(files), Handler) as disk:
        yield disk


def local(disk, tmp_path):
    """The same files in a folder."""
    for name, data in disk.files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return open_folder(tmp_path / "insects" / "test")


@pytest.mark.parametrize("tail", ["/{0..1}.tar", "", "/", "/{0..1}.tar?signature=secret"])
def test_tars_on_a_server_are_those_in_a_folder(tail, disk, tmp_path):
    """Labels, classes, pixels and fingerprint are those of the downloaded folder; no secret is in a name."""
    here, there = local(disk, tmp_path), open_remote(f"{disk.url}/insects/test{tail}")
    assert there.name == "insects"
    assert there.classnames == here.classnames == CLASSES
    assert there.labels.tolist() == here.labels.tolist() == [number % 3 for number in range(40)]
    copy = pickle.loads(pickle.dumps(there))  # as worker processes get it
    for index in (39, 0, 1, 2, 20):
        assert np.array_equal(np.asarray(copy.image(index)), np.asarray(here.image(index)))
    assert fingerprint(there) == fingerprint(here)
    assert there.sample(20) == f"{disk.url}/insects/test/1.tar:0020.png"


def test_a_tar_is_listed_once_and_again_when_it_changes(disk):
    """A second run asks for the size of each tar and reads no headers; one whose version is new is listed again."""
    address = f"{disk.url}/insects/test/{{0..1}}.tar"
    open_remote(address)
    disk.asked.clear()
    open_remote(address)
    assert [span for path, span, _ in disk.asked if path.endswith(".tar")] == ["bytes=0-0"] * 2
    disk.files["insects/test/1.tar"], disk.tag = tar_of(range(3)), '"2"'
    assert len(open_remote(address)) == 23


def test_listing_and_reading_in_order_take_few_requests(disk):
    """Forty images and labels are listed and read with one request for two images at most."""
    dataset = open_remote(f"{disk.url}/insects/test")
    for index in range(len(dataset)):
        dataset.image(index)
    assert sum(path.endswith(".tar") for path, *_ in disk.asked) <= 20


def test_images_on_servers_are_recognised_without_being_read(disk):
    """Cached features of them are found by the files' sizes and versions; without versions, every image is read."""
    address = f"{disk.url}/insects/test/{{0..1}}.tar"
    dataset = open_remote(address)
    disk.asked.clear()
    known = digest_of_images(dataset)
    assert not disk.asked
    assert digest_of_images(open_remote(f"{address}?signature=other")) == known
    assert digest_of_images(few_shot(dataset, 2, 0)) != known
    disk.tag = '"2"'
    assert digest_of_images(open_remote(address)) != known
    disk.tag = ""
    dataset = open_remote(address)
    disk.asked.clear()
    digest_of_images(dataset)
    assert sum(path.endswith(".tar") for path, *_ in disk.asked) > 2


def test_names_and_toml_files_may_be_addresses(disk, tmp_path):
    """An address is a data set of a suite, by itself and as the root of a TOML file."""
    address = f"{disk.url}/insects/test/{{0..1}}.tar"
    (tmp_path / "mine.toml").write_text(f'root = "{address}"\ntitle = "Mine"\nmetric = "mean-per-class"\n')
    (tmp_path / "all.toml").write_text(f'reference = "{address}"\nshifts = ["mine.toml"]\n')
    suite = open_suite(str(tmp_path / "all.toml"))
    assert suite.reference.name == "insects"
    assert [(shift.title, shift.metric.kind, len(shift)) for shift in suite.shifts] == [("Mine", "mean-per-class", 40)]
    assert len(open_suite(address, use="train").shifts[0]) == 40


def test_no_record_and_no_error_of_a_suite_holds_a_signature(disk):
    """The suite has the address in its name, without the query, also as the reference and where names collide."""
    one = f"{disk.url}/insects/test/{{0..1}}.tar?key=secret"
    assert open_suite(one).name == f"{disk.url}/insects/test/{{0..1}}.tar"
    assert "secret" not in open_suite(one, reference=f"{disk.url}/insects/test/{{0..1}}.tar?key=secret").name
    with pytest.raises(SuiteError, match="is already that of") as caught:
        open_suite(f"{one},{disk.url}/insects/test/0.tar?key=secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("does", [503, 429, "cut"])
def test_a_failure_that_passes_is_tried_again(does, disk):
    """A busy server and a cut connection are asked again; if it does not pass, the error says so."""
    disk.does["/insects/test/0.tar"] = [does]
    assert len(open_remote(f"{disk.url}/insects/test/0.tar")) == 20
    disk.does["/insects/test/0.tar"] = [does] * 100
    with pytest.raises(SuiteError, match=r"insects/test/0\.tar: cannot be read: .*Tried 3 times"):
        open_remote(f"{disk.url}/insects/test/0.tar").image(0)


@pytest.mark.parametrize(
    ("does", "says"),
    [
        (404, "no such file"),
        (403, "does not let you read"),
        (400, "HTTP 400"),
        ("ignore", "ignores the range"),
        ("to ftp://127.0.0.1/0.tar", "leads to ftp"),
        ("to file:///etc/passwd", "HTTP 302"),
        ("to http://[::1", "no valid address"),
        ("to http://me:secret@127.0.0.1/0.tar", "no valid address"),
        (f"bytes 0-0/{'9' * 5000}", "another range"),
        ("bytes 0-0/0", "another range"),
    ],
)
def test_what_a_server_refuses_is_a_sentence(does, says, disk):
    """Missing and forbidden files, servers without ranges and redirections elsewhere are named, and asked once."""
    disk.does["/insects/test/0.tar"] = does
    with pytest.raises(SuiteError, match=says) as caught:
        open_remote(f"{disk.url}/insects/test/0.tar?key=secret")
    assert "secret" not in str(caught.value)
    assert len(disk.asked) == 1


def test_an_encrypted_connection_is_not_left():
    """A redirection from https to http is refused."""
    request = remote.urllib.request.Request("https://host/0.tar")
    with pytest.raises(SuiteError, match="https:// alone"):
        remote._Redirects().redirect_request(request, None, 302, "", {}, "http://host/0.tar")


def test_a_tar_that_changes_while_it_is_read_is_refused(disk):
    """An image of another version of the tar is an error, not a wrong image."""
    dataset = open_remote(f"{disk.url}/insects/test/0.tar")
    disk.tag = '"2"'
    with pytest.raises(SuiteError, match="has changed since it was listed"):
        dataset.image(7)


def test_files_on_the_hub_are_read_with_the_users_token(disk, monkeypatch):
    """An hf:// address is that of the hub's file; the token is sent to the hub and to no server that it leads to."""
    monkeypatch.setenv("HF_ENDPOINT", disk.url)
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    disk.files["test/0.tar"] = disk.files["insects/test/0.tar"]
    disk.does["/datasets/me/insects/resolve/main/test/0.tar"] = f"to {disk.url}/insects/test/0.tar"
    assert len(open_remote("hf://datasets/me/insects/test/0.tar")) == 20
    tokens = {path: token for path, _, token in disk.asked if path.endswith(".tar")}
    assert tokens == {
        "/datasets/me/insects/resolve/main/test/0.tar": "Bearer hf_mine",
        "/insects/test/0.tar": None,
    }


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "ftp://host/0.tar",
        "reference://x/0.tar",
        "zip://0.tar::https://host/x.zip",
        "https://host/0.tar::file://x",
        "s3://bucket/a::b.tar",
        "memory://x/0.tar",
    ],
)
def test_no_other_protocol_is_followed(address):
    """Local files, archives, chains and whatever else fsspec knows are refused before anything is opened."""
    assert is_address(address)
    with pytest.raises(SuiteError, match="Data sets are read from"):
        open_suite(address)


def test_an_address_may_have_blanks_and_letters_of_any_language(disk, tmp_path):
    """They are sent as escapes, and escapes stay as they are; nothing of the query is shown."""
    for shard in (0, 1):
        disk.files[f"m%C3%BCcken%20hier/test/{shard}.tar"] = disk.files[f"insects/test/{shard}.tar"]
    for folder in ("mücken hier", "m%C3%BCcken hier"):
        dataset = open_remote(f"{disk.url}/{folder}/test/{{0..1}}.tar?key=a secret ü")
        assert len(dataset) == 40
        assert "secret" not in dataset.sample(0) + dataset.location


@pytest.mark.parametrize(
    "address",
    [
        "https://me:secret@host/0.tar",
        "https://secret@host/{0..1}.tar",
        "https://[::1/0.tar?secret",
        "https://host:port/0.tar?secret",
        "https:///0.tar?secret",
        f"https://{'a' * 64}.org/0.tar?secret",
        "https://host/get.tar?secret={0..3}",
        "https://host/{0..3}.tar.gz?secret",
    ],
)
def test_an_address_that_cannot_be_read_is_refused_before_anything_is_asked(address, monkeypatch):
    """Passwords, hosts that are none, compressed tars, tars whose images would have one name; no secret is shown."""
    monkeypatch.setattr(remote, "_opener", None)
    with pytest.raises(SuiteError) as caught:
        open_remote(address)
    assert "secret" not in str(caught.value)


def test_a_host_may_be_a_number():
    """An IPv6 address has colons, and is no chain of protocols."""
    assert addresses("http://[::1]:8000/0.tar") == ("http://[::1]:8000/0.tar",)


def test_the_hub_is_not_asked_offline(monkeypatch):
    """HF_HUB_OFFLINE, which huggingface_hub reads when it is imported, counts for addresses, too."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SuiteError, match="HF_HUB_OFFLINE"):
        open_remote("hf://datasets/me/insects/test/0.tar")


def test_a_cache_that_cannot_be_written_is_said_once(disk, tmp_path, monkeypatch):
    """However many tars are listed."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("WISE_CACHE", str(tmp_path / "file"))
    dataset = open_remote(f"{disk.url}/insects/test/{{0..1}}.tar")
    assert sum("kept for later runs" in note for note in dataset.notes) == 1


def test_no_thread_that_waits_for_a_server_keeps_the_process():
    """The first error ends the work, though another thread still waits; the end of the process does not wait for it."""
    end = threading.Event()
    waiting = []

    def work(number):
        if number == 0:
            raise SuiteError("no")
        waiting.append(threading.current_thread())
        end.wait(30)

    with pytest.raises(SuiteError, match="no"):
        _in_threads(work, range(3))
    assert all(thread.daemon for thread in waiting)
    end.set()


def test_braces_are_numbers():
    """Each pair of braces stands for all numbers between two, with leading zeros if the first has some."""
    assert addresses("https://h/{8..10}.tar") == tuple(f"https://h/{n}.tar" for n in (8, 9, 10))
    assert addresses("https://h/{08..10}.tar") == tuple(f"https://h/{n}.tar" for n in ("08", "09", "10"))
    assert addresses("https://h/{0..1}/{0..1}.tar") == tuple(f"https://h/{a}/{b}.tar" for a in "01" for b in "01")
    for wrong in ("{a..b}", "{1}", "{2..1}", "{0..999999}", "{0..9999}{0..9999}"):
        with pytest.raises(SuiteError):
            addresses(f"https://h/{wrong}.tar")


def test_an_object_store_is_read_through_fsspec(disk, monkeypatch):
    """An s3:// address is read by the file system that fsspec has for it; without its package, the error names it."""
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    monkeypatch.setattr(fsspec, "filesystem", lambda protocol: store)
    monkeypatch.setattr(type(store), "protocol", ("memory", "s3"))
    store.pipe("s3://insects/0.tar", disk.files["insects/test/0.tar"])
    dataset = open_remote("s3://insects/0.tar")
    assert (len(dataset), np.asarray(dataset.image(5)).max()) == (20, 5)
    with pytest.raises(SuiteError, match="no such file"):
        open_remote("s3://insects/9.tar")

    def lacking(protocol):
        raise ImportError("no s3fs")

    monkeypatch.setattr(fsspec, "filesystem", lacking)
    with pytest.raises(SuiteError, match="pip install s3fs"):
        open_remote("s3://insects/0.tar")


def test_reads_that_do_not_follow_each_other_ask_for_no_more_than_they_need(disk):
    """In random order each image is one request of its own size; in order, requests grow."""
    dataset = open_remote(f"{disk.url}/insects/test/0.tar")
    shards = dataset.image.__self__.shards
    assert isinstance(shards, RemoteShards)
    disk.asked.clear()
    shards.read(0, 9000, 10)
    shards.read(0, 100, 10)
    shards.read(0, 110, 10)
    assert [span for _, span, _ in disk.asked] == ["bytes=9000-9009", "bytes=100-109", "bytes=110-149"]
