"""What an evaluator printed or returned, good and hostile."""

import json

import numpy as np
import pytest
import torch

from mergekit_wise.errors import SuiteError
from mergekit_wise.evaluation.own_evaluator import TaskResult
from mergekit_wise.evaluation.printed_json import last_object
from mergekit_wise.evaluation.task_results import MOST_ITEMS, MOST_SETS, parse_results, require_same


def parsed(value):
    return parse_results(value, "it", "task")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"correct": 3, "total": 4}, ("task", "accuracy", None, 3, 4, None)),
        ({"correct": np.int64(0), "total": torch.tensor(4)}, ("task", "accuracy", None, 0, 4, None)),
        ({"score": 0.25, "metric": "mIoU"}, ("task", "mIoU", None, None, None, 0.25)),
        (0.25, ("task", "score", None, None, None, 0.25)),
        ({"items": [0, 1, 0.5]}, ("task", "score", [0, 1, 0.5], None, None, None)),
        ({"items": np.array([True, False]), "score": 0.5}, ("task", "score", [1, 0], None, None, None)),
        (
            {"items": torch.tensor([0.5, 1], dtype=torch.bfloat16, requires_grad=True)},
            ("task", "score", [0.5, 1], None, None, None),
        ),
        ({"items": torch.tensor([0.5])}, ("task", "score", [0.5], None, None, None)),
        ({"items": [0.1, 0.2], "score": 0.152}, ("task", "score", [0.1, 0.2], None, None, None)),
        ([TaskResult("d", "m", score=1)], ("d", "m", None, None, None, 1.0)),
    ],
)
def test_every_form_of_a_result_is_understood(value, expected):
    """Counts, scores and items are read as plain numbers and as those of NumPy and torch."""
    (result,) = parsed(value)
    items = None if result.items is None else result.items.tolist()
    assert (result.dataset, result.metric, items, result.correct, result.total, result.score) == expected


