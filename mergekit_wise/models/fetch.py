"""Fetching weights through the libraries that know where they are. Knows nothing of what is in them."""

from pathlib import Path

from mergekit_wise.errors import CheckpointError

ADVICE = "Check the network, or give the path of a file that is already here."


def fetch_from_hub(repository: str) -> Path:
    """The folder of a repository's weights and side files, in huggingface_hub's cache. Raises CheckpointError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        folder = Path(snapshot_download(repository, allow_patterns=wanted))
        if not any(folder.glob("*.safetensors")):  # an older repository: only then take the pickles
            folder = Path(snapshot_download(repository, allow_patterns=[*wanted, "*.bin"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"hf-hub:{repository}: could not be fetched ({reason}). {ADVICE}") from error
    return folder


def fetch_pretrained(model: str, tag: str) -> Path | None:
    """The file of open_clip's pretrained weights, in its cache; None if open_clip knows no such pair.

    Raises CheckpointError if it cannot be fetched.
    """
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    config = get_pretrained_cfg(model, tag)
    if not config:
        return None
    try:
        return Path(download_pretrained(config))
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{model}/{tag}: could not be fetched ({reason}). {ADVICE}") from error
