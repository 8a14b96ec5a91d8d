"""Write a model card for a merged, calibrated, converted or fine-tuned checkpoint."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mergekit_wise.api.fetch_data import OWNER, REPOSITORIES
from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.checkpoint import Checkpoint, closing, require_output, write_atomically
from mergekit_wise.checkpoint.folder import weights_folder_in, weights_in
from mergekit_wise.datasets.catalog import ENTRIES
from mergekit_wise.errors import CheckpointError, ModelError, OutputError, UsageError
from mergekit_wise.evaluation.variants import reader, tensor_digest, weights_fingerprint
from mergekit_wise.models.hub_layout import HubLayout, hub_layout
from mergekit_wise.models.names import BIAS, HEAD, SCALE, TEXT, TOWER, read_names
from mergekit_wise.models.source import HUB, locate, open_source
from mergekit_wise.option_types import ModelInMemory, takes
from mergekit_wise.options import CardOptions, PushOptions
from mergekit_wise.progress import Progress
from mergekit_wise.report.card_origin import making_of
from mergekit_wise.report.card_results import CardResults, results_of
from mergekit_wise.report.figures import draw_marked
from mergekit_wise.report.folders import without_folders
from mergekit_wise.report.model_card import CardFacts, is_unedited, render_card, unmeasured_sentence
from mergekit_wise.results import read_results
from mergekit_wise.wording import plural

CARD = "README.md"
PLOT = "card-sweep.png"
"""The name of the picture beside README.md; one that differs from what people call their own plots."""

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""The name of a repository, as the hub allows it."""

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, repr=False)
class CardReport(ResultObject):
    """What `card` wrote.

    Attributes:
        output: the card.
        plot: the picture of the sweep; None if there is none.
        datasets: on how many data sets the card has results.
        notes: what was decided or left out, one sentence each.
    """

    output: Path
    plot: Path | None
    datasets: int
    notes: tuple[str, ...]

    def _summary(self) -> str:
        return f"{self.output.name}, results on {plural(self.datasets, 'data set')}"

    def _entry(self) -> Mapping[str, Any]:
        return {"output": self.output, "plot": self.plot, "datasets": self.datasets}


@dataclass(frozen=True, slots=True)
class Card:
    """A card in memory: its text, the picture by its name, the number of data sets, and notes."""

    text: str
    plots: Mapping[str, bytes]
    datasets: int
    notes: tuple[str, ...]


@takes(CardOptions)
def card(options: CardOptions) -> CardReport:
    """Write a model card for the Hugging Face hub: metadata, recipe, digests, results of these very weights, loading.

    Results are those of records whose fingerprint is that of the checkpoint's weights; others are never shown.

    Raises:
        CheckpointError, ModelError, ResultsError, UsageError: what is wrong, and what to do.
        OutputError: the card cannot be written, or would replace one that `card` did not write.
    """
    path = local_path(options.checkpoint)
    output = options.output or (path / CARD if path.is_dir() else path.with_name(CARD))
    require_output(output)
    if not options.force:
        require_own(output)
    source = open_source(path, mmap=options.mmap)
    with closing(source):
        layout = hub_layout(source, options.model)
        names = {file: file.name for file in weight_files(source)}
        picture = PLOT if output.name == CARD else f"card-sweep-{output.stem}.png"  # each of several cards has its own
        made = make_card(source, path.name, layout, options, names, options.repo, picture)
    for name, content in made.plots.items():
        write_atomically(output.with_name(name), content)
    write_atomically(output, made.text)
    plot = next((output.with_name(name) for name in made.plots), None)
    return CardReport(output, plot, made.datasets, (*source.notes, *layout.notes, *made.notes))


def make_card(
    source: Checkpoint,
    name: str,
    layout: HubLayout,
    options: CardOptions | PushOptions,
    weights: Mapping[Path, str],
    repository: str | None,
    picture: str = PLOT,
) -> Card:
    """The card of an open checkpoint.

    Args:
        source: the checkpoint.
        name: of its file or folder.
        layout: what loads it.
        options: results, base models, licence and title.
        weights: its files of weights, and what the card calls them.
        repository: where it is, or will be, on the hub.
        picture: the name of the first picture, which ends in ``.png``.
    """
    base_models, license = tuple(map(_base_model, options.base_model)), _license(options.license)
    if repository is not None:
        require_repository(repository, "--repo")
    making = making_of(source, name)
    results, unmeasured, notes = _results(source, making.alpha, options.results)
    if not base_models:
        base_models = making.repositories
        if not base_models:
            notes += ("the card names no base model: none of the sources is a repository; --base-model ORG/NAME does",)
    if not license:
        notes += ("the card names no licence; --license does, for example apache-2.0",)
    plots: dict[str, bytes] = {}
    names: list[str] = []
    for number, each in enumerate(results):
        if (plot := each.plot) is not None and isinstance(each.at, float):
            names.append(picture if not plots else f"{picture.removesuffix('.png')}-{number + 1}.png")
            plots[names[-1]] = draw_marked(plot, each.at, "this model")
        else:
            names.append("")
    title = options.title or (repository.partition("/")[2] if repository else Path(name).stem)
    text = render_card(
        CardFacts(
            title=title,
            name=name,
            repository=repository,
            layout=layout,
            making=making,
            base_models=base_models,
            license=license,
            results=results,
            unmeasured=unmeasured,
            plots=tuple(names),
            hub_data_sets=_hub_data_sets(results),
            weights=tuple(_digests(weights, options.progress)),
        )
    )
    return Card(text, plots, sum(len(each.rows) for each in results), notes)


