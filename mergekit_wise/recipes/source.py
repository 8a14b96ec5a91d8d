"""Where a checkpoint is: on disk, on the Hugging Face hub, or among open_clip's pretrained weights."""

import re
from pathlib import Path

from mergekit_wise.checkpoint import Checkpoint, open_checkpoint

HUB = "hf-hub:"


def open_source(source: str | Path, *, mmap: bool = True) -> Checkpoint:
    """Open a checkpoint, fetching it first if it is ``hf-hub:ORG/NAME`` or open_clip's ``MODEL/PRETRAINED``.

    A path that exists is always that path. Raises CheckpointError; offline it says what could not be fetched.
    """
    return open_checkpoint(locate(source), mmap=mmap)


def locate(source: str | Path) -> Path:
    """The path of a checkpoint, after fetching it if need be. Raises CheckpointError."""
    path = Path(source)
    if isinstance(source, Path) or path.exists():
        return path
    if source.startswith(HUB):
        from mergekit_wise.models.fetch import fetch_from_hub

        return fetch_from_hub(source.removeprefix(HUB))
    # open_clip's tags have one slash and no ending; only then is it worth seconds to ask open_clip.
    if re.fullmatch(r"[\w-]+/\w+", source) and not path.parent.exists():
        from mergekit_wise.models.fetch import fetch_pretrained

        return fetch_pretrained(*source.split("/")) or path
    return path
