"""Which images a command reads: data sets and suites, their class names and prompts, and subsets of them.

The commands about data sets alone: ``wise suites`` and ``wise data fetch``.
"""

from dataclasses import KW_ONLY, replace
from typing import Annotated

from mergekit_wise.option_types import (
    ABSENT,
    Option,
    OptionalData,
    OptionalNames,
    OptionalPath,
    Options,
    Words,
    options_class,
)
from mergekit_wise.options.common import ADVANCED, DATA
from mergekit_wise.progress import Progress, silent

DIGITS = "digits"
"""What ``wise eval`` evaluates on by default."""

DataRoot = Annotated[
    OptionalPath,
    Option(
        "Root folder of the data sets.",
        metavar="ROOT",
        group=DATA,
        default="$WISE_DATA",
        envvar="WISE_DATA",
        path="input",
    ),
]
SUITE = Option(
    "Suites, data sets, folders, TOML or CSV files, separated by commas ('wise suites' lists them). May be repeated.",
    metavar="NAMES",
    group=DATA,
    path="input",
    completes="suites",
)
REFERENCE = Option(
    "Data set, folder or TOML file to use as the reference; the data sets of --suite count as shifts.",
    metavar="NAME",
    group=DATA,
    default="the suite's own",
    path="input",
    completes="data sets",
)

Reference = Annotated[OptionalData, REFERENCE]
ReferenceOfTask = Annotated[
    OptionalData,
    replace(
        REFERENCE, help=f"{REFERENCE.help} With --command or --evaluator: the name of one of the data sets it reports."
    ),
]
Strict = Annotated[bool, Option("Fail if a data set of the suite is missing.", group=DATA)]
ClassNames = Annotated[
    Words | None,
    Option(
        "File of class names (lines, JSON or YAML), in place of the data set's names.",
        metavar="FILE",
        group=DATA,
        path="input",
    ),
]
Templates = Annotated[
    Words | None,
    Option(
        "Prompt templates for zero-shot heads: OpenAI's 80, their 7 best, 'a photo of a {}.', or a text file with "
        "one per line, where {} is the class name.",
        metavar="openai|simple|plain|FILE",
        group=DATA,
        default="the data set's own",
        path="input",
    ),
]
Limit = Annotated[
    int | None,
    Option("Evaluate a random subset of N images per data set.", metavar="N", group=DATA, minimum=1),
]
Balanced = Annotated[
    bool,
    Option("Draw equally many images of every class for --limit, not in proportion to its size.", group=DATA),
]
LimitSeed = Annotated[int, Option("Random seed for --limit.", metavar="N", group=DATA, minimum=0)]
MaxBad = Annotated[int, Option("Tolerate up to N unreadable images per data set.", metavar="N", group=DATA, minimum=0)]
MaxPixels = Annotated[
    int | None,
    Option(
        "Read images of up to N pixels; each takes up to 4 N bytes of memory, in each worker.",
        metavar="N",
        group=ADVANCED,
        minimum=1,
        default="89,478,485",
    ),
]
CacheImages = Annotated[
    bool,
    Option(
        "Keep decoded images at the model's size on disk, in the cache folder, for later runs with the same images and "
        "preprocessing; 150 KB an image for a model of 224 x 224.",
        group=ADVANCED,
    ),
]
Recalibrate = Annotated[
    str | None,
    Option(
        "Recompute batch-norm statistics on this data set, ideally the training images.",
        metavar="DATASET",
        group=DATA,
        path="input",
        completes="data sets",
    ),
]


@options_class(frozen=True)
class SuitesOptions(Options):
    """The options of ``wise suites``."""

    data: DataRoot = ABSENT
    _: KW_ONLY
    names: Annotated[
        OptionalNames,
        Option(
            "Suites, data sets, folders or TOML files to list.",
            metavar="NAMES",
            is_argument=True,
            default="all that are built in",
            path="input",
            completes="suites",
        ),
    ] = ABSENT
    progress: Progress = silent


@options_class(frozen=True)
class FetchOptions(Options):
    """The options of ``wise data fetch``; `endpoint` is the address of another hub than the usual one."""

    name: Annotated[str, Option("A data set, as 'wise suites' lists it.", is_argument=True, completes="data sets")]
    data: DataRoot = ABSENT
    _: KW_ONLY
    endpoint: str | None = None
    progress: Progress = silent
