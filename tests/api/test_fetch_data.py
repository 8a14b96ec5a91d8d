"""Data sets are downloaded from a hub on the loopback address, also over broken connections and with damaged files."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import __version__ as hub_version
from huggingface_hub import constants
from PIL import Image

from mergekit_wise.api.fetch_data import OWNER, REPOSITORIES, fetch_data
from mergekit_wise.datasets.catalog import ENTRIES, open_suite
from mergekit_wise.errors import SuiteError, UsageError
from tests.hub_server import Replies, serving

REVISION = "0123456789abcdef0123456789abcdef01234567"


def shard(start, count, bulk=0):
    """A tar of `count` images and class numbers, made longer by `bulk` random bytes."""
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w") as tar:
        for n in range(start, start + count):
            picture = io.BytesIO()
            Image.new("RGB", (8, 8), (n, 0, 0)).save(picture, "PNG")
            members = {"png": picture.getvalue(), "cls": str(n).encode()}
            if n == start and bulk:
                members["bin"] = np.random.default_rng(n).bytes(bulk)
            for kind, data in members.items():
                info = tarfile.TarInfo(f"s{n:04d}.{kind}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return stored.getvalue()


FILES = {
    "README.md": b"a card",
    "classnames.txt": "\n".join(f"car {n}" for n in range(196)).encode(),
    "zeroshot_classification_templates.txt": b"a photo of a {c}.\n",
    "test/nshards.txt": b"2",
    "test/0.tar": shard(0, 5, bulk=3_000_000),
    "test/1.tar": shard(5, 3),
    "train/nshards.txt": b"1",
    "train/0.tar": shard(8, 3),
}


@dataclass
class Hub:
    """The answers of the hub's API that a download needs, and their failures.

    ``breaks`` are bytes after which a transfer of a path is cut off, one for each time; ``damaged`` paths arrive with
    a byte changed.
    """

    files: dict = field(default_factory=lambda: dict(FILES))
    breaks: dict = field(default_factory=dict)
    damaged: set = field(default_factory=set)
    asked: list = field(default_factory=list)
    repository: str = "wds_cars"
    gone: bool = False
    gated: bool = False
    url: str = ""

    def entry(self, path):
        data = self.files[path]
        lfs = {"sha256": hashlib.sha256(data).hexdigest(), "oid": hashlib.sha256(data).hexdigest()}
        known = {"size": len(data), "pointerSize": 130}
        blob = hashlib.sha1(data).hexdigest()
        big = {"lfs": {**lfs, **known}} if path.endswith(".tar") else {}
        return {"type": "file", "path": path, "rfilename": path, "oid": blob, "blobId": blob, "size": len(data), **big}

    def answer(self, path):
        """The JSON of an API call."""
        if "/tree/" in path:
            return [self.entry(name) for name in self.files]
        siblings = [self.entry(name) for name in self.files]
        return {"id": f"{OWNER}/{self.repository}", "sha": REVISION, "private": False, "siblings": siblings, "tags": []}


class Handler(Replies):
    def do_GET(self, body=True):
        hub, path = self.server.hub, self.path.partition("?")[0]
        if hub.gone or f"{OWNER}/{hub.repository}" not in path:
            self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif hub.gated:
            sentence = f"Access to dataset {OWNER}/wds_cars is restricted. Please log in."
            headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": sentence, "Content-Type": "application/json"}
            self.reply(401, json.dumps({"error": sentence}).encode(), headers)
        elif path.startswith("/api/"):
            self.reply(200, json.dumps(hub.answer(path)).encode(), {"Content-Type": "application/json"})
        else:
            self.send_file(hub, path.partition(f"/resolve/{REVISION}/")[2], body)

    def send_file(self, hub, name, body):
        whole, start = hub.files[name], 0
        hub.asked.append((self.command, name, self.headers.get("Range")))
        etag = hub.entry(name).get("lfs", {}).get("sha256") or hub.entry(name)["oid"]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"}
        if body and (asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")):
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        sent = bytearray(whole[start:])
        if name in hub.damaged:
            sent[-1] ^= 1
        cut = hub.breaks[name].pop(0) if body and hub.breaks.get(name) else None
        self.reply(206 if start else 200, bytes(sent) if body else b"", headers, length=len(sent), cut=cut)


@pytest.fixture
def hub(monkeypatch):
    """A running hub; the library does not wait between its attempts."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    # The library loses up to one chunk when a connection breaks; its default is larger than these files.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    with serving(Hub(), Handler) as running:
        yield running


WANTED = set(FILES) - {"README.md", "train/nshards.txt", "train/0.tar"}


