"""The example of images without labels chooses by estimates, and compares them with labels afterwards."""

import pytest

from tests.examples.conftest import run_in

pytestmark = pytest.mark.xdist_group("two_cameras")


def test_the_choice_rests_on_estimates_and_its_loss_on_labels(two_cameras):
    """The sweep sees photos without classes; estimates, back-test and loss are printed as the report has them."""
    ran = run_in(two_cameras.folder, "without_labels.py")
    report, measured = ran.found["report"], ran.found["measured"]
    (estimated,) = report.without_labels.sets
    assert (estimated.dataset, estimated.images, estimated.accuracy) == ("photos", 400, None)
    assert report.choice.prefer == "estimated"
    assert {record.dataset for record in report.records} == {"camera_a", "imitation"}
    assert [trial.method for trial in report.without_labels.trials] == [
        "ATC",
        "DoC",
        "AC",
        "lowest entropy",
        "always 0.5",
    ]
    loss = max(measured.values()) - measured[report.recommendation.alpha]
    assert f"chosen alpha {report.recommendation.alpha:g} loses {100 * loss:.1f} points" in ran.printed
    assert len(measured) == len(report.candidates) == 11
