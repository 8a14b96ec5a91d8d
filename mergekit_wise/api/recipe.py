"""All of WiSE-FT from one TOML file: zero-shot head, fine-tuning, sweep, report; only what changed is done again.

    folder = "birds"                     # where all outputs go; relative to this file
    device = "cuda"                      # for every step that has such an option

    [zeroshot]                           # left out if the checkpoint has its head already
    checkpoint = "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    classes = "classes.txt"

    [finetune]
    train = "birds/train"

    [sweep]
    suite = ["birds/test", "birds/sketches"]

    [report]                             # optional

Keys are the options of the commands. ``wise.toml`` is such a file too, with ``folder`` in its table ``[recipe]``; its
tables for other commands are ignored.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mergekit_wise import __version__, config
from mergekit_wise.api.report import require_outputs, write_report
from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.api.sweep import sweep
from mergekit_wise.api.sweep_report import SweepReport
from mergekit_wise.api.swept import swept_axes
from mergekit_wise.api.zeroshot import prompts_of, zeroshot
from mergekit_wise.checkpoint import closing
from mergekit_wise.datasets.catalog import ENTRIES, SUITES, open_suite
from mergekit_wise.datasets.class_names import CLASSNAMES, TEMPLATES, read_templates
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.datasets.unlabelled import open_unlabelled
from mergekit_wise.errors import Interrupted, OutputError, UsageError
from mergekit_wise.evaluation import Ranks, joined
from mergekit_wise.models.source import open_source
from mergekit_wise.option_types import Declared, Weights, run, takes
from mergekit_wise.options import (
    FinetuneOptions,
    RecipeOptions,
    ReportOptions,
    SweepOptions,
    ZeroshotOptions,
    options_of,
)
from mergekit_wise.progress import silent
from mergekit_wise.report.table import Table
from mergekit_wise.results import comparable, require_writable
from mergekit_wise.results.identity import installed_versions
from mergekit_wise.results.step_cache import Step, StepCache, digest_of_file
from mergekit_wise.training.agreement import require_shared
from mergekit_wise.training.data import open_training_data

STATE = "recipe.json"
STEPS = ("zeroshot", "finetune", "sweep", "report")
SHARED = ("finetune", "sweep")
"""The steps whose work several processes share."""


@dataclass(frozen=True, slots=True, repr=False)
class RecipeReport(ResultObject):
    """What a recipe produced.

    Attributes:
        zeroshot, finetuned, results: the files; `page` is None if no report was asked for.
        done: names of the steps that ran; the others were up to date.
        sweep: what the sweep found, now or earlier.
    """

    zeroshot: Path
    finetuned: Path
    results: Path
    page: Path | None
    done: tuple[str, ...]
    sweep: SweepReport

    def _summary(self) -> str:
        ran = f"ran {', '.join(self.done)}" if self.done else "everything was up to date"
        return f"{ran}; {self.sweep._summary()}"

    def _entry(self) -> Mapping[str, Any]:
        files = {name: getattr(self, name) for name in ("zeroshot", "finetuned", "results", "page")}
        return {**files, "done": self.done, "sweep": self.sweep.to_dict()}

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        return self.sweep._rows()

    def _tables(self) -> Sequence[Table]:
        return self.sweep._tables()


@takes(RecipeOptions)
def recipe(options: RecipeOptions) -> RecipeReport:
    """Run the steps of a recipe.

    A step runs if anything that it depends on has changed: options, checkpoints, images, versions. Of several processes
    that torchrun started, all fine-tune and sweep together, and the first one does the rest.

    Raises:
        UsageError: the file is missing, no TOML, or holds options that do not exist.
        WiseError: as the steps do.
        Stopped: the run was interrupted; the same call resumes it.
    """
    folder, steps = read_recipe(Path(options.path))
    devices = [str(values.get("device", "")) for values in steps.values()]
    # Processes that torchrun started can meet only once: for all steps, and on their GPUs if a step needs these.
    with joined(next((device for device in devices if device.startswith("cuda")), "cpu")) as (ranks, _):
        with ranks.agreeing():
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"{folder}: cannot be created: {error.strerror}. Choose another folder.") from error
        advice = "Choose a folder on a disk that all machines share, with folder = ... in the recipe"
        require_shared(ranks, folder, "the outputs of each step, which the next one reads", advice)
        if ranks.rank:
            options = replace(options, progress=silent, note=str)
        return _Recipe(options, ranks, folder, steps).run()


Values = dict[str, Any]
"""Options of a step by the names of their fields."""


def read_recipe(path: Path) -> tuple[Path, dict[str, Values]]:
    """The folder of the outputs and the options of each step that has a table. Raises UsageError."""
    content = config.read(path)
    own = content
    if path.name == config.FILE:
        own = content.get("recipe", {})
    else:
        content = {key: value for key, value in content.items() if key != "folder"}
    unknown = [f"[{key}] is no step" for key, value in content.items() if isinstance(value, dict) and key not in STEPS]
    found = [*config.faults(content), *(unknown if path.name != config.FILE else ())]
    if found:
        raise UsageError(f"{path}: {found[0]}" if len(found) == 1 else f"{path}:\n  " + "\n  ".join(found))
    home = path.resolve().parent
    folder = home / str(own.get("folder", "."))
    steps = {name: _values(name, content, home, folder) for name in STEPS if isinstance(content.get(name), dict)}
    for step, keys in (("finetune", ("train",)), ("sweep", ("suite", "reference"))):
        if not any(key in steps.get(step, {}) for key in keys):
            raise UsageError(f"{path}: expected a table [{step}] with {keys[0]} = ..., found none.")
    if "checkpoint" not in steps.get("zeroshot", {}) and "checkpoint" not in steps["finetune"]:
        raise UsageError(f"{path}: names no checkpoint. Add checkpoint = ... to [zeroshot] or to [finetune].")
    return folder, steps


def _values(step: str, content: Mapping[str, Any], home: Path, folder: Path) -> Values:
    settings, _ = config.settings_of(step, content)
    declared = options_of(step)
    decided_here = {"sweep": ("zeroshot", "finetuned", "json", "plot"), "report": ("results",), "finetune": ("json",)}
    return {
        name: _located(declared[name], value, home, folder)
        for name, (_, value) in settings.items()
        if name not in decided_here.get(step, ())
    }


def _located(declared: Declared, value: Any, home: Path, folder: Path) -> Any:
    """A value whose paths are relative to the recipe, or to the folder of its outputs."""
    if declared.option.path in ("output", "folder"):
        return folder / str(value)
    if declared.option.path != "input":
        return value
    if declared.has_commas:
        parts = value if isinstance(value, list) else str(value).split(",")
        return [_next_to(home, str(part).strip()) for part in parts]
    if isinstance(value, list):
        return [_next_to(home, part) if isinstance(part, str) else part for part in value]
    return _next_to(home, value) if isinstance(value, str) else value


def _next_to(home: Path, value: str) -> str:
    """The path next to the recipe, if it exists there; otherwise, or if the value is a known name, the value itself.

    A part of a file, such as the table in ``birds.toml::photos``, stays as it is.
    """
    if any(value in known for known in (SUITES, ENTRIES, TEMPLATES, CLASSNAMES)):
        return value
    return str(home / value) if (home / value.partition("::")[0]).exists() else value


@dataclass(frozen=True, slots=True)
class _Recipe:
    options: RecipeOptions
    ranks: Ranks
    folder: Path
    steps: Mapping[str, Values]

    def run(self) -> RecipeReport:
        cache = StepCache(self.folder / STATE)
        done: list[str] = []
        with self.ranks.agreeing():
            require_writable(self.results)
            if "report" in self.steps:
                require_outputs(self._report_options())
        found: list[SweepReport] = []
        # Each step is planned when those before it are done: it depends on what they wrote.
        for name, plan in (
            ("zeroshot", self._zeroshot),
            ("finetune", self._finetune),
            ("sweep", partial(self._sweep, found.append)),
            ("report", self._report),
        ):
            if name not in self.steps:
                continue
            self.options.note(f"{name}: ...")
            try:
                performed = self._perform(cache, name, plan)
            except KeyboardInterrupt as error:
                if str(error) or self.ranks.rank:
                    raise
                raise Interrupted.of(error, _kept(name, done)) from error
            if performed:
                done.append(name)
            else:
                self.options.note(f"{name}: up to date, skipped")
        page = self._output("report", "report.html") if "report" in self.steps else None
        swept = found[0] if found else self._swept_earlier()
        return RecipeReport(Path(self.zeroshot), self.finetuned, self.results, page, tuple(done), swept)

    def _perform(self, cache: StepCache, name: str, plan: Callable[[], Step]) -> bool:
        """Run a step if it is to be run: in all processes if they share its work, otherwise in the first one."""
        ranks = self.ranks
        if name in SHARED:
            with ranks.agreeing():
                step = plan()
            ran = cache.perform(step, ranks.share, writes=ranks.rank == 0)
            return ranks.share(ran)  # and no process looks for what the first one is still writing
        with ranks.agreeing():
            ran = ranks.rank == 0 and cache.perform(plan())
        return ranks.share(ran)

    def _swept_earlier(self) -> SweepReport:
        """What the sweep found, by running it again on its results, which may hold those of other options, too."""
        again = replace(self._sweep_options(), output=None, save=None, per_class=None, per_sample=None, redo=False)
        return run(sweep, again)

    @property
    def zeroshot(self) -> str | Path:
        """The checkpoint that fine-tuning starts from."""
        own: str | None = self.steps["finetune"].get("checkpoint")
        return own or self._output("zeroshot", "zeroshot.safetensors")

    @property
    def finetuned(self) -> Path:
        return self._output("finetune", "finetuned.safetensors")

    @property
    def results(self) -> Path:
        return Path(self.steps["sweep"].get("results", self.folder / "results.jsonl"))

    def _output(self, step: str, default: str) -> Path:
        return Path(self.steps.get(step, {}).get("output", self.folder / default))

    def _zeroshot(self) -> Step:
        given = self.steps["zeroshot"]
        if "checkpoint" not in given:
            raise UsageError("[zeroshot] names no checkpoint. Add checkpoint = ... to it, or remove the table.")
        values = {**given, "output": self._output("zeroshot", "zeroshot.safetensors")}
        options = ZeroshotOptions(**values, progress=self.options.progress)
        inputs = {
            "checkpoint": _digest_of_checkpoint(options.checkpoint),
            "options": _without(given, "checkpoint", "output", "classes", "templates", "device", "data", "cache"),
            "classes": prompts_of(options)[0],
            "templates": prompts_of(options)[1] if options.dataset else _templates(options.templates),
            "version": __version__,
        }
        return Step("zeroshot", inputs, (Path(options.output),), lambda again: run(zeroshot, options))

    def _finetune(self) -> Step:
        values = {**self.steps["finetune"], "checkpoint": self.zeroshot, "output": self.finetuned}
        options = FinetuneOptions(**values, progress=self.options.progress, note=self.options.note)
        data = open_training_data(options)
        inputs = {
            "checkpoint": _digest_of_checkpoint(self.zeroshot),
            "data": [data.digest, data.images.classnames, data.images.templates],
            "settings": {**options.settings(), "model": options.model},
            "version": __version__,
        }

        def train(again: bool) -> None:
            from mergekit_wise.api.finetune import finetune  # torch, which needs seconds to be imported

            run(finetune, options if again else replace(options, restart=True))

        return Step("finetune", inputs, (self.finetuned,), train)

    def _sweep(self, keep: Callable[[SweepReport], None]) -> Step:
        options = self._sweep_options()
        opening = partial(open_suite, root=options.data, keep=options.cache)
        suite = opening(options.suite or "", reference=options.reference)
        sets = suite.datasets
        if options.select_on and options.select_on not in [dataset.name for dataset in sets]:
            sets += opening(options.select_on).datasets
        recalibrated = options.recalibrate and opening(options.recalibrate, use="recalibrate").datasets
        inputs = {
            "checkpoints": [
                _digest_of_checkpoint(source) for source in (self.zeroshot, self.finetuned, *(options.fisher or ()))
            ],
            "data": [(dataset.name, fingerprint(dataset)) for dataset in (*sets, *(recalibrated or ()))],
            "alphas": [(axis.name, axis.values) for axis in swept_axes(options)],
            "suite": [options.suite, *(_measured_by(dataset, dataset is suite.reference) for dataset in sets)],
            "options": _without(
                self.steps["sweep"],
                *("alphas", "suite", "results", "data", "device", "batch_size", "workers", "cache", "cache_images"),
            ),
            "version": __version__,
            "libraries": comparable("versions", installed_versions()),
        }
        if options.unlabelled:
            inputs["unlabelled"] = [fingerprint(open_unlabelled(path)) for path in options.unlabelled]

        def measure(again: bool) -> None:
            if not again and self.ranks.rank == 0:  # results of other weights or images do not belong with the new ones
                self.results.unlink(missing_ok=True)
            self.ranks.share(None)  # no process reads them before they are removed
            keep(run(sweep, options))

        outputs = (self.results, *(() if options.output is None else (Path(options.output),)))
        return Step("sweep", inputs, outputs, measure, basis=("checkpoints", "data", "version"))

    def _sweep_options(self) -> SweepOptions:
        values = {**self.steps["sweep"], "results": self.results, "progress": self.options.progress}
        return SweepOptions(self.zeroshot, self.finetuned, **values)

    def _report(self) -> Step:
        options = self._report_options()
        given = _without(self.steps["report"], "output")
        inputs = {"results": digest_of_file(self.results), "options": given, "version": __version__}
        return Step("report", inputs, (Path(options.output),), lambda again: run(write_report, options))

    def _report_options(self) -> ReportOptions:
        given = _without(self.steps["report"], "output")
        return ReportOptions([self.results], output=self._output("report", "report.html"), **given)


def _kept(name: str, done: Sequence[str]) -> str:
    """What an interruption says in a step that itself says nothing of what it saved."""
    kept = f" What {' and '.join(done)} wrote is kept." if done else ""
    return f"Interrupted in step {name}, which will run again.{kept} Run the same command to continue."


def _digest_of_checkpoint(source: Weights) -> list[str]:
    """SHA-256 of each of a checkpoint's files, whatever their names. Raises CheckpointError."""
    checkpoint = open_source(source)
    with closing(checkpoint):
        return [digest_of_file(file.path) for file in checkpoint.files]


def _measured_by(dataset: Dataset, is_reference: bool) -> list[Any]:
    """What a suite's file says about a data set, and its results depend on, besides the images and their labels."""
    return [dataset.name, dataset.title, is_reference, dataset.classnames, dataset.templates, dataset.metric.kind]


def _without(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}


def _templates(source: Any) -> Any:
    """What a file of templates holds; the name of a well-known set."""
    return source if source is None or str(source) in TEMPLATES else read_templates(source)
