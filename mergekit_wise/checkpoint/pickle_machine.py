"""Reads a pickle's structure without executing it. Knows nothing of torch.

A pickle is a program for a small stack machine. Python's own machine imports what the program names and calls it; this
one has no means to do either. A name becomes a `Global`, and a call of one is handed to `reduce`, which answers from a
closed list or with an inert `Stub`. Everything else is plain data.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

Reduce = Callable[["Global", tuple[object, ...]], object]
Persistent = Callable[[object], object]

LONG_BYTES = 64
"""Byte strings above this length are given as views of the pickle, not as copies."""


class PickleError(ValueError):
    """The pickle is damaged, or asks for something that is never done."""


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function: only ever a name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Stub:
    """What stands for an object that is not built: its class, its arguments, and what it was given afterwards."""

    kind: object
    arguments: tuple[object, ...] = ()
    state: object = None
    entries: dict[object, object] = field(default_factory=dict)
    items: list[object] = field(default_factory=list)


class _Mark:
    pass


MARK = _Mark()


def load(data: memoryview, reduce: Reduce, persistent: Persistent) -> tuple[object, int]:
    """Read one pickle from the start of `data`; returns its value and the number of bytes it took.

    `persistent` turns a persistent id into a value. Raises PickleError.
    """
    machine = _Machine(data, reduce, persistent)
    try:
        value = machine.run()
    except PickleError:
        raise
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError, struct.error) as error:
        raise PickleError(f"damaged pickle at byte {machine.at}: {error}") from error
    return value, machine.at


class _Machine:
    def __init__(self, data: memoryview, reduce: Reduce, persistent: Persistent) -> None:
        self.data = data
        self.at = 0
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self.reduce = reduce
        self.persistent = persistent

    def run(self) -> object:
        while True:
            opcode = self.take(1)[0]
            if opcode == STOP:
                return self.stack.pop()
            action = ACTIONS.get(opcode)
            if action is None:
                raise PickleError(f"the pickle uses the instruction {bytes([opcode])!r}, which is refused")
            action(self)

    # Arguments of instructions

    def take(self, count: int) -> memoryview:
        start, self.at = self.at, self.at + count
        if self.at > len(self.data):
            raise PickleError("the pickle ends in the middle")
        return self.data[start : self.at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def text(self, width: int) -> str:
        return str(self.take(self.number(width)), "utf-8", "surrogatepass")

    def blob(self, width: int) -> bytes | memoryview:
        view = self.take(self.number(width))
        return bytes(view) if len(view) <= LONG_BYTES else view

    def line(self) -> str:
        start = self.at
        while self.take(1)[0] != ord("\n"):
            pass
        return str(self.data[start : self.at - 1], "latin-1")

    # The stack

    def push(self, value: object) -> None:
        self.stack.append(value)

    def since_mark(self) -> list[object]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise PickleError("the pickle closes a group that it never opened")

    def pop(self) -> object:
        value = self.stack.pop()
        if value is MARK:
            raise PickleError("the pickle uses a mark as a value")
        return value

    def pop_tuple(self, count: int) -> None:
        values = tuple(self.pop() for _ in range(count))
        self.push(values[::-1])

    # Building

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(arguments, tuple):
            raise PickleError("the pickle calls with arguments that are no tuple")
        self.push(self.reduce(function, arguments) if isinstance(function, Global) else Stub(function, arguments))

    def make(self, kind: object, arguments: object) -> None:
        self.push(Stub(kind, arguments if isinstance(arguments, tuple) else (arguments,)))

    def build(self) -> None:
        state, value = self.pop(), self.stack[-1]
        if isinstance(value, Stub):
            value.state = state
        # State of anything else is an attribute of a container, as OrderedDict's `_metadata`: of no use here.

    def extend(self, items: list[object]) -> None:
        target = self.stack[-1]
        if isinstance(target, Stub):
            target.items.extend(items)
        elif isinstance(target, list):
            target.extend(items)
        else:
            raise PickleError("the pickle appends to something that is no list")

    def fill(self, pairs: list[object]) -> None:
        target = self.stack[-1]
        entries = target.entries if isinstance(target, Stub) else target
        if not isinstance(entries, dict) or len(pairs) % 2:
            raise PickleError("the pickle sets entries of something that is no dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            entries[_hashable(key)] = value

    def add(self, items: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, set):
            raise PickleError("the pickle adds to something that is no set")
        target.update(_hashable(item) for item in items)

    def name(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("the pickle names a class by something that is no text")
        self.push(Global(module, name))


def _hashable(key: object) -> object:
    """`key`, if hashing it is harmless: a deeply nested tuple would overflow the interpreter's stack."""
    flat = key if isinstance(key, tuple) else (key,)
    if all(isinstance(part, (str, bytes, int, float, bool, type(None), Global)) for part in flat):
        return key
    if isinstance(key, Stub):
        return key
    raise PickleError(f"the pickle uses a {type(key).__name__} as a key")


def _pop_mark_or_value(machine: _Machine) -> None:
    machine.stack.pop()


def _signed(view: memoryview) -> int:
    return int.from_bytes(view, "little", signed=True)


def _decimal(machine: _Machine) -> int | bool:
    text = machine.line()
    return {"00": False, "01": True}[text] if text in ("00", "01") else int(text.rstrip("L"))


