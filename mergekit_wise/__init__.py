"""Robust fine-tuning of zero-shot models by interpolating weights (WiSE-FT).

Every command is a function: `merge`, `sweep`, `evaluate` and the others in ``dir(mergekit_wise)``; ``wise eval`` is
`evaluate`, ``wise report`` is `write_report`, and ``wise data fetch`` is `fetch_data`. What they return and raise is
here, too. Everything is imported on first use, so that merging does not wait for torch.
"""

from typing import TYPE_CHECKING

from mergekit_wise.lazy import names_on_demand

if TYPE_CHECKING:
    from mergekit_wise.analysis.candidate import Candidate
    from mergekit_wise.analysis.choice import Choice
    from mergekit_wise.analysis.contrast import Contrast
    from mergekit_wise.analysis.estimate import Estimate
    from mergekit_wise.api.cache import CacheCleared, CacheList, clear_cache, list_cache
    from mergekit_wise.api.calibrate import CalibrateReport, calibrate
    from mergekit_wise.api.card import CardReport, card
    from mergekit_wise.api.compare import CompareReport, ModelComparison, compare
    from mergekit_wise.api.convert import ConvertReport, convert
    from mergekit_wise.api.demo import DemoReport, demo
    from mergekit_wise.api.diff import DiffReport, diff
    from mergekit_wise.api.doctor import DoctorReport, doctor
    from mergekit_wise.api.evaluate import EvalReport, evaluate
    from mergekit_wise.api.fetch_data import Fetched, fetch_data
    from mergekit_wise.api.finetune import FinetuneReport, Stopped, finetune
    from mergekit_wise.api.fisher import FisherReport, fisher
    from mergekit_wise.api.init import init
    from mergekit_wise.api.inspect import Inspection, inspect
    from mergekit_wise.api.interpolate import interpolate_
    from mergekit_wise.api.merge import merge, preview
    from mergekit_wise.api.merge_report import MergePreview, MergeReport
    from mergekit_wise.api.predict import predict
    from mergekit_wise.api.predict_report import PredictReport
    from mergekit_wise.api.push import PushReport, push
    from mergekit_wise.api.recipe import RecipeReport, recipe
    from mergekit_wise.api.report import ReportFiles, write_report
    from mergekit_wise.api.rules import RuleResult, RulesReport, rules
    from mergekit_wise.api.soup import SoupReport, soup
    from mergekit_wise.api.state_dict import StateDict
    from mergekit_wise.api.suites import SuitesReport, suites
    from mergekit_wise.api.sweep import sweep
    from mergekit_wise.api.sweep_report import SweepReport
    from mergekit_wise.api.verify import Verdict, verify
    from mergekit_wise.api.zeroshot import ZeroShotReport, zeroshot
    from mergekit_wise.datasets.dataset import Dataset, Entry
    from mergekit_wise.errors import (
        CheckpointError,
        Interrupted,
        MismatchError,
        ModelError,
        NonFiniteError,
        OutputError,
        ResultsError,
        SuiteError,
        Unsaved,
        UsageError,
        WiseError,
    )
    from mergekit_wise.results.predictions import Prediction
    from mergekit_wise.results.record import Record

__version__ = "0.2.0"
__all__ = [
    "CacheCleared",
    "CacheList",
    "CalibrateReport",
    "Candidate",
    "CardReport",
    "CheckpointError",
    "Choice",
    "CompareReport",
    "Contrast",
    "ConvertReport",
    "Dataset",
    "DemoReport",
    "DiffReport",
    "DoctorReport",
    "Entry",
    "Estimate",
    "EvalReport",
    "Fetched",
    "FinetuneReport",
    "FisherReport",
    "Inspection",
    "Interrupted",
    "MergePreview",
    "MergeReport",
    "MismatchError",
    "ModelComparison",
    "ModelError",
    "NonFiniteError",
    "OutputError",
    "PredictReport",
    "Prediction",
    "PushReport",
    "RecipeReport",
    "Record",
    "ReportFiles",
    "ResultsError",
    "RuleResult",
    "RulesReport",
    "SoupReport",
    "StateDict",
    "Stopped",
    "SuiteError",
    "SuitesReport",
    "SweepReport",
    "Unsaved",
    "UsageError",
    "Verdict",
    "WiseError",
    "ZeroShotReport",
    "__version__",
    "calibrate",
    "card",
    "clear_cache",
    "compare",
    "convert",
    "demo",
    "diff",
    "doctor",
    "evaluate",
    "fetch_data",
    "finetune",
    "fisher",
    "init",
    "inspect",
    "interpolate_",
    "list_cache",
    "merge",
    "predict",
    "preview",
    "push",
    "recipe",
    "rules",
    "soup",
    "suites",
    "sweep",
    "verify",
    "write_report",
    "zeroshot",
]

_NAMES = {
    "api.soup": ("soup", "SoupReport"),
    "api.fisher": ("fisher", "FisherReport"),
    "api.push": ("push", "PushReport"),
    "api.card": ("card", "CardReport"),
    "api.cache": ("list_cache", "clear_cache", "CacheList", "CacheCleared"),
    "api.calibrate": ("calibrate", "CalibrateReport"),
    "api.compare": ("compare", "CompareReport", "ModelComparison"),
    "api.convert": ("convert", "ConvertReport"),
    "api.demo": ("demo", "DemoReport"),
    "api.diff": ("diff", "DiffReport"),
    "api.doctor": ("doctor", "DoctorReport"),
    "api.evaluate": ("evaluate", "EvalReport"),
    "api.fetch_data": ("fetch_data", "Fetched"),
    "api.finetune": ("finetune", "FinetuneReport", "Stopped"),
    "api.init": ("init",),
    "api.inspect": ("inspect", "Inspection"),
    "api.interpolate": ("interpolate_",),
    "api.merge": ("merge", "preview"),
    "api.merge_report": ("MergePreview", "MergeReport"),
    "api.predict": ("predict",),
    "api.predict_report": ("PredictReport",),
    "api.recipe": ("recipe", "RecipeReport"),
    "api.report": ("write_report", "ReportFiles"),
    "api.rules": ("rules", "RuleResult", "RulesReport"),
    "api.state_dict": ("StateDict",),
    "api.suites": ("suites", "SuitesReport"),
    "api.sweep": ("sweep",),
    "api.sweep_report": ("SweepReport",),
    "api.verify": ("verify", "Verdict"),
    "api.zeroshot": ("zeroshot", "ZeroShotReport"),
    "analysis.candidate": ("Candidate",),
    "analysis.choice": ("Choice",),
    "analysis.contrast": ("Contrast",),
    "analysis.estimate": ("Estimate",),
    "datasets.dataset": ("Dataset", "Entry"),
    "errors": (
        "CheckpointError",
        "Interrupted",
        "MismatchError",
        "ModelError",
        "NonFiniteError",
        "OutputError",
        "ResultsError",
        "SuiteError",
        "Unsaved",
        "UsageError",
        "WiseError",
    ),
    "results.predictions": ("Prediction",),
    "results.record": ("Record",),
}
"""What each module gives to the package. Type checkers read the imports above, and a test compares the three lists."""

if not TYPE_CHECKING:  # or a type checker would accept every name
    __getattr__, __dir__ = names_on_demand(__name__, _NAMES)
