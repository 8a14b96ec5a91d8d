"""Opens a checkpoint from a path, the Hugging Face hub, or open_clip's pretrained weights.

Knows nothing of what is in it, but puts the configuration that goes with it into its metadata.
"""

import re
from pathlib import Path

from mergekit_wise.checkpoint import Checkpoint, open_checkpoint
from mergekit_wise.checkpoint.folder import WEIGHT_KINDS, leaves_folder
from mergekit_wise.checkpoint.low_rank import refuse_low_rank, refuse_placeholders
from mergekit_wise.checkpoint.quantized import dequantized, require_no_parts
from mergekit_wise.errors import CheckpointError
from mergekit_wise.models.adapters import refuse_adapter
from mergekit_wise.models.architecture import named_config, with_declared_config
from mergekit_wise.models.head_names import with_declared_names
from mergekit_wise.models.open_clip_configs import configs
from mergekit_wise.option_types import ModelInMemory, Weights
from mergekit_wise.wording import did_you_mean, shown

HUB = "hf-hub:"

_ADVICE = "Check the network, or give the path of a file that was downloaded before."

REFUSED = (require_no_parts, refuse_low_rank, refuse_placeholders)
"""Checks that raise CheckpointError for tensors that are no weights by themselves."""

_URL = re.compile(r"\w{2,}://")

_HUB_URL = re.compile(r"(?:https?://(?:www\.)?(?:huggingface\.co|hf\.co)|hf:/)/([\w.-]+/[\w.-]+)")
"""The address of a repository of the hub in a browser."""


def open_source(source: Weights, *, mmap: bool = True) -> Checkpoint:
    """Open the weights of a model: what `open_file` opens, with scaled float8 weights as float32.

    Raises CheckpointError, also for what is no weights by itself: an adapter, parts of quantized weights, low-rank
    factors, placeholders.
    """
    checkpoint = open_file(source, mmap=mmap)
    try:
        refuse_adapter(checkpoint)
        return as_weights(checkpoint)
    except CheckpointError:
        checkpoint.close()
        raise


def as_weights(checkpoint: Checkpoint) -> Checkpoint:
    """An open file as weights: scaled float8 weights as float32. Raises CheckpointError for what is no weights."""
    checkpoint = dequantized(checkpoint)
    for refuse in REFUSED:
        refuse(checkpoint)
    return checkpoint


def open_file(source: Weights, *, mmap: bool = True) -> Checkpoint:
    """Open a checkpoint as it is; nothing in it is dequantized or refused.

    It is downloaded if it is ``hf-hub:ORG/NAME`` or open_clip's ``MODEL/PRETRAINED``. ``FILE::state.model_ema`` names
    an entry of a file of torch's. A path that exists is always that path. A `ModelInMemory` is read where it is. The
    configuration and the class names that the source declares are put into the checkpoint's metadata, which merged
    files inherit. Raises CheckpointError.
    """
    if isinstance(source, ModelInMemory):
        from mergekit_wise.models.in_memory import open_in_memory  # what files do without

        return with_declared_names(with_declared_config(open_in_memory(source)))
    assert isinstance(source, str | Path)
    source, entry = split_entry(source)
    path = locate(source)
    pretrained = path != Path(source) and not str(source).startswith(HUB)
    checkpoint = open_checkpoint(path, mmap=mmap, entry=entry)
    configured = with_declared_config(checkpoint, named_config(str(source)) if pretrained else None)
    return with_declared_names(configured)


