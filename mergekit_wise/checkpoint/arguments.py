"""The arguments that a training script saved with its weights, as plain data. Knows no model and no file format.

A training checkpoint holds them as entries of its dictionary, as a pickled ``argparse.Namespace``, or as Lightning's
hyper-parameters. Only those that describe the model are kept: the others name people's folders and accounts.
"""

import json
from collections.abc import Mapping

ARGUMENTS_KEY = "training_arguments"
"""The metadata entry that holds the arguments, as JSON."""

PLACES = ("args", "hyper_parameters", "hparams", "config")
"""Entries of a training checkpoint that hold arguments."""

NAMES = (
    *("arch", "model", "model_name", "architecture", "backbone", "pretrained", "force_quick_gelu"),
    *("version", "input_size", "img_size", "mean", "std", "interpolation", "crop_pct"),
)
"""The arguments that describe a model."""

LONGEST = 200
"""Characters of a text, and entries of a list."""


def training_arguments(value: object) -> dict[str, str]:
    """The metadata entry with the arguments in an unpickled `value`; empty if it has none."""
    if not isinstance(value, dict):
        return {}
    from mergekit_wise.checkpoint.pickle_machine import Stub  # what needs no more than the entry's name does without

    found = _described(value)
    for place in PLACES:
        held = value.get(place)
        held = held.state if isinstance(held, Stub) else held
        if isinstance(held, dict):
            found = {**_described(held), **found}
    return {ARGUMENTS_KEY: json.dumps(found)} if found else {}


def _described(entries: Mapping[object, object]) -> dict[str, object]:
    return {name: entries[name] for name in NAMES if name in entries and _is_plain(entries[name])}


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return 0 < len(value) <= LONGEST and all(isinstance(entry, (int, float)) for entry in value)
    if isinstance(value, str):
        return len(value) <= LONGEST and value.isprintable()
    return isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 1 << 31)
