"""The stack machine that runs pickles, without the means to import or call anything. Knows no torch.

The name of a class or function becomes a `Global`. A call of one is handed to `reduce`, which gives a value from a
closed list of calls or an inert `Stub`. Everything else is plain data. The instructions are in unpickle.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mergekit_wise.errors import CheckpointError
from mergekit_wise.wording import shown

Reduce = Callable[["Global", tuple[object, ...]], object]
Persistent = Callable[[object], object]
Observe = Callable[["Global"], object]

LONG_BYTES = 64
"""Byte strings above this length become blobs, not copies."""

LINE_BYTES = 256
"""How many bytes are searched at once for the end of a line."""

MAX_KEY_PARTS = 8

SPARE_BYTES = 1 << 27
BYTES_EACH = 32
"""Objects may take `BYTES_EACH` bytes of memory for each byte of the data, and `SPARE_BYTES` besides."""


LIST_BYTES, DICT_BYTES, SET_BYTES, STUB_BYTES, TUPLE_BYTES, MEMO_BYTES = 56, 64, 216, 120, 48, 100
"""What an object takes that a single byte of a pickle can ask for."""


class PickleError(ValueError):
    """The pickle is damaged, or asks for something that is refused."""


class UnsuitableError(PickleError):
    """The file is sound, but holds something that is not read; the message says what to save instead."""

    def in_file(self, path: Path) -> CheckpointError:
        """The error for the user."""
        text = str(self)
        return CheckpointError(f"{path}: {text}" + ("" if text.endswith(("?", ".")) else "."))


class Damaged(PickleError):
    """Bytes are missing or wrong."""


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function, which is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return shown(f"{self.module}.{self.name}", 100)


@dataclass(frozen=True, slots=True)
class Blob:
    """A long byte string in place: it starts at byte `start` of the data, and `view` shows it."""

    start: int
    view: memoryview


@dataclass(slots=True, eq=False)
class Stub:
    """Stands for an object that is not built: its class, its arguments, its state and, of a mapping, its entries.

    The items of lists and sets are not kept.
    """

    kind: object
    arguments: tuple[object, ...] = ()
    state: object = None
    entries: dict[object, object] | None = None


@dataclass(slots=True, eq=False)
class OpaqueKey:
    """Stands for a key of a dictionary or a member of a set that is not hashed; equal to itself alone."""

    key: object


class _Mark:
    pass


MARK = _Mark()


class Machine:
    """The data, the position in it, the stack and the memo."""

    def __init__(self, data: memoryview, reduce: Reduce, persistent: Persistent, start: int, observe: Observe) -> None:
        self.data = data
        self.at = start
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self.reduce = reduce
        self.persistent = persistent
        self.observe = observe
        self.copied = 0
        self.memory = SPARE_BYTES + BYTES_EACH * len(data)

    def spend(self, size: int) -> None:
        """Count `size` bytes of memory. Raises PickleError if the data is too short to need that much."""
        self.memory -= size
        if self.memory < 0:
            raise PickleError("the pickle builds far more objects than its size explains")

    # Arguments of instructions

    def take(self, count: int) -> memoryview:
        """The next `count` bytes. Raises PickleError at the end of the data."""
        start, self.at = self.at, self.at + count
        if self.at > len(self.data):
            raise Damaged("the pickle ends in the middle")
        return self.data[start : self.at]

    def number(self, width: int) -> int:
        """An unsigned number of `width` bytes."""
        return int.from_bytes(self.take(width), "little")

    def text(self, width: int) -> str:
        """A text after its length, a number of `width` bytes."""
        return str(self.take(self.number(width)), "utf-8", "surrogatepass")

    def blob(self, width: int) -> bytes | Blob:
        """A byte string after its length; a long one is not copied."""
        view = self.take(self.number(width))
        return bytes(view) if len(view) <= LONG_BYTES else Blob(self.at - len(view), view)

    def line(self) -> str:
        """Text up to the end of the line."""
        start, length = self.at, -1
        while length < 0:
            piece = bytes(self.data[self.at : self.at + LINE_BYTES])
            length = piece.find(b"\n")
            self.take(len(piece) or 1 if length < 0 else length + 1)
        return str(self.data[start : self.at - 1], "latin-1")

    # The stack

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop_mark(self) -> list[object]:
        """Take everything above the last mark off the stack, and the mark."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise PickleError("the pickle closes a group that it never opened")

    def pop(self) -> object:
        """Take the top value off the stack."""
        value = self.stack.pop()
        if value is MARK:
            raise PickleError("the pickle uses a mark as a value")
        return value

    def pop_many(self, count: int) -> tuple[object, ...]:
        """Take the top `count` values off the stack, the lowest first."""
        return tuple(self.pop() for _ in range(count))[::-1]

    # Building

    def call(self) -> None:
        """REDUCE: replace a function and its arguments by what `reduce` returns."""
        function, arguments = self.pop_many(2)
        if not isinstance(arguments, tuple):
            raise PickleError("the pickle calls a function with arguments that are not a tuple")
        self.spend(STUB_BYTES)
        value = self.reduce(function, arguments) if isinstance(function, Global) else Stub(function, arguments)
        if isinstance(value, (dict, frozenset)):  # copied from a list, which can be an argument of many calls
            self.copied += len(value)
            if self.copied > len(self.data):
                raise PickleError("the pickle copies the same list over and over")
        self.push(value)

    def push_stub(self, kind: object, arguments: object) -> None:
        """Put an object of a class on the stack, as a stub."""
        self.spend(STUB_BYTES)
        self.push(Stub(kind, arguments if isinstance(arguments, tuple) else (arguments,)))

    def build(self) -> None:
        """Give the object on the stack its state."""
        state, value = self.pop(), self.stack[-1]
        if isinstance(value, Stub):
            value.state = state
        # Any other state is an attribute of a container, such as OrderedDict's `_metadata`, and is not needed.

    def extend(self, items: list[object]) -> None:
        """Append to the list on the stack."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Stub):
            raise PickleError("the pickle appends to something that is not a list")

    def set_items(self, pairs: Sequence[object]) -> None:
        """Set entries of the dictionary on the stack; `pairs` holds keys and values in turn."""
        target = self.stack[-1]
        if isinstance(target, Stub):
            target.entries = {} if target.entries is None else target.entries
            target = target.entries
        if not isinstance(target, dict) or len(pairs) % 2:
            raise PickleError("the pickle sets entries of something that is not a dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[hashable(key)] = value

    def add(self, items: list[object]) -> None:
        """Add to the set on the stack."""
        target = self.stack[-1]
        if isinstance(target, set):
            target.update(hashable(item) for item in items)
        elif not isinstance(target, Stub):
            raise PickleError("the pickle adds to something that is not a set")

    def push_global(self, module: object, name: object) -> None:
        """Put the name of a class or function on the stack."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("the pickle names a class by something that is not a text")
        self.spend(STUB_BYTES)
        named = Global(module, name)
        self.observe(named)
        self.push(named)


def hashable(key: object) -> object:
    """Return `key` if hashing it is harmless, else an `OpaqueKey`: no weights need such a key. Raises TypeError.

    A nested tuple would overflow the interpreter's stack, and long tuples and integers are slow to hash every time. As
    Python's hashes of numbers are public, a file could hold keys that all collide.
    """
    if isinstance(key, Stub) or _is_harmless(key, 63):
        return key
    if isinstance(key, (list, dict, set)):
        raise TypeError(f"a {type(key).__name__} cannot be a key")
    parts = key if isinstance(key, tuple) and len(key) <= MAX_KEY_PARTS else (key,)
    if all(_is_harmless(part, 31) and not isinstance(part, float) for part in parts):
        return key
    return OpaqueKey(key)


def _is_harmless(key: object, bits: int) -> bool:
    if isinstance(key, int):
        return key.bit_length() <= bits
    return isinstance(key, (str, bytes, float, type(None), Global))
