"""How the results of all functions look in Python: one line, JSON, a data frame, and tables in a notebook.

A result is a frozen dataclass that extends `ResultObject` and says what is particular to it. pandas and the libraries
that draw are imported by the calls that need them. Nothing here prints.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Self

from mergekit_wise.wording import shown

if TYPE_CHECKING:
    import pandas as pd

    from mergekit_wise.report.table import Table

LONGEST_REPR = 160
"""Characters of a summary in `repr`; names of files and data sets may have any length."""


class ResultObject:
    """What a function returns; `repr` of it is a line.

    Subclasses are dataclasses with ``repr=False``, because a dataclass's own `repr` shows every tensor and record.
    """

    __slots__ = ()

    @classmethod
    def of(cls, found: Any) -> Self:
        """An object with the fields of `found`, whose class this one extends without adding fields."""
        return cls(**{field.name: getattr(found, field.name) for field in fields(found)})

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {shown(self._summary(), LONGEST_REPR)}>"

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types, which the command's ``--json`` prints, where it has that option.

        Tuples are lists, paths are texts, and numbers that are not finite, which JSON lacks, are None.
        """
        found: dict[str, Any] = plain(self._entry())
        return found

    def to_frame(self) -> "pd.DataFrame":
        """The result as a pandas DataFrame with a row for each record, tensor, prediction or comparison.

        Raises ImportError if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_frame() needs pandas, which is not installed: pip install pandas") from error
        return pd.DataFrame(list(self._rows()))

    def _repr_html_(self) -> str:
        """The tables that the command prints, for a notebook."""
        from mergekit_wise.report.notebook import as_html

        return as_html(self._tables())

    def _summary(self) -> str:
        """What it is, in a line: the two or three numbers that matter."""
        raise NotImplementedError

    def _entry(self) -> Mapping[str, Any]:
        """The result by names; by default all fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        """The rows of the data frame; by default one, of the fields that are a single value."""
        return [{name: value for name, value in self.to_dict().items() if not isinstance(value, list | dict)}]

    def _tables(self) -> "Sequence[Table]":
        """Tables with titles; by default one, of the fields that are a single value."""
        from mergekit_wise.report.table import Table

        (row,) = self._rows()
        return [Table.of_texts(("", ""), [(name, str(value)) for name, value in row.items()])]


def plain(value: Any) -> Any:
    """A value as JSON types: dictionaries, lists, texts, numbers, booleans and None."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, PathLike):
        return fspath(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return None if isinstance(value, float) and not math.isfinite(value) else value
