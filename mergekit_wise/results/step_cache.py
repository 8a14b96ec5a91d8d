"""Steps that are taken only where something changed: what each was made of is kept in a small file.

Knows digests and files; knows nothing of what a step does.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergekit_wise.checkpoint import write_atomically


@dataclass(frozen=True, slots=True)
class Step:
    """Part of a recipe.

    Attributes:
        name: what it is called.
        inputs: what its outputs depend on, as JSON has it.
        outputs: the files that it writes.
        run: does it; is told whether what an earlier run left, finished or not, can be gone on with.
        basis: on which of the inputs that depends; by default on all.
    """

    name: str
    inputs: Mapping[str, Any]
    outputs: tuple[Path, ...]
    run: Callable[[bool], object]
    basis: tuple[str, ...] | None = None

    def entry(self) -> dict[str, Any]:
        """Digests of the inputs, and of their basis."""
        basis = self.inputs if self.basis is None else {name: self.inputs[name] for name in self.basis}
        return {"inputs": _digest(self.inputs), "basis": _digest(basis)}


@dataclass(frozen=True, slots=True)
class StepCache:
    """What the steps of a recipe were made of the last time, in a JSON file."""

    path: Path

    def perform(self, step: Step) -> bool:
        """Run a step unless its inputs are what they were and its outputs what they then became; whether it ran.

        Raises OutputError if the file cannot be written, and whatever the step raises.
        """
        known, entry = self._read(), step.entry()
        before = known.get(step.name, {})
        outputs = _digests(step.outputs)
        if outputs is not None and before.get("inputs") == entry["inputs"] and before.get("outputs") == outputs:
            return False
        self._write({**known, step.name: entry})
        step.run(before.get("basis") == entry["basis"])
        self._write({**known, step.name: {**entry, "outputs": _digests(step.outputs)}})
        return True

    def _read(self) -> dict[str, dict[str, Any]]:
        """Nothing where there is no such file, or where it is damaged: then everything is done again."""
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
    """By name; None where one is missing."""
    if not all(path.is_file() for path in outputs):
        return None
    return {path.name: digest_of_file(path) for path in outputs}
