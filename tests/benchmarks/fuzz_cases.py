"""Cases for the fuzzer: sound files of every kind, and what is done to them. Knows nothing of the tool.

A case is a function of its number alone, given the same version of torch, which writes the sound files.
"""

import io
import json
import pickle
import pickletools
import random
import struct
import warnings
import zipfile
from collections.abc import Callable

import torch
from safetensors.torch import save
from torch import nn

NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
SNIPPETS = (
    b"(",
    b"0",
    b"1",
    b"2",
    b"N",
    b"}",
    b"]",
    b"\x8f",
    b")",
    b"R",
    b"b",
    b"\x81",
    b"Q",
    b"h\x00",
    b"h\x05",
    b"j\xff\xff\xff\xff",
    b"\x94",
    b"\x82\x01",
    b"cos\nsystem\n(S'true'\ntR",
    b"\x8a\x09" + b"\xff" * 8 + b"\x00",
    b"\x8b\xff\xff\xff\x7f",
    b"X\xff\xff\xff\xff",
    b"\x8d" + b"\xff" * 8,
    b"\x8e" + b"\x00" * 4 + b"\x01" + b"\x00" * 3,
    b")\x85\x85\x85\x85",
    b"c__builtin__\neval\n",
)


class Net(nn.Module):
    """A little of everything that modules hold."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.register_buffer("passing", torch.ones(2), persistent=False)
        self.tied = self.body[0].weight

    def forward(self, x):
        return self.body(x)


def sound_files() -> dict[str, bytes]:
    """One file of every kind, by the name of the kind; the same bytes at every call."""
    net = Net().eval()
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape))
    base = torch.arange(24.0).reshape(4, 6)
    state = {"base": base, "columns": base[:, 1:5:2], "half": torch.ones(3).half(), "expanded": torch.ones(1).expand(5)}
    optimizer = torch.optim.AdamW(net.parameters()).state_dict()
    training = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}, "optimizer": optimizer}
    arrays = {
        "array": base.numpy(),
        "half": base.numpy().astype("f2").T,
        "mirror": torch.ones(2, dtype=torch.cfloat).conj(),
    }
    beside = {
        **{"sparse": base.to_sparse(), "double": base.to(torch.complex128), "meta": base.to("meta")},
        **{"quantized": _quantized(base), "keys": {(1, (2,)): {frozenset((3,))}}},
        "model_ema": {"n_averaged": torch.tensor(1), **{f"module.{name}": tensor for name, tensor in state.items()}},
    }
    return {
        "safetensors": save({"a": base, "b": torch.ones(3).half(), "c": torch.zeros(0, 2)}, {"format": "pt"}),
        "zip state dict": _saved(state),
        "zip training": _saved(training),
        "zip module": _saved(net),
        "zip arrays": _saved({"model": arrays, **beside}),
        "pickle arrays": pickle.dumps({"model": arrays["array"], "w": arrays["half"]}, 5),
        "torchscript": _script(net),
        "legacy": _saved(training, _use_new_zipfile_serialization=False),
        "legacy arrays": _saved({"model": arrays, **beside}, _use_new_zipfile_serialization=False),
        "legacy module": _saved(net, _use_new_zipfile_serialization=False),
        "pickle": pickle.dumps(net, 4),
        "pickle of tensors": pickle.dumps(state, 3),
    }


def mutated(number: int, files: dict[str, bytes]) -> tuple[str, bytes]:
    """Case `number`: the kind of file that it was, and its bytes after one to four changes."""
    rng = random.Random(number)
    kind = rng.choice(list(files))
    data = files[kind]
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice(STRUCTURED[kind.split()[0]] + BLIND)(rng, data)
    return kind, data


def _saved(value: object, **options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def _quantized(tensor: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


def _script(net: nn.Module) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(net, torch.ones(2, 2)), buffer)
    # What is left out holds this machine's paths.
    return _zipped({n: c for n, c in _members(buffer.getvalue()).items() if not n.endswith(".debug_pkl")})


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


Change = Callable[[random.Random, bytes], bytes]


def _place(rng: random.Random, data: bytes) -> int:
    return rng.randrange(len(data) + 1)


def _flip(rng: random.Random, data: bytes) -> bytes:
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _set_byte(rng: random.Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))]) + data[at + 1 :]


def _set_number(rng: random.Random, data: bytes) -> bytes:
    at, width = _place(rng, data), rng.choice((2, 4, 8))
    return data[:at] + (rng.choice(NUMBERS) % 256**width).to_bytes(width, "little") + data[at + width :]


def _insert(rng: random.Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.choice((rng.randbytes(rng.randrange(1, 9)), rng.choice(SNIPPETS))) + data[at:]


def _delete(rng: random.Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at + rng.randrange(1, 33) :]


def _splice(rng: random.Random, data: bytes) -> bytes:
    source, at, length = _place(rng, data), _place(rng, data), rng.randrange(1, 65)
    return data[:at] + data[source : source + length] + data[at + rng.choice((0, length)) :]


def _truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: _place(rng, data)]


def _in_head(rng: random.Random, data: bytes) -> bytes:
    return rng.choice((_flip, _set_byte, _set_number))(rng, data[:64]) + data[64:]


BLIND: tuple[Change, ...] = (_flip, _flip, _set_byte, _set_number, _insert, _delete, _splice, _truncate)


def _json(rng: random.Random, data: bytes) -> bytes:
    """An entry of the header changed, the header's length right or wrong."""
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
        name = rng.choice(list(header))
        field = rng.choice(list(header[name]))
        value = header[name][field]
    except (ValueError, TypeError, LookupError):
        return _flip(rng, data)
    odd = rng.choice((*NUMBERS, -1, None, True, 0.5, "x", "F64", "\ud800", [], {}, [[[[]]]], [2**62] * 9, "n" * 2000))
    if isinstance(value, list) and value and rng.random() < 0.7:
        value[rng.randrange(len(value))] = odd
    elif rng.random() < 0.3:
        header[rng.choice(("module." * rng.randrange(200), "\ud800", "__metadata__", "b"))] = header.pop(name)
    else:
        header[name][field] = odd
    text = json.dumps(header).encode()
    if rng.random() < 0.2:
        text = text[:-1] + b"," + text[1:]  # every name twice
    size = len(text) if rng.random() < 0.8 else rng.choice(NUMBERS)
    return size.to_bytes(8, "little") + text + data[8 + length :]


