"""A sweep's choice in a results file: what is written is read back, and nothing else of the file changes."""

import json
import shlex

import pytest

from mergekit_wise.analysis import Choice, CrossFit, Difference, Estimate, Loss, Point, Recommendation
from mergekit_wise.errors import ResultsError
from mergekit_wise.results import (
    Record,
    append_records,
    as_entry,
    choice_of,
    is_new,
    read_choices,
    read_records,
    read_results,
)

HALF, ONE = Point.of_alpha(0.5), Point.of_alpha(1.0)
COMMAND = "wise merge 'my zs.pt' ft.pt --alpha 1 -o merged.safetensors"


def records():
    """Two alphas on a reference, its companion and a shift."""
    return [
        Record("zs + ft", f"{alpha}", alpha, "s", name, name.title(), role, 8, 10, data=name, pair="a+b")
        for alpha in (0.5, 1.0)
        for name, role in (("ref", "reference"), ("part", "companion"), ("shift", "shift"))
    ]


def made(**other) -> Choice:
    """A choice with every part, and a number that is not finite."""
    share, unknown = Estimate(0.8, 0.7, 0.9), Estimate(0.1, float("nan"), float("nan"))
    whole = {
        "prefer": "shifts",
        "select_on": "",
        "margin": 0.01,
        "recommendation": Recommendation(ONE, "best of all", "careful"),
        "losses": (Loss("Shift", ONE, share, share, 0.0, significant=False, difference=unknown),),
        "differences": (Difference("Shift", ONE, unknown, share, 0.25, significant=True),),
        "cross_fit": CrossFit("halves", 0.8, 0.7, (HALF, ONE)),
        "paired": True,
    }
    return Choice(**{**whole, **other})


def as_text(value) -> str:
    """JSON, in which NaN equals NaN."""
    return json.dumps(value, sort_keys=True)


def test_a_written_choice_is_read_back_by_both_readers(tmp_path):
    """Every part of it is the same, points and missing bounds included, and the records beside it are as before."""
    path, written = tmp_path / "r.jsonl", choice_of(records(), made(), COMMAND)
    append_records(path, [*records(), written])
    (strict,), lenient = read_choices(path), read_results([path])
    assert repr(strict) == repr(written)
    assert [each.source for each in lenient.choices] == ["r"]
    assert as_text(as_entry(lenient.choices[0])) == as_text(as_entry(written))
    assert read_records(path) == tuple(records())
    assert len(lenient.measurements) == len(records())
    assert lenient.notes == ()


def test_it_names_what_it_is_about():
    """The mixtures by their weights, the data sets by their digests, without the companions."""
    written = choice_of(records(), made(), COMMAND)
    assert [(each.point, each.weights) for each in written.mixtures] == [(HALF, "0.5"), (ONE, "1.0")]
    assert [(each.dataset, each.role, each.column, each.data) for each in written.sets] == [
        ("ref", "reference", "Ref", "ref"),
        ("shift", "shift", "Shift", "shift"),
    ]
    assert written.pair == "a+b"


def test_other_versions_lines_are_read(tmp_path):
    """Fields of later versions are ignored at every depth, and those with a default may be missing."""
    entry = as_entry(choice_of(records(), made(), COMMAND))
    entry["later"] = 1
    entry["choice"]["recommendation"]["later"] = {"x": []}
    del entry["choice"]["recommendation"]["warning"], entry["choice"]["losses"][0]["difference"]
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(entry) + "\n")
    (found,) = read_choices(path)
    assert found.choice.recommendation == Recommendation(ONE, "best of all")
    assert found.choice.losses[0].difference is None


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["mixtures"], []),
        (["mixtures", 0, "point"], [["alpha", 1e99]]),
        (["mixtures", 0, "point"], []),
        (["choice"], None),
        (["choice", "recommendation", "point"], 5),
        (["choice", "paired"], "yes"),
        (["choice", "margin"], 1e12),
        (["choice", "losses"], {}),
        (["sets", 0], [1]),
    ],
)
def test_a_damaged_line_is_refused_by_runs_and_left_out_by_reports(keys, value, tmp_path):
    """The strict reader names the line, and the lenient one notes it and reads the records."""
    entry = json.loads(json.dumps(as_entry(choice_of(records(), made(), COMMAND))))
    at = entry
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    path = tmp_path / "r.jsonl"
    append_records(path, records())
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")
    with pytest.raises(ResultsError, match="line 7"):
        read_choices(path)
    found = read_results([path])
    assert found.choices == ()
    assert len(found.notes) == 1
    assert "line 7 was skipped" in found.notes[0]


@pytest.mark.parametrize(
    ("line", "safe"),
    [
        (COMMAND, COMMAND),
        ("wise zeroshot B/x -o h.pt && wise merge h.pt ft.pt", "wise zeroshot B/x -o h.pt && wise merge h.pt ft.pt"),
        ("wise merge a b; rm -rf ~", "wise merge a 'b;' rm -rf '~'"),
        ("wise merge a $(rm b) `c` | d", "wise merge a '$(rm' 'b)' '`c`' '|' d"),
        ("wise merge a && rm b", ""),
        ("wise data fetch x", ""),
        ("rm -rf wise merge", ""),
        ("wise", ""),
        ("wise merge 'a", ""),
        ("", ""),
    ],
)
def test_a_file_cannot_smuggle_a_command_onto_the_page(line, safe, tmp_path):
    """Whatever a results file holds, a copied line calls wise merge, after wise zeroshot at most, with plain words."""
    path = tmp_path / "r.jsonl"
    append_records(path, [choice_of(records(), made(), line)])
    (found,) = read_choices(path)
    assert found.merge_command == safe
    for part in safe.split(" && ") if safe else ():
        assert shlex.split(part)[0] == "wise"


def test_only_a_new_choice_is_added():
    """A choice is new unless the last one of the same results says the same."""
    first, second = choice_of(records(), made()), choice_of(records(), made(prefer="both"))
    assert is_new(first, [])
    assert not is_new(first, [first])
    assert not is_new(first, [second, choice_of(records(), made())])
    assert is_new(first, [first, second])