def files_in(folder):
    """The files in the folder and their bytes, without the library's own cache."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_test_part_arrives_whole_and_is_found(hub, tmp_path):
    """The files are identical, lie where the catalogue looks, and have no training images among them."""
    fetched = fetch_data("cars", tmp_path / "new", endpoint=hub.url)
    assert fetched.folder == tmp_path / "new" / "wds_cars"
    assert files_in(fetched.folder) == {name: FILES[name] for name in WANTED}
    sizes = sum(len(FILES[name]) for name in WANTED)
    assert (fetched.files, fetched.size, fetched.images, fetched.expected) == (len(WANTED), sizes, 8, 8041)
    dataset = open_suite("cars", tmp_path / "new").shifts[0]
    assert [dataset.image(i).getpixel((0, 0))[0] for i in range(8)] == dataset.labels.tolist() == list(range(8))


resumes = pytest.mark.skipif(
    hub_version.split(".")[0] == "0", reason="before 1.0 huggingface_hub left it to the next call to go on"
)


@resumes
def test_a_broken_connection_is_resumed_where_it_broke(hub, tmp_path):
    """After two breaks, bytes that had arrived are not sent again, and the file is identical."""
    hub.breaks["test/0.tar"] = [1_000_000, 500_000]
    fetched = fetch_data("cars", tmp_path, endpoint=hub.url)
    ranges = [asked for method, name, asked in hub.asked if name == "test/0.tar" and method == "GET"]
    starts = [0 if asked is None else int(asked[len("bytes=") : -1]) for asked in ranges]
    assert len(starts) == 3
    assert 0 < starts[1] <= 1_000_000
    assert starts[1] < starts[2] <= 1_500_000
    assert files_in(fetched.folder)["test/0.tar"] == FILES["test/0.tar"]


def test_a_second_run_fetches_what_the_first_did_not(hub, tmp_path):
    """After a failed run, complete files are not requested again, and no incomplete file is left."""
    hub.breaks["test/0.tar"] = [0] * 20
    with pytest.raises(SuiteError, match="cars: .*complete files are kept"):
        fetch_data("cars", tmp_path, endpoint=hub.url)
    assert "test/0.tar" not in files_in(tmp_path / "wds_cars")
    there = {name for name in WANTED if name in files_in(tmp_path / "wds_cars")}
    assert there == WANTED - {"test/0.tar"}
    hub.breaks.clear()
    hub.asked.clear()
    (tmp_path / "wds_cars" / ".cache" / "huggingface" / "download" / "test" / "killed.incomplete").write_bytes(b"half")
    fetched = fetch_data("cars", tmp_path, endpoint=hub.url)
    assert {name for method, name, _ in hub.asked if method == "GET"} == {"test/0.tar"}
    assert files_in(fetched.folder) == {name: FILES[name] for name in WANTED}
    assert not list(fetched.folder.rglob("*.incomplete"))


def test_nothing_is_fetched_twice(hub, tmp_path):
    """A second run downloads nothing, and a file that was deleted is downloaded again."""
    fetch_data("cars", tmp_path, endpoint=hub.url)
    hub.asked.clear()
    fetch_data("cars", tmp_path, endpoint=hub.url)
    assert [name for method, name, _ in hub.asked if method == "GET"] == []
    (tmp_path / "wds_cars" / "test" / "1.tar").unlink()
    fetched = fetch_data("cars", tmp_path, endpoint=hub.url)
    assert [name for method, name, _ in hub.asked if method == "GET"] == ["test/1.tar"]
    assert fetched.images == 8


@pytest.mark.parametrize("name", ["test/0.tar", "test/1.tar"])
def test_a_damaged_file_is_removed_and_named(hub, tmp_path, name):
    """A file whose digest differs from the hub's is removed, and the next run downloads only this file."""
    hub.damaged = {name}
    with pytest.raises(SuiteError, match=f"{name}: arrived damaged"):
        fetch_data("cars", tmp_path, endpoint=hub.url)
    hub.damaged.clear()
    hub.asked.clear()
    fetched = fetch_data("cars", tmp_path, endpoint=hub.url)
    assert {name for method, name, _ in hub.asked if method == "GET"} == {name}
    assert files_in(fetched.folder) == {name: FILES[name] for name in WANTED}


@resumes
def test_progress_counts_bytes_up_to_all(hub, tmp_path):
    """Progress counts downloaded bytes and then checked bytes, in ascending order up to the total."""
    reported = []
    hub.breaks["test/0.tar"] = [1_000_000]
    fetched = fetch_data("cars", tmp_path, endpoint=hub.url, progress=lambda *report: reported.append(report))
    for what in ("Fetching cars", "Checking cars"):
        counts = [(done, total, unit) for task, done, total, unit in reported if task == what]
        assert counts[-1] == (fetched.size, fetched.size, "bytes")
        assert {(total, unit) for _, total, unit in counts} == {(fetched.size, "bytes")}
        assert [done for done, _, _ in counts] == sorted(done for done, _, _ in counts)


