"""One record per (model, alpha, data set), in JSON Lines. Knows no model and no terminal."""

from mergekit_wise.results.record import Record
from mergekit_wise.results.store import append_records, as_entry, read_records

__all__ = ["Record", "append_records", "as_entry", "read_records"]
