"""What a measured number depends on, so that a measurement is repeated if that changed, and only then.

Knows names and values of attributes; knows no record and no file.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from mergekit_wise import __version__

MEASUREMENT = "2"
"""Raised whenever this tool would get another number from the same weights, images and settings. Its own version is no
reason to measure again. Records without it are those of version 1."""

SOURCE = re.compile(r" \((?:from|told by) .*\)$")
"""Who declared an architecture; earlier versions wrote "told by"."""

IDENTITY = (
    "weights",
    "architecture",
    "preprocess",
    "head",
    "columns",
    "prompts",
    "precision",
    "versions",
    "dataset",
    "data",
    "metric",
    "limit",
    "seed",
    "draw",
)
"""Names of the attributes that the number depends on."""

LIBRARIES = ("torch", "torchvision", "open_clip_torch", "timm", "pillow")
"""Libraries that compute with pixels and logits. Their releases (2.7, 2.8) can change a number, patches (2.7.1) do not.
NumPy handles labels and counts, which are exact; see `GENERATING`."""

GENERATING = "numpy"
"""The library whose random numbers images are made of, where they are made rather than read."""

_NAMES = {"preprocess": "preprocessing", "versions": "", "limit": "--limit", "seed": "--seed"}
"""What a message calls an attribute, if not by its name."""

_DIGESTS = {
    "weights": "the weights changed",
    "data": "the images, their labels or groups changed",
    "prompts": "the class names or templates changed",
    "columns": "the mapping of classes changed",
}
"""What a message says if an attribute differs whose value means nothing to people."""

_OTHERWISE = "another version of wise measured it otherwise"

_DRAWN = ("limit", "seed", "draw")
"""How images were drawn: if that differs, the images do, which need not be said as well."""

Key = tuple[str, ...]


def installed_versions() -> dict[str, str]:
    """The versions that records hold: of this tool and of its measurement, and of the libraries that compute."""
    libraries = {name: version(name) for name in (*LIBRARIES, GENERATING)}
    return {"mergekit_wise": __version__, "measurement": MEASUREMENT, **libraries}


def key_of(facts: Mapping[str, Any]) -> Key:
    """The key of the record that will have these attributes, among them all of `IDENTITY`."""
    return tuple(json.dumps(comparable(name, facts[name]), sort_keys=True) for name in IDENTITY)


def setting_of(facts: Mapping[str, Any]) -> str:
    """A digest of everything in `IDENTITY` but the weights; an attribute that is missing counts as unknown."""
    known = {name: comparable(name, facts.get(name)) for name in IDENTITY if name != "weights"}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def comparable(name: str, value: Any) -> Any:
    """What a number depends on of an attribute.

    Of an architecture not who declared it, which is in parentheses; of versions the releases of the libraries that
    compute, and the version of the measurement itself.
    """
    if name == "architecture" and isinstance(value, str):
        return SOURCE.sub("", value)
    if name == "versions" and isinstance(value, Mapping):
        releases = {library: _release(str(value[library])) for library in (*LIBRARIES, GENERATING) if library in value}
        return {**releases, "measurement": value.get("measurement", "1")}
    return value


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """What differs between the identities of two measurements, for people: ``precision fp32 -> bf16``."""
    found: list[str] = []
    from_whole_or_to = (before["limit"] is None) != (after["limit"] is None)
    for name in IDENTITY:
        if name in _DRAWN[1:] and from_whole_or_to:
            continue
        old, new = comparable(name, before[name]), comparable(name, after[name])
        if name not in _DIGESTS:
            found += _changes(_NAMES.get(name, name), old, new)
        elif old != new and not (name == "data" and any(before[each] != after[each] for each in _DRAWN)):
            found.append(_DIGESTS[name])
    return tuple(found)


def _changes(name: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            yield from _changes(f"{name} {key}".strip(), old.get(key), new.get(key))
    elif json.dumps(old) != json.dumps(new):  # lists in a file are tuples in memory
        yield _OTHERWISE if name == "measurement" else f"{name} {_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    return "none" if value in (None, "", (), []) else str(value)


def _release(text: str) -> str:
    """``2.7`` of ``2.7.1+cu126``."""
    return ".".join(re.findall(r"\d+", text)[:2])