def test_a_data_set_that_the_hub_does_not_have_is_refused(hub, tmp_path):
    """A missing repository, a data set that the hub does not have, and no data folder raise errors."""
    hub.gone = True
    with pytest.raises(SuiteError, match=r"cars: the download failed \("):
        fetch_data("cars", tmp_path, endpoint=hub.url)
    with pytest.raises(UsageError, match="fmow-id: .*imagenet, imagenet-v2"):
        fetch_data("fmow-id", tmp_path)
    with pytest.raises(UsageError, match="WISE_DATA"):
        fetch_data("cars")


def test_a_gated_repository_shows_the_hubs_own_sentence(hub, tmp_path):
    """It says what the hub says, and how to log in."""
    hub.gated = True
    with pytest.raises(SuiteError, match=r"cars: Access to dataset .* is restricted.*hf auth login"):
        fetch_data("cars", tmp_path, endpoint=hub.url)


def test_every_repository_belongs_to_a_data_set_of_the_catalogue():
    """Every repository is among the places of its data set, and the hint names the command."""
    for name, repository in REPOSITORIES.items():
        assert repository in ENTRIES[name].places
        command = f"wise data fetch {'NAME' if name.startswith('wds_') else name}"
        assert command in " ".join(ENTRIES[name].hint.split())


@pytest.mark.parametrize(
    ("name", "metric"),
    [("wds_vtab-pets", "mean-per-class"), ("wds_mnist", "top-1"), ("wds_fgvc_aircraft", "mean-per-class")],
)
def test_a_classification_set_of_clip_benchmark_is_fetched_and_found_by_its_name(hub, tmp_path, name, metric):
    """Class names and templates are those of its text files; the metric is that of DataComp's evaluation."""
    hub.repository = name
    fetched = fetch_data(name, tmp_path, endpoint=hub.url)
    assert (fetched.folder, fetched.images, fetched.expected) == (tmp_path / name, 8, None)
    (dataset,) = open_suite(name, tmp_path).shifts
    assert dataset.classnames == tuple(f"car {n}" for n in range(196))
    assert dataset.templates == ("a photo of a {}.",)
    assert (dataset.name, dataset.metric.kind, dataset.labels.tolist()) == (name, metric, list(range(8)))
    (tmp_path / name / "classnames.txt").unlink()
    with pytest.raises(SuiteError, match=f"classnames.txt. Run: wise data fetch {name}"):
        open_suite(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("pets", "'wds_vtab-pets'"), ("wds_cars", "'cars'"), ("wds_mnits", "'wds_mnist'"), ("svhn", "svhn")],
)
def test_part_of_a_name_suggests_the_whole_one(tmp_path, name, meant):
    """The names of repositories have a prefix that people leave out."""
    with pytest.raises(UsageError, match=f"Did you mean [^?]*{meant}"):
        fetch_data(name, tmp_path)


def run(*words, **variables):
    environment = {**os.environ, **variables}
    command = [sys.executable, "-m", "mergekit_wise", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_the_command_fetches_from_where_the_environment_says(hub, tmp_path):
    """HF_ENDPOINT and WISE_DATA are used, stderr stays empty in a pipe, and --json prints JSON."""
    done = run("data", "fetch", "cars", "--json", HF_ENDPOINT=hub.url, WISE_DATA=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert (result["images"], result["expected"], Path(result["folder"])) == (8, 8041, tmp_path / "wds_cars")
    again = run("data", "fetch", "cars", "--data", str(tmp_path), HF_ENDPOINT=hub.url)
    assert again.stdout.startswith(f"{tmp_path}/wds_cars: 8 of 8,041 images in {len(WANTED)} files, 3.0")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the download failed"),
    ],
)
def test_without_a_network_the_reason_is_one_line(tmp_path, variables, expected):
    """The command exits with code 1 and prints one line without a traceback."""
    done = run("data", "fetch", "cars", "--data", str(tmp_path), **variables)
    assert done.returncode == 1
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["test/../../evil", "test//evil", "test/..\\\\..\\\\evil", "test/./evil", "test/x/../../../evil"]
)
def test_a_name_that_leads_out_of_the_folder_is_refused(name, hub, tmp_path):
    """A list of files with a name that could lie outside the folder is refused before anything is written."""
    hub.files = {**FILES, name: b"evil"}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SuiteError, match="Nothing was downloaded"):
        fetch_data("cars", tmp_path / "data" / "deep", endpoint=hub.url)
    assert sorted(tmp_path.rglob("*")) == before


class Changing(dict):
    """Files of which the last one is listed from the second time on."""

    times = 0

    def __iter__(self):
        self.times += 1
        names = list(super().__iter__())
        return iter(names[:-1] if self.times == 1 else names)


def test_a_list_that_changes_after_it_was_checked_does_no_harm(hub, tmp_path):
    """Only names that were checked are downloaded, though the hub is asked for its list twice."""
    hub.files = Changing({**FILES, "test/../../evil": b"evil"})
    (tmp_path / "data").mkdir()
    fetch_data("cars", tmp_path / "data", endpoint=hub.url)
    assert hub.files.times > 1
    assert not list(tmp_path.rglob("evil"))
