"""A run of fine-tuning put together: what learns, from which images, by which objective, and where it is kept."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mergekit_wise import __version__
from mergekit_wise.checkpoint import write_safetensors
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation import Ranks, choose_precision, default_workers, place
from mergekit_wise.evaluation.forward import Precision
from mergekit_wise.evaluation.variants import checkpoint_fingerprint
from mergekit_wise.merging.torch_backend import open_device
from mergekit_wise.models.pair_notes import FINETUNED
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.options import EvalOptions, FinetuneOptions
from mergekit_wise.progress import Progress, silent
from mergekit_wise.training.augmentation import Augmentation
from mergekit_wise.training.average import Average
from mergekit_wise.training.batch_order import BatchOrder
from mergekit_wise.training.checkpointer import Checkpointer
from mergekit_wise.training.contrastive import Captioned
from mergekit_wise.training.depth import layer_factors
from mergekit_wise.training.features import Extraction, cache_folder, features_of
from mergekit_wise.training.images import Decoded, Held, Images, hold
from mergekit_wise.training.log import Log
from mergekit_wise.training.loop import Run
from mergekit_wise.training.objective import Objective
from mergekit_wise.training.optimizer import OptimizerStep, optimization
from mergekit_wise.training.runtime import Runtime, set_training
from mergekit_wise.training.session import Epoch, Session, weights_of
from mergekit_wise.training.supervised import Supervised
from mergekit_wise.training.trainable import Towers, Trainable, head_of
from mergekit_wise.training.validation import Validation, open_validator

MICRO = {"cpu": 64, "cuda": 256}
"""Images of 224 x 224 pixels that are computed at once; of smaller ones, as many more as these have fewer pixels."""


@dataclass(frozen=True, slots=True)
class FinetuneReport:
    """What `finetune` did.

    Attributes:
        output: the file that was written.
        steps: of the run; `resumed` of them were taken by an earlier one.
        images: how many were learned from, of `classes` classes.
        epochs: how each went that this run finished.
        architecture: of the model, and how it is known.
        notes: on how files were read and what was decided.
    """

    output: Path
    steps: int
    resumed: int
    images: int
    classes: int
    epochs: tuple[Epoch, ...]
    architecture: str
    notes: tuple[str, ...]


class Job:
    """One run of fine-tuning, its inputs open."""

    def __init__(
        self,
        request: FinetuneOptions,
        trainable: Trainable,
        dataset: Dataset,
        ranks: Ranks,
        device: str,
        progress: Progress,
        note: Callable[[str], object],
    ) -> None:
        self.request, self.trainable, self.dataset, self.ranks = request, trainable, dataset, ranks
        self.first = ranks.rank == 0
        self.progress: Progress = progress if self.first else silent
        self.note = note if self.first else str
        self.notes: list[str] = []
        self.device_name, self.device = device, open_device(device)
        self.preprocess = Preprocess.of(trainable.model.preprocess)

    def remark(self, text: str) -> None:
        """Something that a user should know."""
        self.notes.append(text)
        self.note(text)

    def done(self) -> FinetuneReport:
        """Take all steps, or those that are left, and write the output."""
        """Train to the end, and write the output. Raises what `finetune` raises."""
        request, trainable = self.request, self.trainable
        place(trainable.model.module, self.device)
        run = self._run()
        checkpointer = Checkpointer(request.folder, self._facts(), trainable.parameters)
        if request.restart and self.first:
            checkpointer.clear(keep_epochs=False)
        self.ranks.share(None)  # nobody looks for a state before the old one is gone
        checkpointer.restore(run)
        resumed = run.stepper.taken
        if resumed:
            self.remark(f"going on after step {resumed:,} of {run.course.total:,}, which {checkpointer.folder} holds")
        with self._session(run, checkpointer) as session:
            session.finish()
        if self.first:
            self._write(run, checkpointer, Path(request.output))
            checkpointer.clear(request.keep_epochs)
        return FinetuneReport(
            Path(request.output),
            run.course.total,
            resumed,
            len(self.dataset),
            len(self.dataset.classnames),
            tuple(session.epochs),
            trainable.model.architecture,
            tuple(self.notes),
        )

    @contextmanager
    def _session(self, run: Run, checkpointer: Checkpointer) -> Iterator[Session]:
        request = self.request
        with ExitStack() as stack:
            validate: Callable[[Path], Validation] | None = None
            if request.validate is not None:
                validate = stack.enter_context(
                    open_validator(
                        self.trainable.source,
                        self._setting(),
                        self.ranks,
                        self.device_name,
                        lambda text: self.remark(text),
                    )
                )
            yield Session(
                run=run,
                checkpointer=checkpointer,
                write=lambda path: self._write(run, checkpointer, path),
                validate=validate,
                log=Log(request.log if self.first else None, run.stepper.taken),
                keep_epochs=request.keep_epochs,
                first=self.first,
                progress=self.progress,
                note=self.note,
            )

    def _setting(self) -> EvalOptions:
        request = self.request
        assert request.validate is not None
        return EvalOptions(
            request.checkpoint,
            request.validate,
            data=request.data,
            model=request.model,
            device=self.device_name,
            precision=request.precision,
            workers=request.workers,
            max_bad=request.max_bad,
            progress=self.progress,
        )

    def _run(self) -> Run:
        request, trainable = self.request, self.trainable
        contrastive = isinstance(trainable.module, Towers)
        count = len(self.dataset)
        course = BatchOrder(count, min(request.batch_size, count), request.epochs, request.seed, only_full=contrastive)
        if contrastive and course.batch_size < 2 * self.ranks.size:
            raise UsageError(f"--batch-size: expected two images for each of {self.ranks.size} processes, found fewer.")
        precision = choose_precision(request.precision, self.device)
        computing = Runtime(self.device, precision, self.ranks, self._micro())
        settings = optimization(request, course.batch_size, course.total)
        if request.warmup is None and settings.warmup != optimization(request, 1, 1 << 30).warmup:
            self.remark(f"{settings.warmup} steps of warm-up: a tenth of the {course.total} there are")
        images = self._images(precision)
        set_training(trainable.module)
        factors = layer_factors(trainable.parameters, request.layer_decay) if request.layer_decay < 1 else {}
        stepper = OptimizerStep(trainable.parameters.items(), settings, course.total, factors, computing.scaler)
        average = None if request.ema is None else Average(trainable.parameters.items(), request.ema)
        return Run(self._objective(computing), images, course, stepper, computing, average, note=self.remark)

    def _micro(self) -> int:
        if self.request.micro_batch is not None:
            return self.request.micro_batch
        height, width = self.preprocess.size
        usual = MICRO.get(self.device.type, MICRO["cpu"])
        return 1 << 30 if self.request.linear else max(1, usual * 224 * 224 // (height * width))

    def _images(self, precision: Precision) -> Images:
        request = self.request
        workers = default_workers() if request.workers is None else request.workers
        if request.linear:
            how = Extraction(self.device, precision, workers, 128, self.ranks, self.progress, self.remark)
            model = self.trainable.model
            return Held(features_of(model, self.dataset, head_of(model), cache_folder(request.cache), how))
        kind = request.augmentation
        preprocess = self.preprocess if kind == "none" else replace(self.preprocess, crop_pct=1.0)
        augmentation = Augmentation(kind, preprocess.size, preprocess.interpolation, request.seed)
        return hold(Decoded(self.dataset, preprocess, augmentation, workers, request.max_bad))

    def _objective(self, computing: Runtime) -> Objective:
        request, trainable = self.request, self.trainable
        if isinstance(trainable.module, Towers):
            captions, scale = self._captions(), trainable.module.classifier.logit_scale
            assert scale is not None
            module = computing.shared(trainable.module, self._image(), captions[0, :1])
            return Captioned(module, scale, self.preprocess.normalise, trainable.labels, captions, computing)
        linear = trainable.module if request.linear else None
        example = torch.zeros(1, linear.in_features) if isinstance(linear, nn.Linear) else self._image()
        prepare = torch.Tensor.float if request.linear else self.preprocess.normalise
        module = computing.shared(trainable.module, example)
        return Supervised(module, prepare, trainable.labels, computing, request.label_smoothing, request.mixup)

    def _image(self) -> torch.Tensor:
        """One as the model takes it, of no colour at all."""
        return torch.zeros(1, 3, *self.preprocess.size)

    def _captions(self) -> torch.Tensor:
        """Tokens of each class in each prompt, int64 [C, T, L]."""
        names, templates = self.dataset.classnames, self.dataset.templates
        texts = [template.replace("{}", name) for name in names for template in templates]
        return self.trainable.model.tokenizer(texts).view(len(names), len(templates), -1)

    def _facts(self) -> dict[str, Any]:
        """What the weights that come out depend on. No clock and no path, so the same inputs give the same bytes."""
        source, data, model = self.trainable.source, self.dataset, self.trainable.model
        contrastive = isinstance(self.trainable.module, Towers)
        facts = {
            "version": __version__,
            **self.request.settings(),
            "architecture": model.architecture.partition(" (")[0],
            "zeroshot": checkpoint_fingerprint(source, model.names),
            "data": {"name": data.name, "images": len(data), "digest": fingerprint(data)},
            **({"classnames": data.classnames, "templates": data.templates} if contrastive else {}),
        }
        facts_as_stored: dict[str, Any] = json.loads(json.dumps(facts))  # lists, as a state has them
        return facts_as_stored

    def _write(self, run: Run, checkpointer: Checkpointer, path: Path) -> None:
        tensors = self.trainable.checkpoint(weights_of(run, checkpointer))
        write_safetensors(path, tensors, self.trainable.metadata({FINETUNED: json.dumps(dict(checkpointer.facts))}))
