"""What a user may ask of a merge beyond one alpha. Knows names, not weights."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite
from typing import Literal

from mergekit_wise.checkpoint import BY_TORCH, DType
from mergekit_wise.errors import UsageError
from mergekit_wise.merging.alphas import check_alpha

Side = Literal["zeroshot", "finetuned"]
SIDES: Mapping[str, Side] = {"zs": "zeroshot", "ft": "finetuned"}
BLOCK = re.compile(r"(?:resblocks|layers|blocks|layer[1-4]|stages\.\d+\.blocks)\.\d+\.")
"""A block of a transformer or a ResNet, in the names of open_clip, transformers and timm."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Which tensor gets what.

    Attributes:
        alpha: for every tensor to which nothing else applies.
        alpha_for: (pattern, alpha); the first pattern that matches a name wins.
        depth: alphas of the first and the last block; those between rise linearly (LiNeS, Wang et al., ICLR 2025).
            What is in no block takes the first. Comes after `alpha_for`.
        keep: (side, pattern): tensors to take from one side as they are. Comes before everything else.
        only: patterns of the tensors to write; none means all.
        dtype: of every mixable tensor of the output; None leaves it to promotion.
        extrapolate: alphas outside [0, 1] are meant.

    Patterns are those of the shell, over whole names: ``visual.*``, ``*.bias``.
    """

    alpha: float = 0.5
    alpha_for: tuple[tuple[str, float], ...] = ()
    depth: tuple[float, float] | None = None
    keep: tuple[tuple[Side, str], ...] = ()
    only: tuple[str, ...] = ()
    dtype: DType | None = None
    extrapolate: bool = False

    def __post_init__(self) -> None:
        """Check every alpha. Raises UsageError."""
        for given, alpha in self._given():
            if not self.extrapolate:
                check_alpha(alpha, given)
            elif not isfinite(alpha):
                raise UsageError(f"{given}: expected a finite number.")

    def _given(self) -> Iterator[tuple[str, float]]:
        """Every alpha, behind the option that gives it."""
        yield f"--alpha {self.alpha:g}", self.alpha
        yield from ((f"--alpha-for {pattern}={alpha:g}", alpha) for pattern, alpha in self.alpha_for)
        yield from ((f"--depth-alpha {':'.join(f'{end:g}' for end in self.depth or ())}", a) for a in self.depth or ())

    def kept(self, name: str) -> Side | None:
        """The side that a tensor is taken from as it is, if one was named."""
        return next((side for side, pattern in self.keep if fnmatchcase(name, pattern)), None)

    def wants(self, name: str) -> bool:
        """Whether a tensor is to be written at all."""
        return not self.only or any(fnmatchcase(name, pattern) for pattern in self.only)

    def alphas(self, names: Iterable[str]) -> dict[str, float]:
        """The alpha of every tensor."""
        names = list(names)
        by_depth = _depth_alphas(names, *self.depth) if self.depth else {}
        return {
            name: next(
                (alpha for pattern, alpha in self.alpha_for if fnmatchcase(name, pattern)),
                by_depth.get(name, self.alpha),
            )
            for name in names
        }

    def unmatched(self, names: Iterable[str]) -> list[str]:
        """Patterns that match none of `names`: most likely slips of the pen."""
        names = list(names)
        patterns = [*(p for p, _ in self.alpha_for), *(p for _, p in self.keep), *self.only]
        return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]


def parse_keep(text: str) -> tuple[Side, str]:
    """``zs:PATTERN`` or ``ft:PATTERN``. Raises UsageError."""
    side, colon, pattern = text.partition(":")
    if side not in SIDES or not colon or not pattern:
        raise UsageError(f"--keep {text}: expected zs:PATTERN or ft:PATTERN, for example ft:classification_head.*")
    return SIDES[side], pattern


def parse_alpha_for(text: str) -> tuple[str, float]:
    """``PATTERN=ALPHA``. Raises UsageError."""
    pattern, _, alpha = text.rpartition("=")
    try:
        return (pattern or _fail()), float(alpha)
    except ValueError:
        raise UsageError(f"--alpha-for {text}: expected PATTERN=ALPHA, for example 'visual.*=0.4'.") from None


def parse_depth(text: str) -> tuple[float, float]:
    """``FIRST:LAST``. Raises UsageError."""
    try:
        first, last = map(float, text.split(":"))
    except ValueError:
        raise UsageError(f"--depth-alpha {text}: expected FIRST:LAST, for example 0.2:0.8.") from None
    return first, last


def parse_dtype(text: str) -> DType:
    """A torch dtype that can be mixed, or its short name: ``fp16``, ``bf16``, ``fp32``. Raises UsageError."""
    short = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}
    name = short.get(text, text.removeprefix("torch."))
    known = ("float32", "bfloat16", "float16", "float64", "float8_e4m3fn", "float8_e5m2")
    if name not in known:
        raise UsageError(f"--dtype {text}: expected one of {', '.join(known)}.")
    return BY_TORCH[name]


def _fail() -> str:
    raise ValueError


def _depth_alphas(names: Iterable[str], first: float, last: float) -> dict[str, float]:
    """The alpha of block l of the L blocks of its tower: first + (last - first) * l / (L - 1); else the first."""
    blocks: dict[str, list[str]] = {}
    places: dict[str, tuple[str, str]] = {}
    for name in names:
        if found := BLOCK.search(name):
            tower = re.sub(r"layer[1-4]$|stages$", "", name[: found.start()])
            block = name[: found.end()]
            places[name] = (tower, block)
            if block not in blocks.setdefault(tower, []):
                blocks[tower].append(block)
    order = {tower: sorted(found, key=_natural) for tower, found in blocks.items()}
    alphas = {}
    for name in names:
        alphas[name] = first
        if name in places:
            tower, block = places[name]
            share = order[tower].index(block) / max(len(order[tower]) - 1, 1)
            alphas[name] = first + (last - first) * share
    return alphas


def _natural(text: str) -> list[tuple[int, str]]:
    """For sorting: block 10 comes after block 9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", text)]
