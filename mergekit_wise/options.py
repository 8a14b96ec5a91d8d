"""Every option of every command, declared once: see `option_types` for what follows from it. Imports nothing heavy.

A class holds the arguments of a command and of the Python function of the same name. Fields before the keyword-only
ones are positional in Python. What only a terminal needs (``--json``, ``--dry-run``) is a constant at the end.
"""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mergekit_wise.errors import UsageError
from mergekit_wise.option_types import (
    ABSENT,
    EMPTY,
    AlternativeWeights,
    Data,
    Declared,
    Dtype,
    FilePath,
    Files,
    Numbers,
    Option,
    OptionalData,
    OptionalEvaluator,
    OptionalNames,
    OptionalPath,
    OptionalSuite,
    OptionalWeights,
    OptionError,
    Options,
    Pair,
    Paths,
    SoupSource,
    Source,
    Sources,
    Texts,
    Weights,
    Words,
    declared_options,
)
from mergekit_wise.progress import Progress, silent

if TYPE_CHECKING:
    from dataclasses import dataclass as options_class
else:
    from mergekit_wise.option_types import options_class

Transform = Callable[[Any], Any] | None
"""In Python alone: PIL image -> float tensor [C, H, W], in place of the preprocessing that the model declares.

A module that gives logits is then called itself, whatever its architecture."""

MAX_SEED = 2**63 - 1
"""The largest seed that torch's generators take."""

ZERO_SHOT_HEAD = "zero-shot"
"""The value of ``--head`` for a head made from class names, even where the checkpoint has a head."""

MAX_LABEL = 80
"""Characters of a text of ``--label``."""

HEAD_FEATURES = ("normalized", "raw")
HEAD_ROWS = ("classes", "features")
MAX_IMAGE = 2048
"""Pixels along a side of a model's images; about twice what the largest models take."""

PREFERENCES = ("average", "reference", "shifts", "both", "no-regret", "nll", "ece", "estimated")
CROSS_FITS = ("halves", "leave-one-out", "off")
PRECISIONS = ("fp32", "bf16", "fp16", "auto")
LIBRARIES = ("open_clip", "hf")
OBJECTIVES = ("cross-entropy", "contrastive")
FISHER_KINDS = ("true", "empirical")
DECAYS = ("all", "matrices")
TRACKERS = ("tensorboard", "wandb")
CACHE_KINDS = ("heads", "images", "features", "listings")
"""Those of `cache.KINDS`, which is not imported here because it imports NumPy."""

AUGMENTATIONS = ("none", "crop", "crop-flip", "strong")
"""In the order of how much they change an image.

``crop`` is what the authors' code does: 90 to 100 % of the image, as CLIP was trained. ``crop-flip`` is the usual
training augmentation of ImageNet: 8 to 100 % of the image, half of them mirrored. ``strong`` adds RandAugment (Cubuk et
al., arXiv 1909.13719; two changes of magnitude 9).
"""

RATE, LINEAR_RATE = 3e-5, 1e-3
"""The default peak learning rates, of all weights and of the head alone."""

RULES, DATA, MODEL, MEASURE = "Merging rules", "Data", "Model", "Evaluation"
TRAINING, OUTPUT, ADVANCED = "Training", "Output", "Advanced"
GROUPS = (RULES, TRAINING, DATA, MODEL, MEASURE, "Options", OUTPUT, ADVANCED)
"""Headings in the help, in their order."""

DIGITS = "digits"
"""What ``wise eval`` evaluates on by default."""

