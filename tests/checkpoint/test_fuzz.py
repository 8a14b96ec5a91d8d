"""Damaged and hostile files: each is refused in the tool's own words or read soundly, soon and in little memory.

The fuzzer itself is tests/benchmarks/fuzz.py; it was run over more than 100,000 cases.
"""

import importlib.util
import io
import json
import pickle
import signal
import struct
import sys
import warnings
import zipfile
from pathlib import Path

import pytest

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import CheckpointError

pytest.importorskip("resource", reason="the fuzzer measures memory as POSIX systems do")


def benchmark(name):
    """A module that is kept out of the test run."""
    path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


cases, fuzz = benchmark("fuzz_cases"), benchmark("fuzz")


@pytest.fixture(scope="module")
def files():
    return cases.sound_files()


@pytest.fixture(autouse=True)
def _patience():
    """A hang becomes a failure."""

    def give_up(*_):
        raise fuzz.Hang

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 60)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_the_files_that_cases_are_made_of_are_sound(files, tmp_path):
    """All undamaged files open; otherwise the fuzzer would only ever see refusals."""
    for content in files.values():
        (tmp_path / "x").write_bytes(content)
        assert fuzz.outcome(tmp_path / "x") == "opened"


@pytest.mark.parametrize("start", range(0, 2000, 500))
def test_a_damaged_file_is_refused_or_read_soundly(start, files, tmp_path):
    """After one to four changes to a file of any format, no error but CheckpointError is raised."""
    outcomes = {fuzz.one(number, files, tmp_path / "x") for number in range(start, start + 500)}
    assert {result for _, result in outcomes} == {"opened", "refused"}


# Numbers of cases that failed before 0.1, found among the first 100,000 (with the files that torch 2.15 writes).
FORMERLY_FAILING = {
    "a tensor of 2^31 repeated elements": (17041, 18706, 65496, 95094),
    "hundreds of megabytes for one dictionary": (1511, 24545, 40596, 42342, 73665, 74510, 77349, 83500, 87617, 89587),
    "a name that is no Unicode": (2944, 3092, 5991, 6043, 11455, 11720),
    "control characters in a message": (1003, 2579, 2874, 3667, 3738, 3906),
    "control characters in a note": (1703, 20768, 48552, 49868, 58639, 64106),
    "a message of many screens": (737, 7600, 10984, 14972, 28073, 38960, 43723, 92041),
}


@pytest.mark.parametrize("numbers", FORMERLY_FAILING.values(), ids=FORMERLY_FAILING.keys())
def test_what_once_failed_does_so_no_more(numbers, files, tmp_path):
    """Every defect that the fuzzer has found stays fixed."""
    for number in numbers:
        assert fuzz.one(number, files, tmp_path / "x")[1] in ("opened", "refused")


def number(value: int) -> bytes:
    return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)


def tensor(shape=(4,), strides=(1,), offset=0) -> bytes:
    """Instructions for a view of storage 0, which has four floats."""
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQ"
        + number(offset)
        + b"".join((b"(", *map(number, shape), b"t(", *map(number, strides), b"t\x89NtR"))
    )


