"""What options of all subjects share: the headings of the help, and how and where a command computes and writes."""

from typing import Annotated

from mergekit_wise.option_types import Dtype, FilePath, Option

MAX_SEED = 2**63 - 1
"""The largest seed that torch's generators take."""

PRECISIONS = ("fp32", "bf16", "fp16", "auto")
RULES, DATA, MODEL, MEASURE = "Merging rules", "Data", "Model", "Evaluation"
TRAINING, OUTPUT, ADVANCED = "Training", "Output", "Advanced"
GROUPS = (RULES, TRAINING, DATA, MODEL, MEASURE, "Options", OUTPUT, ADVANCED)
"""Headings in the help, in their order."""

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
ShardSize = Annotated[
    str | None,
    Option("Write several files of at most this size, for example 2GB, and an index.", metavar="SIZE", group=OUTPUT),
]
OutputDtype = Annotated[
    Dtype, Option("Output dtype, for example fp32, bf16 or fp16.", group=OUTPUT, default="same as the inputs")
]
AllowNonFinite = Annotated[bool, Option("Write the output even if mixing produced infinities or NaN.", group=OUTPUT)]
