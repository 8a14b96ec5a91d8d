"""The commands that choose by measuring mixtures: alpha with ``wise sweep``, a rule with ``wise rules``.

Also which classes of options describe an evaluation, and which a model.
"""

from dataclasses import KW_ONLY
from typing import Annotated

from mergekit_wise.option_types import (
    ABSENT,
    EMPTY,
    Numbers,
    Option,
    OptionalData,
    OptionalPath,
    OptionalSuite,
    Options,
    Paths,
    Texts,
    options_class,
)
from mergekit_wise.options.checkpoints import (
    AdapterBase,
    Finetuned,
    Head,
    HeadFeatures,
    HeadRows,
    ImageSize,
    Like,
    Model,
    Rename,
    Transform,
    Zeroshot,
)
from mergekit_wise.options.common import (
    DATA,
    MEASURE,
    OUTPUT,
    RULES,
    AllowNonFinite,
    BatchSize,
    Device,
    Mmap,
    OutputDtype,
    Precision,
    UseCache,
    Workers,
)
from mergekit_wise.options.data import (
    SUITE,
    Balanced,
    CacheImages,
    ClassNames,
    DataRoot,
    Limit,
    LimitSeed,
    MaxBad,
    MaxPixels,
    Recalibrate,
    Reference,
    ReferenceOfTask,
    Strict,
    Templates,
)
from mergekit_wise.options.evaluation import (
    Command,
    EvalOptions,
    Evaluator,
    EvaluatorVersion,
    KeepAnswers,
    PerClass,
    PerSample,
    PredictOptions,
    Redo,
    ResultsFile,
)
from mergekit_wise.options.merging import (
    AllowOtherStarts,
    AlphaFor,
    DepthAlpha,
    FinetunedOrSoup,
    Fisher,
    FisherFloor,
    FrozenTolerance,
    How,
    Keep,
    Only,
    SoupMembers,
    TakesSoup,
)
from mergekit_wise.progress import Progress, silent

PREFERENCES = ("average", "reference", "shifts", "both", "no-regret", "nll", "ece", "estimated")
CROSS_FITS = ("halves", "leave-one-out", "off")


