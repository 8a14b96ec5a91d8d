"""What processes on several machines must agree on before they train: the state to resume, and the folder it is in."""

import hashlib
import secrets
from pathlib import Path

from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation import Ranks
from mergekit_wise.training.checkpointer import Checkpointer

ADVICE = "Choose a folder on a disk that all machines share, with --state"


def require_same_state(ranks: Ranks, checkpointer: Checkpointer) -> None:
    """Raise UsageError, in every process, unless all of them found the same state, or none."""
    if ranks.size == 1:
        return
    found = ranks.gather((checkpointer.optimizer.taken, _digest(checkpointer.path)))
    other = next((rank for rank, state in enumerate(found) if state != found[0]), None)
    if other is not None:
        raise UsageError(
            f"{checkpointer.folder}: the processes found different states: process 0 {_shown(*found[0])}, process "
            f"{other} {_shown(*found[other])}. {ADVICE}, or start over with --restart."
        )


def require_shared(ranks: Ranks, checkpointer: Checkpointer) -> None:
    """Raise UsageError or OutputError, in every process, unless all see the files that the first one writes."""
    if ranks.size == 1:
        return
    probe = checkpointer.folder / f"shared-{ranks.share(secrets.token_hex(8))}"
    with ranks.agreeing():
        if ranks.rank == 0:
            checkpointer.make_folder()
            probe.touch()
    seen = ranks.gather(probe.exists())
    if ranks.rank == 0:
        probe.unlink(missing_ok=True)
    if not all(seen):
        raise UsageError(
            f"{checkpointer.folder}: process {seen.index(False)} does not see this folder of process 0, which holds "
            f"the checkpoints that --validate measures. {ADVICE}, or leave --validate out."
        )


def _digest(path: Path) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shown(taken: int, digest: str) -> str:
    return f"one at step {taken:,} (SHA-256 {digest[:12]}...)" if digest else "none"
