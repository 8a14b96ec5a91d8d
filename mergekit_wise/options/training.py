"""How ``wise finetune`` trains: stages, objective, steps, optimizer and augmentation."""

from dataclasses import KW_ONLY
from typing import Annotated

from mergekit_wise.option_types import EMPTY, Option, Options, Source, Texts, Weights, options_class
from mergekit_wise.options.common import ADVANCED, DATA, MAX_SEED, TRAINING, OutputFile

OBJECTIVES = ("cross-entropy", "contrastive")
DECAYS = ("all", "matrices")

AUGMENTATIONS = ("none", "crop", "crop-flip", "strong")
"""In the order of how much they change an image.

``crop`` is what the authors' code does: 90 to 100 % of the image, as CLIP was trained. ``crop-flip`` is the usual
training augmentation of ImageNet: 8 to 100 % of the image, half of them mirrored. ``strong`` adds RandAugment (Cubuk et
al., arXiv 1909.13719; two changes of magnitude 9).
"""

RATE, LINEAR_RATE = 3e-5, 1e-3
"""The default peak learning rates, of all weights and of the head alone."""


@options_class(frozen=True)
class TrainingOptions(Options):
    """Those of `FinetuneOptions` that say what is trained, and how."""

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

    @property
    def peak(self) -> float:
        """The peak learning rate, which depends on ``linear`` if none was chosen."""
        return self.lr if self.lr is not None else LINEAR_RATE if self.linear else RATE

    @property
    def augmentation(self) -> str:
        """The augmentation, which depends on ``linear`` if none was chosen."""
        return self.augment or ("none" if self.linear else "crop")
