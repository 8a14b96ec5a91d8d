"""Tests of the structural unpickler against Python's own, and with streams that Python's own should not be given."""

import collections
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergekit_wise.checkpoint.pickle_machine import Blob, Global, OpaqueKey, PickleError, Stub
from mergekit_wise.checkpoint.torch_objects import reduce, storage_of
from mergekit_wise.checkpoint.unpickle import load

KEYS = st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False) | st.text()
ATOMS = KEYS | st.integers()


def nested(atoms):
    return st.recursive(
        atoms,
        lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.tuples(inner, inner),
        max_leaves=20,
    )


def read(data: bytes) -> object:
    return load(memoryview(data), reduce, storage_of)[0]


@given(nested(ATOMS), st.integers(0, 5))
def test_plain_data_is_read_as_python_reads_it(value, protocol):
    """Any nesting of plain values is read in every pickle protocol."""
    assert read(pickle.dumps(value, protocol)) == value


@given(nested(ATOMS | st.binary() | st.frozensets(KEYS)), st.integers(4, 5))
def test_bytes_and_sets_are_read_as_python_reads_them(value, protocol):
    """Bytes and sets are read in the protocols that have instructions for them."""
    assert read(pickle.dumps(value, protocol)) == value


@given(st.binary(max_size=200))
def test_bytes_at_random_give_a_value_or_a_pickle_error(data):
    """Random bytes give a value or a PickleError, and no other exception."""
    try:
        read(data)
    except PickleError:
        pass


def test_mutated_streams_give_a_value_or_a_pickle_error():
    """Ten thousand pickles with a few changed bytes raise no other error."""
    rng = random.Random(0)
    good = pickle.dumps({"a": [1, (2.5, "x" * 300)], "b": {None: b"y" * 100}, "c": collections.OrderedDict(z=1)})
    for _ in range(10_000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            read(bytes(data))
        except PickleError:
            pass


HOSTILE = {
    "os.system": b"cos\nsystem\n(S'touch /tmp/x'\ntR.",
    "eval": b"c__builtin__\neval\n(S'1/0'\ntR.",
    "stacked name": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
    "instance": b"(S'id'\nios\nsystem\n.",
    "object": b"(cos\nsystem\nS'id'\no.",
    "newobj": b"\x80\x02csubprocess\nPopen\nU\x02id\x85\x81.",
    "getattr chain": b"cbuiltins\ngetattr\n(cos\npath\nS'os'\ntR.",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_call_becomes_an_inert_stub(data):
    """Every way to call something gives a stub with the name and the arguments."""
    value = read(data)
    assert isinstance(value, Stub)
    assert isinstance(value.kind, Global)


REFUSED = {
    "ends early": b"\x80\x02K",
    "extension registry": b"\x82\x01.",
    "huge string": b"X\xff\xff\xff\x7fabc.",
    "huge bytes": b"\x8e" + b"\xff" * 8 + b".",
    "unknown memo": b"h\x07.",
    "mark as value": b"(a.",
    "empty stack": b".",
    "list as a key": b"}]K\x01s.",
    "a number as a list": b"K\x01K\x02a.",
    "persistent id that is no storage": b"U\x01aQ.",
    "negative storage": b"((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuJ\xff\xff\xff\xfftQ.",
    "unknown storage": b"(U\x07storagectorch\nOtherStorage\nU\x010U\x03cpuK\x01tQ.",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_a_stream_that_makes_no_sense_is_refused(data):
    """A PickleError is raised at once, without the memory that the stream asks for."""
    with pytest.raises(PickleError):
        read(data)


def test_deep_nesting_neither_overflows_nor_hangs():
    """A million nested tuples are read, and as a key they are never hashed."""
    deep = b")" + b"\x85" * 1_000_000
    read(deep + b".")
    ((key, value),) = read(b"}" + deep + b"K\x01s.").items()
    assert isinstance(key, OpaqueKey)
    assert value == 1


def test_the_number_of_instructions_is_limited(monkeypatch):
    """A pickle of more instructions than any file needs is refused."""
    monkeypatch.setattr("mergekit_wise.checkpoint.unpickle.MAX_INSTRUCTIONS", 1000)
    with pytest.raises(PickleError, match="more than 1,000 instructions"):
        read(b"N0" * 1000 + b"N.")


CROWDS = {
    "sets": b"\x8f",
    "frozen sets": b"(\x91",
    "lists": b"]",
    "dictionaries": b"}",
    "tuples": b"\x85",
    "the memo": b"\x94",
}


@pytest.mark.parametrize("instructions", CROWDS.values(), ids=CROWDS.keys())
def test_a_crowd_of_objects_out_of_a_few_bytes_is_refused(instructions, monkeypatch):
    """What each byte of a pickle may build is limited, so that memory is bounded by the size of the file."""
    monkeypatch.setattr("mergekit_wise.checkpoint.pickle_machine.SPARE_BYTES", 1 << 12)
    with pytest.raises(PickleError, match="more objects than its size explains"):
        read(b"cos\nx\n\x94" + instructions * 10_000 + b".")


def test_long_bytes_are_views_of_the_stream():
    """A long byte string is not copied, so nested checkpoints of gigabytes cost nothing."""
    blob = read(pickle.dumps(b"x" * 1000))
    assert isinstance(blob, Blob)
    assert bytes(blob.view) == b"x" * 1000
