"""The commands that publish a model: ``wise card`` and ``wise push``, and what describes the model in both."""

from dataclasses import KW_ONLY
from typing import Annotated

from mergekit_wise.option_types import ABSENT, EMPTY, Option, OptionalPath, Options, Texts, Weights, options_class
from mergekit_wise.options.checkpoints import Model
from mergekit_wise.options.common import DATA, MODEL, OUTPUT, Mmap
from mergekit_wise.progress import Progress, silent

Published = Annotated[
    Weights,
    Option("Checkpoint: a file or a folder.", metavar="OUT", is_argument=True, path="input", aliases=("file",)),
]
CardResultsFile = Annotated[
    OptionalPath,
    Option(
        "Results file of 'wise sweep' or 'wise eval'. Only results of exactly these weights are used.",
        metavar="FILE",
        group=DATA,
        path="input",
    ),
]
BaseModel = Annotated[
    Texts,
    Option(
        "Repository on the hub that the model derives from. May be repeated.",
        metavar="ORG/NAME",
        group=MODEL,
        default="those of the sources that are on the hub",
    ),
]
License = Annotated[
    str | None, Option("The hub's identifier of the model's licence, such as apache-2.0.", metavar="ID", group=MODEL)
]
Title = Annotated[
    str | None,
    Option("Name of the model in the card.", metavar="TEXT", group=MODEL, default="that of the repository or file"),
]


@options_class(frozen=True)
class CardOptions(Options):
    """The options of ``wise card``."""

    checkpoint: Published
    _: KW_ONLY
    output: Annotated[
        OptionalPath,
        Option(
            "Card to write.",
            metavar="FILE",
            group=OUTPUT,
            short="-o",
            path="output",
            default="README.md in the folder, or beside the file",
        ),
    ] = ABSENT
    results: CardResultsFile = ABSENT
    base_model: BaseModel = EMPTY
    license: License = None
    title: Title = None
    repo: Annotated[
        str | None,
        Option("Repository on the hub that the card says to load the model from.", metavar="ORG/NAME", group=MODEL),
    ] = None
    model: Model = None
    force: Annotated[bool, Option("Replace a card that 'wise card' did not write.", group=OUTPUT)] = False
    mmap: Mmap = True
    progress: Progress = silent


@options_class(frozen=True)
class PushOptions(Options):
    """The options of ``wise push``; `endpoint` is the address of another hub than the usual one."""

    checkpoint: Published
    repository: Annotated[
        str,
        Option(
            "Repository on the Hugging Face hub, created if it does not exist.", metavar="ORG/NAME", is_argument=True
        ),
    ]
    _: KW_ONLY
    private: Annotated[bool, Option("Create the repository as a private one.", group=OUTPUT)] = False
    revision: Annotated[
        str | None,
        Option("Branch to upload to, created if it does not exist.", metavar="BRANCH", group=OUTPUT, default="main"),
    ] = None
    dry_run: Annotated[bool, Option("List what would be uploaded; contact no hub.", group=OUTPUT)] = False
    force: Annotated[
        bool,
        Option(
            "Replace a card in the repository that 'wise' did not write, and remove weights there that libraries would "
            "load in place of these.",
            group=OUTPUT,
        ),
    ] = False
    results: CardResultsFile = ABSENT
    card: Annotated[
        OptionalPath,
        Option("Upload this file as the card.", metavar="FILE", group=OUTPUT, default="a new card", path="input"),
    ] = ABSENT
    base_model: BaseModel = EMPTY
    license: License = None
    title: Title = None
    model: Model = None
    mmap: Mmap = True
    endpoint: str | None = None
    progress: Progress = silent
