"""Image-text retrieval as a task: how often a model finds an image's captions among all, and a caption's image.

Each set of images with captions is two data sets of a run, one for each direction. With CLIP_benchmark's names, recall
of image to text is ``text_retrieval_recall@k``, and that of text to image is ``image_retrieval_recall@k``.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mergekit_wise.analysis.retrieval import first_right, hits
from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.datasets.captioned_images import CaptionedImages, captioned_subset, limited_captions, with_pixels
from mergekit_wise.datasets.captions import open_captions
from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation.distributed import ALONE
from mergekit_wise.evaluation.image_batches import notes_on_bad
from mergekit_wise.evaluation.own_evaluator import Mixture, ModelTask, TaskResult
from mergekit_wise.evaluation.two_encoders import Features, TwoEncoders, open_encoders
from mergekit_wise.evaluation.variants import Variant
from mergekit_wise.options import EvaluationOptions
from mergekit_wise.wording import listed, plural

NAME, TITLE = "retrieval", "image-text retrieval"

K, FURTHER = 1, (5, 10)
"""The k of the recall that is reported, and those of further numbers."""

DIRECTIONS = ("image-to-text", "text-to-image")

FEATURE_BYTES = 1 << 30
"""Memory for the image features of variants for which images are decoded together."""

BLOCK_BYTES = 32 << 20
"""Memory for the similarities that are computed at once."""


@dataclass(slots=True)
class Retrieval(ModelTask):
    """Measures recall with both encoders of each mixture; images are decoded once for all that are known to come.

    Attributes:
        sets: images with captions, under different names.
        reference: the name of the data set that is the reference.
        open_encoders: of checkpoints like the given one; the second argument is called with notes.
        version: a text of the user's own, of which the identity is a part.
        feature_bytes: memory for image features that are kept.
    """

    sets: tuple[CaptionedImages, ...]
    reference: str
    open_encoders: Callable[[Checkpoint, Callable[[str], None]], TwoEncoders]
    version: str = ""
    feature_bytes: int = FEATURE_BYTES
    _note: Callable[[str], object] = str
    _opened: TwoEncoders | None = None
    _images: dict[int, list[tuple[Variant, Features]]] = field(default_factory=dict)
    _texts: dict[int, tuple[Variant, Features]] = field(default_factory=dict)
    _readable: dict[int, CaptionedImages] = field(default_factory=dict)

    def open(self, template: Checkpoint, note: Callable[[str], object]) -> None:
        """See `ModelTask.open`."""
        self._note = note
        for each in self.sets:
            for text in each.images.titled_notes:
                note(text)
        if self._opened is None:
            self._opened = self.open_encoders(template, self._say)
        note(f"retrieval with {self._opened.described}")

    @property
    def encoders(self) -> TwoEncoders:
        """The encoders of the model that was opened."""
        assert self._opened is not None, "open comes first"
        return self._opened

    @property
    def name(self) -> str:
        """Of the suite, in records."""
        return NAME

    @property
    def title(self) -> str:
        """What evaluates, for messages."""
        return TITLE

    @property
    def identity(self) -> str:
        """What recall depends on besides the weights: the data, the model, preprocessing, precision and releases."""
        data = {each.name: each.fingerprint for each in self.sets}
        own = {"data": data, "max_bad": self.encoders.engine.max_bad, "version": self.version}
        return json.dumps({**own, **self.encoders.identity}, sort_keys=True)

    def __call__(self, mixture: Mixture) -> tuple[TaskResult, ...]:
        """Recall at 1, 5 and 10 in both directions on each set of images.

        Raises SuiteError if too many images are unreadable, ModelError if memory does not hold a batch.
        """
        variant = mixture.variant
        return tuple(
            result
            for number in range(len(self.sets))
            for result in self._results(number, variant, self._features(number, variant, mixture.coming))
        )

    def _say(self, note: str) -> None:
        self._note(note)

    def _features(self, number: int, variant: Variant, coming: Sequence[Variant]) -> Features:
        """The features of a set's images under `variant`, computed with those of the variants that come next."""
        kept = next((features for each, features in self._images.get(number, ()) if each is variant), None)
        if kept is not None:
            return kept
        self._images.pop(number, None)  # before others are allocated
        width = self.encoders.model.config["model_cfg"]["embed_dim"]
        room = max(1, self.feature_bytes // (4 * width * sum(map(len, self.sets))))
        together = [variant, *coming][:room]
        found = self.sets[number]
        features, bad = self.encoders.images(together, found.images)
        if number not in self._readable:
            self._readable[number] = self._without(found, bad)
        if bad:
            rows = np.setdiff1d(np.arange(len(found)), list(bad))
            features = [each[rows] for each in features]
        self._images[number] = list(zip(together, features, strict=True))
        return features[0]

    def _without(self, found: CaptionedImages, bad: dict[int, str]) -> CaptionedImages:
        """The images that can be read. What was left out is said."""
        for note in notes_on_bad(found.images, bad):
            self._note(f"{note} Nor are its captions.")
        if bad:
            found = captioned_subset(found, np.setdiff1d(np.arange(len(found)), list(bad)))
        if len(found) <= FURTHER[-1]:
            self._note(
                f"{found.title}: has {plural(len(found), 'image')}, so that text-to-image recall@{FURTHER[-1]} is 1 "
                "whatever the model"
            )
        return found

    def _results(self, number: int, variant: Variant, images: Features) -> tuple[TaskResult, TaskResult]:
        found = self._readable[number]
        texts = self._text_features(number, variant, found)
        of_images = np.arange(len(found))
        of_texts = np.repeat(of_images, [len(captions) for captions in found.captions])
        device = self.encoders.engine.forward.device
        places = (
            ranked(images, texts, of_images, of_texts, device),
            ranked(texts, images, of_texts, of_images, device),
        )
        to_text, to_image = (
            TaskResult(
                dataset=name,
                metric=f"recall@{K}",
                items=hits(each, K),
                values={f"recall@{k}": float(hits(each, k).mean()) for k in FURTHER},
                title=name,
            )
            for name, each in zip(names_of(found), places, strict=True)
        )
        return to_text, to_image

    def _text_features(self, number: int, variant: Variant, found: CaptionedImages) -> Features:
        """The features of a set's captions, kept as long as the text encoder's weights stay the same."""
        if number in self._texts:
            before, features = self._texts[number]
            if before is variant or self.encoders.have_same_texts((before, variant)):
                return features
            del self._texts[number]
        features = self.encoders.texts(variant, found.texts, found.title)
        self._texts[number] = variant, features
        return features


def ranked(
    queries: Features,
    candidates: Features,
    wanted: NDArray[np.int64],
    owners: NDArray[np.int64],
    device: torch.device,
    block_bytes: int = BLOCK_BYTES,
) -> NDArray[np.int64]:
    """The place of each query's first right candidate by cosine similarity, int64 [Q]; see `first_right`.

    Similarities are float32, and computed for as many queries at once as `block_bytes` hold.

    Args:
        queries: float32 [Q, D], of length 1.
        candidates: float32 [C, D], of length 1.
        wanted: the owner of each query's right candidates, int64 [Q].
        owners: of the candidates, int64 [C].
        device: where similarities are computed.
        block_bytes: memory for similarities.
    """
    columns = torch.from_numpy(candidates).to(device).T
    step = max(1, block_bytes // (4 * len(candidates)))
    found = []
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        similarities = torch.from_numpy(queries[rows]).to(device) @ columns
        found.append(first_right(similarities.cpu().numpy(), wanted[rows], owners))
    return np.concatenate(found)


def names_of(found: CaptionedImages) -> tuple[str, str]:
    """The names of the two data sets of a set of images with captions: image to text, and text to image."""
    first, second = (f"{found.name} {direction}" for direction in DIRECTIONS)
    return first, second


USES = frozenset(
    (
        "model",
        "device",
        "limit",
        "seed",
        "image_size",
        "precision",
        "batch_size",
        "workers",
        "cache_images",
        "max_bad",
        "max_pixels",
    )
)
"""The names of the options that `open_retrieval` reads, besides those that any evaluation has."""


def open_retrieval(argument: str, options: EvaluationOptions) -> Retrieval:
    """The evaluator of the images with captions that `argument` names; see `open_caption_sets`.

    Raises UsageError or SuiteError if there are none.
    """
    sets = open_caption_sets(argument, options)
    reference = None if options.reference is None else str(options.reference)

    def encoders(template: Checkpoint, note: Callable[[str], None]) -> TwoEncoders:
        return open_encoders(template, options, ALONE, options.device, note)

    return Retrieval(sets, reference_of(sets, reference), encoders, options.evaluator_version or "")


def open_caption_sets(argument: str, options: EvaluationOptions) -> tuple[CaptionedImages, ...]:
    """The images with captions at the paths in `argument`, separated by commas, under names of their own.

    Of each, a random part if there is a ``--limit``. Raises UsageError if no path is named, or one twice; SuiteError if
    one holds no images with captions.
    """
    whole = Path(argument).expanduser()
    texts = [argument] if argument and whole.exists() else [text for text in argument.split(",") if text.strip()]
    if not texts:
        raise UsageError(
            "--evaluator retrieval: name the images with captions, for example --evaluator retrieval:flickr30k.csv. "
            "Several are separated by commas."
        )
    paths = [Path(text.strip()).expanduser() for text in texts]
    places = [path.resolve() for path in paths]
    if twice := [path for path in paths if places.count(path.resolve()) > 1]:
        raise UsageError(f"--evaluator retrieval: {twice[0]} is named twice. Name it once.")
    opened = [with_pixels(open_captions(path), options.max_pixels) for path in paths]
    if options.limit is not None:
        opened = [limited_captions(each, options.limit, options.seed) for each in opened]
    names = [each.name for each in opened]
    return tuple(
        each if names.count(each.name) == 1 else each.renamed(str(path))
        for each, path in zip(opened, paths, strict=True)
    )


def reference_of(sets: Sequence[CaptionedImages], asked: str | None) -> str:
    """The name of the data set that is the reference: image to text of the first set, or of the one that is asked for.

    Raises UsageError if no set and no data set has this name.
    """
    names = [name for each in sets for name in names_of(each)]
    if asked is None or asked in names:
        return asked or names[0]
    found = next((each for each in sets if each.name == asked), None)
    if found is None:
        raise UsageError(f"--reference {asked}: is none of the data sets of {TITLE}: {listed(map(repr, names))}.")
    return names_of(found)[0]
