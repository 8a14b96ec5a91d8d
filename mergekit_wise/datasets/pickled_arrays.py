"""Plain data and arrays from pickles, without executing code: CIFAR's batches, and dictionaries in .npy files.

Python's own reader calls any function that a pickle names. This one parses the structure and builds arrays from their
descriptions; any other object is refused.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint.pickle_machine import LONG_BYTES, Blob, Global, PickleError, Stub
from mergekit_wise.checkpoint.unpickle import load
from mergekit_wise.datasets.npy_files import read_npy_header
from mergekit_wise.datasets.web_pages import refuse_web_page
from mergekit_wise.errors import SuiteError

DTYPES = frozenset(f"{kind}{size}" for kind in "ui" for size in (1, 2, 4, 8)) | {"b1", "f2", "f4", "f8"}
MAX_FILE = 1 << 30
"""The largest file that is read, in bytes: several times the size of CIFAR's files."""

MAX_DEPTH = 4
MAX_DIMENSIONS = 8

_RECONSTRUCT = frozenset(Global(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core"))
_FROM_BUFFER = frozenset(Global(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core"))
_SCALAR = frozenset(Global(f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core"))
_DTYPE = Global("numpy", "dtype")
_ENCODE = Global("_codecs", "encode")


def read_pickle(path: Path) -> Mapping[str, object]:
    """The dictionary in a pickle file, with numpy arrays; keys that are bytes become strings.

    Raises SuiteError if the file is damaged, is not a dictionary, or holds objects other than plain data and arrays.
    """
    return _dictionary(path, 0)


def read_npy_dict(path: Path) -> Mapping[str, object]:
    """The dictionary that ``np.save`` wrote to a .npy file as an array of one object. Raises SuiteError as above."""
    header = read_npy_header(path)
    if not header.dtype.hasobject or math.prod(header.shape) != 1:
        raise SuiteError(
            f"{path}: expected a dictionary in a .npy file, found an array {str(header.dtype)[:60]} "
            f"{str(list(header.shape))[:60]}."
        )
    return _dictionary(path, header.start)


def _dictionary(path: Path, start: int) -> Mapping[str, object]:
    refuse_web_page(path)
    try:
        if (size := path.stat().st_size) > MAX_FILE:
            raise PickleError(f"{size:,} bytes are more than the limit of {MAX_FILE:,}")
        view = memoryview(path.read_bytes())
        value = _Builder(size).plain(load(view, _reduce, _refuse, start)[0], MAX_DEPTH)
    except (OSError, ValueError) as error:
        raise SuiteError(f"{path}: expected plain data and arrays in a pickle: {error}. Download it again.") from error
    if isinstance(value, np.ndarray) and value.dtype.hasobject and value.size == 1:
        value = value.item()
    if not isinstance(value, dict):
        raise SuiteError(f"{path}: expected a dictionary, found a {type(value).__name__}. Download it again.")
    return {key.decode("latin-1") if isinstance(key, bytes) else str(key): entry for key, entry in value.items()}


def _reduce(function: Global, arguments: tuple[object, ...]) -> object:
    # Dictionary keys that were byte strings are needed while the pickle is parsed. Longer strings are encoded later,
    # where they count against the budget.
    match arguments:
        case (str(text), *_) if function == _ENCODE and len(text) <= LONG_BYTES:
            return text.encode("latin-1")
    return Stub(function, arguments)


def _refuse(saved_id: object) -> object:
    raise PickleError("it refers to data outside the file")


class _Builder:
    """Replaces stubs by the arrays and scalars that they describe, and blobs by bytes.

    A short pickle can refer to the same bytes many times, so the memory of the results is limited to a few times the
    size of the file.
    """

    def __init__(self, file_size: int) -> None:
        self.budget = 4 * file_size + (1 << 20)

    def plain(self, value: object, depth: int) -> object:
        if depth < 0:
            raise PickleError("its data are nested too deeply")
        if isinstance(value, Stub):
            return self._array(value, depth)
        if isinstance(value, Blob):
            return self._bytes(value)
        if isinstance(value, dict):
            self._spend(len(value))
            return {key: self.plain(entry, depth - 1) for key, entry in value.items()}
        if isinstance(value, list):
            self._spend(len(value))
            return [self.plain(entry, depth - 1) for entry in value]
        if isinstance(value, (Global, tuple, set, frozenset)):
            raise PickleError(f"it holds a {type(value).__name__}, which is not supported")
        return value

    def _spend(self, amount: int) -> None:
        self.budget -= amount
        if self.budget < 0:
            raise PickleError("it repeats the same data too often")

    def _array(self, stub: Stub, depth: int) -> object:
        match stub:
            case Stub(kind=kind, state=(_, tuple(shape), Stub() as described, int(by_columns), raw)) if (
                kind in _RECONSTRUCT
            ):
                pass
            case Stub(kind=kind, arguments=(raw, Stub() as described, tuple(shape), str(order))) if (
                kind in _FROM_BUFFER
            ):
                by_columns = order == "F"
            case Stub(kind=kind, arguments=(Stub() as described, raw)) if kind in _SCALAR:
                return self._filled((), _dtype(described), raw, False).item()
            case Stub(kind=kind) if kind == _ENCODE:
                return self._bytes(stub)
            case _:
                raise PickleError(f"it refers to {stub.kind}, which is neither data nor an array")
        if not all(type(size) is int and 0 <= size < 2**40 for size in shape) or len(shape) > MAX_DIMENSIONS:
            raise PickleError(f"an array has the invalid shape {str(shape)[:60]}")
        if _is_object(described):
            return self._object(raw, shape, depth)
        return self._filled(shape, _dtype(described), raw, bool(by_columns))

    def _object(self, raw: object, shape: tuple[int, ...], depth: int) -> NDArray[np.object_]:
        """An array of one object, the form in which ``np.save`` writes a dictionary."""
        if not isinstance(raw, list) or len(raw) != 1 or math.prod(shape) != 1:
            raise PickleError("it holds an array of objects")
        holder = np.empty(shape, object)
        holder.flat[0] = self.plain(raw[0], depth - 1)
        return holder

    def _bytes(self, raw: object) -> bytes:
        """Bytes in the forms of all protocols: byte strings, strings of Python 2, and encoded strings of protocol 2."""
        match raw:
            case Blob():
                self._spend(len(raw.view))
                return bytes(raw.view)
            case bytes():
                return raw
            case str():
                self._spend(len(raw))
                return raw.encode("latin-1")
            case Stub(kind=kind, arguments=(str(text), *_)) if kind == _ENCODE:
                self._spend(len(text))
                return text.encode("latin-1")
            case _:
                raise PickleError(f"the bytes of an array are a {type(raw).__name__}")

    def _filled(
        self, shape: tuple[int, ...], dtype: np.dtype[np.generic], raw: object, by_columns: bool
    ) -> NDArray[np.generic]:
        data = self._bytes(raw)
        if math.prod(shape) * dtype.itemsize != len(data):
            raise PickleError(f"an array of {dtype} {list(shape)} does not match its {len(data):,} bytes")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")


def _is_object(described: Stub) -> bool:
    return described.kind == _DTYPE and described.arguments[:1] in (("O",), ("O8",), ("|O",))


def _dtype(described: Stub) -> np.dtype[np.generic]:
    """The dtype of a stub ``dtype('u1', False, True)`` with the state ``(3, '<', ...)``, which has the byte order."""
    code = described.arguments[0] if described.kind == _DTYPE and described.arguments else None
    state = described.state
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
    name = code.lstrip("<>|=") if isinstance(code, str) else ""
    if name not in DTYPES or order not in ("<", ">", "|", "="):
        raise PickleError(f"it holds an array of the unsupported dtype {str(code)[:40]!r}")
    return np.dtype(f"{order}{name}")