def test_several_data_sets_keep_their_names_titles_and_values():
    """An object of objects is a result for each name."""
    found = parsed({"val": {"score": 1, "title": "Validation", "values": {"recall@5": 0.5}}, "night": {"score": 0}})
    assert [(each.dataset, each.title, each.score, each.values) for each in found] == [
        ("val", "Validation", 1.0, {"recall@5": 0.5}),
        ("night", "night", 0.0, {}),
    ]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "expected a result such as"),
        ([], "expected a result such as"),
        (None, "expected a result such as"),
        ("0.4", "expected a result such as"),
        (float("nan"), "expected a result such as"),
        ({"metric": "mIoU"}, "expected a result such as"),
        ({"score": 43.2}, "divide a percentage by 100"),
        ({"score": -0.1}, "exp(-loss)"),
        ({"score": float("inf")}, "no number"),
        ({"score": True}, "expected a number in [0, 1]"),
        ({"score": 10**400}, "a huge number"),
        ({"loss": 0.3}, "'loss' is no part of a result"),
        ({"correct": 3}, "expected a whole number"),
        ({"correct": 5, "total": 4}, "5 correct of 4 is no share"),
        ({"correct": 0, "total": 0}, "no share"),
        ({"correct": 0.5, "total": 4}, "expected a whole number"),
        ({"correct": -1, "total": 4}, "expected a whole number"),
        ({"correct": 1, "total": 4, "score": 0.25}, "Give one of them"),
        ({"items": []}, "has 0 entries"),
        ({"items": "0101"}, "expected a list of numbers"),
        ({"items": [0.1, "a"]}, "not all numbers"),
        ({"items": [0.1, None]}, "not all numbers"),
        ({"items": [[0.1], [0.2]]}, "2 dimensions"),
        ({"items": [[0.1], [0.2, 0.3]]}, "no list of numbers"),
        ({"items": [0.1, float("nan")]}, "item 1 has the score nan"),
        ({"items": [0.1, 1.5]}, "item 1 has the score 1.5"),
        ({"items": [0.1, 10**30]}, "not all numbers"),
        ({"items": np.zeros(MOST_ITEMS + 1)}, "expected from 1 to"),
        ({"items": [0.0, 1.0], "score": 0.9}, "is not the mean of its 2 items"),
        ({"score": 0.5, "values": [1]}, "expected numbers in [0, 1] by their names"),
        ({"score": 0.5, "values": {"ap": 43}}, "ap in values is 43"),
        ({"score": 0.5, "metric": "x" * 1000}, "at most 200 characters"),
        ({"score": 0.5, "metric": "a\x1b[31m"}, "expected a text"),
        ({"score": 0.5, "title": 3}, "expected a text"),
        ({"": {"score": 1}}, "empty name"),
        ({str(number): {"score": 1} for number in range(MOST_SETS + 1)}, "at most 1,000"),
        ([TaskResult("d", "m", score=1), TaskResult("d", "m", score=1)], "twice"),
        ([TaskResult("d", "m")], "found 0"),
        ([TaskResult("d", "m", items=np.ones(2), score=1)], "found 2"),
        ({"score": 1, "values": {"a": 0.1, " a": 0.2}}, "a twice"),
        ({"score": 1, "values": {"": 0.1}}, "without a name"),
    ],
)
def test_what_is_no_result_is_refused_with_a_short_sentence(value, words):
    """The message says what was found and what was expected, however large the value is."""
    with pytest.raises(SuiteError) as caught:
        parsed(value)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"val": {"items": [1, 0]}}, "reported val for one model and val, night for another"),
        ({"val": {"items": [1, 0, 1]}, "night": {"score": 1}}, "3 items for one mixture and 2 for another"),
        ({"val": {"items": [1, 0], "metric": "AP"}, "night": {"score": 1}}, "the metric is AP, and was score"),
    ],
)
def test_every_model_must_be_scored_on_the_same_items(now, words):
    """Another data set, metric or number of items than for an earlier model is refused."""
    before = {"val": ("score", 2), "night": ("score", 1)}
    with pytest.raises(SuiteError, match=words):
        require_same(parsed(now), before, "it")
    require_same(parsed({"val": {"items": [0, 0]}, "night": {"score": 0}}), before, "it")
    require_same(parsed(now), {}, "it")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"score": 1}', {"score": 1}),
        ('loading\n{"step": 1}\n{"score": 1}\n\n', {"score": 1}),
        ('{"score": 1}\r\nGoodbye!\r\n', {"score": 1}),
        (json.dumps({"val": {"items": [0, 1]}}, indent=2) + "\nend", {"val": {"items": [0, 1]}}),
        ('{"score": 1}\n{not json}\n{"a": 1} text after it', {"score": 1}),
        ("{'loss': 0.3}", None),
        ("[1, 2]\n0.5", None),
        ("", None),
        ('  {"score": 1}', None),
        ("{\n" * 5000, None),
        ("\xff\x00{" * 10, None),
        ('\xef\xbb\xbf{"score": 1}\r\n', {"score": 1}),
        ('{"step": 1}\n 10%\r 100%\r{"score": 1}\n', {"score": 1}),
        (
            json.dumps({"val": {"items": [0, 1]}, "night": {"score": 1}}, indent=0),
            {"val": {"items": [0, 1]}, "night": {"score": 1}},
        ),
        ('{"val":\n{"score": 0},\n"night":\n{"score": 1}\n}', {"val": {"score": 0}, "night": {"score": 1}}),
        ('[\n{"score": 0},\n{"score": 1}\n]', None),
        ('{"a": "}"}\n[\n1]\n[2] {"b": 1}\n[ 3', {"a": "}"}),
    ],
)
def test_the_last_object_of_an_output_is_found(text, expected):
    """Whatever is printed before and after it is passed over; an object may take several lines."""
    assert last_object(text.encode("latin-1")) == expected


def test_ten_megabytes_of_output_before_the_result_are_passed_over():
    """Braces that begin no JSON are tried a bounded number of times."""
    noise = "{ step 1: loss 0.5\n" * 500_000
    assert last_object(f'{noise}{{"score": 0.5}}\n'.encode()) == {"score": 0.5}
    assert last_object(noise.encode()) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"items": [NaN]}', "NaN"),
        ('{"score": ' + "9" * 5000 + "}", "digits"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"items": [' + "[],[]," * 300_000 + "0]}", "more lists and objects"),
        ("{\"score\": 0.1}\n{'score': 0.8}\n", "no JSON: {'score': 0.8}"),
        ('{"score": 0.1}\n{"score": 0.8,}', "no JSON"),
        ('{"score": 0.1}\n{"score": 0.8', "no JSON"),
        ('{"val": {"score": 1}}\n{"night": {"score": 0}}', "results of val are in an object before the last"),
    ],
)
def test_json_that_cannot_be_a_result_is_refused_with_the_reason(text, reason):
    """It is not taken for text that is no JSON, which would hide what is wrong."""
    with pytest.raises(ValueError, match=reason):
        last_object(text.encode())
