"""A fine-tuning run from its inputs to its output file: builds the parts, runs the loop, saves, logs and validates.

After each epoch, when a stop is requested, and as often as ``--save-every`` says, the trainer saves the state from
which the same command resumes.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mergekit_wise import __version__
from mergekit_wise.cache import Cache
from mergekit_wise.checkpoint import Checkpoint, open_checkpoint, write_checkpoint
from mergekit_wise.checkpoint import closing as closing_checkpoint
from mergekit_wise.errors import CheckpointError, Interrupted, NonFiniteError, SuiteError, UsageError
from mergekit_wise.evaluation import Ranks, default_workers, place
from mergekit_wise.evaluation.forward import within_memory
from mergekit_wise.evaluation.image_batches import notes_on_bad, require_few
from mergekit_wise.evaluation.variants import checkpoint_fingerprint
from mergekit_wise.merging.torch_backend import open_device
from mergekit_wise.models.pair_notes import FINETUNED
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.options import EvalOptions, FinetuneOptions
from mergekit_wise.progress import Progress, silent
from mergekit_wise.training.agreement import require_same_run, require_shared
from mergekit_wise.training.block_checkpoints import checkpoint_blocks
from mergekit_wise.training.checkpointer import Checkpointer
from mergekit_wise.training.data import TrainingData, with_training_names
from mergekit_wise.training.features import Extraction, features_of
from mergekit_wise.training.images import Augmentation, BatchOrder, Decoded, Images, cached
from mergekit_wise.training.interruption import StopRequest, deferred
from mergekit_wise.training.learning_rate import layer_factors
from mergekit_wise.training.log import TrainingLog
from mergekit_wise.training.loop import RunningMean, Step, TrainingLoop
from mergekit_wise.training.optimizer import MovingAverage, OptimizerStep, optimization
from mergekit_wise.training.resuming import Chosen, choose, how_to_resume, restored
from mergekit_wise.training.runtime import Runtime, set_training, torch_compile
from mergekit_wise.training.trackers import TrackedRun, Trackers, tracking
from mergekit_wise.training.trainable import Trainable
from mergekit_wise.training.validation import Validation, open_validator

MICRO_BATCH = {"cpu": 64, "cuda": 256}
"""Default micro-batch size for images of 224 x 224 pixels, by device; it grows as images have fewer pixels."""


KEPT = 0.1
"""The share of the zero-shot weights in the moving average from which on a note says so."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What is different if a run is one of several stages.

    Attributes:
        name: what progress and notes call it; empty for the only stage.
        rate: the option with the learning rate.
        mixed_with: the checkpoint that the output will be mixed with; None if it is the one that training starts from.
    """

    name: str = ""
    rate: str = "--lr"
    mixed_with: Checkpoint | None = None


class Stopped(Interrupted):
    """The run was interrupted. The message says where the state is and how to resume."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """The outcome of an epoch.

    Attributes:
        number: from 1.
        loss: mean over the training images, each before its step.
        accuracy: on the same images, between 0 and 1.
        seconds: duration without validation.
        validation: accuracies on the validation suite, if there is one.
    """

    number: int
    loss: float
    accuracy: float
    seconds: float
    validation: Validation | None


@dataclass(frozen=True, slots=True)
class Trained:
    """What `finetune` did.

    Attributes:
        output: the file that was written.
        steps: steps of the whole run.
        resumed: steps that an earlier, interrupted run took.
        images: number of training images, without unreadable ones.
        classes: number of classes; 0 if the images have captions.
        epochs: the epochs that this run finished.
        architecture: the model's architecture, and how it was determined.
        notes: how files were read and what was decided.
        probe: the linear probe from which all weights were trained (``lp_ft``), if there is one.
        without_head: whether the head of the checkpoint is left out, because the images have captions.
    """

    output: Path
    steps: int
    resumed: int
    images: int
    classes: int
    epochs: tuple[Epoch, ...]
    architecture: str
    notes: tuple[str, ...]
    probe: Path | None = None
    without_head: bool = False


class Trainer:
    """One fine-tuning run.

    Args:
        request: the options.
        trainable: the model to train.
        data: the training images.
        ranks: the processes that share the work; only the first one writes files and reports.
        device: name of the device.
        progress, note: see `finetune`.
        stage: which stage of several it is.
    """

    def __init__(
        self,
        request: FinetuneOptions,
        trainable: Trainable,
        data: TrainingData,
        ranks: Ranks,
        device: str,
        progress: Progress,
        note: Callable[[str], object],
        stage: Stage = Stage(),
    ) -> None:
        self.request, self.trainable, self.ranks, self.stage = request, trainable, ranks, stage
        self.data, self.dataset = data, data.images
        self.first = ranks.rank == 0
        self.progress: Progress = progress if self.first else silent
        self.print = note if self.first else str
        self.notes: list[str] = []
        self.epochs: list[Epoch] = []
        self.bad: dict[int, str] = {}
        self.device_name, self.device = device, open_device(device)
        self.preprocess = Preprocess.of(trainable.model.preprocess)

    def note(self, text: str) -> None:
        """Report a note once, and keep it for the final report."""
        if text not in self.notes:
            self.notes.append(text)
            self.print(text)

    def is_done(self) -> bool:
        """Whether the output is there already: written by a run of the same options, weights and images."""
        request = self.request
        if request.restart or Checkpointer.state_in(request.folder).exists():
            return False
        try:
            written = open_checkpoint(Path(request.output))
        except CheckpointError:
            return False
        with closing_checkpoint(written):
            return written.metadata.get(FINETUNED) == json.dumps(self._facts())

    def run(self) -> Trained:
        """Take the remaining steps and write the output. Raises what `finetune` raises."""
        request, trainable = self.request, self.trainable
        facts = self._facts()
        require_same_run(self.ranks, {**facts, "restart": request.restart, "validate": request.validate})
        place(trainable.model.module, self.device)
        for text in trainable.notes:
            self.note(text)
        chosen = choose(request, self.ranks, self.device, self.note)
        self.loop = self._loop(chosen)
        self.checkpointer = Checkpointer(
            request.folder, facts, trainable.parameters, self.loop.optimizer, self.loop.average, asdict(chosen)
        )
        mean = restored(self.checkpointer, self.loop, self.ranks, self.note, restart=request.restart)
        resumed = self.loop.optimizer.taken
        if request.validate is not None:
            advice = (
                "Choose a folder on a disk that all machines share, with --state, or leave --validate out and "
                "evaluate the checkpoints afterwards"
            )
            require_shared(self.ranks, request.folder, "the checkpoints that --validate measures", advice)
        with self._validator() as self.validate, self._tracking(resumed) as self.trackers:
            self.log = TrainingLog(request.log if self.first else None, resumed)
            if not resumed:
                self._record("run", **self._settings())
            self._train(mean)
            if self.first:
                self._write(Path(request.output))
        if self.first:
            self.checkpointer.clear(request.keep_epochs)
        return Trained(
            Path(request.output),
            self.loop.order.total,
            resumed,
            len(self.dataset) - len(self.bad),
            len(self.dataset.classnames),
            tuple(self.epochs),
            trainable.model.architecture,
            tuple(self.notes),
        )

    # The parts of a run

    def _loop(self, chosen: Chosen) -> TrainingLoop:
        request, trainable, count = self.request, self.trainable, len(self.dataset)
        contrastive = trainable.contrastive
        order = BatchOrder(count, min(request.batch_size, count), request.epochs, request.seed, only_full=contrastive)
        if contrastive and order.batch_size < 2 * self.ranks.size:
            raise UsageError(
                f"--batch-size {order.batch_size}: the contrastive objective needs at least 2 images per process, "
                f"{2 * self.ranks.size} in all."
            )
        compiler = torch_compile if chosen.compiled else None
        most = -(-order.batch_size // self.ranks.size) + 1  # of a process: batches are cut between pairs of images
        runtime = Runtime(self.device, chosen.precision, self.ranks, min(self._micro(), most), compiler, self.note)
        settings = optimization(request, order.batch_size, order.total)
        if request.warmup is None and settings.warmup != optimization(request, 1, 1 << 30).warmup:
            self.note(f"warm-up: {settings.warmup} steps, 10 % of the run's {order.total}")
        if order.batch_size < request.batch_size:
            self.note(f"batch size: {order.batch_size:,}, which is all images; {request.batch_size:,} was asked for")
        for text in filter(None, (settings.decayed, settings.anchored)):
            self.note(text)
        self.settings = settings
        if request.ema and (kept := request.ema**order.total) > KEPT:
            self.note(
                f"the moving average keeps {100 * kept:.0f} % of the zero-shot weights after the run's "
                f"{order.total:,} steps: --ema is high for so short a run"
            )
        images = self._images(runtime)
        set_training(trainable.module)
        if request.grad_checkpointing and not checkpoint_blocks(trainable.module):
            self.note("--grad-checkpointing: the model has no repeated blocks, so it takes as much memory as without")
        factors = layer_factors(trainable.parameters, request.layer_decay) if request.layer_decay < 1 else {}
        memory = f"{self.device}: not enough memory for copies of the weights."
        with within_memory(f"{memory} Leave --anchor and --ema out, or use --device cpu."):
            optimizer = OptimizerStep(trainable.parameters.items(), settings, order.total, factors, runtime.scaler)
            average = None if request.ema is None else MovingAverage(trainable.parameters.items(), request.ema)
        objective = trainable.objective(request, runtime, self.preprocess)
        lighter = () if request.grad_checkpointing or request.linear else ("--grad-checkpointing",)
        return TrainingLoop(objective, images, order, optimizer, runtime, average, lighter=lighter)

    def _micro(self) -> int:
        if self.request.micro_batch is not None:
            return self.request.micro_batch
        height, width = self.preprocess.size
        usual = MICRO_BATCH.get(self.device.type, MICRO_BATCH["cpu"])
        return 1 << 30 if self.request.linear else max(1, usual * 224 * 224 // (height * width))

    def _images(self, runtime: Runtime) -> Images:
        request = self.request
        workers = default_workers() if request.workers is None else request.workers
        if request.linear:
            how = Extraction(
                *(self.device, runtime.precision, workers, request.max_bad, request.max_pixels, 128),
                *(self.ranks, self.progress, self.note),
            )
            model = self.trainable.model
            cache = Cache.open(self.note, request.cache)
            return features_of(model, self.dataset, self.trainable.module, cache, how)
        kind = request.augmentation
        preprocess = self.preprocess if kind == "none" else self.preprocess.without_margin()
        augmentation = Augmentation(kind, preprocess.size, preprocess.interpolation, request.seed)
        return cached(Decoded(self.dataset, preprocess, augmentation, workers, request.max_bad))

    @contextmanager
    def _validator(self) -> Iterator[Callable[[Path], Validation] | None]:
        request = self.request
        if request.validate is None:
            yield None
            return
        options = EvalOptions(
            request.checkpoint,
            request.validate,
            data=request.data,
            model=request.model,
            image_size=request.image_size,
            device=self.device_name,
            precision=self.loop.runtime.precision,
            workers=request.workers,
            cache_images=request.cache_images,
            max_bad=request.max_bad,
            max_pixels=request.max_pixels,
            progress=self.progress,
        )
        source = self.stage.mixed_with or self.trainable.named_source
        named = with_training_names(request)
        with open_validator(source, options, self.ranks, self.device_name, self.note, named) as validator:
            yield validator

    def _tracking(self, resumed: int) -> AbstractContextManager[Trackers]:
        request = self.request
        name, folder = request.stem, Path(request.output).parent
        run = TrackedRun(name, folder, request.folder, self.checkpointer.facts, resumed, self.note)
        return tracking(request.track if self.first else (), run)

    def _facts(self) -> dict[str, Any]:
        """Return what the resulting weights depend on: no clock and no path, so equal inputs give equal bytes."""
        data, trainable = self.dataset, self.trainable
        by_prompts = trainable.contrastive and trainable.captions is None
        facts = {
            "version": __version__,
            **self.request.settings(),
            "architecture": trainable.model.architecture.partition(" (from")[0] + trainable.model.manner,
            "preprocess": asdict(self.preprocess),
            "zeroshot": checkpoint_fingerprint(trainable.source, trainable.model.names),
            "data": {"name": data.name, "images": len(data), "digest": self.data.digest},
            **({"columns": trainable.head.columns} if trainable.head.by_name else {}),
            **({"classnames": data.classnames, "templates": data.templates} if by_prompts else {}),
            **({} if (captions := trainable.captions) is None else {"captions": len(captions.texts)}),
        }
        facts_as_stored: dict[str, Any] = json.loads(json.dumps(facts))  # tuples become lists, as in a saved state
        return facts_as_stored

    def _settings(self) -> dict[str, Any]:
        """Return how the optimizer works, for the log; 0 for `clip` is no clipping."""
        settings = self.settings
        return {
            "steps": self.loop.order.total,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "warmup": settings.warmup,
            "weight_decay": settings.weight_decay,
            "decay": settings.decay,
            "anchor": settings.anchor,
            "clip": settings.clip,
        }

    # The course of a run

    def _train(self, mean: RunningMean) -> None:
        try:
            with deferred() as request:
                self.loop.stop_requested = request
                self._validate_resumed_epoch(request)
                self._steps(request, mean)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error} {self._advice()}") from error
        except SuiteError as error:  # where all processes of a job get a signal, those that decode images end with it
            if not self.loop.stop_requested():
                raise
            raise Stopped(how_to_resume(self.checkpointer, self.loop), request.number) from error
        except KeyboardInterrupt as error:
            raise Stopped.of(error, how_to_resume(self.checkpointer, self.loop)) from error

    def _validate_resumed_epoch(self, request: StopRequest) -> None:
        """Validate the last finished epoch if the earlier run was stopped before it could do so."""
        epochs, within = divmod(self.loop.optimizer.taken, self.loop.order.steps)
        if not epochs or within or self.validate is None:
            return
        if not self.ranks.share(self.log.validated(epochs)):  # only the first process has a log
            with request.at_once():
                self._validated(epochs)

    def _steps(self, request: StopRequest, mean: RunningMean) -> None:
        start = time.perf_counter() - mean.seconds
        saved = time.monotonic()
        with closing(self.loop.steps()) as steps:
            for step in steps:
                mean.add(step)
                if step.stopped:  # perhaps at the request of another process, which all of them follow
                    request.requested = True
                self._report(step, mean, time.perf_counter() - start)
                if step.ends_epoch:
                    self._end_epoch(step.epoch + 1, mean, time.perf_counter() - start, request)
                    mean, start, saved = RunningMean(), time.perf_counter(), time.monotonic()
                elif step.stopped or self._is_due(saved):
                    self._save(replace(mean, seconds=time.perf_counter() - start))
                    saved = time.monotonic()
                if step.stopped:
                    raise Interrupted(number=request.number)

    def _is_due(self, saved: float) -> bool:
        """Whether a state must be saved again, the last one being of that time, in seconds."""
        return self.request.save_every is not None and time.monotonic() - saved >= 60 * self.request.save_every

    def _report(self, step: Step, mean: RunningMean, seconds: float) -> None:
        order = self.loop.order
        images = min(order.images, order.steps * order.batch_size)
        within = min((step.step - step.epoch * order.steps) * order.batch_size, images)
        task = f"{self.stage.name or 'fine-tuning'}; {mean}"
        self.progress(task, step.epoch * images + within, order.epochs * images, "images")
        self._record(
            "step",
            step=step.step,
            epoch=step.epoch + 1,
            loss=step.loss,
            accuracy=step.correct / max(step.images, 1),
            learning_rate=step.rate,
            gradient_norm=step.norm,
            images_per_second=round(mean.images / seconds, 1),
        )

    def _end_epoch(self, number: int, mean: RunningMean, seconds: float, request: StopRequest) -> None:
        """Save before validation, which may take long and be interrupted.

        The log comes first: a resumed run removes lines after its state, and adds none before it.
        """
        self._require_few_bad()
        facts = {"step": self.loop.optimizer.taken, "epoch": number, "loss": mean.loss, "accuracy": mean.accuracy}
        self._record("epoch", **facts, seconds=round(seconds, 2))
        if self.first:
            self.checkpointer.make_folder()
            self._write(self.checkpointer.epoch(number))
        self._save(RunningMean())
        if self.first and not self.request.keep_epochs:
            self.checkpointer.epoch(number - 1).unlink(missing_ok=True)
        self.print(f"{self._epoch(number)}: {mean}")
        with request.at_once():
            validation = self._validated(number)
        self.epochs.append(Epoch(number, mean.loss, mean.accuracy, seconds, validation))

    def _require_few_bad(self) -> None:
        """Name the unreadable images of all processes, each of which has seen others; all of them, after an epoch."""
        for theirs in self.ranks.gather(dict(self.loop.images.bad)):
            self.bad |= theirs
        require_few(self.dataset, self.bad, self.request.max_bad)
        for text in notes_on_bad(self.dataset, self.bad):
            self.note(text)

    def _validated(self, number: int) -> Validation | None:
        if self.validate is None:
            return None
        self.ranks.share(None)  # no process reads the checkpoint before it is written
        validation = self.validate(self.checkpointer.epoch(number))
        self._record("validation", step=self.loop.optimizer.taken, epoch=number, **validation.entry())
        self.print(f"{self._epoch(number)}: {validation}")
        return validation

    def _epoch(self, number: int) -> str:
        stage = f"{self.stage.name}, " if self.stage.name else ""
        return f"{stage}epoch {number}/{self.loop.order.epochs}"

    def _record(self, event: str, **facts: Any) -> None:
        self.log.add(event, **facts)
        self.trackers.add(event, facts)
        if event != "step":
            self.trackers.flush()

    def _save(self, epoch: RunningMean) -> None:
        self.trackers.flush()
        if self.first:
            self.checkpointer.save(epoch)

    def _write(self, path: Path) -> None:
        """Write the model as it is now."""
        tensors = self.trainable.checkpoint(self.checkpointer.weights())
        write_checkpoint(path, tensors, self.trainable.metadata({FINETUNED: json.dumps(self.checkpointer.facts)}))

    def _advice(self) -> str:
        checkpoint = self.checkpointer.epoch(self.loop.optimizer.taken // self.loop.order.steps)
        last = f"The last good checkpoint is {checkpoint}." if checkpoint.exists() else "No epoch was finished before."
        return f"{last} Start over (--restart) with a lower {self.stage.rate}, a longer --warmup or --precision fp32."
