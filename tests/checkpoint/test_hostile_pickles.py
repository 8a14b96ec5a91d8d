"""Pickles that run commands where they are executed, in every container: here none runs, and what it calls is named.

Each payload is a program that leaves one value on the stack. Executed, it makes the file CANARY.
"""

import io
import pickle
import struct
import subprocess
import sys
import zipfile

import pytest

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import CheckpointError

TOUCH = b"S'touch CANARY'\n"
OPEN = b"S\"open('CANARY', 'w')\"\n"
SYSTEM = b"cos\nsystem\n"
CALL = SYSTEM + b"(" + TOUCH + b"tR"

# name -> (program, what an error or note must name)
CALLS = {
    "os.system": (CALL, "os.system"),
    "posix.system": (b"cposix\nsystem\n(" + TOUCH + b"tR", "posix.system"),
    "eval": (b"cbuiltins\neval\n(" + OPEN + b"tR", "builtins.eval"),
    "eval of Python 2": (b"c__builtin__\neval\n(" + OPEN + b"tR", "__builtin__.eval"),
    "exec": (b"cbuiltins\nexec\n(" + OPEN + b"tR", "builtins.exec"),
    "getattr of an import": (
        b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(" + TOUCH + b"tR",
        "builtins.getattr",
    ),
    "subprocess.Popen": (b"csubprocess\nPopen\n((lp0\nS'touch'\naS'CANARY'\natR", "subprocess.Popen"),
    "a name from the stack": (b"\x8c\x02os\x8c\x06system\x93(" + TOUCH + b"tR", "os.system"),
    "INST": (b"(" + TOUCH + b"ios\nsystem\n", "os.system"),
    "OBJ": (b"(" + SYSTEM + TOUCH + b"o", "os.system"),
    "__setstate__": (
        b"cargparse\nNamespace\n)\x81}S'__setstate__'\n" + SYSTEM + b"sb" + TOUCH + b"b",
        "argparse.Namespace",
    ),
    "a partial": (b"cfunctools\npartial\n(" + SYSTEM + TOUCH + b"tR)R", "functools.partial"),
    "in a list": (b"](N" + CALL + b"e", "os.system"),
    "uses a key": (b"}" + CALL + b"Ns", "os.system"),
    "an ordered dictionary of calls": (b"ccollections\nOrderedDict\n(](S'w'\n" + CALL + b"tatR", "os.system"),
    "an ordered dictionary out of a call": (b"ccollections\nOrderedDict\n(" + CALL + b"tR", "os.system"),
    "a tensor on a call": (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + CALL + b"K\x00(K\x01t(K\x01t\x89NtR",
        "os.system",
    ),
    "a younger tensor on a call": (
        b"ctorch._utils\n_rebuild_tensor_v3\n(" + CALL + b"K\x00(K\x01t(K\x01t\x89NNctorch\nuint16\ntR",
        "os.system",
    ),
    "a parameter that is a call": (b"ctorch._utils\n_rebuild_parameter\n(" + CALL + b"\x89NtR", "os.system"),
    "a subclass that calls": (
        b"ctorch._tensor\n_rebuild_from_type_v2\n(" + SYSTEM + b"ctorch\nTensor\n(" + TOUCH + b"tNtR",
        "os.system",
    ),
    "a subclass out of a call": (
        b"ctorch._tensor\n_rebuild_from_type_v2\n(" + CALL + b"ctorch\nTensor\n(tNtR",
        "os.system",
    ),
    "a set out of a call": (b"c__builtin__\nset\n(" + CALL + b"tR", "os.system"),
}
# Executed, these need the network, an extension registry, or Python's leave.
OTHERS = {
    "torch.hub": (b"ctorch.hub\nload\n(S'evil/repository'\nS'model'\ntR", "torch.hub.load"),
    "NEWOBJ": (b"csubprocess\nPopen\n(" + TOUCH + b"t\x81", "subprocess.Popen"),
    "NEWOBJ_EX": (b"csubprocess\nPopen\n)}S'args'\n" + TOUCH + b"s\x92", "subprocess.Popen"),
    "EXT1": (b"\x82\x01(" + TOUCH + b"tR", "EXT1"),
    "EXT4": (b"\x84\x01\x00\x00\x00(" + TOUCH + b"tR", "EXT4"),
    "a persistent id": (CALL + b"Q", "os.system"),
}
PAYLOADS = {**CALLS, **OTHERS}

PERSISTENT = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nK\x04tQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(%sK\x00(K\x04t(K\x01t\x89NtR"
FOUR = struct.pack("<q4f", 4, 1, 2, 3, 4)


def stream(program: bytes, keys: tuple[str, ...] = ("0",)) -> bytes:
    """What torch.save wrote before 1.6, around a pickle."""
    numbers = (pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    return b"".join((*numbers, b"\x80\x02" + program + b".", pickle.dumps(list(keys), 2), FOUR if keys else b""))


def load_from_bytes(content: bytes) -> bytes:
    return b"ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<I", len(content)) + content + b"tR"


def zipped(program: bytes, keys: tuple[str, ...] = ("0",)) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + program + b".")
        for key in keys:
            archive.writestr(f"archive/data/{key}", FOUR[8:])
    return buffer.getvalue()


def plain(program: bytes, keys: tuple[str, ...] = ()) -> bytes:
    return b"\x80\x04" + program + b"."


# name -> (around a program, the storage of a sound tensor in it)
CONTAINERS = {
    "zip": (zipped, PERSISTENT),
    "before 1.6": (stream, PERSISTENT),
    "plain": (plain, load_from_bytes(stream(PERSISTENT))),
}
every_payload = pytest.mark.parametrize(("program", "called"), PAYLOADS.values(), ids=PAYLOADS.keys())
every_container = pytest.mark.parametrize(("around", "storage"), CONTAINERS.values(), ids=CONTAINERS.keys())


@pytest.fixture(autouse=True)
def _unharmed(tmp_path, monkeypatch):
    """No test of this file may make the canary."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "CANARY").exists()


def message_of(content: bytes, tmp_path) -> str:
    """What the user reads on opening the file; where it opens, the sound tensor is all there is in it."""
    (tmp_path / "x").write_bytes(content)
    try:
        checkpoint = open_checkpoint(tmp_path / "x")
    except CheckpointError as error:
        return str(error)
    assert list(checkpoint.tensors) == ["w"]
    assert checkpoint.read("w").tolist() == [1, 2, 3, 4]
    return " ".join(checkpoint.notes)


@every_container
@every_payload
def test_a_call_beside_weights_is_named(program, called, around, storage, tmp_path):
    """The weights are read and a note names the call, or the file is refused and the error names it."""
    text = message_of(around(b"}(S'w'\n" + TENSOR % storage + b"S'evil'\n" + program + b"u"), tmp_path)
    assert called in text


@every_container
@every_payload
def test_a_call_in_place_of_weights_is_refused_by_name(program, called, around, storage, tmp_path):
    """A file that holds nothing but a call is refused with the call's name."""
    (tmp_path / "x").write_bytes(around(program, ()))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "x")
    assert called in str(caught.value)


@every_container
def test_a_call_among_the_parameters_of_a_module_is_named(around, storage, tmp_path):
    """A call in place of a parameter or a submodule is named."""
    entries = b"}(S'w'\n" + TENSOR % storage + b"S'evil'\n" + CALL + b"u"
    program = b"cnet\nNet\n)\x81}(S'_parameters'\n" + entries + b"S'_modules'\n}S'part'\n" + CALL + b"sub"
    text = message_of(around(program), tmp_path)
    assert "evil (os.system), part (os.system)" in text


@every_container
def test_a_call_beside_nested_weights_is_named(around, storage, tmp_path):
    """A call in the dictionary around the state dict is listed before harmless entries."""
    harmless = b"".join(b"S'k%d'\nN" % i for i in range(20))
    program = b"}(S'state_dict'\n}S'w'\n" + TENSOR % storage + b"s" + harmless + b"S'evil'\n" + CALL + b"u"
    text = message_of(around(program), tmp_path)
    assert "ignoring evil (os.system), k0" in text
    assert "and 13 more" in text


# Where nothing looks at what a call gives: a program of an object whose tensor is sound, and where its call stands.
ASIDE = {
    "taken off the stack before the weights": CALL + b"0}S'w'\n%(tensor)ss",
    "in the memo alone": CALL + b"q\x070}S'w'\n%(tensor)ss",
    "named and never called": SYSTEM + b"0}S'w'\n%(tensor)ss",
    "an attribute of a dictionary": b"}S'w'\n%(tensor)ss}S'x'\n" + CALL + b"sb",
    "an attribute of a module": b"cnet\nNet\n)\x81}(S'x'\n" + CALL + b"S'_parameters'\n}S'w'\n%(tensor)ssub",
    "an item of an object": b"}S'w'\n%(tensor)ssccollections\ndeque\n)R" + CALL + b"a0",
    "a tensor's hooks": b"}S'w'\n%(hooked)ss",
}


@every_container
@pytest.mark.parametrize("program", ASIDE.values(), ids=ASIDE.keys())
def test_a_call_that_stands_aside_is_named(program, around, storage, tmp_path):
    """Calls whose result is dropped, as in attacks that want to go unnoticed, are named; the weights are read."""
    tensor = TENSOR % storage
    filled = program.replace(b"%(tensor)s", tensor).replace(b"%(hooked)s", tensor.removesuffix(b"NtR") + CALL + b"tR")
    assert "refers to os.system" in message_of(around(filled), tmp_path)


@every_container
def test_names_that_weights_may_have_are_not_remarked(around, storage, tmp_path):
    """Containers, modules and settings cause no note on suspicious names."""
    names = (b"collections\ndeque", b"net\nNet", b"argparse\nNamespace", b"builtins\ngetattr", b"pathlib\nPosixPath")
    aside = b"".join(b"c" + name + b"\n0" for name in names)
    assert message_of(around(aside + b"}S'w'\n" + TENSOR % storage + b"s"), tmp_path) == ""


@every_container
def test_a_note_on_calls_is_short(around, storage, tmp_path):
    """Each call is named once, and only the first few of many."""
    aside = b"".join(b"cos\nf%d\n0cos\nf%d\n0" % (n, n) for n in range(50))
    note = message_of(around(aside + b"}S'w'\n" + TENSOR % storage + b"s"), tmp_path)
    assert [note.count(f"os.f{n},") for n in range(10)] == [1] * 8 + [0] * 2


@every_payload
def test_a_call_in_a_nested_stream_is_refused_by_name(program, called, tmp_path):
    """A call in a byte string, which torch itself would load without restrictions, is refused."""
    nested = load_from_bytes(stream(program, ()))
    text = message_of(b"\x80\x04}S'w'\n" + TENSOR % nested + b"s.", tmp_path)
    assert called in text


@pytest.mark.parametrize("depth", [1, 2, 50])
@every_container
def test_streams_in_streams_are_not_followed(around, storage, depth, tmp_path):
    """Nested streams that torch itself would load are refused however deep the call lies."""
    program = CALL
    for _ in range(depth):
        program = load_from_bytes(stream(program, ()))
    text = message_of(around(b"}(S'w'\n" + TENSOR % storage + b"S'evil'\n" + program + b"u"), tmp_path)
    assert "torch.storage._load_from_bytes" in text or "os.system" in text


EXECUTE = """
import io, os, pickle, sys, time
class Unpickler(pickle.Unpickler):
    def persistent_load(self, key):
        return None
try:
    Unpickler(sys.stdin.buffer).load()
except Exception:
    pass
for _ in range(100):
    if os.path.exists("CANARY"):
        break
    time.sleep(0.05)
"""


@pytest.mark.parametrize("name", ["os.system", "eval", "getattr of an import", "INST", "__setstate__", "a partial"])
def test_python_itself_would_have_run_it(name, tmp_path):
    """Each payload works in Python itself; otherwise these tests would prove nothing."""
    program = b"\x80\x04" + CALLS[name][0] + b"."
    subprocess.run([sys.executable, "-c", EXECUTE], input=program, cwd=tmp_path, check=True)
    assert (tmp_path / "CANARY").exists()
    (tmp_path / "CANARY").unlink()


def test_torch_itself_would_have_run_what_is_nested(tmp_path):
    """A payload two streams deep works in torch itself; otherwise these tests would prove nothing."""
    program = b"\x80\x04" + load_from_bytes(stream(load_from_bytes(stream(CALL, ())), ())) + b"."
    subprocess.run([sys.executable, "-c", EXECUTE], input=program, cwd=tmp_path, check=True)
    assert (tmp_path / "CANARY").exists()
    (tmp_path / "CANARY").unlink()
