"""What an alpha for each image achieves in a column of a report. Knows findings only."""

from mergekit_wise.report.comparison import Column, Curve


def per_image_level(curve: Curve, column: Column) -> float | None:
    """The result of the mixtures that images share, in [0, 1]; None if it is not known for all parts of the column."""
    found = [(curve.findings.get(name), weight) for name, weight in column.parts.items()]
    shared = [
        (weight, [value for clusters, value in finding.per_image.items() if clusters is not None])
        for finding, weight in found
        if finding is not None
    ]
    if len(shared) < len(found) or not all(values for _, values in shared):
        return None
    return sum(weight * values[-1] for weight, values in shared)
