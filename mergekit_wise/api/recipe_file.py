"""What a recipe's file says: a table for each step, whose keys are the options of its command.

    folder = "birds"                     # where everything is left; relative to this file
    device = "cuda"                      # for every step that has such an option

    [zeroshot]                           # left out where the checkpoint has its head already
    file = "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    classes = "classes.txt"

    [finetune]
    data = "birds/train"

    [sweep]
    suite = "birds/test,birds/sketches"

    [report]                             # may be left out

Knows which keys there are; does nothing with them. ``wise.toml`` is such a file too: what it says to other commands is
passed over.
"""

import inspect
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mergekit_wise.api.report import report
from mergekit_wise.api.sweep import sweep
from mergekit_wise.api.zeroshot import zeroshot
from mergekit_wise.errors import UsageError
from mergekit_wise.options import EvalKeywords, FinetuneOptions

CONFIG = "wise.toml"
UNASKED = {"progress", "note", "results", "checkpoint"}
"""Parameters that are no options."""

ENDS = {"zeroshot", "finetuned"}
"""What a sweep is told by the steps before it."""

KEYS: Mapping[str, Collection[str]] = {
    "zeroshot": ({*inspect.signature(zeroshot).parameters} | {"file"}) - UNASKED,
    "finetune": ({*FinetuneOptions.__annotations__} | {"file", "data", "output"}) - UNASKED,
    "sweep": ({*EvalKeywords.__annotations__} | {*inspect.signature(sweep).parameters})
    - {"progress", "options"}
    - ENDS,
    "report": {*inspect.signature(report).parameters} - UNASKED,
}
OTHERS = {"finetune": {"json"}, "sweep": {"plot", "json", *ENDS}, "report": {"results"}}
"""Options of the commands that mean nothing here, and are passed over."""

PLACES = {"file", "classes", "templates", "classnames", "data", "root"}
PLACES |= {"suite", "head", "validate", "model", "baseline"}
"""Keys whose values may be paths."""

WRITTEN = {"output", "save", "results", "log", "state", "cache", "per_class", "per_sample"}
WRITTEN |= {"png", "svg", "pdf", "csv", "markdown", "latex"}
"""Keys that say where something is written; relative to the recipe's folder."""


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A recipe as it was written: the folder that everything is left in, and the options of each step.

    Options are named as parameters are; `steps` has no entry for a step that has no table.
    """

    folder: Path
    steps: Mapping[str, Mapping[str, Any]]


def read_recipe(path: Path) -> RecipeFile:
    """Read a recipe. Raises UsageError: the file is missing, no TOML, or says what cannot be understood."""
    said = _read(path)
    own = said.pop("recipe", {}) if path.name == CONFIG else said
    tables = {name: table for name, table in said.items() if isinstance(table, dict)}
    shared = {_key(key): value for key, value in said.items() if not isinstance(value, dict) and key != "folder"}
    if path.name != CONFIG:
        _require_known(path, tables, KEYS, "table")
        _require_known(path, shared, set().union(*KEYS.values()) | {"folder"}, "key")
    home = path.resolve().parent
    folder = home / str(own.get("folder", "."))
    steps = {name: _options(path, name, tables[name], shared, home, folder) for name in KEYS if name in tables}
    for needed, key in (("finetune", "data"), ("sweep", "suite")):
        if key not in steps.get(needed, {}):
            raise UsageError(f"{path}: expected a table [{needed}] with {key} = ..., found none.")
    if "file" not in steps.get("zeroshot", {}) and "file" not in steps["finetune"]:
        raise UsageError(f"{path}: names no checkpoint. Give file = ... in [zeroshot], or in [finetune].")
    return RecipeFile(folder, steps)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}. Give the file of a recipe.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is not TOML: {error}.") from error


def _options(
    path: Path, name: str, table: Mapping[str, Any], shared: Mapping[str, Any], home: Path, folder: Path
) -> dict[str, Any]:
    own = {_key(key): value for key, value in table.items()}
    own = {key: value for key, value in own.items() if key not in OTHERS.get(name, ())}
    _require_known(path, own, KEYS[name], f"key of [{name}]")
    # What is shared by that name is the folder of data sets, which is no data set to learn from.
    passed = {key: value for key, value in shared.items() if key in KEYS[name] and (name, key) != ("finetune", "data")}
    return {key: _value(key, value, home, folder) for key, value in (passed | own).items()}


def _value(key: str, value: Any, home: Path, folder: Path) -> Any:
    if key in WRITTEN:
        return folder / str(value)
    if key == "freeze":
        return tuple(value) if isinstance(value, list) else (value,)
    if key not in PLACES or not isinstance(value, str):
        return value
    places = [str(home / part.strip()) if (home / part.strip()).exists() else part for part in value.split(",")]
    return Path(places[0]) if key in ("data", "root") and (home / value).is_dir() else ",".join(places)


def _key(key: str) -> str:
    return key.replace("-", "_")


def _require_known(path: Path, said: Mapping[str, Any], known: Collection[str], what: str) -> None:
    for key in said:
        if key not in known:
            close = get_close_matches(key, known, 1)
            hint = f" Did you mean {close[0].replace('_', '-')!r}?" if close else ""
            raise UsageError(f"{path}: {key.replace('_', '-')!r} is no {what} of a recipe.{hint}")
