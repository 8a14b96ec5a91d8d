"""What a sweep varies according to its options, what that rules out, and the names of the files of its mixtures."""

import re

from mergekit_wise.analysis.point import ALPHA, DEFAULT, Point
from mergekit_wise.errors import UsageError
from mergekit_wise.merging.parameters import Axis, grid, parse_axis
from mergekit_wise.merging.rules import check_alpha, parse_alphas
from mergekit_wise.options import SweepOptions

ALPHAS = "0:1:0.1"
"""The alphas of a sweep whose options name none and no other parameter."""


def swept_axes(options: SweepOptions) -> tuple[Axis, ...]:
    """The one or two parameters that the options vary. Raises UsageError, also for options that do not go together."""
    axes = tuple(map(parse_axis, options.sweep))
    names = [axis.name for axis in axes]
    if options.alphas is not None and ALPHA in names:
        raise UsageError("--alphas is short for --sweep alpha=...: both are given. Leave one out.")
    if options.alphas is not None or not axes:
        axes = (Axis(ALPHA, _alphas(options)), *axes)
    grid(axes)  # raises UsageError
    names = [axis.name for axis in axes]
    if options.alpha is not None and ALPHA in names:
        raise UsageError(
            f"--alpha {options.alpha:g}: alpha is swept. --alpha is for a --sweep of other parameters; leave it out, "
            "or list alphas with --alphas."
        )
    if names != [ALPHA]:
        what, are = " and ".join(names), "is" if len(names) == 1 else "are"
        if options.analyze or options.output_ensemble:
            option = "--analyze" if options.analyze else "--output-ensemble"
            raise UsageError(f"{option} compares mixtures along alpha alone, and {what} {are} swept. Leave one out.")
        if options.prefer == "no-regret":
            raise UsageError(
                f"--prefer no-regret compares with the fine-tuned model (alpha 1), and {what} {are} swept. Choose "
                "another preference, or sweep alpha alone."
            )
    if options.refine and len(axes) > 1:
        raise UsageError(f"--refine adds values of one parameter, and {' and '.join(names)} are swept. Leave one out.")
    if options.save is not None:
        output_of(options.save, grid(axes)[0])  # raises UsageError
    return axes


def fixed_alpha_of(options: SweepOptions) -> float:
    """The alpha of the tensors that no swept parameter and no other rule decides. Raises UsageError."""
    return DEFAULT if options.alpha is None else check_alpha(options.alpha, f"--alpha {options.alpha:g}")


def output_of(pattern: str, point: Point) -> str:
    """The path of a mixture: each value in place of its parameter's name, or of 1 or 2, in braces.

    Raises UsageError if the pattern lacks one, because mixtures would then have the same name.
    """
    path = pattern
    # Names are short, without the characters of patterns; a pattern's alpha is known by its number.
    places = [
        f"{{{name}}}" if re.fullmatch("[a-z-]+", name) else f"{{{number}}}"
        for number, name in enumerate(point.names, 1)
    ]
    for number, (place, (_, value)) in enumerate(zip(places, point.values, strict=True), 1):
        if place not in pattern and f"{{{number}}}" not in pattern:
            raise UsageError(
                f"--save {pattern}: expected a path with {place} in it, as in merged-{'-'.join(places)}.safetensors."
            )
        path = path.replace(place, f"{value:g}").replace(f"{{{number}}}", f"{value:g}")
    return path


def _alphas(options: SweepOptions) -> tuple[float, ...]:
    """The alphas that the options list, ascending, each once. Raises UsageError."""
    given = ALPHAS if options.alphas is None else options.alphas
    if isinstance(given, str):
        return parse_alphas(given)
    return tuple(sorted({check_alpha(alpha, f"--alphas {alpha:g}") for alpha in given}))