@options_class(frozen=True)
class SweepOptions(TakesSoup):
    """The options of ``wise sweep``."""

    zeroshot: Zeroshot
    finetuned: FinetunedOrSoup = ABSENT
    _: KW_ONLY
    soup: SoupMembers = EMPTY
    how: How = "uniform"
    allow_other_starts: AllowOtherStarts = False
    base: AdapterBase = ABSENT
    suite: Annotated[OptionalSuite, SUITE] = ABSENT
    reference: ReferenceOfTask = ABSENT
    command: Command = None
    evaluator: Evaluator = ABSENT
    evaluator_version: EvaluatorVersion = None
    alphas: Annotated[
        Numbers | None,
        Option(
            "Alphas: START:STOP:STEP (inclusive), a comma-separated list, or both. Short for --sweep alpha=LIST.",
            metavar="LIST",
            group=MEASURE,
            default="0:1:0.1, unless --sweep names another parameter",
        ),
    ] = None
    sweep: Annotated[
        Texts,
        Option(
            "Parameter to vary, with its values as for --alphas: alpha, alpha[PATTERN] (of the tensors whose names "
            "match), depth-first and depth-last (the two ends of --depth-alpha), frozen-tolerance. Twice: a grid.",
            metavar="PARAM=LIST",
            group=MEASURE,
        ),
    ] = EMPTY
    alpha: Annotated[
        float | None,
        Option(
            "Alpha of the tensors that no parameter of --sweep and no other rule decides.",
            metavar="X",
            group=RULES,
            default="0.5",
        ),
    ] = None
    prefer: Annotated[
        str, Option("What the recommended alpha should optimize.", group=MEASURE, choices=PREFERENCES)
    ] = "average"
    select_on: Annotated[
        OptionalData,
        Option(
            "Choose alpha on this held-out data set.",
            metavar="DATASET",
            group=MEASURE,
            path="input",
            completes="data sets",
        ),
    ] = ABSENT
    margin: Annotated[
        float | None,
        Option(
            "Percentage points that no-regret may lose on the reference against alpha 1.",
            metavar="X",
            group=MEASURE,
            minimum=0,
            default="0",
        ),
    ] = None
    cross_fit: Annotated[
        str,
        Option(
            "Correct the number at the chosen alpha for choosing and reporting on the same images.",
            group=MEASURE,
            choices=CROSS_FITS,
        ),
    ] = "halves"
    unlabelled: Annotated[
        Paths,
        Option(
            "Estimate accuracy on images without labels: a folder, or tars. May be repeated.",
            metavar="DIR",
            group=DATA,
            path="input",
        ),
    ] = EMPTY
    refine: Annotated[
        bool, Option("Add alphas around the best one until intervals cannot tell them apart.", group=MEASURE)
    ] = False
    output_ensemble: Annotated[
        bool, Option("Also evaluate the output-space ensemble (1 - alpha) f(x, zs) + alpha f(x, ft).", group=MEASURE)
    ] = False
    alpha_for: AlphaFor = EMPTY
    depth_alpha: DepthAlpha = None
    keep: Keep = EMPTY
    only: Only = EMPTY
    like: Like = None
    rename: Rename = EMPTY
    fisher: Fisher = None
    fisher_floor: FisherFloor = 1e-8
    frozen_tolerance: FrozenTolerance = None
    recalibrate: Recalibrate = None
    analyze: Annotated[
        bool, Option("Also analyse how the two models differ: diversity, CKA, overrides, confidence.", group=MEASURE)
    ] = False
    dynamic: Annotated[
        bool,
        Option(
            "Also show what an alpha for each image achieves (DaWin): each at the nearest alpha of the sweep.",
            group=MEASURE,
        ),
    ] = False
    output: Annotated[
        OptionalPath,
        Option(
            "Also write the recommended mixture, as wise merge does.",
            metavar="FILE",
            group=OUTPUT,
            short="-o",
            path="output",
        ),
    ] = ABSENT
    calibrate: Annotated[
        str | None,
        Option(
            "Divide the head of the mixture that -o writes by the temperature fitted on this data set, as wise "
            "calibrate does.",
            metavar="DATASET",
            group=OUTPUT,
            path="input",
            completes="data sets",
        ),
    ] = None
    save: Annotated[
        str | None,
        Option(
            "Also write every merged checkpoint: 'out/wise-{alpha}.safetensors'. Swept parameters stand in braces, by "
            "name or as {1} and {2}; alpha[PATTERN] by number.",
            metavar="PATH",
            group=OUTPUT,
            path="output",
        ),
    ] = None
    allow_non_finite: AllowNonFinite = False
    dtype: OutputDtype = ABSENT
    plot: Annotated[
        OptionalPath, Option("Plot shifts against the reference.", metavar="FILE", group=OUTPUT, path="output")
    ] = ABSENT
    data: DataRoot = ABSENT
    strict: Strict = False
    classnames: ClassNames = None
    templates: Templates = None
    limit: Limit = None
    balanced: Balanced = False
    seed: LimitSeed = 0
    model: Model = None
    head: Head = None
    head_features: HeadFeatures = None
    head_rows: HeadRows = None
    image_size: ImageSize = None
    device: Device = "cpu"
    precision: Precision = "auto"
    batch_size: BatchSize = 128
    workers: Workers = None
    cache_images: CacheImages = False
    max_bad: MaxBad = 0
    max_pixels: MaxPixels = None
    results: ResultsFile = ABSENT
    answers: KeepAnswers = True
    redo: Redo = False
    per_class: PerClass = ABSENT
    per_sample: PerSample = ABSENT
    transform: Transform = None
    cache: UseCache = True
    mmap: Mmap = True
    progress: Progress = silent


EvaluationOptions = EvalOptions | SweepOptions

ModelOptions = EvaluationOptions | PredictOptions
"""Of the commands that predict with a checkpoint."""


@options_class(frozen=True)
class RulesOptions(Options):
    """The options of ``wise rules``."""

    zeroshot: Zeroshot
    finetuned: Finetuned
    _: KW_ONLY
    base: AdapterBase = ABSENT
    suite: Annotated[OptionalSuite, SUITE] = ABSENT
    reference: Reference = ABSENT
    alpha: Annotated[
        float,
        Option("Alpha of what a rule leaves to it, and half of LiNeS's last alpha.", group=RULES, minimum=0, maximum=1),
    ] = 0.5
    like: Like = None
    rename: Rename = EMPTY
    plot: Annotated[
        OptionalPath,
        Option("Plot the rules beside the mixtures of the same size.", metavar="FILE", group=OUTPUT, path="output"),
    ] = ABSENT
    data: DataRoot = ABSENT
    strict: Strict = False
    classnames: ClassNames = None
    templates: Templates = None
    limit: Limit = None
    balanced: Balanced = False
    seed: LimitSeed = 0
    model: Model = None
    head: Head = None
    head_features: HeadFeatures = None
    head_rows: HeadRows = None
    image_size: ImageSize = None
    device: Device = "cpu"
    precision: Precision = "auto"
    batch_size: BatchSize = 128
    workers: Workers = None
    cache_images: CacheImages = False
    max_bad: MaxBad = 0
    max_pixels: MaxPixels = None
    results: ResultsFile = ABSENT
    answers: KeepAnswers = True
    redo: Redo = False
    cache: UseCache = True
    mmap: Mmap = True
    progress: Progress = silent