def _zip_field(rng: random.Random, data: bytes) -> bytes:
    """A number in a local header, in the directory, or at its end."""
    mark, fields = rng.choice(
        (
            (b"PK\x03\x04", (4, 6, 8, 14, 18, 22, 26, 28)),
            (b"PK\x01\x02", (4, 6, 8, 10, 20, 24, 28, 30, 32, 34, 36, 42)),
            (b"PK\x05\x06", (4, 8, 10, 12, 16, 20)),
            (b"PK\x06\x06", (4, 24, 32, 40, 48)),
            (b"PK\x06\x07", (4, 8, 16)),
        )
    )
    places = [at for at in range(len(data)) if data.startswith(mark, at)]
    if not places:
        return _flip(rng, data)
    at, width = rng.choice(places) + rng.choice(fields), rng.choice((2, 4))
    return data[:at] + (rng.choice(NUMBERS) % 256**width).to_bytes(width, "little") + data[at + width :]


def _zip_content(rng: random.Random, data: bytes) -> bytes:
    """A member's content or name changed, in an archive that is sound around it; mostly the pickle."""
    try:
        members = _members(data)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError, RuntimeError, struct.error):
        return _flip(rng, data)
    if not members:
        return data
    pickles = [name for name in members if name.endswith("data.pkl")]
    name = rng.choice(pickles) if pickles and rng.random() < 0.85 else rng.choice(list(members))
    if rng.random() < 0.05:
        members[rng.choice(("data.pkl", "x/data.pkl", "../../x", "a/data/0", "a\0b"))] = members.pop(name)
    else:
        members[name] = rng.choice((_pickle, _pickle, _pickle, _flip, _splice))(rng, members[name])
    return _zipped(members)


def _pickle(rng: random.Random, data: bytes) -> bytes:
    """One instruction replaced, taken out, doubled, moved, or given another number."""
    starts = []
    try:
        for _, _, at in pickletools.genops(data):
            starts.append(at)
    except Exception:  # whatever pickletools makes of damage: the instructions before it will do
        pass
    if len(starts) < 3:
        return _flip(rng, data)
    pick = rng.randrange(len(starts) - 1)
    at, end = starts[pick], starts[pick + 1]
    match rng.randrange(6):
        case 0:
            return data[:at] + rng.choice(SNIPPETS) + data[rng.choice((at, end)) :]
        case 1:
            return data[:at] + data[end:]
        case 2:
            return data[:end] + data[at:end] * rng.choice((1, 3, 500)) + data[end:]
        case 3:
            other = rng.choice(starts)
            return data[:at] + data[other : other + end - at] + data[end:]
        case 4:
            return data[: at + 1] + _set_number(rng, data[at + 1 : end])[: end - at - 1] + data[end:]
    number = rng.choice(NUMBERS).to_bytes(9, "little")
    return data[:at] + b"\x8a\x09" + number + data[end:]


STRUCTURED: dict[str, tuple[Change, ...]] = {
    "safetensors": (_json,) * 8 + (_in_head,),
    "zip": (_zip_content,) * 12 + (_zip_field,) * 6,
    "torchscript": (_zip_content,) * 12 + (_zip_field,) * 6,
    "legacy": (_pickle,) * 12 + (_in_head,),
    "pickle": (_pickle,) * 12,
}
