"""Features of images and of texts from both encoders of a model, for many variants. Knows no task.

Images are decoded once for all variants; a feature vector takes hundreds of times less memory than its image.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import ModelError
from mergekit_wise.evaluation.distributed import Ranks
from mergekit_wise.evaluation.engine import Engine
from mergekit_wise.evaluation.evaluator import require_cache
from mergekit_wise.evaluation.forward import Forward, autocast, choose_precision, is_memory_error, place
from mergekit_wise.evaluation.image_batches import default_workers, require_few
from mergekit_wise.evaluation.image_cache import ImageCache
from mergekit_wise.evaluation.variants import Installer, Variant
from mergekit_wise.merging.torch_backend import open_device, send
from mergekit_wise.models.classifier import Classifier
from mergekit_wise.models.model import Model
from mergekit_wise.models.names import TEXT, TOWER, read_names
from mergekit_wise.models.opening import has_text_tower, open_model
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.models.zero_shot_head import CountingTokenizer, encode_texts
from mergekit_wise.options import EvaluationOptions
from mergekit_wise.results.identity import SOURCE, comparable, installed_versions
from mergekit_wise.wording import plural

Features = NDArray[np.float32]

TEXTS = 256
"""Texts that are encoded at once, and `TOKENIZED` those that are tokenized between reports of progress."""

TOKENIZED = 1024


@dataclass(slots=True)
class TwoEncoders:
    """A model's encoders on their device; `engine` computes image features in place of logits."""

    model: Model
    engine: Engine
    install: Installer
    note: Callable[[str], object]
    _tokens: dict[tuple[str, ...], NDArray[np.int32]] = field(default_factory=dict)

    def images(self, variants: Sequence[Variant], dataset: Dataset) -> tuple[list[Features], dict[int, str]]:
        """For each variant the features of all images, float32 [N, D], of length 1; and what is wrong with bad ones.

        Images are decoded once. If no weight of the image encoder differs, features are computed once, and all
        variants have the same array. Rows of unreadable images are zeros.

        Raises SuiteError if more than ``max_bad`` images are unreadable, ModelError if memory does not hold one.
        """
        computed = variants[:1] if self._is_constant(variants, TOWER) else variants
        ranks = self.engine.ranks
        with ranks.agreeing():
            own, bad = self._own_images(computed, dataset)
        for part in ranks.gather(bad):
            bad |= part
        require_few(dataset, bad, self.engine.max_bad)
        if ranks.size > 1:  # each process has computed the batches that the others left at zero
            own = [np.sum(ranks.gather(each), axis=0, dtype=np.float32) for each in own]
        return own * (len(variants) // len(computed)), dict(sorted(bad.items()))

    def texts(self, variant: Variant, texts: tuple[str, ...], task: str) -> Features:
        """The features of `texts` under a variant, float32 [M, D], of length 1.

        Texts are encoded in the order of their length, so that short ones need not be computed to the length of long
        ones. Raises ModelError if they do not fit into memory.
        """
        tokens = self._tokenized(texts, task)
        self.install(variant)
        module, device = self.model.module, self.engine.forward.device
        assert isinstance(module, Classifier)
        assert module.text is not None
        order = np.argsort((tokens != tokens[:, -1:]).sum(axis=1), kind="stable")
        found: Features = np.zeros((len(texts), self.model.config["model_cfg"]["embed_dim"]), np.float32)
        try:
            with torch.inference_mode(), autocast(self.engine.forward.precision, device):
                for start in range(0, len(order), TEXTS):
                    self.engine.progress(f"{task} captions", start, len(order), "texts")
                    rows = order[start : start + TEXTS]
                    batch = torch.from_numpy(tokens[rows]).to(device=device, dtype=torch.int64)
                    found[rows] = _unit(encode_texts(module.text, batch)).cpu().numpy()
        except RuntimeError as error:
            if not is_memory_error(error):
                raise
            raise ModelError(
                f"{plural(TEXTS, 'text')} do not fit into the memory of {device}. Use --device cpu or a lower "
                "--precision."
            ) from error
        self.engine.progress(f"{task} captions", len(order), len(order), "texts")
        return found

    def have_same_texts(self, variants: Sequence[Variant]) -> bool:
        """Whether no weight of the text encoder differs between variants."""
        return self._is_constant(variants, TEXT)

    @property
    def described(self) -> str:
        """The model, its precision and its device, for people."""
        return f"{self.model.architecture}; {self.engine.forward.precision} on {self.engine.forward.device}"

    @property
    def identity(self) -> dict[str, Any]:
        """What features depend on besides weights and inputs: model, preprocessing, precision, releases."""
        return {
            "architecture": SOURCE.sub("", self.model.architecture),
            "preprocess": dict(self.model.preprocess),
            "precision": self.engine.forward.precision,
            "versions": comparable("versions", installed_versions()),
        }

    def _own_images(self, variants: Sequence[Variant], dataset: Dataset) -> tuple[list[Features], dict[int, str]]:
        """The features of the batches of this rank; zeros elsewhere."""
        width, bad = self.model.config["model_cfg"]["embed_dim"], dict[int, str]()
        found = [np.zeros((len(dataset), width), np.float32) for _ in variants]
        batches = self.engine.batches(len(dataset))
        done, total = 0, sum(map(len, batches)) * len(variants)
        with closing(self.engine.groups(batches, len(variants), dataset, 0)) as groups, torch.inference_mode():
            for group in groups:
                bad |= {index: reason for batch in group for index, reason in batch.bad}
                require_few(dataset, bad, self.engine.max_bad)
                pixels = [send(torch.from_numpy(batch.pixels), self.engine.forward.device) for batch in group]
                coming = []
                for variant, features in zip(variants, found, strict=True):
                    self.install(variant)
                    for batch, image in zip(group, pixels, strict=True):
                        rows = self.engine.forward(image)[: len(batch.indices)]
                        coming.append((features, batch.indices, self.engine.fetch(_unit(rows))))
                        done += len(batch.indices)
                        self.engine.progress(dataset.title, done, total, "images")
                for features, indices, rows_there in coming:
                    features[indices] = rows_there.wait().numpy()
        for features in found:
            features[list(bad)] = 0
        return found, bad

    def _tokenized(self, texts: tuple[str, ...], task: str) -> NDArray[np.int32]:
        """The tokens of texts, int32 [M, L], which are computed once."""
        if texts not in self._tokens:
            counting = CountingTokenizer(self.model.tokenizer, "caption")
            rows = []
            for start in range(0, len(texts), TOKENIZED):
                self.engine.progress(f"{task} tokens", start, len(texts), "texts")
                rows.append(counting(texts[start : start + TOKENIZED]).numpy().astype(np.int32))
            self.engine.progress(f"{task} tokens", len(texts), len(texts), "texts")
            if counting.cut:
                self.note(f"{task}: {counting.remark()}")
            self._tokens[texts] = np.concatenate(rows)
        return self._tokens[texts]

    def _is_constant(self, variants: Sequence[Variant], tower: str) -> bool:
        """Whether all variants are mixtures of one pair in which the tower's weights are the same."""
        first = variants[0].interpolated
        if first is None or any(each.interpolated is not first for each in variants):
            return len(variants) == 1
        varying = first.varying(self.model, [variant.rules for variant in variants])
        return not any(self.model.names[name].startswith(tower) for name in varying)


def open_encoders(
    template: Checkpoint, options: EvaluationOptions, ranks: Ranks, device: str, note: Callable[[str], None]
) -> TwoEncoders:
    """The encoders of checkpoints like `template`. Raises ModelError unless it has both, UsageError."""
    require_cache(options)
    if not has_text_tower(read_names(template)):
        raise ModelError(
            f"{template.path.name}: has no text encoder, and retrieval compares the features of images and texts. Give "
            "checkpoints that hold both encoders, such as a CLIP that was fine-tuned without a classification head."
        )
    model = open_model(template, options.model, own_head=False, image_size=options.image_size)
    assert isinstance(model.module, Classifier)
    place(model.module, found := open_device(device))
    forward = Forward(
        model.module.visual,
        Preprocess.of(model.preprocess),
        found,
        choose_precision(options.precision, found),
        note,
    )
    workers = default_workers() if options.workers is None else options.workers
    images = ImageCache.open(note) if options.cache_images else None
    engine = Engine(forward, options.batch_size, workers, options.max_bad, ranks, options.progress, images=images)
    return TwoEncoders(model, engine, Installer(model, note), note)


def _unit(features: Tensor) -> Tensor:
    """Features in float32, of length 1."""
    return functional.normalize(features.float(), dim=-1)
