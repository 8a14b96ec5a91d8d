"""Uploads files to a repository of the Hugging Face hub in one commit, and says in a sentence why the hub refuses it.

Authentication is huggingface_hub's own: its login, or HF_TOKEN. No token is kept, printed or part of a message.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path
from typing import Any, BinaryIO, cast

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from mergekit_wise.checkpoint.folder import SHARD, WEIGHTS
from mergekit_wise.errors import OutputError, UsageError
from mergekit_wise.models.source import hub_refusal
from mergekit_wise.progress import Progress
from mergekit_wise.wording import listed, shown

CARD = "README.md"

NO_LOGIN = "Log in with 'hf auth login', or set HF_TOKEN to a token that may write, and run the same command again."

_HTTP = cast("tuple[type[Exception], ...]", (OSError, *HfHubHTTPError.__bases__))
"""The errors of the hub, and the base error of the HTTP client in use, which covers broken connections."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file to upload: its name in the repository, and the file here or its content."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        return "made by wise" if isinstance(self.content, bytes) else self.content.name


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A commit: its address and its SHA-1; and notes."""

    url: str
    commit: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Where files go: a repository, its branch, whether it is created as a private one, and the hub's address."""

    repository: str
    revision: str | None
    private: bool
    endpoint: str | None

    @property
    def branch(self) -> str:
        """The branch."""
        return self.revision or "main"


