"""Rules of a merge, for all commands that mix a pair, and a soup in the place of the fine-tuned checkpoint.

The commands that mix and need no evaluation: ``wise merge``, and ``wise verify``, which mixes again.
"""

from dataclasses import KW_ONLY
from typing import Annotated, Any

from mergekit_wise.errors import UsageError
from mergekit_wise.option_types import (
    ABSENT,
    EMPTY,
    AlternativeWeights,
    Option,
    OptionalPath,
    Options,
    Pair,
    SoupSource,
    Sources,
    Texts,
    Weights,
    options_class,
)
from mergekit_wise.options.checkpoints import AdapterBase, Like, Model, Rename, Zeroshot
from mergekit_wise.options.common import ADVANCED, OUTPUT, RULES, AllowNonFinite, Device, Mmap, OutputDtype, ShardSize
from mergekit_wise.options.data import DataRoot, MaxBad, MaxPixels, Recalibrate
from mergekit_wise.progress import Progress, silent

SOUPS = ("uniform", "stock")
"""How the members of a soup are averaged: their mean, or Model Stock's point between that and the zero-shot model."""

FinetunedOrSoup = Annotated[
    AlternativeWeights,
    Option(
        "Checkpoint of the same model after fine-tuning.", is_argument=True, path="input", default="the soup of --soup"
    ),
]
SoupMembers = Annotated[
    Sources,
    Option(
        "Use the average of several checkpoints, all fine-tuned from the zero-shot model, in place of FINETUNED. "
        "Separated by commas; may be repeated.",
        metavar="FT1,FT2",
        group=RULES,
        path="input",
        replaces="finetuned",
    ),
]
How = Annotated[
    str,
    Option(
        "Kind of average for --soup: the mean (uniform), or Model Stock, which moves each tensor from the zero-shot "
        "model towards the mean by the angles between the members (stock).",
        group=RULES,
        choices=SOUPS,
    ),
]
AllowOtherStarts = Annotated[
    bool,
    Option("Also average checkpoints that do not look fine-tuned from the zero-shot model.", group=RULES),
]
AlphaFor = Annotated[
    Texts,
    Option(
        "Alpha of the tensors whose names match; the first match wins. May be repeated.",
        metavar="PATTERN=ALPHA",
        group=RULES,
    ),
]
DepthAlpha = Annotated[
    str | None,
    Option("Let alpha rise with depth, from the first block to the last (LiNeS).", metavar="FIRST:LAST", group=RULES),
]
Keep = Annotated[
    Texts,
    Option(
        "Copy the tensors whose names match from one side, zs or ft. May be repeated.",
        metavar="SIDE:PATTERN",
        group=RULES,
    ),
]
Only = Annotated[
    Texts, Option("Write only the tensors whose names match. May be repeated.", metavar="PATTERN", group=RULES)
]
Fisher = Annotated[
    Pair | None,
    Option(
        "Weight each parameter by its (diagonal) Fisher information.",
        metavar="ZS_FISHER FT_FISHER",
        group=RULES,
        path="input",
    ),
]
FisherFloor = Annotated[float, Option("Lower bound for Fisher values.", metavar="X", group=RULES, minimum=0)]
FrozenTolerance = Annotated[
    float | None,
    Option(
        "Copy a tensor that differs by no more than this relative difference; 0: by no more than the rounding to the "
        "narrower of two dtypes.",
        metavar="X",
        group=RULES,
        default="off",
    ),
]


