"""What a merged file says of where it comes from: no clock and no path, so the same inputs give the same bytes."""

import json

from mergekit_wise import __version__
from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.merging.pair import Pair

KEY = "mergekit_wise"
"""The metadata entry that holds it, as JSON."""


def describe(pair: Pair, alpha: float) -> tuple[dict[str, str], tuple[str, ...]]:
    """The metadata of the mixture, and the keys on which the two sources disagree.

    What the sources said of themselves (the architecture, the preprocessing) is carried over; where they disagree the
    fine-tuned one's word is taken, because the mixture is used as that one is.
    """
    inherited = {**pair.zeroshot.metadata, **pair.finetuned.metadata}
    inherited.pop(KEY, None)
    shared = pair.zeroshot.metadata.keys() & pair.finetuned.metadata.keys() - {KEY}
    disputed = sorted(key for key in shared if pair.zeroshot.metadata[key] != pair.finetuned.metadata[key])
    origin = {
        "version": __version__,
        "method": "wise-ft",
        "alpha": alpha,
        "zeroshot": _source(pair.zeroshot),
        "finetuned": _source(pair.finetuned),
    }
    # "format": what transformers asks of every safetensors file before it loads it.
    return {"format": "pt", **inherited, KEY: json.dumps(origin)}, tuple(disputed)


def read_origin(checkpoint: Checkpoint) -> dict[str, object] | None:
    """The provenance that a merged file carries; None for any other file."""
    try:
        origin = json.loads(checkpoint.metadata.get(KEY, "null"))
    except ValueError:
        return None
    return origin if isinstance(origin, dict) else None


def _source(checkpoint: Checkpoint) -> dict[str, object]:
    return {
        "name": checkpoint.path.name,
        "size": checkpoint.path.stat().st_size,
        "kind": checkpoint.kind,
        "header_sha256": checkpoint.digest,
    }
