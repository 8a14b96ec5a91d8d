"""The whole of WiSE-FT from one file: zero-shot head, fine-tuning, sweep, report; only what changed is done again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergekit_wise import __version__, launcher
from mergekit_wise.analysis import as_preference, losses, recommend
from mergekit_wise.api.finetune import finetune
from mergekit_wise.api.recipe_file import RecipeFile, read_recipe
from mergekit_wise.api.report import report
from mergekit_wise.api.sweep import DEFAULT_ALPHAS, SweepReport, sweep
from mergekit_wise.api.zeroshot import IMAGENET, zeroshot
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.class_names import TEMPLATES, read_classnames, read_templates
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.errors import OutputError, UsageError
from mergekit_wise.merging import parse_alphas
from mergekit_wise.models.source import open_source
from mergekit_wise.options import FinetuneOptions
from mergekit_wise.progress import Progress, silent
from mergekit_wise.results import read_records
from mergekit_wise.results.candidates import to_candidates
from mergekit_wise.results.step_cache import Step, StepCache, digest_of_file
from mergekit_wise.training.data import open_training_data

STATE = "recipe.json"


@dataclass(frozen=True, slots=True)
class RecipeReport:
    """What a recipe came to.

    Attributes:
        zeroshot, finetuned, results: the files; `page` is None where no report was asked for.
        done: names of the steps that were taken; of the others nothing had changed.
        sweep: what the sweep found, now or earlier.
    """

    zeroshot: Path
    finetuned: Path
    results: Path
    page: Path | None
    done: tuple[str, ...]
    sweep: SweepReport


def recipe(path: str | Path, *, progress: Progress = silent, note: Callable[[str], object] = str) -> RecipeReport:
    """Do what the recipe says: see `recipe_file` for what it may say.

    A step is taken if anything that it depends on is not what it was the last time: options, checkpoints, images,
    versions. Raises what the steps raise; UsageError for what the file says; Stopped, after which it goes on.
    """
    if launcher.world_size() > 1:
        raise UsageError("A recipe's steps follow one another in one process. Start 'wise finetune' with torchrun.")
    job = _Job(read_recipe(Path(path)), progress, note)
    try:
        job.said.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{job.said.folder}: cannot be made: {error.strerror}. Choose another folder.") from error
    return job.run()


@dataclass(frozen=True, slots=True)
class _Job:
    said: RecipeFile
    progress: Progress
    note: Callable[[str], object]

    def run(self) -> RecipeReport:
        ledger, done = StepCache(self.said.folder / STATE), []
        # Each is planned when those before it are done: it depends on what they wrote.
        for name, plan in (
            ("zeroshot", self._zeroshot),
            ("finetune", self._finetune),
            ("sweep", self._sweep),
            ("report", self._report),
        ):
            step = plan() if name in self.said.steps else None
            if step is None:
                continue
            self.note(f"{name}: ...")
            if ledger.perform(step):
                done.append(name)
            else:
                self.note(f"{name}: nothing changed, so it is not done again")
        page = self._output("report", "report.html") if "report" in self.said.steps else None
        return RecipeReport(Path(self.zeroshot), self.finetuned, self.results, page, tuple(done), self._found())

    def _found(self) -> SweepReport:
        """What the sweep said, out of its records; of a data set apart, by looking at it again."""
        options = self.said.steps["sweep"]
        if options.get("select_on"):
            return self._swept()
        alphas = None if options.get("refine") else set(self.alphas)
        records = tuple(
            record
            for record in read_records(self.results)
            if record.suite == options["suite"] and record.alpha is not None and (not alphas or record.alpha in alphas)
        )
        candidates = to_candidates(records)
        chosen = recommend(candidates, as_preference(options.get("prefer", "average")))
        return SweepReport(records, candidates, chosen, losses(candidates), (), (), 0, ())

    @property
    def zeroshot(self) -> str | Path:
        """The checkpoint that fine-tuning starts from."""
        own = self.said.steps["finetune"].get("file")
        return own or self._output("zeroshot", "zeroshot.safetensors")

    @property
    def finetuned(self) -> Path:
        return self._output("finetune", "finetuned.safetensors")

    @property
    def results(self) -> Path:
        return Path(self.said.steps["sweep"].get("results", self.said.folder / "results.jsonl"))

    @property
    def alphas(self) -> Sequence[float]:
        said = self.said.steps["sweep"].get("alphas")
        if said is None:
            return DEFAULT_ALPHAS
        return parse_alphas(said) if isinstance(said, str) else tuple(map(float, said))

    def _output(self, step: str, usual: str) -> Path:
        return Path(self.said.steps.get(step, {}).get("output", self.said.folder / usual))

    def _zeroshot(self) -> Step:
        options = _without(self.said.steps["zeroshot"], "file", "output")
        source, output = self.said.steps["zeroshot"]["file"], self._output("zeroshot", "zeroshot.safetensors")
        inputs = {
            "checkpoint": _digest_of_checkpoint(source),
            "options": _without(options, "classes", "templates", "device"),
            "classes": read_classnames(options.get("classes", IMAGENET)),
            "templates": _templates(options.get("templates")),
            "version": __version__,
        }

        def run(again: bool) -> None:
            zeroshot(source, output, progress=self.progress, **options)

        return Step("zeroshot", inputs, (output,), run)

    def _finetune(self) -> Step:
        options = _without(self.said.steps["finetune"], "file", "data", "output")
        data = self.said.steps["finetune"]["data"]
        request = FinetuneOptions(self.zeroshot, data, self.finetuned, **options)
        dataset, _ = open_training_data(request)
        inputs = {
            "checkpoint": _digest_of_checkpoint(self.zeroshot),
            "data": [fingerprint(dataset), dataset.classnames, dataset.templates],
            "settings": {**request.settings(), "model": request.model},
            "version": __version__,
        }

        def run(again: bool) -> None:
            begun = options if again else {**options, "restart": True}
            finetune(self.zeroshot, data, self.finetuned, progress=self.progress, note=self.note, **begun)

        return Step("finetune", inputs, (self.finetuned,), run)

    def _sweep(self) -> Step:
        options = _without(self.said.steps["sweep"], "alphas", "suite", "results")
        suite = self.said.steps["sweep"]["suite"]
        names = ",".join(filter(None, (suite, options.get("select_on"))))
        sets = open_suite(names, options.get("data")).datasets
        inputs = {
            "checkpoints": [_digest_of_checkpoint(self.zeroshot), _digest_of_checkpoint(self.finetuned)],
            "data": [(dataset.name, fingerprint(dataset)) for dataset in sets],
            "alphas": self.alphas,
            "suite": suite,
            "options": _without(options, "data", "device", "batch_size", "workers"),
            "version": __version__,
        }

        def run(again: bool) -> None:
            if not again:  # records of other weights or images have no place beside the new ones
                self.results.unlink(missing_ok=True)
            self._swept()

        return Step("sweep", inputs, (self.results,), run, basis=("checkpoints", "data", "version"))

    def _swept(self) -> SweepReport:
        options = _without(self.said.steps["sweep"], "alphas", "results")
        return sweep(
            self.zeroshot,
            self.finetuned,
            alphas=self.alphas,
            results=self.results,
            progress=self.progress,
            **options,
        )

    def _report(self) -> Step:
        options = _without(self.said.steps["report"], "output")
        output = self._output("report", "report.html")
        inputs = {"results": digest_of_file(self.results), "options": options, "version": __version__}

        def run(again: bool) -> None:
            report([self.results], output=output, **options)

        return Step("report", inputs, (output,), run)


def _digest_of_checkpoint(source: str | Path) -> list[str]:
    """SHA-256 of each of a checkpoint's files, whatever they are called. Raises CheckpointError."""
    checkpoint = open_source(source)
    try:
        return [digest_of_file(file.path) for file in checkpoint.files]
    finally:
        checkpoint.close()


def _without(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}


def _templates(source: Any) -> Any:
    """What a file of templates says; the name of well-known ones."""
    return source if source is None or str(source) in (*TEMPLATES, "openai") else read_templates(source)
