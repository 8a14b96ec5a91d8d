"""Predict the classes of images without labels: with a checkpoint, a mixture of two, or a mixture for each image."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis import NUMBERS, Point
from mergekit_wise.analysis.dynamic import BetaMixture, fit_mixture, mixing_lambda
from mergekit_wise.api.predict_report import PredictReport
from mergekit_wise.checkpoint import Checkpoint, closing
from mergekit_wise.checkpoint.writing import require_output, write_atomically
from mergekit_wise.datasets.class_names import PLAIN, read_classnames, read_templates
from mergekit_wise.datasets.dataset import Dataset, Suite
from mergekit_wise.datasets.folders import as_text
from mergekit_wise.datasets.given import DatasetInMemory
from mergekit_wise.datasets.image_file import is_image_file, open_image_file
from mergekit_wise.datasets.in_memory import open_images
from mergekit_wise.datasets.name_matching import are_numbers
from mergekit_wise.datasets.subsets import subset, with_pixel_limit
from mergekit_wise.datasets.unlabelled import open_unlabelled
from mergekit_wise.errors import ModelError, OutputError, Unsaved, UsageError
from mergekit_wise.evaluation import joined
from mergekit_wise.evaluation.class_shares import ClassShares
from mergekit_wise.evaluation.distributed import Ranks
from mergekit_wise.evaluation.evaluator import Evaluator, open_evaluator
from mergekit_wise.evaluation.measure import require_outside
from mergekit_wise.evaluation.own_modules import prepared, require_transformable
from mergekit_wise.evaluation.variants import InterpolatedWeights, Variant, reader
from mergekit_wise.merging import Rules, described_by, make_plan, parse_naming
from mergekit_wise.models.model import Model
from mergekit_wise.models.pair_notes import notes_on_order, notes_on_preprocessing, notes_on_reading, template
from mergekit_wise.models.pairing import match, open_pair
from mergekit_wise.models.source import open_source
from mergekit_wise.option_types import takes
from mergekit_wise.options import PredictOptions
from mergekit_wise.results.predictions import Prediction, as_csv, as_json_lines
from mergekit_wise.wording import listed, plural

DEFAULT_ALPHA, DEFAULT_CLUSTERS = 0.5, 3
ENDINGS = (".jsonl", ".csv")


@takes(PredictOptions)
def predict(options: PredictOptions) -> PredictReport:
    """Predict the class of every image at `images`, which needs no classes, with the probabilities of the softmax.

    `images` may be a path, or a sequence of images in memory; models and `transform` as for `evaluate`.

    With `mix_with`, the model is ``(1 - alpha) * checkpoint + alpha * mix_with``, the file that `merge` would write.
    With `dynamic`, images get one of K such mixtures each, by the entropies of both models' predictions (DaWin); K = 1
    is the mixture at the mean of all alphas.

    Raises:
        CheckpointError, MismatchError, ModelError, SuiteError, UsageError: what is wrong, and what to do.
        OutputError: the file cannot be written.
        Unsaved: the same, found after the work; it carries the whole report.
    """
    _require_options(options)
    options = prepared(options)
    if isinstance(options.images, DatasetInMemory):
        images = open_images(options.images)
    else:
        images = _open_images(Path(str(options.images)), options.max_pixels)
    require_transformable((images,), options)
    require_outside((options.output,), (images,))
    with (
        _opened(options) as source,
        joined(options.device) as (ranks, device),
    ):
        notes = [*source.notes, *images.titled_notes]
        with open_evaluator(source.template, options, ranks, device, notes.append, images) as evaluator:
            dataset, classnames = _with_classes(images, evaluator, options, notes.append)
            work = _Work(source, evaluator, dataset, classnames, options, ranks)
            predictions, mixtures, said = work.dynamic() if options.dynamic else work.static()
            report = PredictReport(
                predictions,
                classnames,
                mixtures,
                evaluator.model.architecture,
                evaluator.heads.name,
                evaluator.engine.forward.precision,
                evaluator.device,
                tuple(dict.fromkeys((*notes, *said, *_notes_on_errors(predictions)))),
                options.output,
            )
        if options.output is not None and ranks.rank == 0:
            _write(options.output, report)
    return report


def _require_options(options: PredictOptions) -> None:
    """Raise UsageError for options that need others, and OutputError if the output cannot be written."""
    if options.mix_with is None:
        for name in ("alpha", "dynamic", "base", "rename"):
            if getattr(options, name) not in (None, False, ()):
                raise UsageError(
                    f"--{name} is for a mixture of two checkpoints. Give the fine-tuned one with --mix-with "
                    "FINETUNED, or leave the option out."
                )
    if options.dynamic and options.alpha is not None:
        raise UsageError("--dynamic chooses the alphas, and --alpha gives one. Leave one out.")
    if options.clusters is not None and not options.dynamic:
        raise UsageError("--clusters says how many mixtures --dynamic makes. Add --dynamic, or leave it out.")
    if options.alpha is not None:
        Rules(alpha=options.alpha)  # checks it
    if options.output is not None:
        if options.output.suffix.lower() not in ENDINGS:
            raise UsageError(
                f"-o {options.output}: expected a name that ends in .jsonl (JSON Lines) or .csv. "
                "'wise predict --json' prints JSON Lines."
            )
        require_output(options.output)


def _open_images(path: Path, most: int | None) -> Dataset:
    """The images, without classes; `most` pixels are read."""
    if path.suffix in (".safetensors", ".pt", ".pth", ".bin", ".ckpt") and path.is_file():
        raise UsageError(
            f"{path}: is a checkpoint, and images are expected. For a mixture of two checkpoints: "
            "wise predict CHECKPOINT --mix-with FINETUNED IMAGES"
        )
    images = open_image_file(path) if is_image_file(path) else open_unlabelled(path)
    (limited,) = with_pixel_limit(Suite("", None, (images,)), most).shifts
    return limited


# Models


@dataclass(frozen=True, slots=True)
class _Models:
    """The checkpoint, or the mixtures of two, that can predict.

    Attributes:
        template: what the model is built from.
        variant: the model at an alpha; of a single checkpoint for None.
        notes: on how files were read.
    """

    template: Checkpoint
    variant: Callable[[float | None], Variant]
    notes: tuple[str, ...]


@contextmanager
def _opened(options: PredictOptions) -> Iterator[_Models]:
    if options.mix_with is None:
        source = open_source(options.checkpoint, mmap=options.mmap)
        with closing(source):
            yield _Models(source, lambda alpha: Variant(source.path.name, None, reader(source)), source.notes)
        return
    naming = parse_naming(None, options.rename)
    opening = open_pair(
        options.checkpoint, options.mix_with, naming, base=options.base, mmap=options.mmap, to_evaluate=True
    )
    with opening as (first, second, naming):
        pair = match(first, second, naming=naming)
        weights, name = InterpolatedWeights(pair), f"{pair.zeroshot.path.name} + {pair.finetuned.path.name}"

        def mixture(alpha: float | None) -> Variant:
            assert alpha is not None
            return Variant.mixed(name, weights, Point.of_alpha(alpha), Rules(alpha=alpha))

        plan = make_plan(pair, Rules())
        said = () if options.model else tuple(notes_on_preprocessing(pair, described_by(pair, plan)))
        yield _Models(template(pair, plan), mixture, (*notes_on_reading(pair), *notes_on_order(pair), *said))


def _with_classes(
    images: Dataset, evaluator: Evaluator, options: PredictOptions, note: Callable[[str], object]
) -> tuple[Dataset, tuple[str, ...]]:
    """The images with the classes that compete, and the names of these; empty if the classes have only numbers.

    Raises UsageError or ModelError if the names do not fit the head, or if a zero-shot head lacks them.
    """
    model = evaluator.model
    given = None if options.classnames is None else read_classnames(options.classnames, note)
    if not model.has_own_head:
        if given is None:
            raise UsageError(
                f"{options.checkpoint}: predicts with a head made from class names, and none are given. Name the "
                "classes with --classnames FILE (or imagenet), or give a head with --head FILE."
            )
        templates = PLAIN if options.templates is None else read_templates(options.templates, note)
        dataset = replace(images, classnames=given, templates=templates)
        for text in evaluator.heads.require((dataset,)):
            note(text)
        return dataset, given
    declared = _declared(model, note)
    if given is not None and declared:
        dataset = replace(images, classnames=given)
        for text in evaluator.heads.require((dataset,)):
            note(text)
        return dataset, given
    outputs = model.classes or 0
    if given is None:
        if not declared:
            note(
                "the head does not name its classes, so that predictions have numbers alone; --classnames FILE gives "
                "the names, one per line, in the head's order"
            )
        return replace(images, classnames=declared or tuple(map(str, range(outputs)))), declared
    if len(given) != outputs:
        raise UsageError(
            f"--classnames {options.classnames}: names {plural(len(given), 'class')}, and the head, which does not "
            f"name its classes, has {outputs}. Name all of them, in the head's order."
        )
    note(f"the head does not name its classes; they are called what --classnames says ({_first(given)})")
    return replace(images, classnames=given), given


def _declared(model: Model, note: Callable[[str], object]) -> tuple[str, ...]:
    """The names of the head's classes; empty if it has none, or others than it has classes."""
    names = model.class_names
    if names is None or are_numbers(names):
        return ()
    if len(names) != model.classes:
        note(f"its file names {plural(len(names), 'class')} for a head of {model.classes}, so the names are not used")
        return ()
    return names


