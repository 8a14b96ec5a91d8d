"""Download data sets from the Hugging Face hub, as tars, into the folder where the catalogue looks for them."""

import glob
import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.checkpoint.folder import leaves_folder
from mergekit_wise.datasets import clip_benchmark
from mergekit_wise.errors import Interrupted, SuiteError, UsageError
from mergekit_wise.option_types import takes
from mergekit_wise.options import FetchOptions
from mergekit_wise.progress import Progress
from mergekit_wise.wording import did_you_mean, listed, plural

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
        **{name: name for name in clip_benchmark.METRICS},
    }
)
"""The repository of `OWNER` for each data set that the hub has, by the name in the catalogue."""

# Without the training images, which take most of the space.
_PATTERNS = ("test/*", "classnames.txt", "zeroshot_classification_templates.txt")
_POLL_SECONDS = 0.2
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, repr=False)
class Fetched(ResultObject):
    """A downloaded and checked data set: `folder`, the number of `files`, their `size` in bytes, and its images."""

    name: str
    folder: Path
    files: int
    size: int
    images: int
    expected: int | None

    def _summary(self) -> str:
        return f"{self.name}, {plural(self.images, 'image')} in {plural(self.files, 'file')}, {self.size:,} bytes"

    def _entry(self) -> Mapping[str, Any]:
        sizes = {"files": self.files, "bytes": self.size, "images": self.images, "expected": self.expected}
        return {"name": self.name, "folder": self.folder, **sizes}


@dataclass(frozen=True, slots=True)
class _Remote:
    """A file of the repository: its path, its size in bytes, and its SHA-256 if the hub has it."""

    path: str
    size: int
    sha256: str | None


@takes(FetchOptions)
def fetch_data(options: FetchOptions) -> Fetched:
    """Download the test part of a data set into ``ROOT/wds_...``, and check it.

    Broken connections are resumed where they broke, and a second run downloads only files that are not complete.
    Sizes and digests are compared with the hub's, and the images in the tars are counted.

    Raises:
        UsageError: the hub has no such data set, or no data folder was given.
        SuiteError: the download failed, or a file arrived damaged.
    """
    name, endpoint, progress = options.name, options.endpoint, options.progress
    root = options.data
    repository = _repository(name)
    folder = _data_folder(root) / repository
    with _translated_errors(name):
        revision, remote = _listing(repository, endpoint)
    with _naming_kept(folder):
        with _translated_errors(name):
            _download(repository, revision, remote, folder, endpoint, _byte_progress(name, remote, folder, progress))
        _check(name, remote, folder, progress)
    return _summary(name, remote, folder)


def _repository(name: str) -> str:
    if name not in REPOSITORIES:
        # Of "pets" the repository is wds_vtab-pets, which difflib does not find alike.
        parts = [known for known in REPOSITORIES if name in known or name in REPOSITORIES[known]]
        suggestion = f" Did you mean {listed(map(repr, parts), 3)}?" if parts else did_you_mean(name, REPOSITORIES)
        raise UsageError(
            f"{name}: the hub has no such data set.{suggestion} "
            f"It has {', '.join(REPOSITORIES)}. Run 'wise suites' to see where to get the others."
        )
    return REPOSITORIES[name]


def _data_folder(root: Path | None) -> Path:
    from mergekit_wise.datasets.catalog import NO_ROOT, ROOT_VARIABLE

    variable = os.environ.get(ROOT_VARIABLE)
    if root is None and not variable:
        raise UsageError(NO_ROOT)
    return Path(variable or "") if root is None else root


@contextmanager
def _naming_kept(folder: Path) -> Iterator[None]:
    """Let an interruption say what is kept."""
    try:
        yield
    except KeyboardInterrupt as error:
        kept = f"Interrupted. Complete files are kept in {folder}; run the same command to continue."
        raise Interrupted.of(error, kept) from error


