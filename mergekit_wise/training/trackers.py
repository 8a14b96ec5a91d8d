"""Training curves for TensorBoard and Weights & Biases: the numbers of the log, under names with slashes.

A tracker that fails is reported once and left out from then on; it never ends the training. Knows no model.
"""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from mergekit_wise.errors import UsageError

PROJECT = "mergekit_wise"
"""The project in Weights & Biases, unless ``WANDB_PROJECT`` names another one."""

RUN_ID = "wandb-id"
"""The file in the state's folder with the name under which a resumed run continues in Weights & Biases."""

STEP = ("loss", "accuracy", "learning_rate", "gradient_norm", "images_per_second")
EPOCH = ("loss", "accuracy", "seconds")
ALPHAS = {"fine-tuned": "alpha_1", "alpha 0.5": "alpha_0.5"}
"""The models of a validation, and what they are called here."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What a tracker gets.

    Attributes:
        name: of the run.
        folder: the folder of the output.
        state: the folder of the resumable state.
        settings: what the weights depend on.
        taken: steps that an earlier, interrupted run took.
        note: called with a sentence on where the curves are.
    """

    name: str
    folder: Path
    state: Path
    settings: Mapping[str, Any]
    taken: int
    note: Callable[[str], object]


class Tracker(Protocol):
    """Where curves are drawn."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve; steps do not decrease."""

    def flush(self) -> None:
        """Write what is buffered: a state is about to be saved."""

    def close(self, complete: bool) -> None:
        """End the run; it may be resumed unless it is `complete`."""


def scalars(event: str, facts: Mapping[str, Any]) -> dict[str, float]:
    """The curves of an entry of the log, by name. Entries that have none give none."""
    match event:
        case "step":
            return {f"training/{name}": facts[name] for name in STEP}
        case "epoch":
            return {f"epoch/{name}": facts[name] for name in EPOCH}
        case "validation":
            return {
                f"validation/{alpha}/{title}": value
                for model, alpha in ALPHAS.items()
                for title, value in facts[model].items()
            }
    return {}


class TensorBoard:
    """Event files in ``NAME.tensorboard`` next to the output."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / f"{run.name}.tensorboard"
        if not run.taken:  # as the log does, whose lines of an earlier run are removed
            for path in folder.glob("events.out.tfevents.*"):
                path.unlink()
        # Points of an interrupted run at these steps, which are taken again, are hidden.
        self._writer: Any = SummaryWriter(str(folder), purge_step=run.taken + 1)
        run.note(f"curves for TensorBoard in {folder}")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """See `Tracker`."""
        self._writer.flush()

    def close(self, complete: bool) -> None:
        """See `Tracker`."""
        self._writer.close()


class WeightsAndBiases:
    """A run in Weights & Biases; `wandb` is the module.

    Its own settings and environment variables decide where the run goes; no key is stored or asked for.
    """

    def __init__(self, run: TrackedRun, wandb: Any = None) -> None:
        wandb = wandb or _wandb()
        self._id = run.state / RUN_ID
        kept = self._id.read_text().strip() if run.taken and self._id.is_file() else ""
        name = kept or secrets.token_hex(4)
        if not kept:
            run.state.mkdir(parents=True, exist_ok=True)
            self._id.write_text(name)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", run.name),
            dir=os.environ.get("WANDB_DIR", str(run.folder)),
            id=name,
            resume="allow",
            config=dict(run.settings),
            # It sends numbers and settings alone: neither what is printed nor what is in the folder.
            settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True),
        )
        files = Path(self._run.dir).parent
        where = f"offline, in {files}; 'wandb sync {files}' uploads it" if self._run.offline else self._run.url
        run.note(f"curves in Weights & Biases: {where}")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`. Points at steps that an interrupted run has sent already are ignored by the library."""
        self._run.log(dict(values), step=step)

    def flush(self) -> None:
        """Do nothing: another process writes each point at once."""

    def close(self, complete: bool) -> None:
        """See `Tracker`."""
        self._run.finish(exit_code=0 if complete else 1)
        if complete:
            self._id.unlink(missing_ok=True)


OPENERS: Mapping[str, Callable[[TrackedRun], Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
"""By the value of ``--track``."""


def require_trackers(names: Sequence[str], installed: Callable[[str], object] = find_spec, wandb: Any = None) -> None:
    """Raise UsageError unless the trackers are installed and ready."""
    for name in names:
        if not installed(name):
            raise UsageError(f"--track {name}: the package {name} is not installed. Install it: pip install {name}")
    if "wandb" in names:
        _require_login(wandb or _wandb())


def _wandb() -> Any:
    import wandb

    return wandb


def _require_login(wandb: Any) -> None:
    if wandb.setup().settings.mode in ("offline", "dryrun", "disabled"):
        return
    try:
        logged_in = wandb.login(prompt=False, verify=False)
    except TypeError:  # versions before `prompt` would ask for a key
        raise UsageError("--track wandb: needs a newer version of wandb. Update it: pip install -U wandb") from None
    if not logged_in:
        raise UsageError(
            "--track wandb: not logged in to Weights & Biases. Run 'wandb login' first, or set WANDB_MODE=offline to "
            "keep the curves on this machine."
        )


@dataclass(slots=True)
class Trackers:
    """The trackers of a run that work, by name."""

    note: Callable[[str], object]
    working: dict[str, Tracker] = field(default_factory=dict)

    def add(self, event: str, facts: Mapping[str, Any]) -> None:
        """Add the curves of an entry of the log; `facts` have its step."""
        values = scalars(event, facts)
        if values:
            self._each(lambda tracker: tracker.add(facts["step"], values))

    def flush(self) -> None:
        """Write what is buffered."""
        self._each(lambda tracker: tracker.flush())

    def open(self, name: str, run: TrackedRun, opener: Callable[[TrackedRun], Tracker]) -> None:
        """Begin to track."""
        with self._reported(name):
            self.working[name] = opener(run)

    def close(self, complete: bool) -> None:
        """End all runs."""
        self._each(lambda tracker: tracker.close(complete))

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.working.items()):
            with self._reported(name):
                act(tracker)

    @contextmanager
    def _reported(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of another library, of any kind: training is worth more than its curves
            self.working.pop(name, None)
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            self.note(f"--track {name}: stopped working ({reason}); training continues, and the log has all numbers")


@contextmanager
def tracking(
    names: Sequence[str], run: TrackedRun, openers: Mapping[str, Callable[[TrackedRun], Tracker]] = OPENERS
) -> Iterator[Trackers]:
    """Open the named trackers, and close them at the end of the block; the run is complete if it raises nothing."""
    trackers = Trackers(run.note)
    for name in dict.fromkeys(names):
        trackers.open(name, run, openers[name])
    complete = False
    try:
        yield trackers
        complete = True
    finally:
        trackers.close(complete)
