"""Where a mixture lies in a sweep. Knows names and numbers only."""

from dataclasses import dataclass

ALPHA = "alpha"
TOLERANCE = "frozen-tolerance"
DEFAULT = 0.5
"""The paper's recommendation if nothing else is known (section 4)."""


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """The parameters that a sweep varies, in its order, with their values: ``(("alpha", 0.3),)``."""

    values: tuple[tuple[str, float], ...]

    @classmethod
    def of_alpha(cls, alpha: float) -> "Point":
        """A point of a sweep in which the mixing coefficient alone varies."""
        return cls(((ALPHA, alpha),))

    @property
    def alpha(self) -> float | None:
        """The mixing coefficient if it alone varies, else None."""
        return self.values[0][1] if self.names == (ALPHA,) else None

    @property
    def names(self) -> tuple[str, ...]:
        """What varies."""
        return tuple(name for name, _ in self.values)

    @property
    def numbers(self) -> tuple[float, ...]:
        """The values without their names."""
        return tuple(number for _, number in self.values)

    @property
    def is_default(self) -> bool:
        """Whether every value is an alpha of 0.5."""
        return TOLERANCE not in self.names and all(number == DEFAULT for number in self.numbers)

    @property
    def nearness(self) -> tuple[float, tuple[float, ...]]:
        """A key whose maximum is the point with alphas nearest to 0.5, of several equally near ones the smallest."""
        distance = sum(abs(number - DEFAULT) for name, number in self.values if name != TOLERANCE)
        return -round(distance, 9), tuple(-number for number in self.numbers)

    def __str__(self) -> str:
        return ", ".join(f"{name} {number:g}" for name, number in self.values)
