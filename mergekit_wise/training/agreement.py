"""What processes must agree on before they train: the run itself, and the folder of checkpoints that all read."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mergekit_wise.errors import OutputError, UsageError
from mergekit_wise.evaluation import Ranks
from mergekit_wise.wording import shown

_SHOWN = 3
"""How many differences an error names."""


def require_same_run(ranks: Ranks, facts: Mapping[str, Any]) -> None:
    """Raise UsageError, in every process, unless the `facts` of all are the same, and their version of torch.

    Otherwise they would exchange the gradients of different models, or wait for each other forever.
    """
    every = ranks.gather({**facts, "torch": torch.__version__})
    for rank, theirs in enumerate(every):
        different = [key for key in {**every[0], **theirs} if every[0].get(key) != theirs.get(key)]
        if different:
            values = "; ".join(
                f"{key}: {shown(str(every[0].get(key)))} in process 0, {shown(str(theirs.get(key)))} in process {rank}"
                for key in different[:_SHOWN]
            )
            raise UsageError(
                f"The processes were not started for the same run ({values}). Give all of them the same options, data, "
                "checkpoint and versions."
            )


def require_shared(ranks: Ranks, folder: Path, purpose: str, advice: str) -> None:
    """Raise UsageError or OutputError, in every process, unless all see the files in `folder` that the first writes.

    The message says what the folder is for and what to do.
    """
    if ranks.size == 1:
        return
    probe = folder / f"shared-{ranks.share(secrets.token_hex(8))}"
    with ranks.agreeing():
        if ranks.rank == 0:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                probe.touch()
            except OSError as error:
                raise OutputError(f"{folder}: cannot be written to: {error.strerror}. {advice}.") from error
    seen = ranks.gather(probe.exists())
    if ranks.rank == 0:
        probe.unlink(missing_ok=True)
    if not all(seen):
        raise UsageError(
            f"{folder}: process {seen.index(False)} does not see this folder of process 0, which holds {purpose}. "
            f"{advice}."
        )
