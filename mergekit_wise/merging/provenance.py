"""The provenance in a merged file's metadata: no time and no path, so the same inputs give the same bytes."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mergekit_wise import __version__
from mergekit_wise.checkpoint import BY_TORCH, Checkpoint
from mergekit_wise.errors import CheckpointError, UsageError
from mergekit_wise.merging.fisher import Fishers
from mergekit_wise.merging.pair import Pair
from mergekit_wise.merging.plan import TensorPlan
from mergekit_wise.merging.rules import SIDES, Rules, Side

KEY = "mergekit_wise"
"""The metadata entry that holds the provenance, as JSON."""

CALIBRATED = "mergekit_wise_calibration"
"""The metadata entry that lists, as JSON, the temperatures that a file's head was divided by."""

_SIDES: Mapping[str, Side] = {side: side for side in SIDES.values()}


def described_by(pair: Pair, plan: Iterable[TensorPlan]) -> Side:
    """The side whose configuration describes the merged model: the one with the same tensors.

    The fine-tuned one if both have them or neither does, because the merged model is used in its place. Files next to a
    checkpoint that was translated describe it under other names.
    """
    if pair.finetuned.is_translated:
        return "zeroshot"
    if pair.zeroshot.is_translated:
        return "finetuned"
    merged = {step.info.name: step.info.shape for step in plan}
    sides: dict[Side, dict[str, tuple[int, ...]]] = {
        "finetuned": {name: tensor.info.shape for name, tensor in pair.finetuned.tensors.items()},
        "zeroshot": {name: tensor.info.shape for name, tensor in pair.zeroshot.tensors.items()},
    }
    for side, shapes in sides.items():
        if shapes == merged:
            return side
    return next((side for side, shapes in sides.items() if merged.items() <= shapes.items()), "finetuned")


def describe(
    pair: Pair, plan: Iterable[TensorPlan], rules: Rules, fishers: Fishers | None = None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The metadata of the merged file, and a note on each key on which the two sources disagree.

    The sources' metadata (architecture, preprocessing) are kept. Where they disagree, `described_by` decides.
    """
    side = described_by(pair, plan)
    inherited = {**pair.zeroshot.metadata, **pair.finetuned.metadata}
    if side == "zeroshot":
        inherited |= pair.zeroshot.metadata
    for own in (KEY, CALIBRATED):  # a mixture of calibrated heads is calibrated by none of the temperatures
        inherited.pop(own, None)
    shared = pair.zeroshot.metadata.keys() & pair.finetuned.metadata.keys() - {KEY, CALIBRATED}
    disputed = sorted(key for key in shared if pair.zeroshot.metadata[key] != pair.finetuned.metadata[key])
    origin: dict[str, object] = {
        "version": __version__,
        "method": "soup" if pair.finetuned.soup is not None and _is_end(rules) else "wise-ft",
        "alpha": rules.alpha,
        "rules": _rules(rules),
        **({"naming": naming} if (naming := pair.naming.record()) else {}),
        "zeroshot": _source(pair.zeroshot),
        "finetuned": _source(pair.finetuned),
    }
    if fishers is not None:
        origin["fisher"] = {
            "zeroshot": _source(fishers.zeroshot),
            "finetuned": _source(fishers.finetuned),
            "floor": fishers.floor,
        }
    # transformers requires "format" in every safetensors file.
    kept = {"zeroshot": "zero-shot", "finetuned": "fine-tuned"}[side]
    notes = tuple(f"the two files' metadata disagree on {key!r}; keeping the {kept} one's" for key in disputed)
    return {"format": "pt", **inherited, KEY: json.dumps(origin)}, notes


def read_origin(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The provenance in a merged file; None for any other file."""
    try:
        origin = json.loads(checkpoint.metadata.get(KEY, "null"))
    except (ValueError, RecursionError):
        return None
    return origin if isinstance(origin, dict) else None


def read_calibrations(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """The temperatures that a file's head was divided by, the last one last; empty for any other file."""
    try:
        found = json.loads(checkpoint.metadata.get(CALIBRATED, "[]"))
    except (ValueError, RecursionError):
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _rules(rules: Rules) -> dict[str, object]:
    """The rules in use; empty for a merge with a single alpha."""
    used: dict[str, object] = {
        "alpha_for": [list(rule) for rule in rules.alpha_for],
        "depth": list(rules.depth or ()),
        "keep": [list(rule) for rule in rules.keep],
        "only": list(rules.only),
        "dtype": rules.dtype.torch if rules.dtype else None,
    }
    found = {key: value for key, value in used.items() if value}
    if rules.frozen_tolerance is not None:
        found["frozen_tolerance"] = rules.frozen_tolerance  # 0 is a tolerance too
    return found


def read_rules(origin: Mapping[str, Any]) -> Rules:
    """The rules in a provenance. Raises CheckpointError if they cannot be understood."""
    try:
        rules = origin.get("rules", {})
        depth = rules.get("depth")
        return Rules(
            alpha=float(origin["alpha"]),
            alpha_for=tuple((str(pattern), float(alpha)) for pattern, alpha in rules.get("alpha_for", ())),
            depth=(float(depth[0]), float(depth[1])) if depth else None,
            keep=tuple((_SIDES[side], str(pattern)) for side, pattern in rules.get("keep", ())),
            only=tuple(map(str, rules.get("only", ()))),
            dtype=BY_TORCH[rules["dtype"]] if rules.get("dtype") else None,
            extrapolate=True,
            frozen_tolerance=None if rules.get("frozen_tolerance") is None else float(rules["frozen_tolerance"]),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, UsageError) as error:
        raise CheckpointError(f"the provenance of the file cannot be understood: {error!r}.") from error


def hub_copy(path: Path) -> tuple[str, str] | None:
    """The repository and the commit that a path in the cache of the Hugging Face hub is a copy of; None for others."""
    for folder in (path, *path.parents):
        if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
            return folder.parent.parent.name.removeprefix("models--").replace("--", "/", 1), folder.name
    return None


def _is_end(rules: Rules) -> bool:
    """Whether the output is the fine-tuned side, but for what `keep` copies from the other."""
    return rules.alpha == 1 and not rules.alpha_for and rules.depth is None


def _source(checkpoint: Checkpoint) -> dict[str, object]:
    if checkpoint.soup is not None:
        soup = checkpoint.soup
        members = [_source(member) for member in soup.members]
        return {"how": soup.how, "members": members, "header_sha256": checkpoint.digest, **soup.selection}
    base, cached = checkpoint.base, hub_copy(checkpoint.path)
    return {
        # The folder of a repository in the hub's cache is called by its commit.
        "name": f"hf-hub:{cached[0]}" if cached and checkpoint.path.name == cached[1] else checkpoint.path.name,
        **({"repository": cached[0], "revision": cached[1]} if cached else {}),
        "size": checkpoint.size,
        "kind": checkpoint.kind,
        "header_sha256": checkpoint.digest,
        **({"base": _source(base)} if base is not None else {}),
    }