class TakesSoup(Options):
    """Options whose `finetuned` may be the soup of the checkpoints in `soup`; it holds a source in either case."""

    __slots__ = ()

    def __post_init__(self) -> None:
        """Raises UsageError unless one of the two is given, besides what other options raise."""
        given: Any = self
        has_how = not isinstance(given, VerifyOptions)
        how, finetuned = given.how if has_how else "uniform", given.finetuned
        if how == "greedy":
            raise UsageError(
                "--how greedy: needs an evaluation, which 'wise soup ZS FT1 FT2 --how greedy --select-on DATASET -o "
                "soup.safetensors' makes. Give its output as FINETUNED."
            )
        if isinstance(finetuned, SoupSource):  # of options that are replaced, or of a caller that made the soup
            if given.soup and (finetuned.how != how or finetuned.members != tuple(given.soup)):
                finetuned = None
            else:
                object.__setattr__(self, "soup", finetuned.members)
                if has_how:
                    object.__setattr__(self, "how", finetuned.how)
        elif (finetuned is None) == (not given.soup):
            both = "both are given" if given.soup else "neither is given"
            raise UsageError(
                f"Give either the fine-tuned checkpoint or, with --soup, several that are averaged: {both}."
            )
        Options.__post_init__(self)
        if finetuned is None:
            object.__setattr__(self, "finetuned", SoupSource.of(given.soup, how))


@options_class(frozen=True)
class MergeOptions(TakesSoup):
    """The options of ``wise merge``."""

    zeroshot: Zeroshot
    finetuned: FinetunedOrSoup = ABSENT
    output: Annotated[
        OptionalPath,
        Option(
            "Checkpoint to write: .safetensors, or .pt, .pth, .bin, .ckpt (torch.save); beside an input folder, a name "
            "without an ending is a folder.",
            metavar="FILE",
            group=OUTPUT,
            short="-o",
            path="output",
            default="a state dict in memory",
            cli_required=True,
        ),
    ] = ABSENT
    _: KW_ONLY
    soup: SoupMembers = EMPTY
    how: How = "uniform"
    allow_other_starts: AllowOtherStarts = False
    base: AdapterBase = ABSENT
    alpha: Annotated[
        float, Option("Mixing coefficient: 0 is the zero-shot model, 1 the fine-tuned one.", group=RULES)
    ] = 0.5
    alpha_for: AlphaFor = EMPTY
    depth_alpha: DepthAlpha = None
    keep: Keep = EMPTY
    only: Only = EMPTY
    like: Like = None
    rename: Rename = EMPTY
    fisher: Fisher = None
    fisher_floor: FisherFloor = 1e-8
    extrapolate: Annotated[bool, Option("Allow alpha outside [0, 1].", group=RULES)] = False
    frozen_tolerance: FrozenTolerance = None
    allow_non_finite: AllowNonFinite = False
    dtype: OutputDtype = ABSENT
    shard_size: ShardSize = None
    recalibrate: Recalibrate = None
    data: DataRoot = ABSENT
    max_bad: MaxBad = 0
    max_pixels: MaxPixels = None
    model: Model = None
    device: Device = "cpu"
    memory: Annotated[str, Option("Memory budget for buffers.", metavar="SIZE", group=ADVANCED)] = "256MB"
    mmap: Mmap = True
    progress: Progress = silent


@options_class(frozen=True)
class VerifyOptions(TakesSoup):
    """The options of ``wise verify``."""

    merged: Annotated[Weights, Option("A merged checkpoint.", is_argument=True, path="input", aliases=("file",))]
    _: KW_ONLY
    zeroshot: Annotated[Weights, Option("Checkpoint of the zero-shot model.", metavar="ZS", path="input")]
    finetuned: Annotated[
        AlternativeWeights,
        Option("Checkpoint of the fine-tuned model.", metavar="FT", path="input", default="the soup of --soup"),
    ] = ABSENT
    soup: Annotated[
        Sources,
        Option(
            "In place of --finetuned: the members of the soup, of which the merged file records how it was made. Names "
            "with commas between; may be repeated.",
            metavar="FT1,FT2",
            path="input",
            replaces="finetuned",
        ),
    ] = EMPTY
    base: AdapterBase = ABSENT
    fisher: Annotated[
        Pair | None, Option("The Fisher files that were given to merge.", metavar="ZS_FISHER FT_FISHER", path="input")
    ] = None
    mmap: Mmap = True
    progress: Progress = silent
