"""The table of an evaluation: numbers with their intervals and counts, and the averages."""

from dataclasses import replace

from rich.cells import cell_len

from mergekit_wise.analysis.corruption_error import ALEXNET_ERRORS
from mergekit_wise.report.calibration_tables import sweep_calibration
from mergekit_wise.report.terminal_tables import accuracy_table, sweep_table, sweep_title
from mergekit_wise.results import Record, to_candidates

REFERENCE = Record("m", "w", None, "s", "imagenet", "ImageNet", "reference", 38000, 50000, top5=47000)
SHIFT = replace(REFERENCE, title="ImageNet-Sketch", role="shift", correct=25000, total=50889, value=0.25)
FMOW = replace(
    SHIFT, title="FMoW, out of distribution", metric="worst-group", value=0.5, interval=(0.25, 0.75), top5=None
)


def test_every_row_has_its_interval_and_counts():
    """Rows show the reported number with its interval, and name a metric other than top-1."""
    table = accuracy_table([REFERENCE, SHIFT, FMOW])
    assert table.rows[0] == ("ImageNet", "76.0", "75.6 - 76.4", "38000/50000", "94.0")
    assert table.rows[2] == ("FMoW, out of distribution (worst-group)", "50.0", "25.0 - 75.0", "25000/50889", "")


def test_the_average_says_over_how_many_sets_it_is():
    """The average is over what the shifts report, without the reference, and says how many they are."""
    assert accuracy_table([REFERENCE, SHIFT, FMOW]).rows[3][:2] == ("Average of 2 shifts", "37.5")
    assert accuracy_table([REFERENCE, SHIFT, FMOW], 2).rows[3][0] == "Average of 2 shifts, 2 sets missing"
    assert len(accuracy_table([REFERENCE, SHIFT]).rows) == 2


def test_it_fits_into_80_columns():
    """The table fits even with the longest titles of the built-in suites."""
    table = accuracy_table([REFERENCE, SHIFT, FMOW], 2)
    widths = [max(cell_len(row[column]) for row in table.rows) for column in range(5)]
    assert sum(widths) + len(widths) - 1 <= 80


def test_a_complete_imagenet_c_has_a_mean_corruption_error():
    """A model with AlexNet's errors has an mCE of 100, and there is none if a severity is missing."""
    records = [
        Record(
            "m", "w", None, "imagenet-c", f"imagenet-c-{name}-{severity}", "T", "shift", round(1e6 * (1 - error)), 10**6
        )
        for name, error in ALEXNET_ERRORS.items()
        for severity in range(1, 6)
    ]
    rows = {row[0]: row[1] for row in accuracy_table(records).rows}
    assert rows["Mean corruption error (AlexNet 100)"] == "100.0"
    assert "Mean corruption error (AlexNet 100)" not in {row[0] for row in accuracy_table(records[1:]).rows}


def test_imagenet_9_has_the_background_gap():
    """It is the accuracy with backgrounds of the same class less that with random ones, if both were measured."""
    names = ("imagenet-9-mixed-same", "imagenet-9-mixed-rand")
    same, random = (replace(SHIFT, dataset=name, correct=c, total=10) for name, c in zip(names, (8, 5), strict=True))
    rows = {row[0]: row[1] for row in accuracy_table([same, random]).rows}
    assert rows["Background gap (mixed same - mixed rand)"] == "30.0"
    assert not [row for row in accuracy_table([same]).rows if "gap" in row[0]]


def test_two_data_sets_with_one_title_have_two_columns():
    """Titles may be the same, as of two TOML files; data sets are distinguished by their names."""
    made = [
        replace(SHIFT, alpha=alpha, dataset=name, title="Birds", correct=correct, total=100, value=correct / 100)
        for alpha in (0.0, 0.5)
        for name, correct in (("north", 20), ("south", 80))
    ]
    candidates = to_candidates(made)
    assert candidates[0].names[1:] == ("Birds (north)", "Birds (south)")
    table = sweep_table(candidates, made, 0.5)
    assert table.columns == ("alpha", "Birds (north)", "Birds (south)", "Avg shifts")
    assert table.rows[0] == ("0", "20.0", "80.0", "50.0")


def test_the_best_of_each_column_is_marked():
    """In a sweep the largest result of each column is the best, however it is rounded; equal columns have no best."""
    made = [
        replace(REFERENCE, alpha=alpha, dataset=name, title=name, role=role, correct=correct, value=correct / 50000)
        for alpha, counts in ((0.0, (38000, 500)), (0.5, (38002, 500)), (1.0, (38001, 500)))
        for name, role, correct in zip(("ref", "shift"), ("reference", "shift"), counts, strict=True)
    ]
    table = sweep_table(to_candidates(made), made, 0.0)
    assert [row[1] for row in table.rows] == ["76.0"] * 3
    assert [[cell.best for cell in row.cells] for row in table.body] == [
        [False, False, False, False],
        [False, True, False, True],
        [False, False, False, False],
    ]


def test_the_lowest_calibration_error_is_the_best():
    """Of ECE and NLL the smallest number is marked."""
    made = [
        replace(REFERENCE, alpha=alpha, calibration={"ece": ece, "nll": nll})
        for alpha, ece, nll in ((0.0, 0.1, 2.0), (1.0, 0.2, 1.0))
    ]
    assert [[cell.best for cell in row.cells] for row in sweep_calibration(made).body] == [
        [False, True, False],
        [False, False, True],
    ]


def test_the_title_of_a_sweep_names_other_metrics_than_accuracy():
    """A worst group is not called an accuracy; each data set is named once, however many alphas there are."""
    assert sweep_title([REFERENCE, SHIFT], "s") == "Accuracy on s (%)"
    assert sweep_title([REFERENCE, FMOW, FMOW], "s") == "Results on s (%; FMoW, out of distribution: worst-group)"
