"""Low-rank factors and placeholders: tensors that are no weights by themselves. Works on checkpoints of any format."""

import re

from mergekit_wise.checkpoint.checkpoint import Checkpoint
from mergekit_wise.errors import CheckpointError
from mergekit_wise.wording import listed, plural

FACTORS = re.compile(
    r"(^|[._])("
    r"lora_(A|B|a|b|up|down|mid|embedding_[AB]|magnitude_vector)|dora_scale|hada_(w[12]_[ab]|t[12])"
    r"|lokr_(w[12](_[ab])?|t2)|oft_(blocks|[rR]|diag)|ia3_l|vera_lambda_[bd]|boft_[RsP]"
    r")($|\.)"
)
"""Names of factors, of PEFT, kohya, LyCORIS and diffusers."""


def low_rank_factors(checkpoint: Checkpoint) -> list[str]:
    """Names of the tensors that are low-rank factors of updates to weights."""
    return [name for name in checkpoint.tensors if FACTORS.search(name)]


def refuse_low_rank(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError if the checkpoint holds low-rank factors: the mean of products is no product of means."""
    if names := low_rank_factors(checkpoint):
        raise CheckpointError(
            f"{checkpoint.path}: holds low-rank factors ({plural(len(names), 'tensor')}, such as {listed(names, 3)}), "
            "whose mixture is not the mixture of the weights that they stand for. Merge them into the weights of their "
            "base model first (in PEFT: model.merge_and_unload(), then model.save_pretrained(FOLDER)), and give the "
            "result."
        )


def refuse_placeholders(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError if most of the tensors are empty, as where a sharded model was saved without its values."""
    empty = [name for name, tensor in checkpoint.tensors.items() if tensor.info.shape == (0,) and "." in name]
    if 2 * len(empty) > len(checkpoint.tensors):
        raise CheckpointError(
            f"{checkpoint.path}: {len(empty)} of {plural(len(checkpoint.tensors), 'tensor')} are empty (such as "
            f"{listed(empty, 3)}): placeholders of a model whose values were distributed over several processes. "
            "Gather them first; DeepSpeed puts the script zero_to_fp32.py into the checkpoint's folder for that."
        )
