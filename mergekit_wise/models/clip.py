"""A CLIP model of open_clip's from its configuration, and the tokens that it reads.

Knows nothing of weights, classes or training.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from open_clip import CLIP
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor

from mergekit_wise.errors import ModelError

TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""By these files a folder is known to hold a tokenizer of transformers'."""

OPTIONS = frozenset(("clean", "strip_sep_token", "language", "reduction_mask"))
"""What a configuration may ask of a tokenizer: what open_clip's do. It may come from a file that nobody should trust,
and others would make transformers run code from the hub, or open files."""


def create_clip(model_cfg: Mapping[str, Any]) -> Any:
    """An untrained ``open_clip.CLIP``, in training mode, from what open_clip_config.json calls ``model_cfg``."""
    return CLIP(**model_cfg)


def create_tokenizer(model_cfg: Mapping[str, Any], folder: Path | None = None) -> Callable[[Sequence[str]], Tensor]:
    """Texts -> tokens int64 [len(texts), context_length], longer ones cut off, as open_clip's own tokenizers do.

    Where the text tower wants a tokenizer of transformers', the one in `folder` is taken before the one of its name,
    which is fetched if need be. Raises ModelError if there is none.
    """
    text = model_cfg["text_cfg"]
    length, options = text.get("context_length", 77), dict(text.get("tokenizer_kwargs") or {})
    if unknown := options.keys() - OPTIONS:
        raise ModelError(f"The configuration gives its tokenizer options that are not allowed: {', '.join(unknown)}.")
    name = text.get("hf_tokenizer_name")
    own = folder is not None and any((folder / file).is_file() for file in TOKENIZERS)
    if name:
        options |= {"tokenizer_mode": mode} if (mode := text.get("tokenizer_mode")) else {}
        return _transformers_tokenizer(folder if own else name, length, options)
    tokenizer = SimpleTokenizer(context_length=length, **options)
    vocabulary = text.get("vocab_size", 49408)
    if vocabulary >= tokenizer.vocab_size:
        return lambda texts: tokenizer(list(texts))
    if own:
        return _transformers_tokenizer(folder, length, options)
    raise ModelError(
        f"The text tower knows {vocabulary:,} tokens, CLIP's tokenizer has {tokenizer.vocab_size:,}. Give a folder "
        "that holds the tokenizer beside the weights."
    )


def _transformers_tokenizer(
    source: str | Path | None, length: int, options: Mapping[str, Any]
) -> Callable[[Sequence[str]], Tensor]:
    try:
        tokenizer = HFTokenizer(str(source), context_length=length, trust_remote_code=False, **options)
    except ImportError as error:
        raise ModelError(f"The tokenizer {source} needs transformers: pip install transformers") from error
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"The tokenizer {source} could not be opened ({reason}). Check the network, or put its files into the "
            "folder of the weights."
        ) from error
    return lambda texts: tokenizer(list(texts))