def remarks(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Why a checkpoint cannot be used as weights, or what is done for that; for commands that only show it."""
    try:
        restored = as_weights(checkpoint)
    except CheckpointError as error:
        return (f"cannot be used as weights: {error}",)
    return tuple(f"where weights are used: {note}" for note in restored.notes[len(checkpoint.notes) :])


def split_entry(source: str | Path) -> tuple[str | Path, str | None]:
    """The parts of ``FILE::ENTRY``; None for the entry where there is none. A path that exists has none."""
    text = str(source)
    places = [found.start() for found in re.finditer("::", text)]
    if not places or Path(text).exists():
        return source, None
    existing = [at for at in places if Path(text[:at]).exists()]
    at = existing[-1] if existing else places[0]
    return type(source)(text[:at]), text[at + 2 :]


def locate(source: str | Path) -> Path:
    """The path of a checkpoint, which is downloaded if necessary. Raises CheckpointError."""
    if not str(source):  # an unset shell variable; as a path it would be the current directory
        raise CheckpointError("The name of a checkpoint is empty. Give a file, a folder or a name to download.")
    path = Path(source)
    if isinstance(source, Path) or path.exists():
        return path
    if source.startswith(HUB):
        return _download_from_hub(source.removeprefix(HUB))
    if _URL.match(source):
        hub = found[1] if (found := _HUB_URL.match(source)) else "ORG/NAME"
        raise CheckpointError(
            f"{source}: URLs are not supported. Download the file and give its path, or name a repository of the "
            f"Hugging Face hub: {HUB}{hub}"
        )
    model, slash, tag = source.partition("/")
    if path.parent.exists() and slash:
        return path
    if model in configs() and "/" not in tag:  # importing open_clip takes seconds
        return _download_pretrained(model, tag)
    if path.suffix not in WEIGHT_KINDS and re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        dashed = source.replace("/", "-")  # OpenAI's way to write it: ViT-B/32
        close = f" Did you mean '{dashed}/openai'?" if dashed in configs() else did_you_mean(model, configs(), 2)
        raise CheckpointError(
            f"{source}: no such file, and open_clip has no model {model!r}.{close} For a repository of the Hugging "
            f"Face hub, give {HUB}{source}"
        )
    return path


def _download_from_hub(repository: str) -> Path:
    """The folder of a repository's weights and side files, in huggingface_hub's cache. Raises CheckpointError."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    patterns = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        try:
            names = [file.rfilename for file in HfApi().model_info(repository).siblings or ()]
            if outside := next(filter(leaves_folder, names), None):
                raise CheckpointError(
                    f"hf-hub:{repository}: lists a file outside its folder ({shown(outside)}), so it is not downloaded."
                )
        except OfflineModeIsEnabled:  # nothing is written: the folder is in the cache, or there is none
            pass
        folder = Path(snapshot_download(repository, allow_patterns=patterns))
        if not any(folder.glob("*.safetensors")):  # an older repository, which holds pickles alone
            folder = Path(snapshot_download(repository, allow_patterns=[*patterns, "*.bin"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        refusal = hub_refusal(error) or f"could not be downloaded ({reason}). {_ADVICE}"
        raise CheckpointError(f"hf-hub:{repository}: {refusal}") from error
    return folder


def hub_refusal(error: Exception) -> str:
    """The hub's own sentence on a gated repository, and how to get access; an empty text for any other error."""
    from huggingface_hub.errors import GatedRepoError

    if not isinstance(error, GatedRepoError):
        return ""
    sentence = str(error.server_message or str(error).strip().splitlines()[-1]).strip()
    return (
        f"{shown(sentence, 300).rstrip('.')}. Ask for access on the page of the repository, log in with "
        "'hf auth login', and run the same command again."
    )


def _download_pretrained(model: str, tag: str) -> Path:
    """The file of open_clip's pretrained weights, in its cache.

    Raises CheckpointError if there are no such weights, or if they cannot be downloaded.
    """
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

    config = get_pretrained_cfg(model, tag)
    if not config:
        known = list_pretrained_tags_by_model(model)
        name = f"{model}/{tag}" if tag else model
        raise CheckpointError(
            f"{name}: no such file, and open_clip has no such weights. The tags of {model}, as in {model}/TAG: "
            f"{', '.join(known) or 'none'}."
        )
    try:
        return Path(download_pretrained(config))
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{model}/{tag}: could not be downloaded ({reason}). {_ADVICE}") from error
