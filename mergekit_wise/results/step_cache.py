"""Runs the steps of a recipe only if their inputs or outputs changed since the last run.

Knows digests and files; knows nothing of what a step does.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mergekit_wise.checkpoint import write_atomically


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a recipe.

    Attributes:
        name: the step's name.
        inputs: everything that its outputs depend on, as JSON values.
        outputs: the files that it writes.
        run: runs the step; its argument says whether it may resume from what an earlier run left.
        basis: names of the inputs that must be unchanged to resume; by default all.
    """

    name: str
    inputs: Mapping[str, Any]
    outputs: tuple[Path, ...]
    run: Callable[[bool], object]
    basis: tuple[str, ...] | None = None

    def entry(self) -> dict[str, Any]:
        """Digests of all inputs, and of those in the basis."""
        basis = self.inputs if self.basis is None else {name: self.inputs[name] for name in self.basis}
        return {"inputs": _digest(self.inputs), "basis": _digest(basis)}


class Decision(NamedTuple):
    """Whether a step runs, and whether it may then resume from what an earlier run left."""

    runs: bool
    resumes: bool


@dataclass(frozen=True, slots=True)
class StepCache:
    """Digests of the steps' inputs and outputs at their last run, in a JSON file."""

    path: Path

    def perform(self, step: Step, share: Callable[[Decision], Decision] | None = None, *, writes: bool = True) -> bool:
        """Run a step unless its inputs and its outputs are unchanged since its last run. Returns whether it ran.

        Of several processes that run the step together, one `writes` the file, and `share` gives all of them its
        decision.

        Raises OutputError if the file cannot be written, and whatever the step raises.
        """
        known, entry = self._read(), step.entry()
        before = known.get(step.name, {})
        outputs = _digests(step.outputs)
        is_done = outputs is not None and before.get("inputs") == entry["inputs"] and before.get("outputs") == outputs
        decision = Decision(not is_done, before.get("basis") == entry["basis"])
        if share is not None:
            decision = share(decision)
        if not decision.runs:
            return False
        if writes:
            self._write({**known, step.name: entry})
        step.run(decision.resumes)
        if writes:
            self._write({**known, step.name: {**entry, "outputs": _digests(step.outputs)}})
        return True

    def _read(self) -> dict[str, dict[str, Any]]:
        """The entries of the file; none if it is missing or damaged, so that every step runs again."""
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        sound = isinstance(known, dict) and all(isinstance(entry, dict) for entry in known.values())
        return known if sound else {}

    def _write(self, known: Mapping[str, Any]) -> None:
        write_atomically(self.path, json.dumps(known, indent=2) + "\n")


def _digest(inputs: Mapping[str, Any]) -> str:
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def digest_of_file(path: Path) -> str:
    """SHA-256 of all bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digests(outputs: tuple[Path, ...]) -> dict[str, str] | None:
    """Digests by file name; None if a file is missing."""
    if not all(path.is_file() for path in outputs):
        return None
    return {path.name: digest_of_file(path) for path in outputs}
