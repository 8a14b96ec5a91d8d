"""Upload a model, its card and the report of its evaluation to the Hugging Face hub, in one commit."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergekit_wise.api.card import CARD, Card, local_path, make_card, require_repository, weight_files
from mergekit_wise.api.hub_upload import HubFile, Target, upload
from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.checkpoint import Checkpoint, closing
from mergekit_wise.checkpoint.folder import SHARD
from mergekit_wise.checkpoint.side_files import side_files
from mergekit_wise.errors import CheckpointError, UsageError
from mergekit_wise.models.hub_layout import HubLayout, configuration_files, hub_layout
from mergekit_wise.models.source import open_source
from mergekit_wise.option_types import takes
from mergekit_wise.options import PushOptions
from mergekit_wise.report.comparison import compare
from mergekit_wise.report.folders import without_folders
from mergekit_wise.report.model_card import is_unedited
from mergekit_wise.report.page import render_page
from mergekit_wise.report.summary import summarize
from mergekit_wise.report.table import Table
from mergekit_wise.report.warnings import warnings
from mergekit_wise.results import read_results
from mergekit_wise.wording import listed, plural

PAGE = "report.html"

_SAFETENSORS = ".safetensors"
_OWN = (CARD, PAGE)


@dataclass(frozen=True, slots=True, repr=False)
class PushReport(ResultObject):
    """What `push` uploaded, or would upload.

    Attributes:
        repository: its name on the hub.
        url: of the repository, or of the branch.
        files: with their names in the repository.
        commit: SHA-1 of the commit; None if nothing was uploaded.
        notes: what was decided or left out, one sentence each.
    """

    repository: str
    url: str | None
    files: tuple[HubFile, ...]
    commit: str | None
    notes: tuple[str, ...]

    def _summary(self) -> str:
        what = f"{plural(len(self.files), 'file')}"
        return f"{what} to {self.repository}" if self.commit else f"{what} would go to {self.repository}"

    def _entry(self) -> Mapping[str, Any]:
        files = {file.name: file.size for file in self.files}
        return {"repository": self.repository, "url": self.url, "files": files, "commit": self.commit}

    def _rows(self) -> list[Mapping[str, Any]]:
        return [{"file": file.name, "bytes": file.size, "from": file.origin} for file in self.files]

    def _tables(self) -> Sequence[Table]:
        rows = [(file.name, f"{file.size:,}", file.origin) for file in self.files]
        return [Table.of_texts(("File", "Bytes", "From"), rows)]


@takes(PushOptions)
def push(options: PushOptions) -> PushReport:
    """Upload a merged file or folder so that its library loads it from the hub, with a card and the report's page.

    All files arrive in one commit, or none does. A file gets the name and the configuration that its library looks for;
    a folder is uploaded as it is. The login is huggingface_hub's own, and no token is kept.

    Raises:
        CheckpointError, ModelError, ResultsError: what is wrong, and what to do.
        UsageError: nobody is logged in, or the repository has an impossible name.
        OutputError: the hub refused, or holds a card or weights that would be lost.
    """
    require_repository(options.repository, "REPOSITORY")
    path = local_path(options.checkpoint)
    source = open_source(path, mmap=options.mmap)
    with closing(source):
        layout = hub_layout(source, options.model)
        weights = _weights(source, layout)
        files = {**_beside(source, layout, options), **weights}
        files[CARD], made = _card(source, layout, options, weights)
    if made is not None:
        files |= {name: HubFile(name, content) for name, content in made.plots.items()}
    if options.results is not None:
        files[PAGE] = HubFile(PAGE, _page(options.results).encode())
    notes = (*source.notes, *layout.notes, *(() if made is None else made.notes))
    ordered = tuple(files[name] for name in sorted(files))
    if options.dry_run:
        return PushReport(options.repository, None, ordered, None, notes)
    target = Target(options.repository, options.revision, options.private, options.endpoint)
    done = upload(ordered, target, is_unedited, options.force, options.progress)
    return PushReport(options.repository, done.url, ordered, done.commit, (*notes, *done.notes))


def _weights(source: Checkpoint, layout: HubLayout) -> dict[str, HubFile]:
    """The files of weights under the names that the library looks for; those of a folder keep theirs."""
    paths = weight_files(source)
    if others := [path.name for path in paths if not path.name.endswith((_SAFETENSORS, ".json"))]:
        raise CheckpointError(
            f"{source.path}: {listed(others)}: expected safetensors files, because others may run code when they are "
            "loaded. Write one with 'wise merge ... -o NAME.safetensors'."
        )
    if layout.is_folder or source.path.is_dir():
        names = {path: path.relative_to(source.path).as_posix() for path in paths}
    else:
        names = {path: _hub_name(path, layout.stem) for path in paths}
    return {
        name: HubFile(name, path if path.suffix == _SAFETENSORS else _index(path, names))
        for path, name in names.items()
    }


def _hub_name(path: Path, stem: str) -> str:
    """The name of a file of weights in a repository."""
    if shard := SHARD.fullmatch(path.name):
        return f"{stem}-{shard[2]}-of-{shard[3]}{_SAFETENSORS}"
    return f"{stem}{_SAFETENSORS}" + (".index.json" if path.suffix == ".json" else "")


def _index(path: Path, names: Mapping[Path, str]) -> bytes:
    """An index with the names that its files have in the repository."""
    new = {old.name: Path(name).name for old, name in names.items()}
    content = json.loads(path.read_bytes())
    places = {tensor: new[file] for tensor, file in content["weight_map"].items()}
    return (json.dumps({**content, "weight_map": places}, indent=2) + "\n").encode()


def _beside(source: Checkpoint, layout: HubLayout, options: PushOptions) -> dict[str, HubFile]:
    """What the library needs besides the weights: the other files of a folder, or configuration made for a file."""
    if not source.path.is_dir():
        made = configuration_files(source, layout, options.model)
        return {name: HubFile(name, text.encode()) for name, text in made.items()}
    copies = side_files(source.path).copies
    return {name: HubFile(name, path) for name, path in copies.items() if name not in _OWN}


def _card(
    source: Checkpoint, layout: HubLayout, options: PushOptions, weights: Mapping[str, HubFile]
) -> tuple[HubFile, Card | None]:
    """The card to upload: the user's own file, or a new one."""
    if options.card is not None:
        if not options.card.is_file():
            raise UsageError(f"--card {options.card}: no such file.")
        return HubFile(CARD, options.card), None
    if source.path.is_dir() and (source.path / CARD).exists():
        _require_replaceable(source.path / CARD)
    names = {file.content: name for name, file in weights.items() if isinstance(file.content, Path)}
    made = make_card(source, source.path.name, layout, options, names, options.repository)
    return HubFile(CARD, made.text.encode()), made


def _require_replaceable(card: Path) -> None:
    if not is_unedited(card.read_text(encoding="utf-8", errors="replace")):
        raise UsageError(
            f"{card}: 'wise card' did not write it, or it was edited since. Upload it with --card {card}, or replace "
            f"it first with: wise card {card.parent} --force"
        )


def _page(results: Path) -> str:
    """The report on a results file, without folders of this machine."""
    reading = without_folders(read_results([results]))
    comparisons = compare(reading)
    notes = (*reading.notes, *warnings(reading, comparisons))
    return render_page([summarize(each) for each in comparisons], notes, reading.estimations)