def _quoted(machine: _Machine) -> str:
    text = machine.line()
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"":
        raise PickleError("the pickle has a text without quotation marks")
    return codecs.escape_decode(text[1:-1].encode("latin-1"))[0].decode("latin-1")


def _latin(machine: _Machine, width: int) -> str:
    return str(machine.take(machine.number(width)), "latin-1")


def _remember(machine: _Machine, key: int) -> None:
    machine.memo[key] = machine.stack[-1]


def _new_from_mark(machine: _Machine) -> None:
    kind, *arguments = machine.since_mark()
    machine.make(kind, tuple(arguments))


def _instance(machine: _Machine) -> None:
    kind = Global(machine.line(), machine.line())
    machine.make(kind, tuple(machine.since_mark()))


def _new_extended(machine: _Machine) -> None:
    keywords, arguments, kind = machine.pop(), machine.pop(), machine.pop()
    machine.make(kind, (arguments, keywords))


def _new(machine: _Machine) -> None:
    arguments, kind = machine.pop(), machine.pop()
    machine.make(kind, arguments)


def _pair_from_mark(machine: _Machine) -> None:
    pairs = machine.since_mark()
    machine.push({})
    machine.fill(pairs)


def _stacked_name(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.name(module, name)


def _one_item(machine: _Machine) -> None:
    value = machine.pop()
    machine.extend([value])


def _one_entry(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.fill([key, value])


Action = Callable[[_Machine], object]

STOP = ord(".")

# Left out, and so refused: EXT1, EXT2, EXT4 (names by number), NEXT_BUFFER, READONLY_BUFFER (data from outside).
ACTIONS: dict[int, Action] = {
    code[0]: action
    for code, action in (
        (b"\x80", lambda m: m.take(1)),  # PROTO
        (b"\x95", lambda m: m.take(8)),  # FRAME
        (b"(", lambda m: m.push(MARK)),
        (b"0", _pop_mark_or_value),
        (b"1", lambda m: m.since_mark()),
        (b"2", lambda m: m.push(m.stack[-1])),
        (b"N", lambda m: m.push(None)),
        (b"\x88", lambda m: m.push(True)),
        (b"\x89", lambda m: m.push(False)),
        (b"I", lambda m: m.push(_decimal(m))),
        (b"L", lambda m: m.push(_decimal(m))),
        (b"J", lambda m: m.push(_signed(m.take(4)))),
        (b"K", lambda m: m.push(m.number(1))),
        (b"M", lambda m: m.push(m.number(2))),
        (b"\x8a", lambda m: m.push(_signed(m.take(m.number(1))))),
        (b"\x8b", lambda m: m.push(_signed(m.take(m.number(4))))),
        (b"F", lambda m: m.push(float(m.line()))),
        (b"G", lambda m: m.push(struct.unpack(">d", m.take(8))[0])),
        (b"S", lambda m: m.push(_quoted(m))),
        (b"T", lambda m: m.push(_latin(m, 4))),
        (b"U", lambda m: m.push(_latin(m, 1))),
        (b"V", lambda m: m.push(m.line().encode("latin-1").decode("raw-unicode-escape"))),
        (b"X", lambda m: m.push(m.text(4))),
        (b"\x8c", lambda m: m.push(m.text(1))),
        (b"\x8d", lambda m: m.push(m.text(8))),
        (b"B", lambda m: m.push(m.blob(4))),
        (b"C", lambda m: m.push(m.blob(1))),
        (b"\x8e", lambda m: m.push(m.blob(8))),
        (b"\x96", lambda m: m.push(m.blob(8))),  # BYTEARRAY8
        (b")", lambda m: m.push(())),
        (b"t", lambda m: m.push(tuple(m.since_mark()))),
        (b"\x85", lambda m: m.pop_tuple(1)),
        (b"\x86", lambda m: m.pop_tuple(2)),
        (b"\x87", lambda m: m.pop_tuple(3)),
        (b"]", lambda m: m.push([])),
        (b"l", lambda m: m.push(m.since_mark())),
        (b"a", _one_item),
        (b"e", lambda m: m.extend(m.since_mark())),
        (b"}", lambda m: m.push({})),
        (b"d", _pair_from_mark),
        (b"s", _one_entry),
        (b"u", lambda m: m.fill(m.since_mark())),
        (b"\x8f", lambda m: m.push(set())),
        (b"\x90", lambda m: m.add(m.since_mark())),
        (b"\x91", lambda m: m.push(frozenset(map(_hashable, m.since_mark())))),
        (b"p", lambda m: _remember(m, int(m.line()))),
        (b"q", lambda m: _remember(m, m.number(1))),
        (b"r", lambda m: _remember(m, m.number(4))),
        (b"\x94", lambda m: _remember(m, len(m.memo))),
        (b"g", lambda m: m.push(m.memo[int(m.line())])),
        (b"h", lambda m: m.push(m.memo[m.number(1)])),
        (b"j", lambda m: m.push(m.memo[m.number(4)])),
        (b"c", lambda m: m.name(m.line(), m.line())),
        (b"\x93", _stacked_name),
        (b"i", _instance),
        (b"o", _new_from_mark),
        (b"\x81", _new),
        (b"\x92", _new_extended),
        (b"R", lambda m: m.call()),
        (b"b", lambda m: m.build()),
        (b"P", lambda m: m.push(m.persistent(m.line()))),
        (b"Q", lambda m: m.push(m.persistent(m.pop()))),
    )
}
