"""Whether a configuration from a file can be true of the tensors beside it, before anything is built from it.

A few bytes can ask for ten million layers. Knows no torch and no file.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mergekit_wise.errors import ModelError
from mergekit_wise.wording import shown

Shapes = Mapping[str, tuple[int, ...]]

LARGEST = 8192
"""A number that every configuration may hold: pixels of an image, or a dimension of a small module."""


def require_plausible(section: Mapping[str, Any], shapes: Shapes, where: str) -> None:
    """Raise ModelError unless a tower's settings are bounded by its tensors.

    There cannot be more layers than tensors, nor a dimension that is larger than the largest of a tensor.
    """
    largest = max((size for shape in shapes.values() for size in shape), default=0)
    for name, number in _numbers(section):
        bound = len(shapes) if name == "layers" else max(largest, LARGEST)
        if not abs(number) <= bound:  # also false for NaN
            raise ModelError(
                f"{where}: the configuration asks for {shown(name)} = {number:g}, but its {len(shapes):,} tensors, of "
                f"which the largest dimension is {largest:,}, allow {bound:,} at most. Name another configuration with "
                "--model."
            )


def _numbers(section: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Every number in the settings, however deep, under the name of its setting; the layers of all stages together."""
    layers = section.get("layers")
    waiting: list[tuple[str, Any]] = [(name, value) for name, value in section.items() if name != "layers"]
    if isinstance(layers, list) and all(isinstance(stage, int) for stage in layers):
        yield "layers", float(min(sum(map(abs, layers)), 1 << 60))
    else:
        waiting.append(("layers", layers))
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(str(key), entry) for key, entry in value.items()]
        elif isinstance(value, list):
            waiting += [(name, entry) for entry in value]
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, float(max(min(value, 1 << 60), -(1 << 60)))
