"""Every option of every command, declared once: see `option_types` for what follows from it. Imports nothing heavy.

A class holds the arguments of a command and of the Python function of the same name. Fields before the keyword-only
ones are positional in Python. A module has the classes of one subject, after what they share; `common` comes first,
`commands` last.
"""

from mergekit_wise.option_types import declared_options
from mergekit_wise.options.checkpoints import MAX_IMAGE, ZERO_SHOT_HEAD, ConvertOptions, DiffOptions, InspectOptions
from mergekit_wise.options.choosing import EvaluationOptions, ModelOptions, RulesOptions, SweepOptions
from mergekit_wise.options.commands import COMMANDS, options_of
from mergekit_wise.options.common import GROUPS, RULES
from mergekit_wise.options.data import DIGITS, FetchOptions, SuitesOptions
from mergekit_wise.options.evaluation import EvalOptions, PredictOptions
from mergekit_wise.options.finetuning import FinetuneOptions, ZeroshotOptions
from mergekit_wise.options.fitting import CalibrateOptions, FisherOptions
from mergekit_wise.options.merging import MergeOptions, VerifyOptions
from mergekit_wise.options.project import (
    CACHE_KINDS,
    CacheClearOptions,
    CacheLsOptions,
    DemoOptions,
    DoctorOptions,
    InitOptions,
    RecipeOptions,
)
from mergekit_wise.options.publishing import CardOptions, PushOptions
from mergekit_wise.options.report import CompareOptions, ReportOptions
from mergekit_wise.options.soup import SoupOptions
from mergekit_wise.options.training import AUGMENTATIONS

__all__ = [
    "AUGMENTATIONS",
    "CACHE_KINDS",
    "COMMANDS",
    "DIGITS",
    "GROUPS",
    "MAX_IMAGE",
    "RULES",
    "ZERO_SHOT_HEAD",
    "CacheClearOptions",
    "CacheLsOptions",
    "CalibrateOptions",
    "CardOptions",
    "CompareOptions",
    "ConvertOptions",
    "DemoOptions",
    "DiffOptions",
    "DoctorOptions",
    "EvalOptions",
    "EvaluationOptions",
    "FetchOptions",
    "FinetuneOptions",
    "FisherOptions",
    "InitOptions",
    "InspectOptions",
    "MergeOptions",
    "ModelOptions",
    "PredictOptions",
    "PushOptions",
    "RecipeOptions",
    "ReportOptions",
    "RulesOptions",
    "SoupOptions",
    "SuitesOptions",
    "SweepOptions",
    "VerifyOptions",
    "ZeroshotOptions",
    "declared_options",
    "options_of",
]
