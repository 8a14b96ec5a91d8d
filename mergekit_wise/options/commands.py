"""Every command by its name: its class of options, and what it has for a terminal alone."""

from collections.abc import Mapping
from typing import Any

from mergekit_wise.option_types import Declared, Option, Options, declared_options
from mergekit_wise.options.checkpoints import ConvertOptions, DiffOptions, InspectOptions
from mergekit_wise.options.choosing import RulesOptions, SweepOptions
from mergekit_wise.options.common import OUTPUT
from mergekit_wise.options.data import FetchOptions, SuitesOptions
from mergekit_wise.options.evaluation import EvalOptions, PredictOptions
from mergekit_wise.options.finetuning import FinetuneOptions, ZeroshotOptions
from mergekit_wise.options.fitting import CalibrateOptions, FisherOptions
from mergekit_wise.options.merging import MergeOptions, VerifyOptions
from mergekit_wise.options.project import (
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

# What only a terminal needs.
JSON = Declared("json", bool, Option("Print the results as JSON.", group=OUTPUT), required=False, default=False)
PREDICTIONS_JSON = Declared(
    "json", bool, Option("Print a line of JSON for each image.", group=OUTPUT), required=False, default=False
)
DRY_RUN = Declared(
    "dry_run",
    bool,
    Option("Print what each tensor would get; read headers only and write nothing.", group=OUTPUT),
    required=False,
    default=False,
)

COMMANDS: Mapping[str, tuple[type[Options], tuple[Declared, ...]]] = {
    "zeroshot": (ZeroshotOptions, ()),
    "finetune": (FinetuneOptions, (JSON,)),
    "merge": (MergeOptions, (DRY_RUN,)),
    "soup": (SoupOptions, (JSON,)),
    "sweep": (SweepOptions, (JSON,)),
    "eval": (EvalOptions, (JSON,)),
    "rules": (RulesOptions, (JSON,)),
    "predict": (PredictOptions, (PREDICTIONS_JSON,)),
    "report": (ReportOptions, ()),
    "compare": (CompareOptions, (JSON,)),
    "recipe": (RecipeOptions, ()),
    "init": (InitOptions, ()),
    "suites": (SuitesOptions, (JSON,)),
    "data-fetch": (FetchOptions, (JSON,)),
    "cache-ls": (CacheLsOptions, (JSON,)),
    "cache-clear": (CacheClearOptions, (JSON,)),
    "verify": (VerifyOptions, ()),
    "card": (CardOptions, (JSON,)),
    "push": (PushOptions, (JSON,)),
    "inspect": (InspectOptions, (JSON,)),
    "diff": (DiffOptions, (JSON,)),
    "convert": (ConvertOptions, ()),
    "calibrate": (CalibrateOptions, (JSON,)),
    "fisher": (FisherOptions, (JSON,)),
    "demo": (DemoOptions, ()),
    "doctor": (DoctorOptions, (JSON,)),
}
"""Every command's class of options, and what it has for a terminal alone."""


def options_of(command: str) -> dict[str, Declared]:
    """All options of a command by the names of their fields."""
    options: Any
    options, flags = COMMANDS[command]
    return {**declared_options(options), **{flag.name: flag for flag in flags}}