def local_path(checkpoint: object) -> Path:
    """The file or folder that is described or uploaded. Raises UsageError, CheckpointError."""
    if isinstance(checkpoint, ModelInMemory):
        raise UsageError(f"{checkpoint}: expected a file or folder. Write the model to a file first.")
    if str(checkpoint).startswith(HUB):
        raise UsageError(f"{checkpoint}: expected a file or folder of yours, found a repository of the hub.")
    path = locate(Path(str(checkpoint)))
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder.")
    return path


def require_own(output: Path) -> None:
    """Raise OutputError if a file is there that `card` did not write, or that was edited since."""
    try:
        text = output.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError):
        text = ""
    if not is_unedited(text):
        raise OutputError(
            f"{output}: exists, and 'wise card' did not write it, or it was edited since; in a merged folder it may be "
            "the card of the model that was fine-tuned. Replace it with --force, or give another name with --output."
        )


def require_repository(name: str, option: str) -> None:
    """Raise UsageError unless a name is one of a repository on the hub."""
    if not REPOSITORY.fullmatch(name) or len(name) > 96 or "--" in name or ".." in name or name.endswith((".git", ".")):
        raise UsageError(f"{option} {name}: expected the name of a repository on the hub, such as my-name/my-model.")


def weight_files(source: Checkpoint) -> tuple[Path, ...]:
    """The files that hold the weights, and the index of several, in the order of their names."""
    first = weights_in(weights_folder_in(source.path)) if source.path.is_dir() else source.path
    index = [first] if first.name.endswith(".index.json") else []
    return (*sorted({file.path for file in source.files}), *index)


def _results(
    source: Checkpoint, alpha: float | None, path: Path | None
) -> tuple[tuple[CardResults, ...], str, tuple[str, ...]]:
    """The results of these weights, a sentence in their place if there are none, and notes."""
    if path is None:
        return (), unmeasured_sentence(None, ""), ("the card has no results; --results results.jsonl gives them",)
    reading = without_folders(read_results([path]))
    found = results_of(reading, fingerprints(source), alpha)
    if found:
        return found, "", reading.notes
    suites = tuple(dict.fromkeys(row.suite for row in reading.measurements))
    note = (
        f"{path.name} holds no result of these weights, so the card shows none; measure them with: "
        f"wise eval {source.path.name} --results {path.name}"
    )
    return (), unmeasured_sentence(path.name, source.path.name, suites), (*reading.notes, note)


def fingerprints(source: Checkpoint) -> frozenset[str]:
    """The fingerprints that records of a checkpoint's weights may have.

    A record has that of the tensors that its evaluation needed: all; or the image encoder, with the checkpoint's head,
    with the text encoder for a head of class names, or alone for a head from a file.
    """
    sets = {frozenset(source.tensors)}
    try:
        places = read_names(source).destinations
    except ModelError:  # several models in one file, of which an evaluation would take none
        places = {}
    for parts in ((TOWER,), (TOWER, HEAD), (TOWER, TEXT, SCALE, BIAS)):
        sets.add(frozenset(name for name, to in places.items() if to.name.startswith(parts)))
    read = reader(source)
    digest = cache(lambda name: tensor_digest(read(name)))
    return frozenset(weights_fingerprint(names, digest) for names in sets if names)


def _hub_data_sets(results: tuple[CardResults, ...]) -> dict[str, str]:
    """The repository of each data set that is the catalogue's: complete sets have the number of images that it knows.

    A folder of the user's may have the same name.
    """
    rows = [row for each in results for row in each.rows if row.dataset in REPOSITORIES and row.dataset in ENTRIES]
    return {
        row.dataset: f"{OWNER}/{REPOSITORIES[row.dataset]}"
        for row in rows
        if row.details.get("expected", "") == str(ENTRIES[row.dataset].expected)
    }


def _digests(weights: Mapping[Path, str], progress: Progress) -> Iterator[tuple[str, int, str]]:
    """Name, bytes and SHA-256 of each file, whose progress is reported."""
    total, done = sum(path.stat().st_size for path in weights), 0
    for path, name in weights.items():
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                done += len(block)
                progress("Hashing weights", done, total, "bytes")
        yield name, path.stat().st_size, digest.hexdigest()


def _base_model(name: str) -> str:
    name = name.removeprefix(HUB)
    require_repository(name, "--base-model")
    return name


def _license(name: str | None) -> str:
    if name is not None and not _LICENSE.fullmatch(name):
        raise UsageError(f"--license {name}: expected one of the hub's identifiers, such as apache-2.0, mit or other.")
    return name or ""
