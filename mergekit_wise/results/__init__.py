"""One record per (model, alpha, data set), in JSON Lines. Knows no model and no terminal."""

from typing import TYPE_CHECKING

from mergekit_wise.lazy import names_on_demand

if TYPE_CHECKING:
    from mergekit_wise.results.answers import AnswerStore
    from mergekit_wise.results.choices import WrittenChoice, choice_of, is_new
    from mergekit_wise.results.details import Detail, DetailFiles, no_formula, writing_details
    from mergekit_wise.results.estimation import Estimation
    from mergekit_wise.results.identity import Key, changes, comparable, key_of, setting_of
    from mergekit_wise.results.measurement import At, Finding, Measurement
    from mergekit_wise.results.reader import (
        Reading,
        read_analyses,
        read_choices,
        read_estimations,
        read_records,
        read_results,
    )
    from mergekit_wise.results.record import ENSEMBLE, Analysis, Record, Role, as_candidate, points_of, to_candidates
    from mergekit_wise.results.store import append_records, as_entry, require_writable

__all__ = [
    "ENSEMBLE",
    "Analysis",
    "AnswerStore",
    "At",
    "Detail",
    "DetailFiles",
    "Estimation",
    "Finding",
    "Key",
    "Measurement",
    "Reading",
    "Record",
    "Role",
    "WrittenChoice",
    "append_records",
    "as_candidate",
    "as_entry",
    "changes",
    "choice_of",
    "comparable",
    "is_new",
    "key_of",
    "no_formula",
    "points_of",
    "read_analyses",
    "read_choices",
    "read_estimations",
    "read_records",
    "read_results",
    "require_writable",
    "setting_of",
    "to_candidates",
    "writing_details",
]

_NAMES = {
    "answers": ("AnswerStore",),
    "choices": ("WrittenChoice", "choice_of", "is_new"),
    "details": ("Detail", "DetailFiles", "no_formula", "writing_details"),
    "estimation": ("Estimation",),
    "identity": ("Key", "changes", "comparable", "key_of", "setting_of"),
    "measurement": ("At", "Finding", "Measurement"),
    "reader": ("Reading", "read_analyses", "read_choices", "read_estimations", "read_records", "read_results"),
    "record": ("ENSEMBLE", "Analysis", "Record", "Role", "as_candidate", "points_of", "to_candidates"),
    "store": ("append_records", "as_entry", "require_writable"),
}

if not TYPE_CHECKING:  # or a type checker would accept every name
    __getattr__, __dir__ = names_on_demand(__name__, _NAMES)
