"""Calibration in the terminal: numbers with their units, averages over shifts, and what is undefined."""

from mergekit_wise.report.calibration_tables import calibration_table, sweep_calibration, undefined
from mergekit_wise.results import Record


def record(dataset, role, alpha, **calibration):
    """A record with these calibration numbers."""
    values = {name.replace("_", "-"): value for name, value in calibration.items()}
    return Record("m", "w", alpha, "s", dataset, dataset.upper(), role, 1, 2, calibration=values)


RECORDS = (
    record("r", "reference", 0.0, ece=0.02, nll=0.5),
    record("a", "shift", 0.0, ece=0.1, nll=1.0),
    record("b", "shift", 0.0, ece=0.3),
    record("r", "reference", 1.0, ece=0.01, nll=0.25),
    record("a", "shift", 1.0, ece=0.2, nll=1.5),
    record("b", "shift", 1.0),
)


def test_a_sweep_shows_reference_and_average_of_the_shifts():
    """A row per alpha; an average is a dash where a shift lacks the number."""
    table = sweep_calibration(RECORDS)
    assert table.columns == ("alpha", "ECE ref.", "ECE shifts", "NLL ref.", "NLL shifts")
    assert table.rows == (("0", "2.0", "20.0", "0.5000", "-"), ("1", "1.0", "-", "0.2500", "-"))


def test_one_model_shows_every_data_set_and_what_is_undefined():
    """A row per data set and the average; a sentence names the data sets without numbers, or without NLL."""
    rows = calibration_table(RECORDS[:3]).rows
    assert rows[1][:3] == ("A", "10.0", "1.0000")
    assert rows[-1][:3] == ("Average of 2 shifts", "20.0", "-")
    assert "NLL and Brier score are undefined for B" in undefined(RECORDS[:3])
    assert "not known for B" in undefined(RECORDS)
    assert undefined(RECORDS[:2]) == ""
