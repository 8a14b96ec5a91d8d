"""From class names to the zero-shot head: tokenizers, texts through a text tower, and the head (the paper, section 2).

Knows nothing of images, of files of weights, and of which classes there are.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor, nn
from torch.nn import functional

from mergekit_wise.errors import ModelError
from mergekit_wise.models.open_clip_configs import configs
from mergekit_wise.progress import Progress, silent
from mergekit_wise.wording import plural, shown

Tokenizer = Callable[[Sequence[str]], Tensor]
"""Texts -> tokens int64 [len(texts), context_length]."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""A folder that holds one of these files holds a tokenizer of transformers."""

_TOKENIZER_OPTIONS = frozenset(("clean", "strip_sep_token", "language", "reduction_mask"))
"""The options of tokenizers that a configuration may set. It may come from an untrusted file, and others would make
transformers run code from the hub, or open files."""


BATCH = 256
"""Texts that are encoded at once, or those of one class if these are more. Another number gives other last bits."""

LONG, PROBE = 8, 4
"""Before a head of more than `LONG` batches, a few texts are encoded twice, so that the time that it will take is shown
at once."""

TOKENIZED = 1024
"""Texts that are tokenized between reports of progress."""


@torch.no_grad()
def zero_shot_head(
    encode: Callable[[Tensor], Tensor],
    tokens_NL: Tensor,
    templates: int,
    logit_scale: Tensor,
    progress: Progress = silent,
    *,
    batch: int = BATCH,
) -> tuple[Tensor, Tensor]:
    """Weight [C, D] and bias [C] of the classifier of image features of length 1.

    Each text's features are normalised, averaged over the templates, normalised again and multiplied by
    ``exp(logit_scale)``, which stays in the head so that merged heads agree with the authors' code. The bias is zero.

    Args:
        encode: gives features [B, D] of any length for tokens [B, L].
        tokens_NL: of the C * T prompts, class by class.
        templates: T, the prompts of a class.
        logit_scale: of the model, a scalar.
        progress: the progress callback.
        batch: how many texts are encoded at once, or those of one class if these are more.
    """
    step, total = max(1, batch // templates) * templates, len(tokens_NL)
    rows: list[Tensor] = []
    progress("zero-shot head", 0, total, "prompts")
    if total > LONG * step:
        for done in range(PROBE, 3 * PROBE, PROBE):  # from two steps on, how long it will take is known
            encode(tokens_NL[done - PROBE : done])
            progress("zero-shot head", done, total, "prompts")
    for start in range(0, total, step):
        progress("zero-shot head", max(start, 2 * PROBE if total > LONG * step else 0), total, "prompts")
        rows += map(_class_direction, torch.split(encode(tokens_NL[start : start + step]), templates))
    progress("zero-shot head", total, total, "prompts")
    weight_CD = torch.stack(rows) * logit_scale.exp()
    return weight_CD, weight_CD.new_zeros(len(rows))


@dataclass(frozen=True, slots=True)
class ClipTokenizer:
    """CLIP's own tokenizer as open_clip has it, with the options that decide its tokens."""

    tokenizer: SimpleTokenizer
    identity: Mapping[str, Any]

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """The tokens of texts, int64 [len(texts), context_length]."""
        tokens: Tensor = self.tokenizer(list(texts))
        return tokens


class CountingTokenizer:
    """A tokenizer that counts the texts that are too long for the text tower, and are cut off where its context ends.

    Args:
        tokenize: texts -> tokens int64 [len(texts), L]; longer texts are cut off.
        noun: what the texts are, for people.
    """

    def __init__(self, tokenize: Tokenizer, noun: str) -> None:
        self._tokenize, self._noun = tokenize, noun
        self._padding = int(tokenize([""])[0, -1])
        self.total = self.cut = 0
        self._example = ""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """The tokens of the next texts, int64 [len(texts), L]."""
        tokens = self._tokenize(texts)
        self.total += len(texts)
        for row in (tokens[:, -1] != self._padding).nonzero().flatten().tolist():
            # A text that is cut off has the same tokens without its last character.
            if torch.equal(self._tokenize([texts[row][:-1]])[0], tokens[row]):
                self.cut += 1
                self._example = self._example or texts[row]
        return tokens

    def remark(self) -> str:
        """A sentence on the texts that are cut off."""
        are = "is" if self.cut == 1 else "are"
        return (
            f"{self.cut:,} of {plural(self.total, self._noun)} {are} longer than the text encoder's context and cut "
            f"off, such as {shown(self._example)!r}"
        )


class Prompts:
    """The prompts of a head's classes and their tokens, for every model with the same tokenizer.

    Args:
        tokenize: texts -> tokens int64 [len(texts), L]; longer texts are cut off.
        classnames: C of them, as prompts call the classes.
        templates: T prompts, each with one ``{}`` for the class name.
    """

    def __init__(self, tokenize: Tokenizer, classnames: Sequence[str], templates: Sequence[str]) -> None:
        self._tokenize, self._classnames, self.templates = tokenize, classnames, len(templates)
        self.texts = [template.replace("{}", name) for name in classnames for template in templates]
        self._tokens: Tensor | None = None
        self._note = ""

    def tokens(self, progress: Progress = silent) -> Tensor:
        """Those of all prompts, int32 [C * T, L], class by class; computed once.

        Raises ModelError if two classes with different names have the same tokens in all their prompts.
        """
        if self._tokens is None:
            self._tokens = self._tokenized(progress)
        return self._tokens

    def _tokenized(self, progress: Progress) -> Tensor:
        counting, total = CountingTokenizer(self._tokenize, "prompt"), len(self.texts)
        rows: list[Tensor] = []
        for start in range(0, total, TOKENIZED):
            progress("prompts of the zero-shot head", start, total, "prompts")
            rows.append(counting(self.texts[start : start + TOKENIZED]).int())  # half the memory
        progress("prompts of the zero-shot head", total, total, "prompts")
        tokens = torch.cat(rows)
        seen: dict[bytes, str] = {}
        for name, own in zip(self._classnames, torch.split(tokens, self.templates), strict=True):
            other = seen.setdefault(hashlib.sha256(own.numpy().tobytes()).digest(), name)
            if other != name:
                why = "which are cut off where its context ends" if counting.cut else "whose tokens they share"
                raise ModelError(
                    f"The classes {shown(other)!r} and {shown(name)!r} have the same prompts for the text encoder, "
                    f"{why}. Give them shorter or other names in a file of class names."
                )
        self._note = counting.remark() if counting.cut else ""
        return tokens

    def note(self) -> str:
        """A sentence on the prompts that are cut off; empty if none is. Raises ModelError as `tokens` does."""
        self.tokens()
        return self._note

    def identity(self) -> dict[str, Any]:
        """What decides the tokens: the texts, where the tokenizer is known; else the tokens themselves."""
        known = self._tokenize.identity if isinstance(self._tokenize, ClipTokenizer) else None
        content = self.tokens().numpy().tobytes() if known is None else json.dumps(self.texts).encode()
        return {"tokenizer": known, "prompts": hashlib.sha256(content).hexdigest()}


def _class_direction(features_TD: Tensor) -> Tensor:
    mean_D = functional.normalize(features_TD, dim=-1).mean(dim=0)
    return functional.normalize(mean_D, dim=-1)


def encode_texts(tower: nn.Module, tokens: Tensor) -> Tensor:
    """Features [B, D] of tokens int64 [B, L], as ``tower(tokens)`` gives them, computed without needless columns.

    Where each token attends only to those before it and the features are those at a text's end, all columns after the
    last end are padding: most of the 77 tokens that CLIP's text tower would otherwise compute.
    """
    end = _end(tower, tokens)
    if end is None:
        features: Tensor = tower(tokens)
        return features
    mask = tower.attn_mask
    tower.attn_mask = mask[:end, :end]  # type: ignore[index]
    try:
        features = tower(tokens[:, :end])
    finally:
        tower.attn_mask = mask
    return features


def _end(tower: Any, tokens: Tensor) -> int | None:
    """How many columns of `tokens` matter; None if all may."""
    pool = getattr(tower, "pool_type", None)
    causal = isinstance(getattr(tower, "attn_mask", None), Tensor) and getattr(tower, "cls_emb", None) is None
    if not causal or pool not in ("argmax", "eos"):
        return None
    ends = tokens if pool == "argmax" else (tokens == tower.eos_id).int()
    return int(ends.argmax(dim=-1).max().item()) + 1


def create_tokenizer(model_cfg: Mapping[str, Any], folder: Path | None = None) -> Tokenizer:
    """The tokenizer that open_clip uses for a configuration; longer texts are cut off.

    If the text tower needs a tokenizer of transformers, the one in `folder` is preferred to the one that the
    configuration names, which is downloaded if necessary. Raises ModelError if there is none.
    """
    text = model_cfg["text_cfg"]
    length, options = text.get("context_length", 77), dict(text.get("tokenizer_kwargs") or {})
    if unknown := options.keys() - _TOKENIZER_OPTIONS:
        raise ModelError(f"The configuration gives its tokenizer options that are not allowed: {', '.join(unknown)}.")
    name = text.get("hf_tokenizer_name")
    own = folder is not None and any((folder / file).is_file() for file in _TOKENIZER_FILES)
    if name:
        options |= {"tokenizer_mode": mode} if (mode := text.get("tokenizer_mode")) else {}
        if not own:
            _require_known_tokenizer(name)
        return _transformers_tokenizer(folder if own else name, length, options)
    tokenizer = SimpleTokenizer(context_length=length, **options)
    vocabulary = text.get("vocab_size", 49408)
    if vocabulary >= tokenizer.vocab_size:
        return ClipTokenizer(tokenizer, {"context_length": length, **options})
    if own:
        return _transformers_tokenizer(folder, length, options)
    raise ModelError(
        f"The text tower has {vocabulary:,} tokens, CLIP's tokenizer has {tokenizer.vocab_size:,}. Give a folder "
        "that holds the tokenizer next to the weights."
    )


def _require_known_tokenizer(name: str) -> None:
    """Raise ModelError unless open_clip's own configurations use this tokenizer: a file may name any."""
    if name not in {cfg["text_cfg"].get("hf_tokenizer_name") for cfg in configs().values()} or Path(name).exists():
        raise ModelError(
            f"The configuration asks for transformers' tokenizer {shown(str(name))!r}, which no configuration of "
            "open_clip uses, or which would be read from a local path. It is not loaded. Give a folder that holds the "
            "tokenizer next to the weights."
        )


def _transformers_tokenizer(source: str | Path | None, length: int, options: Mapping[str, Any]) -> Tokenizer:
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
