"""Tasks that are parts of one: a listener hears of both."""

from mergekit_wise.progress import Whole


def heard(sizes, reports):
    calls = []
    whole = Whole(lambda *call: calls.append(call))
    whole.begin("all", sizes, "images")
    for report in reports:
        whole(*report, "images")
    return calls


def test_parts_add_up_to_the_whole():
    """After each part's report the whole is reported, and it ends with the last part."""
    calls = heard({"one": 10, "two": 30}, [("one", 5, 10), ("one", 10, 10), ("two", 15, 30), ("two", 30, 30)])
    assert [call for call in calls if call[0] == "all"] == [("all", done, 40, "images") for done in (0, 5, 10, 25, 40)]
    assert [call[:2] for call in calls if call[0] != "all"] == [("one", 5), ("one", 10), ("two", 15), ("two", 30)]
    assert calls[-1][0] == "all"


def test_a_share_of_a_part_counts_as_its_share():
    """One of several processes reports on its own images; the whole is counted in those of all."""
    calls = heard({"one": 100, "two": 100}, [("one", 5, 10)])
    assert calls[-1] == ("all", 50, 200, "images")


def test_other_tasks_are_passed_on():
    """A task that is no part is reported as it is, and a part that is reported again counts once."""
    calls = heard({"one": 10, "two": 10}, [("heads", 1, 2), ("one", 10, 10), ("one", 10, 10)])
    whole = [call for call in calls if call[0] == "all"]
    assert ("heads", 1, 2, "images") in calls
    assert whole == [("all", 0, 20, "images"), ("all", 10, 20, "images")]


def test_one_part_alone_is_the_whole():
    """With a single part nothing else is reported."""
    assert heard({"one": 10}, [("one", 5, 10)]) == [("one", 5, 10, "images")]
