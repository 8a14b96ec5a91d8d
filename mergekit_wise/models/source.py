"""Where a checkpoint is: on disk, on the Hugging Face hub, or among open_clip's pretrained weights."""

import re
from pathlib import Path

from mergekit_wise.checkpoint import Checkpoint, open_checkpoint
from mergekit_wise.errors import CheckpointError
from mergekit_wise.models.declared_config import DeclaredConfig, remember

HUB = "hf-hub:"

URL = re.compile(r"\w{2,}://")

ON_HUB = re.compile(r"(?:https?://(?:www\.)?(?:huggingface\.co|hf\.co)|hf:/)/([\w.-]+/[\w.-]+)")
"""Where a browser finds a repository of the hub."""


def open_source(source: str | Path, *, mmap: bool = True) -> Checkpoint:
    """Open a checkpoint, fetching it first if it is ``hf-hub:ORG/NAME`` or open_clip's ``MODEL/PRETRAINED``.

    A path that exists is always that path. What its source says of the architecture is put into its metadata, for
    merged files to inherit. Raises CheckpointError; offline it says what could not be fetched.
    """
    checkpoint = open_checkpoint(locate(source), mmap=mmap)
    return remember(checkpoint, _told_by_tag(source, checkpoint.path))


def locate(source: str | Path) -> Path:
    """The path of a checkpoint, after fetching it if need be. Raises CheckpointError."""
    if not str(source):  # an unset variable of a shell; as a path it would be the working folder
        raise CheckpointError("The name of a checkpoint is empty. Give a file, a folder or a name to fetch.")
    path = Path(source)
    if isinstance(source, Path) or path.exists():
        return path
    if source.startswith(HUB):
        from mergekit_wise.models.fetch import fetch_from_hub

        return fetch_from_hub(source.removeprefix(HUB))
    if URL.match(source):
        hub = found[1] if (found := ON_HUB.match(source)) else "ORG/NAME"
        raise CheckpointError(
            f"{source}: URLs are not read. Download the file and give its path, or name a repository of the Hugging "
            f"Face hub: {HUB}{hub}"
        )
    # open_clip's tags have one slash and no ending; only then is it worth seconds to ask open_clip.
    if re.fullmatch(r"[\w-]+/\w+", source) and not path.parent.exists():
        from mergekit_wise.models.fetch import fetch_pretrained

        return fetch_pretrained(*source.split("/")) or path
    return path


def _told_by_tag(source: str | Path, found: Path) -> DeclaredConfig | None:
    """What open_clip's table says of weights that it knows; None for all that was not found through it."""
    if found == Path(source) or str(source).startswith(HUB):
        return None
    from mergekit_wise.models.pretrained import tagged

    return tagged(*str(source).split("/"))