def _first(names: Sequence[str]) -> str:
    return listed((f"{number} is {name!r}" for number, name in enumerate(names)), 2)


# Predictions

_Found = tuple[tuple[Prediction, ...], tuple[tuple[float, int], ...], tuple[str, ...]]
"""Predictions, how many images each alpha served, and notes."""


@dataclass(frozen=True, slots=True)
class _Work:
    """Images and the models that predict them."""

    models: _Models
    evaluator: Evaluator
    dataset: Dataset
    classnames: tuple[str, ...]
    options: PredictOptions
    ranks: Ranks

    def static(self) -> _Found:
        """Every image by one model."""
        alpha = self.options.alpha
        if self.options.mix_with is not None and alpha is None:
            alpha = DEFAULT_ALPHA
        predictions = self._predicted(self.dataset, 0, alpha)
        return predictions, () if alpha is None else ((alpha, len(predictions)),), ()

    def dynamic(self) -> _Found:
        """Every image by the mixture of its cluster."""
        mixture, members, undecided = self._clusters()
        predictions: dict[int, Prediction] = {}
        served = []
        for cluster, alpha in enumerate(mixture.alphas.tolist()):
            rows = np.flatnonzero(members == cluster)
            if len(rows):
                part = self.dataset if len(rows) == len(self.dataset) else subset(self.dataset, rows)
                predictions |= dict(zip(rows.tolist(), self._predicted(part, 2 + cluster, alpha), strict=True))
                served.append((alpha, len(rows)))
        return (
            tuple(predictions[index] for index in range(len(self.dataset))),
            tuple(served),
            tuple(_notes_on_clusters(mixture, served, undecided)),
        )

    def _clusters(self) -> tuple[BetaMixture, NDArray[np.int64], int]:
        """The clusters, the cluster of every image, and how many images have none of their own.

        These, which are unreadable or whose logits are not finite, go with most of the others.
        """
        ends = [self.models.variant(alpha) for alpha in (0.0, 1.0)]
        found = self.evaluator.predict([0, 1], ends, self.dataset)
        zeroshot, finetuned = found.numbers[:, NUMBERS.index("entropy")]
        known = np.flatnonzero(np.isfinite(zeroshot) & np.isfinite(finetuned))
        if not len(known):
            raise ModelError(
                "The logits of all images are infinite or NaN at alpha 0 or 1, so that --dynamic cannot compare the "
                "two models. Try --precision fp32, or check the weights with 'wise inspect'."
            )
        mixture = fit_mixture(
            mixing_lambda(zeroshot[known], finetuned[known]), self.options.clusters or DEFAULT_CLUSTERS
        )
        members = np.full(len(self.dataset), mixture.counts.argmax())
        members[known] = mixture.members
        return mixture, members, len(found.readable) - len(known)

    def _predicted(self, dataset: Dataset, number: int, alpha: float | None) -> tuple[Prediction, ...]:
        """The images by the variant of an alpha, which heads know by its `number`."""
        seen = ClassShares(self.options.top)
        found = self.evaluator.predict([number], [self.models.variant(alpha)], dataset, seen.observers)
        shares = seen.of_all(self.ranks).found
        predictions = []
        for index in range(len(dataset)):
            file = _relative(dataset.sample(index), dataset.location)
            if index in shares:
                classes, probabilities = (tuple(numbers.tolist()) for numbers in shares[index])
                names = tuple(self.classnames[one] for one in classes) if self.classnames else ()
                predictions.append(Prediction(file, classes, probabilities, names, alpha))
            else:
                error = found.bad.get(index, "The model's logits are infinite or NaN.")
                predictions.append(Prediction(file, alpha=alpha, error=error))
        return tuple(predictions)