# Shared by several commands.
Zeroshot = Annotated[Weights, Option("Checkpoint of the zero-shot model.", is_argument=True, path="input")]
Finetuned = Annotated[
    Weights, Option("Checkpoint of the same model after fine-tuning.", is_argument=True, path="input")
]
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
SOUPS = ("uniform", "stock")
"""How the members of a soup are averaged: their mean, or Model Stock's point between that and the zero-shot model."""

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
Checkpoint = Annotated[
    Weights,
    Option(
        "Checkpoint: a file, a folder, hf-hub:ORG/NAME, or open_clip's MODEL/TAG.",
        is_argument=True,
        path="input",
        aliases=("file",),
    ),
]
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
ShardSize = Annotated[
    str | None,
    Option("Write several files of at most this size, for example 2GB, and an index.", metavar="SIZE", group=OUTPUT),
]
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
Mmap = Annotated[
    bool,
    Option(
        "Do not map input files into memory, but read them with ordinary I/O (for network file systems).",
        group=ADVANCED,
    ),
]
Device = Annotated[
    str, Option("Device: cpu, cuda, cuda:1, mps. 'wise --devices' lists those available.", group=ADVANCED)
]
Precision = Annotated[
    str,
    Option(
        "Precision of the forward pass; auto is fp32 on the CPU, and bf16, or else fp16, on a GPU.",
        group=MODEL,
        choices=PRECISIONS,
    ),
]
Workers = Annotated[
    int | None,
    Option(
        "Processes that decode images (0: decode in the main process).",
        metavar="N",
        group=ADVANCED,
        minimum=0,
        default="one per core, up to 32",
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
OutputFile = Annotated[
    FilePath,
    Option(
        "Checkpoint to write: .safetensors, or .pt, .pth, .bin, .ckpt (torch.save).",
        metavar="FILE",
        group=OUTPUT,
        short="-o",
        path="output",
    ),
]
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


# Shared by the commands that take a pair.
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
AllowNonFinite = Annotated[bool, Option("Write the output even if mixing produced infinities or NaN.", group=OUTPUT)]
OutputDtype = Annotated[
    Dtype, Option("Output dtype, for example fp32, bf16 or fp16.", group=OUTPUT, default="same as the inputs")
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

# Shared by evaluations.
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
Command = Annotated[
    str | None,
    Option(
        "Evaluate any task: run this command line for every model, without a shell. {file} is the model's file; the "
        'last JSON object that the command prints is the result: {"correct": 812, "total": 1000}, {"score": 0.43} or '
        '{"items": [0.2, 1, ...]}, or an object of several of these, by data set.',
        metavar="COMMAND",
        group=MEASURE,
    ),
]
Evaluator = Annotated[
    OptionalEvaluator,
    Option(
        "Evaluate any task: 'retrieval:PATH,PATH...' (recall between images and captions, from tables, COCO's JSON or "
        "tars), or an evaluator of an installed package. In Python also a function of the model: of its state dict, or "
        "of a module if the model is one.",
        metavar="NAME[:ARGUMENT]",
        group=MEASURE,
    ),
]
EvaluatorVersion = Annotated[
    str | None,
    Option(
        "Version of --command or --evaluator: any text. Change it when their data or settings change, so that earlier "
        "results are not reused.",
        metavar="TEXT",
        group=MEASURE,
    ),
]
Strict = Annotated[bool, Option("Fail if a data set of the suite is missing.", group=DATA)]
Limit = Annotated[
    int | None,
    Option("Evaluate a random subset of N images per data set.", metavar="N", group=DATA, minimum=1),
]
Balanced = Annotated[
    bool,
    Option("Draw equally many images of every class for --limit, not in proportion to its size.", group=DATA),
]
LimitSeed = Annotated[int, Option("Random seed for --limit.", metavar="N", group=DATA, minimum=0)]
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
BatchSize = Annotated[
    int, Option("Images per batch; halved when memory runs out.", metavar="N", group=ADVANCED, minimum=1)
]
UseCache = Annotated[
    bool,
    Option(
        "Neither read nor keep what later runs can reuse, such as zero-shot heads ('wise cache ls' lists it).",
        group=ADVANCED,
    ),
]
ResultsFile = Annotated[
    OptionalPath,
    Option(
        "Results file (JSON Lines). Results already in it are reused.",
        metavar="FILE",
        group=OUTPUT,
        cli_default="results.jsonl",
        path="output",
    ),
]
KeepAnswers = Annotated[
    bool,
    Option(
        "Do not keep the answer for each image beside the results file (in NAME.answers), where later comparisons find "
        "it.",
        group=OUTPUT,
    ),
]
Redo = Annotated[bool, Option("Ignore earlier results and run every measurement again.", group=OUTPUT)]
PerClass = Annotated[
    OptionalPath,
    Option(
        "Write the accuracy of each class as CSV; re-runs every measurement.",
        metavar="FILE",
        group=OUTPUT,
        path="output",
    ),
]
PerSample = Annotated[
    OptionalPath,
    Option(
        "Write the prediction for each image as JSON Lines; re-runs every measurement.",
        metavar="FILE",
        group=OUTPUT,
        path="output",
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
class ZeroshotOptions(Options):
    """The options of ``wise zeroshot``."""

    checkpoint: Checkpoint
    output: OutputFile
    _: KW_ONLY
    classes: Annotated[
        Words,
        Option(
            "ImageNet's class names, or a file of class names (lines, JSON or YAML).",
            metavar="imagenet|FILE",
            group=DATA,
            path="input",
        ),
    ] = "imagenet"
    head_of: Annotated[
        OptionalWeights,
        Option(
            "Make the head for the classes that the head of this checkpoint names, in place of --classes.",
            metavar="CHECKPOINT",
            group=DATA,
            path="input",
        ),
    ] = ABSENT
    dataset: Annotated[
        str | None,
        Option(
            "Take the class names and the prompt templates of this data set, or of a suite's reference.",
            metavar="DATASET",
            group=DATA,
            path="input",
            completes="data sets",
        ),
    ] = None
    templates: Annotated[
        Words | None,
        Option(
            "Prompt templates: OpenAI's 80 for ImageNet, their 7 best, 'a photo of a {}.', or a text file with "
            "one per line, where {} is the class name.",
            metavar="openai|simple|plain|FILE",
            group=DATA,
            default="the data set's own, or openai for ImageNet's classes, plain for others",
            path="input",
        ),
    ] = None
    data: DataRoot = ABSENT
    model: Model = None
    image_size: ImageSize = None
    device: Device = "cpu"
    cache: UseCache = True
    mmap: Mmap = True
    progress: Progress = silent


@options_class(frozen=True)
class FinetuneOptions(Options):
    """The options of ``wise finetune``. Defaults are the paper's (section 4), augmentation that of their code."""

    checkpoint: Annotated[
        Weights,
        Option(
            "Zero-shot model: image encoder and head (see 'wise zeroshot'), or both encoders for --objective "
            "contrastive.",
            is_argument=True,
            path="input",
            aliases=("file",),
        ),
    ]
    train: Annotated[
        Source,
        Option(
            "Training data: a folder with one folder per class, a TOML or CSV file, or the name of a data set; for "
            "--objective contrastive also a table, a JSON file or tars of images with captions.",
            metavar="DATASET",
            group=DATA,
            path="input",
            completes="data sets",
        ),
    ]
    output: OutputFile
    _: KW_ONLY
    linear: Annotated[
        bool, Option("Train only the classification head, on cached features (linear probe).", group=TRAINING)
    ] = False
    lp_ft: Annotated[
        bool,
        Option("Train the head alone first, on cached features, and then all weights (LP-FT).", group=TRAINING),
    ] = False
    lp_epochs: Annotated[
        int | None,
        Option(
            "Epochs of the first stage of --lp-ft.",
            metavar="N",
            group=TRAINING,
            minimum=1,
            default="as many as --epochs",
        ),
    ] = None
    lp_lr: Annotated[
        float | None,
        Option(
            "Peak learning rate of the first stage of --lp-ft.", metavar="X", group=TRAINING, above=0, default="1e-3"
        ),
    ] = None
    objective: Annotated[
        str,
        Option(
            "Training objective; contrastive trains both encoders as in pre-training (FLYP).",
            group=TRAINING,
            choices=OBJECTIVES,
        ),
    ] = "cross-entropy"
    epochs: Annotated[
        int, Option("Number of passes over the training set.", metavar="N", group=TRAINING, minimum=1)
    ] = 10
    batch_size: Annotated[
        int, Option("Images per optimizer step, over all processes.", metavar="N", group=TRAINING, minimum=2)
    ] = 512
    micro_batch: Annotated[
        int | None,
        Option(
            "Micro-batch size (gradient accumulation).",
            metavar="N",
            group=ADVANCED,
            minimum=1,
            default="as large as memory allows",
        ),
    ] = None
    grad_checkpointing: Annotated[
        bool,
        Option(
            "Recompute activations in the backward pass, block by block, to save memory. About a third slower; the "
            "weights are the same.",
            group=ADVANCED,
        ),
    ] = False
    compile: Annotated[
        bool, Option("Compile the model with torch.compile, which takes minutes at the start of a run.", group=ADVANCED)
    ] = False
    lr: Annotated[
        float | None,
        Option("Peak learning rate.", metavar="X", group=TRAINING, above=0, default="3e-5, or 1e-3 with --linear"),
    ] = None
    weight_decay: Annotated[float, Option("AdamW weight decay.", metavar="X", group=TRAINING, minimum=0)] = 0.1
    decay: Annotated[
        str,
        Option(
            "What decays: all trained parameters, as in the paper's code, or matrices and kernels alone, as CLIP was "
            "pre-trained.",
            group=TRAINING,
            choices=DECAYS,
        ),
    ] = "all"
    anchor: Annotated[
        float,
        Option(
            "Decay the weights towards those that training starts from (L2-SP), as --weight-decay does towards 0.",
            metavar="X",
            group=TRAINING,
            minimum=0,
        ),
    ] = 0.0
    warmup: Annotated[
        int | None,
        Option(
            "Warm-up steps.", metavar="N", group=TRAINING, minimum=0, default="500, or 10 % of the run if it is shorter"
        ),
    ] = None
    clip: Annotated[
        float,
        Option("Clip the gradient norm to this value; 0: do not clip.", metavar="X", group=TRAINING, minimum=0),
    ] = 1.0
    label_smoothing: Annotated[float, Option("Label smoothing.", metavar="X", group=TRAINING, minimum=0, below=1)] = 0.0
    freeze: Annotated[
        Texts, Option("Do not train tensors whose names match. May be repeated.", metavar="PATTERN", group=TRAINING)
    ] = EMPTY
    ema: Annotated[
        float | None,
        Option(
            "Write the exponential moving average of the weights, with this decay.",
            metavar="DECAY",
            group=TRAINING,
            minimum=0,
            below=1,
        ),
    ] = None
    layer_decay: Annotated[
        float, Option("Layer-wise learning-rate decay.", metavar="X", group=TRAINING, above=0, maximum=1)
    ] = 1.0
    mixup: Annotated[
        float,
        Option(
            "Mix pairs of images with weights from Beta(X, X); 0 mixes none.", metavar="X", group=TRAINING, minimum=0
        ),
    ] = 0.0
    augment: Annotated[
        str | None,
        Option("Data augmentation.", group=TRAINING, choices=AUGMENTATIONS, default="crop, or none with --linear"),
    ] = None
    seed: Annotated[int, Option("Random seed.", metavar="N", group=TRAINING, minimum=0, maximum=MAX_SEED)] = 0
    model: Model = None
    image_size: ImageSize = None
    head: Annotated[
        Source | None,
        Option(
            "Start from the head in this file (a checkpoint, or scikit-learn's coefficients in .npz).",
            metavar="FILE",
            group=MODEL,
            default="the checkpoint's own head",
            path="input",
        ),
    ] = None
    head_features: HeadFeatures = None
    head_rows: HeadRows = None
    new_head: Annotated[
        bool, Option("Start from a new head of zeros for the classes of the training data.", group=MODEL)
    ] = False
    data: Annotated[
        OptionalPath,
        Option(
            "Root folder of the data sets.",
            metavar="ROOT",
            group=DATA,
            default="$WISE_DATA",
            envvar="WISE_DATA",
            path="input",
            aliases=("root",),
        ),
    ] = ABSENT
    shots: Annotated[
        int | None,
        Option("Train on K images of each class, drawn at random by --seed.", metavar="K", group=DATA, minimum=1),
    ] = None
    classnames: ClassNames = None
    templates: Annotated[
        Words | None,
        Option(
            "Caption templates for --objective contrastive: OpenAI's 80, their 7 best, 'a photo of a {}.', or a "
            "text file with one per line, where {} is the class name.",
            metavar="openai|simple|plain|FILE",
            group=DATA,
            default="the data set's own",
            path="input",
        ),
    ] = None
    precision: Precision = "auto"
    device: Device = "cpu"
    workers: Workers = None
    cache_images: CacheImages = False
    max_bad: MaxBad = 0
    max_pixels: MaxPixels = None
    validate: Annotated[
        OptionalNames,
        Option(
            "Suite to evaluate after each epoch, for the fine-tuned model and for the mixture at alpha 0.5.",
            metavar="NAMES",
            group=DATA,
            path="input",
            completes="suites",
        ),
    ] = ABSENT
    log: Annotated[
        OptionalPath,
        Option(
            "JSON Lines file with a line for each step and epoch.",
            metavar="FILE",
            group=OUTPUT,
            default="next to the output",
            path="output",
        ),
    ] = ABSENT
    track: Annotated[
        Texts,
        Option(
            "Also write the log for TensorBoard, into a folder next to the output, or to Weights & Biases. May be "
            "repeated.",
            group=OUTPUT,
            choices=TRACKERS,
        ),
    ] = EMPTY
    cache: Annotated[
        OptionalPath,
        Option(
            "Folder to cache features in.",
            metavar="DIR",
            group=ADVANCED,
            default="that of 'wise cache ls'",
            path="folder",
        ),
    ] = ABSENT
    state: Annotated[
        OptionalPath,
        Option(
            "Folder for the resumable training state.",
            metavar="DIR",
            group=ADVANCED,
            default="next to the output",
            path="folder",
        ),
    ] = ABSENT
    save_every: Annotated[
        float | None,
        Option(
            "Also save the training state within an epoch, each time so many minutes have passed.",
            metavar="MINUTES",
            group=ADVANCED,
            above=0,
            default="after each epoch",
        ),
    ] = None
    restart: Annotated[bool, Option("Discard a saved training state and start over.", group=ADVANCED)] = False
    keep_epochs: Annotated[bool, Option("Keep the checkpoint of every epoch.", group=ADVANCED)] = False
    mmap: Mmap = True
    progress: Progress = silent
    note: Callable[[str], object] = str

    def __post_init__(self) -> None:
        """Raises UsageError for a value that an option cannot have, and for options that contradict each other."""
        Options.__post_init__(self)
        if self.linear:
            for name, allowed in UNUSED_BY_LINEAR.items():
                if getattr(self, name) not in allowed:
                    raise UsageError(
                        f"--linear trains the head on cached features, and --{name.replace('_', '-')} has no effect "
                        "there. Leave one of the two out."
                    )
        for name, outcome in (("weight_decay", "erase the weights"), ("anchor", "undo all steps before it")):
            if self.peak * (value := getattr(self, name)) >= 1:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"{option} {value:g} with a learning rate of {self.peak:g}: the product is at least 1, so that one "
                    f"step would {outcome}. Choose a smaller {option} or --lr."
                )
        if self.lp_ft and (self.linear or self.objective == "contrastive"):
            other = "--linear trains the head alone" if self.linear else "--objective contrastive trains no head"
            raise UsageError(f"--lp-ft trains the head first and then all weights; {other}. Leave one of the two out.")
        for name in ("lp_epochs", "lp_lr"):
            if getattr(self, name) is not None and not self.lp_ft:
                raise UsageError(
                    f"--{name.replace('_', '-')} is an option of the first stage of --lp-ft. Add --lp-ft, or leave it "
                    "out."
                )
        if self.new_head and self.head is not None:
            raise UsageError("--new-head and --head both choose the head to start from. Leave one of the two out.")
        if self.objective == "contrastive" and (self.new_head or self.head is not None):
            raise UsageError("--objective contrastive needs no head. Leave --head and --new-head out.")
        if self.objective == "contrastive" and (self.mixup or self.label_smoothing):
            raise UsageError(
                "--objective contrastive has no labels for --label-smoothing and --mixup. Leave those options out."
            )

    @property
    def peak(self) -> float:
        """The peak learning rate, which depends on ``linear`` if none was chosen."""
        return self.lr if self.lr is not None else LINEAR_RATE if self.linear else RATE

    @property
    def augmentation(self) -> str:
        """The augmentation, which depends on ``linear`` if none was chosen."""
        return self.augment or ("none" if self.linear else "crop")

    @property
    def stem(self) -> str:
        """The name of the output, from which those of the files next to it are made."""
        return Path(self.output).name.removesuffix(".safetensors")

    @property
    def folder(self) -> Path:
        """The folder of the resumable state."""
        return self.state or Path(self.output).with_name(f"{self.stem}.training")

    @property
    def probe(self) -> "FinetuneOptions":
        """The first stage of ``lp_ft``: the options of the linear probe.

        What acts on all weights, or on a long run, is not among them: layer-wise decay, frozen tensors, augmentation,
        the anchor, the moving average, and the warm-up, which has its default.
        """
        log = self.log
        if log is not None:
            stem = log.name.removesuffix(".jsonl").removesuffix(".log")
            log = log.with_name(f"{stem}-probe{log.name[len(stem) :]}")
        return replace(
            self,
            output=Path(self.output).with_name(f"{Path(self.output).stem}-probe.safetensors"),
            state=self.folder / "probe",
            log=log,
            linear=True,
            lp_ft=False,
            lp_epochs=None,
            lp_lr=None,
            epochs=self.lp_epochs or self.epochs,
            lr=self.lp_lr,
            warmup=None,
            ema=None,
            anchor=0.0,
            **{name: allowed[0] for name, allowed in UNUSED_BY_LINEAR.items()},
        )

    @property
    def after_probe(self) -> "FinetuneOptions":
        """The second stage of ``lp_ft``: all weights, from the checkpoint that the probe has written."""
        start = Path(self.probe.output)
        return replace(self, checkpoint=start, new_head=False, head=None, head_features=None, head_rows=None)

    def settings(self) -> dict[str, object]:
        """What the trained weights depend on, besides the checkpoint and the images; as JSON has it."""
        names = (
            *("linear", "objective", "epochs", "batch_size", "lr", "weight_decay", "decay", "warmup", "clip"),
            *("label_smoothing", "freeze", "ema", "layer_decay", "mixup", "seed", "precision"),
            *("new_head", "image_size"),
        )
        found = {name: getattr(self, name) for name in names}
        # Left out where they are not used, so that a run has the record that it had before there were such options.
        given = {name: getattr(self, name) for name in ("anchor", "shots", "compile") if getattr(self, name)}
        probe = {"lp_ft": {"epochs": self.lp_epochs or self.epochs, "lr": self.lp_lr or LINEAR_RATE}}
        return (
            found | {"augment": self.augmentation, "freeze": list(self.freeze)} | given | (probe if self.lp_ft else {})
        )


UNUSED_BY_LINEAR: Mapping[str, tuple[Any, ...]] = {
    "augment": (None, "none"),
    "compile": (False,),
    "freeze": ((),),
    "grad_checkpointing": (False,),
    "layer_decay": (1.0,),
    "objective": ("cross-entropy",),
}
"""Options without effect on a head that is trained on cached features, and the values that they may have anyway."""


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
class SoupOptions(Options):
    """The options of ``wise soup``."""

    zeroshot: Zeroshot
    members: Annotated[
        Sources,
        Option(
            "Checkpoints of the same model after fine-tuning, all from the zero-shot one.",
            metavar="MEMBER",
            is_argument=True,
            path="input",
            cli_required=True,
        ),
    ] = EMPTY
    output: Annotated[
        OptionalPath,
        Option(
            "Checkpoint to write: .safetensors, or .pt, .pth, .bin, .ckpt (torch.save); beside input folders, a name "
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
    how: Annotated[
        str,
        Option(
            "Kind of average: the mean of all members (uniform), the mean of those that do best together on "
            "--select-on (greedy), or Model Stock, which moves each tensor from the zero-shot model towards the mean "
            "by the angles between the members (stock).",
            group=RULES,
            choices=("uniform", "greedy", "stock"),
        ),
    ] = "uniform"
    select_on: Annotated[
        OptionalData,
        Option(
            "Held-out data set that greedy chooses the members on.",
            metavar="DATASET",
            group=DATA,
            path="input",
            completes="data sets",
        ),
    ] = ABSENT
    allow_other_starts: AllowOtherStarts = False
    base: AdapterBase = ABSENT
    keep: Keep = EMPTY
    only: Only = EMPTY
    like: Like = None
    rename: Rename = EMPTY
    allow_non_finite: AllowNonFinite = False
    dtype: OutputDtype = ABSENT
    shard_size: ShardSize = None
    recalibrate: Recalibrate = None
    data: DataRoot = ABSENT
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
    results: Annotated[
        OptionalPath,
        Option(
            "Results file (JSON Lines) of greedy. Results already in it are reused.",
            metavar="FILE",
            group=OUTPUT,
            path="output",
        ),
    ] = ABSENT
    answers: KeepAnswers = True
    redo: Redo = False
    memory: Annotated[str, Option("Memory budget for buffers.", metavar="SIZE", group=ADVANCED)] = "256MB"
    transform: Transform = None
    cache: UseCache = True
    mmap: Mmap = True
    progress: Progress = silent


@options_class(frozen=True)
class EvalOptions(Options):
    """The options of ``wise eval``."""

    checkpoint: Checkpoint
    suite: Annotated[OptionalSuite, replace(SUITE, default=DIGITS)] = ABSENT
    _: KW_ONLY
    reference: ReferenceOfTask = ABSENT
    command: Command = None
    evaluator: Evaluator = ABSENT
    evaluator_version: EvaluatorVersion = None
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


@options_class(frozen=True)
class PredictOptions(Options):
    """The options of ``wise predict``."""

    checkpoint: Checkpoint
    images: Annotated[
        Data,
        Option(
            "Images without classes: an image, a folder with images at any depth, a tar, or a folder of tars.",
            is_argument=True,
            path="input",
        ),
    ]
    _: KW_ONLY
    mix_with: Annotated[
        OptionalWeights,
        Option(
            "Predict with the mixture of CHECKPOINT and this one, the same model after fine-tuning.",
            metavar="FINETUNED",
            group=RULES,
            path="input",
        ),
    ] = ABSENT
    alpha: Annotated[
        float | None,
        Option("Mixing coefficient of --mix-with: 0 is CHECKPOINT, 1 the other.", group=RULES, default="0.5"),
    ] = None
    dynamic: Annotated[
        bool,
        Option(
            "Choose the alpha of --mix-with for each image, from how certain both models are of it (DaWin).",
            group=RULES,
        ),
    ] = False
    clusters: Annotated[
        int | None,
        Option(
            "Mixtures of --dynamic, each for the images with similar alphas.",
            metavar="K",
            group=RULES,
            minimum=1,
            default="3",
        ),
    ] = None
    base: Annotated[
        OptionalWeights,
        Option(
            "Checkpoint that adapters (LoRA) are applied to.",
            metavar="BASE",
            group=MODEL,
            default="CHECKPOINT",
            path="input",
        ),
    ] = ABSENT
    rename: Rename = EMPTY
    classnames: Annotated[
        Words | None,
        Option(
            "Class names: ImageNet's, or a file (lines, JSON or YAML). For a head that names its classes, those that "
            "compete.",
            metavar="imagenet|FILE",
            group=DATA,
            default="what the head declares",
            path="input",
        ),
    ] = None
    templates: Annotated[
        Words | None,
        Option(
            "Prompt templates for a zero-shot head: OpenAI's 80, their 7 best, 'a photo of a {}.', or a text file with "
            "one per line, where {} is the class name.",
            metavar="openai|simple|plain|FILE",
            group=DATA,
            default="plain",
            path="input",
        ),
    ] = None
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
    max_bad: Annotated[
        int,
        Option("Tolerate up to N unreadable images; their lines have an error.", metavar="N", group=DATA, minimum=0),
    ] = 0
    max_pixels: MaxPixels = None
    output: Annotated[
        OptionalPath,
        Option("Write a line for each image: .jsonl or .csv.", metavar="FILE", group=OUTPUT, short="-o", path="output"),
    ] = ABSENT
    top: Annotated[
        int,
        Option("List the N most probable classes of each image.", metavar="N", group=OUTPUT, minimum=1),
    ] = 5
    transform: Transform = None
    cache: UseCache = True
    mmap: Mmap = True
    progress: Progress = silent


ModelOptions = EvaluationOptions | PredictOptions
"""Of the commands that predict with a checkpoint."""


@options_class(frozen=True)
class ReportOptions(Options):
    """The options of ``wise report``."""

    results: Annotated[
        Files, Option("Results files (JSON Lines); several are compared.", is_argument=True, path="input")
    ]
    _: KW_ONLY
    output: Annotated[
        FilePath,
        Option(
            "The report: one HTML file that needs nothing else.",
            metavar="FILE",
            group=OUTPUT,
            short="-o",
            path="output",
        ),
    ] = "report.html"
    suite: Annotated[
        OptionalNames,
        Option(
            "Include only these suites, by the names in the records, separated by commas. May be repeated.",
            metavar="NAMES",
            group=DATA,
        ),
    ] = ABSENT
    label: Annotated[
        Texts,
        Option(
            "Name to show for zeroshot, finetuned, a checkpoint, data set or suite: zeroshot=CLIP. May be repeated.",
            metavar="NAME=TEXT",
            group=DATA,
        ),
    ] = EMPTY
    png: Annotated[
        OptionalPath,
        Option("Write each plot as PNG into this folder.", metavar="DIR", group=OUTPUT, path="folder"),
    ] = ABSENT
    svg: Annotated[
        OptionalPath,
        Option("Write each plot as SVG into this folder.", metavar="DIR", group=OUTPUT, path="folder"),
    ] = ABSENT
    pdf: Annotated[
        OptionalPath,
        Option("Write each plot as PDF into this folder.", metavar="DIR", group=OUTPUT, path="folder"),
    ] = ABSENT
    csv: Annotated[OptionalPath, Option("Write all numbers as CSV.", metavar="FILE", group=OUTPUT, path="output")] = (
        ABSENT
    )
    markdown: Annotated[
        OptionalPath, Option("Write the tables in Markdown.", metavar="FILE", group=OUTPUT, path="output")
    ] = ABSENT
    latex: Annotated[
        OptionalPath, Option("Write the tables in LaTeX.", metavar="FILE", group=OUTPUT, path="output")
    ] = ABSENT
    figure: Annotated[
        OptionalPath,
        Option(
            "Write one figure for papers, a panel per shift: .pdf, .svg or .png.",
            metavar="FILE",
            group=OUTPUT,
            path="output",
        ),
    ] = ABSENT
    width: Annotated[
        str,
        Option(
            "Width of --figure: one column (3.25 inches) or the whole text (6.75 inches).",
            group=OUTPUT,
            choices=("column", "text"),
        ),
    ] = "column"
    table: Annotated[
        OptionalPath,
        Option(
            "Write a compact LaTeX table for papers: both models, alpha 0.5 and the recommended mixture.",
            metavar="FILE",
            group=OUTPUT,
            path="output",
        ),
    ] = ABSENT
    baseline: Annotated[
        OptionalPath,
        Option(
            "CSV of other models' accuracies (name, reference, a column per shift), for effective robustness.",
            metavar="FILE",
            group=DATA,
            path="input",
        ),
    ] = ABSENT
    axis: Annotated[
        str, Option("Axis scale for the effective-robustness fit.", group=DATA, choices=("logit", "probit"))
    ] = "logit"

    def __post_init__(self) -> None:
        """Raises UsageError for a label that is no name with a text, and for two that cannot both be meant."""
        Options.__post_init__(self)
        texts: dict[str, str] = {}
        for label in self.label:
            name, _, text = (part.strip() for part in label.partition("="))
            if not name or not text:
                raise OptionError("label", label, "expected NAME=TEXT, such as zeroshot=CLIP.")
            if not text.isprintable() or len(text) > MAX_LABEL:
                raise OptionError("label", label, f"expected a text of at most {MAX_LABEL} printable characters.")
            if name in texts:
                raise UsageError(f"--label: {name} has two labels, {texts[name]!r} and {text!r}. Leave one out.")
            if text in texts.values():
                raise UsageError(f"--label: two names have the label {text!r}. Choose different ones.")
            texts[name] = text

    @property
    def labels(self) -> Mapping[str, str]:
        """The texts to show, by the names that they are shown for."""
        return {name.strip(): text.strip() for name, _, text in (label.partition("=") for label in self.label)}


@options_class(frozen=True)
class CompareOptions(Options):
    """The options of ``wise compare``."""

    first: Annotated[
        FilePath, Option("Results file of an evaluation or a sweep.", metavar="A.jsonl", is_argument=True, path="input")
    ]
    second: Annotated[
        OptionalPath,
        Option(
            "Another one. Without it, the mixtures of one sweep are compared.",
            metavar="B.jsonl",
            is_argument=True,
            path="input",
        ),
    ] = ABSENT
    _: KW_ONLY
    alphas: Annotated[
        Numbers | None,
        Option(
            "Mixtures of a sweep to compare, as a list or START:STOP:STEP.",
            metavar="LIST",
            group=MEASURE,
            default="of two files the recommended one, of one sweep all",
        ),
    ] = None
    against: Annotated[
        float | None,
        Option(
            "Mixture of one sweep to compare the others with.",
            metavar="ALPHA",
            group=MEASURE,
            default="0.5",
            minimum=0,
            maximum=1,
        ),
    ] = None
    model: Annotated[
        Texts,
        Option(
            "Model of a file that holds several. Given twice: the first and the second to compare.",
            metavar="NAME",
            group=MODEL,
        ),
    ] = EMPTY
    suite: Annotated[OptionalNames, Option("Suite of a file that holds several.", metavar="NAME", group=DATA)] = ABSENT


@options_class(frozen=True)
class RecipeOptions(Options):
    """The options of ``wise recipe``."""

    path: Annotated[
        FilePath,
        Option(
            "TOML file with the tables [zeroshot], [finetune], [sweep] and [report].",
            metavar="RECIPE",
            is_argument=True,
            aliases=("recipe",),
        ),
    ] = "wise.toml"
    _: KW_ONLY
    progress: Progress = silent
    note: Callable[[str], object] = str


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


@options_class(frozen=True)
class CacheLsOptions(Options):
    """The options of ``wise cache ls``, of which there are none."""


@options_class(frozen=True)
class CacheClearOptions(Options):
    """The options of ``wise cache clear``."""

    kind: Annotated[
        str | None,
        Option(
            "Kind of entries to remove: heads, images, features, listings.",
            metavar="KIND",
            is_argument=True,
            choices=CACHE_KINDS,
            default="all kinds",
        ),
    ] = None
    _: KW_ONLY
    older_than: Annotated[
        float | None,
        Option(
            "Remove only what has not been used for so many days.",
            metavar="DAYS",
            minimum=0,
            default="entries of any age",
        ),
    ] = None


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


@options_class(frozen=True)
class CalibrateOptions(Options):
    """The options of ``wise calibrate``."""

    checkpoint: Checkpoint
    output: Annotated[
        FilePath,
        Option(
            "Checkpoint to write, in the format of its name's ending; beside an input folder, a name without an ending "
            "is a folder.",
            metavar="FILE",
            group=OUTPUT,
            short="-o",
            path="output",
        ),
    ]
    _: KW_ONLY
    on: Annotated[
        str,
        Option(
            "Data set that the temperature is fitted on, ideally held-out images of the reference; of a suite, its "
            "reference.",
            metavar="DATASET",
            group=DATA,
            path="input",
            completes="data sets",
        ),
    ]
    data: DataRoot = ABSENT
    classnames: ClassNames = None
    templates: Templates = None
    limit: Limit = None
    seed: LimitSeed = 0
    model: Model = None
    image_size: ImageSize = None
    device: Device = "cpu"
    precision: Precision = "auto"
    batch_size: BatchSize = 128
    workers: Workers = None
    cache_images: CacheImages = False
    max_bad: MaxBad = 0
    max_pixels: MaxPixels = None
    shard_size: ShardSize = None
    cache: UseCache = True
    mmap: Mmap = True
    progress: Progress = silent


@options_class(frozen=True)
class FisherOptions(Options):
    """The options of ``wise fisher``. There is no precision to choose: gradients are computed in float32."""

    checkpoint: Checkpoint
    output: Annotated[
        OptionalPath,
        Option(
            "File to write: .safetensors, or .pt, .pth, .bin, .ckpt (torch.save).",
            metavar="FILE",
            group=OUTPUT,
            short="-o",
            path="output",
            default="a state dict in memory",
            cli_required=True,
        ),
    ] = ABSENT
    _: KW_ONLY
    on: Annotated[
        str,
        Option(
            "Data set whose images are used, ideally the training images; of a suite, its reference. Some hundred "
            "images are enough, see --limit.",
            metavar="DATASET",
            group=DATA,
            path="input",
            completes="data sets",
        ),
    ]
    kind: Annotated[
        str,
        Option(
            "Classes whose log-probability is differentiated: drawn from the model's own predictions (true), or the "
            "labels (empirical).",
            group="Options",
            choices=FISHER_KINDS,
        ),
    ] = "true"
    data: DataRoot = ABSENT
    classnames: ClassNames = None
    templates: Templates = None
    limit: Annotated[int | None, Option("Use a random subset of N images.", metavar="N", group=DATA, minimum=1)] = None
    seed: Annotated[
        int, Option("Random seed for --limit and for the classes that are drawn.", metavar="N", group=DATA, minimum=0)
    ] = 0
    model: Model = None
    head: Head = None
    head_features: HeadFeatures = None
    head_rows: HeadRows = None
    image_size: ImageSize = None
    device: Device = "cpu"
    workers: Workers = None
    cache_images: CacheImages = False
    max_bad: MaxBad = 0
    max_pixels: MaxPixels = None
    cache: UseCache = True
    mmap: Mmap = True
    progress: Progress = silent


@options_class(frozen=True)
class DemoOptions(Options):
    """The options of ``wise demo``."""

    folder: Annotated[
        FilePath,
        Option("Folder for the demo's files.", metavar="DIR", is_argument=True, path="folder", aliases=("dir",)),
    ] = "wise-demo"
    _: KW_ONLY
    seed: Annotated[int, Option("Random seed.", metavar="N", minimum=0, maximum=MAX_SEED)] = 0
    progress: Progress = silent
    note: Callable[[str], object] = str


@options_class(frozen=True)
class DoctorOptions(Options):
    """The options of ``wise doctor``; `endpoint` is the address of another hub than the usual one."""

    data: DataRoot = ABSENT
    _: KW_ONLY
    endpoint: str | None = None


@options_class(frozen=True)
class InitOptions(Options):
    """The options of ``wise init``."""

    folder: Annotated[
        FilePath, Option("Folder to look at and to write wise.toml in.", metavar="DIR", is_argument=True)
    ] = "."
    _: KW_ONLY
    force: Annotated[bool, Option("Replace an existing wise.toml.")] = False


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