def array(shape) -> bytes:
    """Instructions for a NumPy array of 16 bytes, as protocol 2 has it."""
    dtype = b"cnumpy\ndtype\n(U\x02f4\x89\x88tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    content = b"c_codecs\nencode\n(X\x10\x00\x00\x00" + bytes(16) + b"U\x06latin1tR"
    start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    return start + b"".join((b"(K\x01(", *map(number, shape), b"t", dtype, b"\x89", content, b"tb"))


def archive(program: bytes, *more: tuple[str, bytes]) -> bytes:
    """What torch.save would write, around a pickle."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w") as new:
        for name, content in (("a/data.pkl", b"\x80\x02" + program + b"."), ("a/data/0", bytes(16)), *more):
            new.writestr(name, content)
    return buffer.getvalue()


def state(entry: bytes) -> bytes:
    """A state dict of one entry, `w`."""
    return archive(b"}U\x01w" + entry + b"s")


def header(shape, name="w", size=4, **more) -> bytes:
    text = json.dumps({name: {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}, **more}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


def modules(levels: int, name: bytes = b"U\x01a") -> bytes:
    """Modules in each other, each the child of the next under two names."""
    program = b"cm\nM\n)\x81}(U\x0b_parameters}U\x01w" + tensor() + b"sU\x08_modules}ub"
    for _ in range(levels):
        program += b"q\x010cm\nM\n)\x81}(U\x0b_parameters}U\x08_modules}(" + name + b"h\x01U\x01bh\x01uub"
    return archive(program)


def members_in_one_place() -> bytes:
    """A second entry of the directory that leads to the first one's bytes."""
    data = archive(b"N", ("a/data/1", bytes(16)))
    directory = data.index(b"PK\x01\x02")
    first, second = (data.index(name, directory) - 46 for name in (b"a/data/0", b"a/data/1"))
    return data[: second + 42] + data[first + 42 : first + 46] + data[second + 46 :]


def nested_stream(object_pickle: bytes, keys: list[str], storages: bytes) -> bytes:
    numbers = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join((*numbers, object_pickle, pickle.dumps(keys, 2), storages))


LEGACY_STORAGE = b"\x80\x02(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQ."
FOUR = struct.pack("<q", 4) + bytes(16)
COLLIDING = b"".join(b"\x8a\x0b" + (i * (2**61 - 1)).to_bytes(11, "little") + b"N" for i in range(1, 60_000))
LONG_LIST = b"(](" + b"".join(b"U\x05%05dN\x86" % i for i in range(50_000)) + b"etq\x010"

ATTACKS = {
    "a product of dimensions that takes hours": (header([10**18] * 300_000), "300,000 dimensions"),
    "a product of dimensions that overflows": (header([2**62, 4]), "more bytes than can be counted"),
    "an overflow beside an empty dimension": (header([2**62, 4, 0], size=0), "more bytes than can be counted"),
    "half a surrogate pair in a name": (header([1], "\ud800"), "not Unicode"),
    "half a surrogate pair in the metadata": (header([1], __metadata__={"k": "\ud800"}), "not Unicode"),
    "a name that steers the terminal": (header([1], "\x1b[2J"), "control characters"),
    "a name of a megabyte": (header([1], "n" * 2**20), "1,048,576 characters"),
    "wrappers around wrappers": (header([1], "module." * 5000), "35,000 characters"),
    "a size of ten thousand digits": (header([1]).replace(b"[1]", b"[" + b"9" * 10_000 + b"]"), "damaged|truncated"),
    "2^50 elements out of four": (state(tensor((2**50,), (0,))), "repeats the same elements"),
    "many tensors that repeat elements": (
        archive(b"}(" + b"".join(b"U\x01%c" % c + tensor((2**22,), (0,)) for c in b"abcdefgh") + b"u"),
        "repeats the same elements",
    ),
    "an offset beyond the storage": (state(tensor(offset=1)), "beyond its storage"),
    "a stride beyond the storage": (state(tensor((2, 2), (2**62, 1))), "beyond its storage"),
    "a stride of 80 bits": (state(tensor((4,), (2**70,))), "impossible shape or stride"),
    "a negative offset": (state(tensor(offset=-1)), "impossible shape or stride"),
    "71 dimensions": (state(tensor((2,) + (1,) * 70, (2,) + (5,) * 70)), "71 dimensions"),
    "a list that is copied again and again": (
        archive(b"ccollections\nOrderedDict\nq\x00" + LONG_LIST + b"h\x00h\x01R" * 10_000),
        "copies the same list",
    ),
    "a name twice in an ordered dictionary": (
        archive(b"ccollections\nOrderedDict\n(](U\x01aNtq\x00ah\x00atR"),
        "occurs twice",
    ),
    "keys that all collide": (archive(b"}(" + COLLIDING + b"u"), "without tensors"),
    "one long tuple as every key": (
        archive(b"}(" + b"N" * 200_000 + b"tq\x010" + b"h\x01Ns" * 100_000),
        "without tensors",
    ),
    "one long number as every key": (
        archive(b"}\x8b\x00\x00\x10\x00" + b"\x7f" * 2**20 + b"q\x010" + b"h\x01Ns" * 100_000),
        "without tensors",
    ),
    "a memo index of a thousand digits": (archive(b"Np" + b"9" * 1000 + b"\n"), "impossible memo index"),
    "a negative memo index": (archive(b"Np-1\n"), "impossible memo index"),
    "2^60 modules in three kilobytes": (modules(60), "more than 500,000 entries"),
    "modules in themselves": (modules(200), "nested too deeply|500,000 entries"),
    "modules under names of a megabyte": (modules(12, b"X\x00\x00\x10\x00" + b"n" * 2**20), "characters long"),
    "one name for two tensors": (
        archive(
            b"cm\nM\n)\x81}(U\x0b_parameters}(U\x03a.w" + tensor() + b"uU\x08_modules}U\x01a"
            b"cm\nM\n)\x81}U\x0b_parameters}U\x01w" + tensor() + b"ssbsub"
        ),
        "two of its tensors have the name 'a.w'",
    ),
    "a dictionary in itself": (archive(b"}q\x00U\x05modelh\x00s"), "without tensors"),
    "a call of a call, half a million times": (archive(b"cos\nsystem\n" + b")R" * 500_000), "holds a os.system"),
    "tensor subclasses in each other": (
        archive(
            b"ctorch._tensor\n_rebuild_from_type_v2\nq\x000)q\x010" + b"(h\x00Nh\x01tq\x010" * 10_000 + b"h\x00h\x01R"
        ),
        "recursion",
    ),
    "more sets than the size of the file explains": (archive(b"\x8f" * 1_500_000), "more objects than its size"),
    "tens of thousands of state dicts": (
        archive(b"](" + b"".join(b"}U\x01w" + tensor() + b"s" for _ in range(20_000)) + b"e"),
        "several of its entries hold weights",
    ),
    "an array of more elements than bytes": (state(array((2**40,))), "do not fit its shape"),
    "an array that overflows": (state(array((2**62, 4))), "more bytes than can be counted"),
    "an array of a hundred dimensions": (state(array((1,) * 100)), "a dtype or byte order that is not read"),
    "an array with half a character": (
        state(array((4,)).replace(b"X\x10\x00\x00\x00" + bytes(16), b"X\x03\x00\x00\x00\xed\xa0\x80")),
        "latin-1",
    ),
    "tensors of devices in each other": (
        state(b"ctorch._utils\n_rebuild_xla_tensor\nq\x000N" + b"q\x01h\x00h\x01ctorch\nfloat32\n\x86R" * 20_000),
        "save it with .cpu",
    ),
    "a sparse tensor of calls": (
        state(b"ctorch._utils\n_rebuild_sparse_tensor\n(cos\nsystem\n)RtR"),
        "to_dense",
    ),
    "a negative view of texts": (
        state(tensor().removesuffix(b"tR") + b"}(U\x03negU\x01xU\x03abcNutR"),
        "metadata other than torch's",
    ),
    "a line without an end": (archive(b"c" + b"a" * 2**24), "ends in the middle"),
    "a mark for a value": (archive(b"("), "mark as a value"),
    "members that overlap": (members_in_one_place(), "overlap in the archive"),
    "a member under two names": (archive(b"N", ("a/data/0", b"x")), "occurs twice in the archive"),
    "an encrypted member": (
        (good := state(tensor()))[: (at := good.index(b"PK\x01\x02")) + 8] + b"\x01" + good[at + 9 :],
        "is encrypted",
    ),
    "a storage twice in its list": (
        nested_stream(b"\x80\x02}U\x01w" + tensor() + b"s.", ["0", "0"], FOUR + FOUR),
        "occurs twice in its list",
    ),
    "a storage of 2^62 elements": (
        nested_stream(b"\x80\x02}U\x01w" + tensor() + b"s.", ["0"], struct.pack("<q", 2**62)),
        "beyond the end",
    ),
}


@pytest.mark.parametrize(("content", "message"), ATTACKS.values(), ids=ATTACKS.keys())
def test_an_attack_is_refused_in_its_own_words(content, message, tmp_path):
    """Small files that describe something huge, endless or impossible are refused for that reason."""
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(tmp_path / "x")
    fuzz.check_words(str(caught.value))


def test_the_stride_of_a_single_element_is_never_walked(tmp_path):
    """Torch leaves any stride there, which would overflow NumPy's strides in bytes."""
    (tmp_path / "x").write_bytes(state(tensor((2, 1), (3, 2**62))))
    assert fuzz.outcome(tmp_path / "x") == "opened"


def test_a_nested_stream_is_read_once(tmp_path):
    """A byte string of 300,000 instructions that a pickle loads 20,000 times is read a single time."""
    inner = nested_stream(b"\x80\x02" + b"]0" * 150_000 + LEGACY_STORAGE[2:], ["0"], FOUR)
    blob = b"B" + struct.pack("<I", len(inner)) + inner + b"\x85q\x01"
    call = b"ctorch.storage\n_load_from_bytes\nq\x00" + blob + b"h\x00h\x01R0" * 20_000 + b"00}."
    (tmp_path / "x").write_bytes(b"\x80\x04" + call)
    with pytest.raises(CheckpointError, match=r"without tensors \(empty\)"):
        open_checkpoint(tmp_path / "x")


def test_a_note_names_keys_without_walking_into_them(tmp_path):
    """A key that nests 2^60 stubs is named by the outermost one."""
    twice = b"cos\nsystem\n)R" + b"q\x010cos\nsystem\nh\x01h\x01\x86R" * 60
    (tmp_path / "x").write_bytes(archive(b"}(U\x01w" + tensor() + twice + b"Nu"))
    assert open_checkpoint(tmp_path / "x").notes == ("ignored entries that are no tensors: os.system",)