def upload(
    files: Sequence[HubFile], target: Target, is_own_card: Callable[[str], bool], force: bool, progress: Progress
) -> Uploaded:
    """Create the repository unless it exists, and add all files to it in one commit; other files in it stay.

    Args:
        files: with names that differ.
        target: the repository.
        is_own_card: whether a card in the repository may be replaced.
        force: whether any card may be, and whether weights that libraries would load in place of these are removed.
        progress: called with the bytes that were sent.

    Raises:
        UsageError: nobody is logged in.
        OutputError: the hub refused, or holds what would be lost; nothing was committed.
    """
    if get_token() is None:
        raise UsageError(f"{target.repository}: uploading needs a login to the hub. {NO_LOGIN}")
    api = HfApi(endpoint=target.endpoint)
    with _translated_errors(target), _without_bars(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        api.create_repo(target.repository, private=target.private or None, exist_ok=True)
        if target.revision is not None:
            api.create_branch(target.repository, branch=target.revision, exist_ok=True)
        info = api.model_info(target.repository, revision=target.branch)
        if target.private and not info.private:
            raise OutputError(
                f"{target.repository}: exists and is public, which --private does not change. Make it private on the "
                "hub, or leave --private out. Nothing was uploaded."
            )
        stale = _conflicts(api, target, {file.name for file in files}, info, is_own_card, force)
        sent = _Sent(progress, sum(file.size for file in files))
        operations: list[Any] = [_addition(file, sent) for file in files]
        operations += [CommitOperationDelete(path_in_repo=name) for name in stale]
        progress(sent.task, 0, sent.total, "bytes")
        commit = api.create_commit(
            target.repository,
            operations,
            commit_message="Upload with mergekit_wise",
            revision=target.branch,
            parent_commit=info.sha,  # what was looked at is what is replaced
        )
        progress(sent.task, sent.total, sent.total, "bytes")
    notes = [f"the hub: {' '.join(str(each.message).split())}" for each in caught if each.category is UserWarning]
    if stale:
        notes.append(f"removed from the repository, where libraries would have loaded them: {listed(stale)}")
    url = f"{api.endpoint}/{target.repository}"
    return Uploaded(url if target.revision is None else f"{url}/tree/{target.revision}", commit.oid, tuple(notes))


def _conflicts(
    api: HfApi, target: Target, new: set[str], info: Any, is_own_card: Callable[[str], bool], force: bool
) -> list[str]:
    """Weights there that libraries would load in place of the new ones. Without `force`, raises OutputError for any."""
    there = {entry.rfilename for entry in info.siblings or ()}
    stale = sorted(name for name in there - new if name in WEIGHTS or SHARD.fullmatch(name))
    if force:
        return stale
    if CARD in there:
        path = api.hf_hub_download(target.repository, CARD, revision=info.sha)
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        if text.strip() and not is_own_card(text):
            raise OutputError(
                f"{target.repository}: has a card that 'wise' did not write, or that was edited since. Replace it with "
                "--force, or download it and give it with --card. Nothing was uploaded."
            )
    if stale:
        raise OutputError(
            f"{target.repository}: holds other weights, which libraries would load in place of these: {listed(stale)}. "
            "Remove them in the same commit with --force, or choose another repository. Nothing was uploaded."
        )
    return []


@dataclass(slots=True)
class _Sent:
    """How many bytes of each file were sent."""

    progress: Progress
    total: int
    task: str = "Uploading"
    files: dict[str, int] = field(default_factory=dict)

    def at(self, name: str, position: int) -> None:
        """Report that a file was sent up to `position`; what is sent again counts once."""
        if position > self.files.get(name, 0):
            self.files[name] = position
            self.progress(self.task, min(sum(self.files.values()), self.total), self.total, "bytes")


def _addition(file: HubFile, sent: _Sent) -> CommitOperationAdd:
    content = file.content if isinstance(file.content, bytes) else str(file.content)
    addition = _Watched(path_in_repo=file.name, path_or_fileobj=content)
    addition.watch = lambda position: sent.at(file.name, position)
    return addition


class _Watched(CommitOperationAdd):
    """Calls `watch` with the position in the file while it is sent over HTTP; Xet sends files by their paths."""

    watch: Callable[[int], None]

    @contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:
        """The open file."""
        with super().as_file() as opened:
            yield cast(BinaryIO, _Reader(opened, self.watch) if with_tqdm else opened)


class _Reader(BufferedIOBase):
    """A file that is read through another one, and says how far."""

    def __init__(self, file: BinaryIO, watch: Callable[[int], None]) -> None:
        self._file, self._watch = file, watch

    def read(self, size: int | None = -1, /) -> bytes:
        data = self._file.read(-1 if size is None else size)
        self._watch(self._file.tell())
        return data

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(1 << 20):
            yield block

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep huggingface_hub from drawing bars of its own."""
    drawn = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if drawn:
            enable_progress_bars()


@contextmanager
def _translated_errors(target: Target) -> Iterator[None]:
    """Turn the errors of huggingface_hub and of its HTTP client into OutputError."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise OutputError(f"{target.repository}: HF_HUB_OFFLINE is set. Unset it to upload.") from error
    except HFValidationError as error:
        raise UsageError(f"{target.repository}: the hub allows no such name of a repository or branch.") from error
    except (*_HTTP, RuntimeError, ValueError) as error:  # type: ignore[misc]  # of classes that are known at run time
        if isinstance(error, RuntimeError) and not isinstance(error.__cause__, _HTTP):
            raise
        cause = error.__cause__ if isinstance(error, RuntimeError) else error
        assert isinstance(cause, Exception)
        raise OutputError(f"{target.repository}: {_reason(cause, target)} Nothing was committed.") from error


def _reason(error: Exception, target: Target) -> str:
    """Why the hub refused, and what to do."""
    if refusal := hub_refusal(error):
        return refusal
    said = _said(error)
    status = getattr(getattr(error, "response", None), "status_code", None)
    match status:
        case 401:
            return f"the hub does not accept the login ({said}). {NO_LOGIN}"
        case 403:
            return f"the login may not write there ({said}). Use a token that may, or another repository."
        case 404 if target.revision is not None and not isinstance(error, RepositoryNotFoundError):
            return f"the hub has no branch {target.revision!r} ({said}). Leave --revision out, or create the branch."
        case 404:
            return f"the hub has no such user, organization or repository ({said}). Check the name."
        case 409 | 412:
            return f"another commit arrived at the same time ({said}). Run the same command again."
        case 429:
            return f"the hub takes no more requests for now ({said}). Wait, and run the same command again."
        case int():
            return f"the hub refused it ({status}: {said}). Run the same command again, or see its page."
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return f"the hub refused it ({said})."
    return f"the upload failed ({said}). Check the network, and run the same command again."


def _said(error: Exception) -> str:
    """What the hub said, on one line, without a token that an error may repeat."""
    server = getattr(error, "server_message", None)
    lines = [line.strip() for line in str(server or error).splitlines() if line.strip()]
    text = " ".join(lines[:3]) if isinstance(error, ValueError) else (lines or [type(error).__name__])[0]
    token = get_token()
    text = text.replace(token, "***") if token else text
    return shown(text, 300).rstrip(".")
