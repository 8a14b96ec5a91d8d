"""Data sets in memory in the place of their names, as Python functions take them. Imports nothing heavy."""

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mergekit_wise.errors import UsageError

if TYPE_CHECKING:
    from mergekit_wise.datasets.dataset import Dataset

_NAMES = {"suite": "data"}
"""What a single data set is called that was given for an argument, if not by the argument's name."""


class DatasetInMemory(str):
    """Data sets in memory in the place of names: the text is what messages and records call them.

    Attributes:
        given: the data sets by name, as they were given.
        opened: those that were opened by now, so that their labels are read once.
    """

    given: Mapping[str, Any]
    opened: "dict[str, Dataset]"

    @classmethod
    def of(cls, value: Any, role: str = "data") -> "DatasetInMemory":
        """One data set, called after its `role`, or several by name. Raises UsageError for what cannot be indexed."""
        given = dict(value) if isinstance(value, Mapping) else {_NAMES.get(role, role): value}
        for name, each in given.items():
            _require_indexable(name, each)
        found = cls(",".join(given))
        found.given, found.opened = given, {}
        return found


def is_in_memory(value: Any) -> bool:
    """Whether a value is a data set, or several by name, rather than names. Raises UsageError for a set of splits."""
    _require_one_split(value)
    if isinstance(value, Mapping):
        named = all(isinstance(name, str) and name and "," not in name for name in value)
        return bool(value) and named and all(map(_is_one, value.values()))
    return _is_one(value)


def _is_one(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and not isinstance(value[0], str | os.PathLike)
    if isinstance(value, str | bytes | os.PathLike | Mapping):
        return False
    return _has(value, "__getitem__") or _is_of_torch(value, "DataLoader")


def _has(value: Any, method: str) -> bool:
    return callable(getattr(type(value), method, None))


def _is_of_torch(value: Any, name: str) -> bool:
    kind = getattr(sys.modules.get("torch.utils.data"), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _require_one_split(value: Any) -> None:
    library = sys.modules.get("datasets")
    kinds = [getattr(library, name, None) for name in ("DatasetDict", "IterableDatasetDict")]
    if any(isinstance(kind, type) and isinstance(value, kind) for kind in kinds):
        raise UsageError(
            f"A DatasetDict has several splits ({', '.join(map(str, value))}). Give one of them, such as "
            f"dataset[{next(iter(value), 'test')!r}]."
        )


def _require_indexable(name: str, value: Any) -> None:
    if _is_of_torch(value, "DataLoader"):
        raise UsageError(
            f"{name}: is a DataLoader, whose batches are of its own making. Give its data set (loader.dataset), and "
            "--batch-size and --workers."
        )
    if _is_of_torch(value, "IterableDataset") or not _has(value, "__len__"):
        raise UsageError(
            f"{name}: a data set needs a length and an index (len(data) and data[i]), which a "
            f"{type(value).__name__} has not. Give a torch.utils.data.Dataset that has them, or a list of "
            "(image, label)."
        )
