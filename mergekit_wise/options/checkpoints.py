"""Which checkpoints a command reads, as which model and with which head.

The commands that only look at checkpoints or translate them: ``wise inspect``, ``wise diff`` and ``wise convert``.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Annotated, Any

from mergekit_wise.option_types import (
    ABSENT,
    EMPTY,
    FilePath,
    Option,
    OptionalWeights,
    Options,
    Source,
    Texts,
    Weights,
    options_class,
)
from mergekit_wise.options.common import MODEL, OUTPUT, RULES, Mmap
from mergekit_wise.progress import Progress, silent

Transform = Callable[[Any], Any] | None
"""In Python alone: PIL image -> float tensor [C, H, W], in place of the preprocessing that the model declares.

A module that gives logits is then called itself, whatever its architecture."""

MAX_IMAGE = 2048
"""Pixels along a side of a model's images; about twice what the largest models take."""

LIBRARIES = ("open_clip", "hf")

ZERO_SHOT_HEAD = "zero-shot"
"""The value of ``--head`` for a head made from class names, even where the checkpoint has a head."""

HEAD_FEATURES = ("normalized", "raw")
HEAD_ROWS = ("classes", "features")

Checkpoint = Annotated[
    Weights,
    Option(
        "Checkpoint: a file, a folder, hf-hub:ORG/NAME, or open_clip's MODEL/TAG.",
        is_argument=True,
        path="input",
        aliases=("file",),
    ),
]
Zeroshot = Annotated[Weights, Option("Checkpoint of the zero-shot model.", is_argument=True, path="input")]
Finetuned = Annotated[
    Weights, Option("Checkpoint of the same model after fine-tuning.", is_argument=True, path="input")
]
AdapterBase = Annotated[
    OptionalWeights,
    Option(
        "Checkpoint that adapters (LoRA) are applied to.",
        metavar="BASE",
        group=MODEL,
        default="the zero-shot checkpoint",
        path="input",
    ),
]
Like = Annotated[
    str | None,
    Option(
        "Side whose tensor names the output has, where those of two libraries differ (open_clip, Hugging Face, timm).",
        group=RULES,
        choices=("zs", "ft"),
        default="zs",
    ),
]
Rename = Annotated[
    Texts,
    Option(
        "Rename tensors of one side before matching: those under OLD, or those that match /OLD/ as a regular "
        "expression. May be repeated.",
        metavar="SIDE:OLD=NEW",
        group=RULES,
    ),
]
Model = Annotated[
    str | None,
    Option(
        "Model architecture, if the checkpoint does not record it: open_clip's NAME or NAME/TAG, or timm:NAME.",
        metavar="NAME",
        group=MODEL,
        path="input",
    ),
]
ImageSize = Annotated[
    int | None,
    Option(
        "Pixels along a side of the model's images, if no configuration says so (open_clip's force_image_size).",
        metavar="N",
        group=MODEL,
        minimum=1,
        maximum=MAX_IMAGE,
        default="what the position embedding or the configuration says",
    ),
]
Head = Annotated[
    Source | None,
    Option(
        "Use the head in this file (a checkpoint, or scikit-learn's coefficients in .npz), or 'zero-shot' to "
        "build one from class names.",
        metavar="FILE",
        group=MODEL,
        default="the checkpoint's own head, if it has one",
        path="input",
    ),
]
HeadFeatures = Annotated[
    str | None,
    Option(
        "Image features that the head from a file was trained on: of length 1, or as they are.",
        group=MODEL,
        choices=HEAD_FEATURES,
        default="what the file says, else normalized",
    ),
]
HeadRows = Annotated[
    str | None,
    Option(
        "Rows of the matrix of the head from a file: classes, as in torch, or features, as in open_clip.",
        group=MODEL,
        choices=HEAD_ROWS,
        default="what its shape shows",
    ),
]


@options_class(frozen=True)
class InspectOptions(Options):
    """The options of ``wise inspect``."""

    checkpoint: Checkpoint
    _: KW_ONLY
    mmap: Mmap = True


@options_class(frozen=True)
class DiffOptions(Options):
    """The options of ``wise diff``."""

    zeroshot: Zeroshot
    finetuned: Finetuned
    _: KW_ONLY
    like: Like = None
    rename: Rename = EMPTY
    base: AdapterBase = ABSENT
    mmap: Mmap = True
    progress: Progress = silent


@options_class(frozen=True)
class ConvertOptions(Options):
    """The options of ``wise convert``."""

    checkpoint: Checkpoint
    output: Annotated[
        FilePath,
        Option(
            "Checkpoint to write: a file, or a folder with the configuration if the name has no ending.",
            metavar="PATH",
            group=OUTPUT,
            short="-o",
            path="output",
        ),
    ]
    _: KW_ONLY
    to: Annotated[str, Option("Library whose names and layout to write.", group=OUTPUT, choices=LIBRARIES)]
    model: Model = None
    mmap: Mmap = True
    progress: Progress = silent
