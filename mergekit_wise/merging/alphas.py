"""Mixing coefficients as people write them. Knows nothing of weights."""

from decimal import Decimal, InvalidOperation

from mergekit_wise.errors import UsageError

MOST = 1001
"""More alphas than this in one list are a slip of the pen."""


def check_alpha(alpha: float, given: str) -> float:
    """`alpha` itself, if it lies in [0, 1]; -0.0 becomes 0.0.

    Raises UsageError that says how it was `given`: the option and its value.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"{given}: expected an alpha from 0 (zero-shot) to 1 (fine-tuned), found {alpha:g}.")
    return alpha + 0.0


def parse_alphas(text: str) -> tuple[float, ...]:
    """Alphas from a list of numbers and ranges: ``0:1:0.1``, ``0,0.5,1``, ``0:0.4:0.2,0.5,1``.

    A range is start:stop:step and includes its end. Numbers are exact decimals, so that the fourth alpha of
    ``0:1:0.1`` is 0.3. Returns them sorted, each once. Raises UsageError.
    """
    alphas: set[float] = set()
    for part in text.split(","):
        alphas.update(check_alpha(float(value), f"--alphas {text}") for value in _expand(part.strip(), text))
        if len(alphas) > MOST:
            raise UsageError(f"--alphas {text}: more than {MOST} alphas. Take a larger step.")
    return tuple(sorted(alphas))


def _expand(part: str, text: str) -> list[Decimal]:
    numbers = [_number(piece, text) for piece in part.split(":")]
    if len(numbers) == 1:
        return numbers
    if len(numbers) != 3:
        raise UsageError(f"--alphas {text}: {part!r} is neither a number nor start:stop:step.")
    start, stop, step = numbers
    if step <= 0 or stop < start:
        raise UsageError(f"--alphas {text}: {part!r} needs start <= stop and a step above 0.")
    count = int((stop - start) / step) + 1
    if count > MOST:
        raise UsageError(f"--alphas {text}: {part!r} has more than {MOST} alphas.")
    return [start + index * step for index in range(count)]


def _number(piece: str, text: str) -> Decimal:
    try:
        number = Decimal(piece)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise UsageError(f"--alphas {text}: {piece!r} is not a number. Write for example 0:1:0.1 or 0,0.5,1.")
    return number
