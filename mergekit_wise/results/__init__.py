"""One record per (model, alpha, data set), in JSON Lines. Knows no model and no terminal."""

from mergekit_wise.results.analysis import Analysis
from mergekit_wise.results.details import Detail, DetailFiles, writing_details
from mergekit_wise.results.record import Key, Record, Role, key_of
from mergekit_wise.results.store import append_records, as_entry, read_analyses, read_records, require_writable

__all__ = [
    "Analysis",
    "Detail",
    "DetailFiles",
    "Key",
    "Record",
    "Role",
    "append_records",
    "as_entry",
    "key_of",
    "read_analyses",
    "read_records",
    "require_writable",
    "writing_details",
]