@contextmanager
def _translated_errors(name: str) -> Iterator[None]:
    """Turn the errors of huggingface_hub and its HTTP client into SuiteError."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    from mergekit_wise.models.source import hub_refusal

    # The bases include the base error of the HTTP client in use (requests or httpx), which covers broken connections.
    known = cast("tuple[type[Exception], ...]", (OSError, HFValidationError, *HfHubHTTPError.__bases__))
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise SuiteError(
            f"{name}: cannot be downloaded, because HF_HUB_OFFLINE is set. Unset it, or copy the files."
        ) from error
    except known as error:
        if refusal := hub_refusal(error):
            raise SuiteError(f"{name}: {refusal}") from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise SuiteError(
            f"{name}: the download failed ({reason}). Run the same command again to continue; complete files are kept."
        ) from error


def _listing(repository: str, endpoint: str | None) -> tuple[str, tuple[_Remote, ...]]:
    """The newest revision, and the files in it that match `_PATTERNS`."""
    from huggingface_hub import HfApi

    info = HfApi(endpoint=endpoint).dataset_info(f"{OWNER}/{repository}", files_metadata=True)
    entries = (e for e in info.siblings or () if any(fnmatch(e.rfilename, pattern) for pattern in _PATTERNS))
    return str(info.sha), tuple(_remote(entry) for entry in entries)


def _remote(entry: Any) -> _Remote:
    name = entry.rfilename
    if leaves_folder(name):
        raise SuiteError(f"The hub lists a file {name!r}, which may lie outside the folder. Nothing was downloaded.")
    if entry.size is None:
        raise SuiteError(f"The hub lists the file {name!r} without its size. Nothing was downloaded.")
    return _Remote(name, int(entry.size), entry.lfs.sha256 if entry.lfs else None)


def _download(
    repository: str,
    revision: str,
    remote: tuple[_Remote, ...],
    folder: Path,
    endpoint: str | None,
    progress_shown: AbstractContextManager[None],
) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    disable_progress_bars()  # the caller draws one bar for all files
    try:
        with progress_shown:
            snapshot_download(
                f"{OWNER}/{repository}",
                repo_type="dataset",
                revision=revision,
                local_dir=folder,
                # The names that were checked: the hub is asked for its list once more.
                allow_patterns=[glob.escape(file.path) for file in remote],
                endpoint=endpoint,
            )
    finally:
        if shown:
            enable_progress_bars()
    for unfinished in folder.glob(".cache/**/*.incomplete"):
        unfinished.unlink(missing_ok=True)  # left by killed runs, and never resumed


@contextmanager
def _byte_progress(name: str, remote: tuple[_Remote, ...], folder: Path, progress: Progress) -> Iterator[None]:
    """Report the number of bytes in `folder` while files grow there."""
    total, done = sum(file.size for file in remote), threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_SECONDS):
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
            except OSError:  # the file was moved to its final place after it was listed
                continue
    return size


def _check(name: str, remote: tuple[_Remote, ...], folder: Path, progress: Progress) -> None:
    """Compare sizes and digests with the hub's. A file that differs is removed, so that the next run downloads it."""
    total, done = sum(file.size for file in remote), 0
    for file in remote:
        path = folder / file.path
        digest = hashlib.sha256()
        with path.open("rb") as opened:
            while block := opened.read(_BLOCK_BYTES):
                digest.update(block)
                done += len(block)
                progress(f"Checking {name}", min(done, total), total, "bytes")
        if path.stat().st_size != file.size or file.sha256 not in (None, digest.hexdigest()):
            path.unlink()
            raise SuiteError(
                f"{path}: arrived damaged and was removed. Run the same command again; the other files are kept."
            )


def _summary(name: str, remote: tuple[_Remote, ...], folder: Path) -> Fetched:
    from mergekit_wise.datasets.catalog import ENTRIES
    from mergekit_wise.datasets.webdataset import open_tars

    images = len(open_tars(folder).labels)
    return Fetched(name, folder, len(remote), sum(file.size for file in remote), images, ENTRIES[name].expected)
