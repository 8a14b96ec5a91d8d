"""Data sets that the Hugging Face hub has as tars, fetched into the folder where the catalogue looks for them."""

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from mergekit_wise.errors import SuiteError, UsageError
from mergekit_wise.option_types import takes
from mergekit_wise.options import FetchOptions
from mergekit_wise.progress import Progress

OWNER = "clip-benchmark"
REPOSITORIES = MappingProxyType(
    {
        "imagenet": "wds_imagenet1k",
        "imagenet-v2": "wds_imagenetv2",
        "imagenet-r": "wds_imagenet-r",
        "imagenet-sketch": "wds_imagenet_sketch",
        "objectnet": "wds_objectnet",
        "imagenet-a": "wds_imagenet-a",
        "cifar10": "wds_vtab-cifar10",
        "cifar100": "wds_vtab-cifar100",
        "cars": "wds_cars",
        "dtd": "wds_vtab-dtd",
        "sun397": "wds_sun397",
        "food101": "wds_food101",
    }
)
"""Repositories of `OWNER`, by the names that the catalogue has for the data sets."""

# No training images, which take most of the space.
_WANTED = ("test/*", "classnames.txt", "zeroshot_classification_templates.txt")
_EVERY_SECONDS = 0.2
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Fetched:
    """What lies in `folder` now: `files` of `size` bytes, all checked, with `images` images of `expected`."""

    folder: Path
    files: int
    size: int
    images: int
    expected: int | None


@dataclass(frozen=True, slots=True)
class _Remote:
    """A file of the repository: its path, its bytes, and their SHA-256 where the hub keeps that."""

    path: str
    size: int
    sha256: str | None


@takes(FetchOptions)
def fetch_data(options: FetchOptions) -> Fetched:
    """Download the test part of a data set into ``ROOT/wds_...``, and check it.

    A connection that breaks is resumed where it broke; a second run fetches what the first did not complete. Sizes
    and digests are compared with the hub's, and the tars are indexed to count their images.

    Raises:
        UsageError: the hub has no such data set, or there is no data folder.
        SuiteError: it could not be fetched, or what arrived is damaged.
    """
    name, endpoint, progress = options.name, options.endpoint, options.progress
    root = options.data
    repository = _repository(name)
    folder = _root(root) / repository
    with _plain_errors(name):
        revision, remote = _listing(repository, endpoint)
        _download(repository, revision, folder, endpoint, _watched(name, remote, folder, progress))
    _check(name, remote, folder, progress)
    return _counted(name, remote, folder)


def _repository(name: str) -> str:
    if name not in REPOSITORIES:
        raise UsageError(
            f"{name}: the hub has no such data set. It has {', '.join(REPOSITORIES)}. "
            "'wise suites' says where to get the others."
        )
    return REPOSITORIES[name]


def _root(root: Path | None) -> Path:
    from mergekit_wise.datasets.catalog import ROOT_VARIABLE

    told = os.environ.get(ROOT_VARIABLE)
    if root is None and not told:
        raise UsageError(f"No folder of data sets was told. Give it with --data ROOT, or set {ROOT_VARIABLE}.")
    return Path(told or "") if root is None else root


@contextmanager
def _plain_errors(name: str) -> Iterator[None]:
    """Whatever the library or its HTTP client raises becomes a sentence."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    # Among the bases is the client's own error, of which those of connections are too: requests', httpx's, the next's.
    known = cast("tuple[type[Exception], ...]", (OSError, HFValidationError, *HfHubHTTPError.__bases__))
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise SuiteError(f"{name}: is not fetched, as HF_HUB_OFFLINE is set. Unset it, or copy the files.") from error
    except known as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise SuiteError(
            f"{name}: could not be fetched ({reason}). Run it again when that is mended; files that are complete are "
            "kept."
        ) from error


def _listing(repository: str, endpoint: str | None) -> tuple[str, tuple[_Remote, ...]]:
    """The newest revision, and the wanted files in it."""
    from huggingface_hub import HfApi

    info = HfApi(endpoint=endpoint).dataset_info(f"{OWNER}/{repository}", files_metadata=True)
    entries = (e for e in info.siblings or () if any(fnmatch(e.rfilename, pattern) for pattern in _WANTED))
    return str(info.sha), tuple(_remote(entry) for entry in entries)


def _remote(entry: Any) -> _Remote:
    return _Remote(entry.rfilename, int(entry.size), entry.lfs.sha256 if entry.lfs else None)


def _download(
    repository: str, revision: str, folder: Path, endpoint: str | None, watched: AbstractContextManager[None]
) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    disable_progress_bars()  # one bar for all files is drawn by whoever listens
    try:
        with watched:
            snapshot_download(
                f"{OWNER}/{repository}",
                repo_type="dataset",
                revision=revision,
                local_dir=folder,
                allow_patterns=list(_WANTED),
                endpoint=endpoint,
            )
    finally:
        if shown:
            enable_progress_bars()
    for litter in folder.glob(".cache/**/*.incomplete"):
        litter.unlink(missing_ok=True)  # of runs that were killed: nothing takes them up


@contextmanager
def _watched(name: str, remote: tuple[_Remote, ...], folder: Path, progress: Progress) -> Iterator[None]:
    """Tell how many bytes have arrived, as files grow in `folder`."""
    total, done = sum(file.size for file in remote), threading.Event()

    def watch() -> None:
        while not done.wait(_EVERY_SECONDS):
            progress(f"Fetching {name}", min(_arrived(folder), total), total, "bytes")

    progress(f"Fetching {name}", 0, total, "bytes")
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
        progress(f"Fetching {name}", total, total, "bytes")
    finally:
        done.set()
        thread.join()


def _arrived(folder: Path) -> int:
    size = 0
    for parent, _, files in os.walk(folder):
        for file in files:
            try:
                size += os.stat(os.path.join(parent, file)).st_size
            except OSError:  # moved into its place since it was listed
                continue
    return size


def _check(name: str, remote: tuple[_Remote, ...], folder: Path, progress: Progress) -> None:
    """Compare what lies there with what the hub says; what differs is removed, so that the next run fetches it."""
    total, done = sum(file.size for file in remote), 0
    for file in remote:
        path = folder / file.path
        digest = hashlib.sha256()
        with path.open("rb") as opened:
            while block := opened.read(_BLOCK):
                digest.update(block)
                done += len(block)
                progress(f"Checking {name}", min(done, total), total, "bytes")
        if path.stat().st_size != file.size or file.sha256 not in (None, digest.hexdigest()):
            path.unlink()
            raise SuiteError(f"{path}: arrived damaged, and was removed. Run it again; the other files are kept.")


def _counted(name: str, remote: tuple[_Remote, ...], folder: Path) -> Fetched:
    from mergekit_wise.datasets.catalog import ENTRIES
    from mergekit_wise.datasets.webdataset import open_tars

    images = len(open_tars(folder).labels)
    return Fetched(folder, len(remote), sum(file.size for file in remote), images, ENTRIES[name].expected)