def _relative(sample: str, location: str) -> str:
    """The name of an image below the place of all."""
    start = f"{location.rstrip('/')}/"
    return as_text(sample.removeprefix(start).removeprefix(location).lstrip("/:") or sample)


def _notes_on_clusters(mixture: BetaMixture, served: Sequence[tuple[float, int]], undecided: int) -> Iterator[str]:
    shown = listed((f"alpha {alpha:.3f} for {plural(images, 'image')}" for alpha, images in served), len(served))
    yield (
        f"--dynamic: {shown}; the alphas are fitted to these images, so that a prediction depends on which images are "
        "predicted together"
    )
    if len(served) < mixture.asked:
        yield (
            f"--dynamic: {plural(mixture.asked, 'cluster')} were asked for, and {len(served)} made: the two models' "
            "certainties have too few different ratios"
        )
    if undecided:
        yield (
            f"--dynamic: the logits of {plural(undecided, 'image')} are infinite or NaN at alpha 0 or 1; they are "
            "predicted with the mixture of most images"
        )


def _notes_on_errors(predictions: Sequence[Prediction]) -> Iterator[str]:
    errors = [each for each in predictions if each.error]
    if errors:
        yield f"{plural(len(errors), 'image')} without a prediction, such as {errors[0].file}: {errors[0].error}"


def _write(output: Path, report: PredictReport) -> None:
    """Write the file, whole or not at all."""
    if output.suffix.lower() == ".csv":
        text = as_csv(report.predictions)
    else:
        text = "".join(f"{line}\n" for line in as_json_lines(report.predictions))
    try:
        write_atomically(output, text)
    except OutputError as error:
        raise Unsaved(str(error), report) from error
