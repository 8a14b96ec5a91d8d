"""Tests of how messages name the values of a pickle."""

import pytest

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.checkpoint.pickle_machine import Global, Stub
from mergekit_wise.checkpoint.pickle_report import SEARCHED, with_call
from mergekit_wise.errors import CheckpointError

CALL = Stub(Stub(Global("os", "system"), ()), ())


@pytest.mark.parametrize("around", [lambda v: [None, v], lambda v: {"k": (v,)}, lambda v: {(1, v): None}])
def test_a_call_is_found_wherever_it_stands(around):
    """Calls are found in lists, dictionaries and their keys, and named by the innermost function."""
    assert with_call(around(CALL)) == " with os.system in it"
    assert with_call(around("os.system")) == ""


def test_the_search_for_a_call_ends():
    """The search ends after a fixed number of values."""
    assert with_call([*range(SEARCHED), CALL]) == " with os.system in it"
    assert with_call([*range(SEARCHED + 1), CALL]) == ""


def test_a_list_that_holds_itself_is_refused_like_any_other(tmp_path):
    """The search for a call ends in a list that contains itself."""
    (tmp_path / "x").write_bytes(b"\x80\x04]\x94h\x00a.")
    with pytest.raises(CheckpointError, match="it holds a list of 1 entry, not a state dict"):
        open_checkpoint(tmp_path / "x")
