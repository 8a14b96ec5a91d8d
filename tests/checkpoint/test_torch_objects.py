"""Tests of calls of torch's own functions with arguments that torch would never write."""

import pytest

from mergekit_wise.checkpoint.pickle_machine import PickleError
from mergekit_wise.checkpoint.torch_objects import TensorView, reduce, storage_of
from mergekit_wise.checkpoint.unpickle import load

STORAGE = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQ"
V3 = b"ctorch._utils\n_rebuild_tensor_v3\n("
REFUSED = {
    "no storage": (V3 + b"NK\x00(K\x04t(K\x01t\x89Nctorch\nuint16\ntR.", "described in an unknown way"),
    "a dtype as text": (V3 + STORAGE + b"K\x00(K\x04t(K\x01t\x89NU\x06uint16tR.", "described in an unknown way"),
    "metadata of its own": (
        V3 + STORAGE + b"K\x00(K\x02t(K\x01t\x89Nctorch\nuint16\n}U\x03oddK\x01stR.",
        "metadata other than torch's",
    ),
    "a parameter of nothing": (b"ctorch._utils\n_rebuild_parameter\n)R.", "a parameter holds no tensor"),
    "a subclass of nothing": (b"ctorch._tensor\n_rebuild_from_type_v2\n)R.", "a tensor subclass is described"),
}


def read(data):
    return load(memoryview(data), reduce, storage_of)[0]


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_call_of_torch_that_torch_does_not_make_is_refused(data, message):
    """Each is refused with what is wrong with it."""
    with pytest.raises(PickleError, match=message):
        read(data)


def test_the_same_call_as_torch_makes_it_is_a_tensor():
    """The call with torch's own arguments gives a tensor; otherwise the refusals would prove nothing."""
    tensor = read(V3 + STORAGE + b"K\x00(K\x02K\x02t(K\x02K\x01t\x89Nctorch\nuint16\ntR.")
    assert isinstance(tensor, TensorView)
    assert (str(tensor.dtype), tensor.shape, tensor.strides) == ("uint16", (2, 2), (2, 1))
