"""The alpha of every tensor, and the other rules of a merge; their text forms. Knows names, not weights."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from math import isfinite
from typing import Literal

from mergekit_wise.checkpoint import BY_TORCH, DType
from mergekit_wise.errors import UsageError

Side = Literal["zeroshot", "finetuned"]
SIDES: Mapping[str, Side] = {"zs": "zeroshot", "ft": "finetuned"}
MODEL_BLOCK = re.compile(r"(?:resblocks|layers|blocks|layer[1-4]|stages\.\d+\.blocks)\.\d+\.")
"""A block of a transformer or a ResNet, in the names of open_clip, transformers and timm."""

MAX_ALPHAS = 1001
"""More alphas than this in one list are almost certainly a typo."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules that say what becomes of each tensor.

    Attributes:
        alpha: for every tensor to which no other rule applies.
        alpha_for: (pattern, alpha); the first pattern that matches a name decides.
        depth: alphas of the first and the last block, with linear interpolation between them (LiNeS, Wang et al.,
            ICLR 2025). Tensors outside blocks take the first alpha. `alpha_for` has priority.
        keep: (side, pattern): tensors to copy from one side. Has priority over all alphas.
        only: patterns of the tensors to write; empty for all.
        dtype: for every mixable tensor of the output; None for torch's promotion of the inputs.
        extrapolate: allow alphas outside [0, 1].
        frozen_tolerance: the relative difference up to which elements count as equal, besides what rounding to the
            narrower of two dtypes explains; a tensor whose elements all do is copied. None to mix whatever differs.

    Patterns are shell patterns that match whole names: ``visual.*``, ``*.bias``.
    """

    alpha: float = 0.5
    alpha_for: tuple[tuple[str, float], ...] = ()
    depth: tuple[float, float] | None = None
    keep: tuple[tuple[Side, str], ...] = ()
    only: tuple[str, ...] = ()
    dtype: DType | None = None
    extrapolate: bool = False
    frozen_tolerance: float | None = None

    def __post_init__(self) -> None:
        """Check every alpha and the tolerance. Raises UsageError."""
        if self.frozen_tolerance is not None and not 0 <= self.frozen_tolerance < 1:
            raise UsageError(f"--frozen-tolerance {self.frozen_tolerance:g}: expected a number from 0 to below 1.")
        for given, alpha in self._given():
            if not self.extrapolate:
                check_alpha(alpha, given)
            elif not isfinite(alpha):
                raise UsageError(f"{given}: expected a finite number.")

    def _given(self) -> Iterator[tuple[str, float]]:
        """Every alpha with the option that sets it."""
        yield f"--alpha {self.alpha:g}", self.alpha
        yield from ((f"--alpha-for {pattern}={alpha:g}", alpha) for pattern, alpha in self.alpha_for)
        yield from ((f"--depth-alpha {':'.join(f'{end:g}' for end in self.depth or ())}", a) for a in self.depth or ())

    def at_end(self, alpha: float) -> "Rules":
        """The same rules with one alpha, 0 or 1, for every tensor that is mixed."""
        return replace(self, alpha=alpha, alpha_for=(), depth=None, frozen_tolerance=None)

    def kept(self, name: str) -> Side | None:
        """The side that a tensor is copied from, or None if no `keep` pattern matches."""
        return next((side for side, pattern in self.keep if fnmatchcase(name, pattern)), None)

    def wants(self, name: str) -> bool:
        """Whether a tensor is written at all."""
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
        """Patterns that match none of `names`, which are probably typos."""
        names = list(names)
        patterns = [*(p for p, _ in self.alpha_for), *(p for _, p in self.keep), *self.only]
        return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]


def check_alpha(alpha: float, given: str) -> float:
    """Return `alpha` if it lies in [0, 1]; -0.0 becomes 0.0.

    Raises UsageError that begins with `given`, the option and its value.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"{given}: expected an alpha from 0 (zero-shot) to 1 (fine-tuned), found {alpha:g}.")
    return alpha + 0.0


def parse_alphas(text: str) -> tuple[float, ...]:
    """Parse a list of numbers and ranges: ``0:1:0.1``, ``0,0.5,1``, ``0:0.4:0.2,0.5,1``.

    A range is start:stop:step and includes its end. Numbers are exact decimals, so that the fourth alpha of
    ``0:1:0.1`` is 0.3. Returns the alphas in ascending order, each once. Raises UsageError.
    """
    given = f"--alphas {text}"
    return tuple(check_alpha(alpha, given) for alpha in parse_numbers(text, given))


def parse_numbers(text: str, given: str) -> tuple[float, ...]:
    """The numbers of a list as `parse_alphas` describes it, of any size. Errors begin with `given`."""
    numbers: set[float] = set()
    for part in text.split(","):
        numbers.update(float(value) for value in _expand(part.strip(), given))
        if len(numbers) > MAX_ALPHAS:
            raise UsageError(f"{given}: more than {MAX_ALPHAS} values. Take a larger step.")
    return tuple(sorted(numbers))


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
        if pattern:
            return pattern, float(alpha)
        raise ValueError
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


def _depth_alphas(names: Iterable[str], first: float, last: float) -> dict[str, float]:
    """The alpha of block l of the L blocks of its tower: first + (last - first) * l / (L - 1); else the first."""
    blocks: dict[str, list[str]] = {}
    places: dict[str, tuple[str, str]] = {}
    for name in names:
        if found := MODEL_BLOCK.search(name):
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


def _expand(part: str, given: str) -> list[Decimal]:
    numbers = [_number(piece, given) for piece in part.split(":")]
    if len(numbers) == 1:
        return numbers
    if len(numbers) != 3:
        raise UsageError(f"{given}: {part!r} is neither a number nor start:stop:step.")
    start, stop, step = numbers
    if step <= 0 or stop < start:
        raise UsageError(f"{given}: {part!r} needs start <= stop and a step above 0.")
    count = int((stop - start) / step) + 1
    if count > MAX_ALPHAS:
        raise UsageError(f"{given}: {part!r} has more than {MAX_ALPHAS} values.")
    return [start + index * step for index in range(count)]


def _number(piece: str, given: str) -> Decimal:
    try:
        number = Decimal(piece)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise UsageError(f"{given}: {piece!r} is not a number. Write for example 0:1:0.1 or 0,0.5,1.")
    return number
