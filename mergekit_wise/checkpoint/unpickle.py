"""Reading a pickle without executing it: the instructions, and what each does to the machine.

Python's own reader imports and calls what a pickle names. This one runs the same instructions over plain data.
"""

import codecs
import struct
from collections.abc import Callable

from mergekit_wise.checkpoint.pickle_machine import (
    DICT_BYTES,
    LIST_BYTES,
    MARK,
    MEMO_BYTES,
    SET_BYTES,
    TUPLE_BYTES,
    Damaged,
    Machine,
    Observe,
    Persistent,
    PickleError,
    Reduce,
    hashable,
)

MAX_INSTRUCTIONS = 100_000_000
"""About a minute. A training checkpoint can hold lists of millions of numbers; each takes an instruction or two."""


def load(
    data: memoryview, reduce: Reduce, persistent: Persistent, start: int = 0, observe: Observe = lambda _: None
) -> tuple[object, int]:
    """Read one pickle from byte `start` of `data`; returns its value and the byte after its end.

    `reduce` returns the value of a call, `persistent` that of a persistent id; `observe` is called with every class and
    function that is named. Raises PickleError.
    """
    machine = Machine(data, reduce, persistent, start, observe)
    try:
        value = _run(machine)
    except PickleError:
        raise
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError, struct.error) as error:
        raise Damaged(f"damaged pickle at byte {machine.at}: {error}") from error
    return value, machine.at


def _run(machine: Machine) -> object:
    data, end = machine.data, len(machine.data)
    for _ in range(MAX_INSTRUCTIONS):
        at = machine.at
        if at >= end:
            raise Damaged("the pickle ends in the middle")
        opcode = data[at]
        machine.at = at + 1
        if opcode == STOP:
            return machine.pop()
        action = ACTIONS.get(opcode)
        if action is None:
            name = REFUSED.get(opcode, f"{bytes([opcode])!r}")
            raise PickleError(f"the pickle uses the instruction {name}, which is refused")
        action(machine)
    raise PickleError(f"the pickle has more than {MAX_INSTRUCTIONS:,} instructions")


def _signed(view: memoryview) -> int:
    return int.from_bytes(view, "little", signed=True)


def _decimal(machine: Machine) -> int | bool:
    text = machine.line()
    return {"00": False, "01": True}[text] if text in ("00", "01") else int(text.rstrip("L"))


def _quoted(machine: Machine) -> str:
    text = machine.line()
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"":
        raise PickleError("the pickle has a text without quotation marks")
    return codecs.escape_decode(text[1:-1].encode("latin-1"))[0].decode("latin-1")


def _latin(machine: Machine, width: int) -> str:
    return str(machine.take(machine.number(width)), "latin-1")


def _index(machine: Machine) -> int:
    """A memo index, written as text."""
    index = int(machine.line())
    if not 0 <= index < 2**32:
        raise PickleError("the pickle uses an impossible memo index")
    return index


def _remember(machine: Machine, key: int) -> None:
    machine.memo[key] = machine.stack[-1]


def _memoize(machine: Machine) -> None:
    machine.spend(MEMO_BYTES)  # the one such instruction that is a single byte
    _remember(machine, len(machine.memo))


def _push_new(machine: Machine, value: object, size: int) -> None:
    """Put a container on the stack that takes `size` bytes."""
    machine.spend(size)
    machine.push(value)


def _new_from_mark(machine: Machine) -> None:
    kind, *arguments = machine.pop_mark()
    machine.push_stub(kind, tuple(arguments))


def _instance(machine: Machine) -> None:
    machine.push_global(machine.line(), machine.line())
    kind = machine.pop()
    machine.push_stub(kind, tuple(machine.pop_mark()))


def _new_extended(machine: Machine) -> None:
    kind, arguments, keywords = machine.pop_many(3)
    machine.push_stub(kind, (arguments, keywords))


def _pair_from_mark(machine: Machine) -> None:
    pairs = machine.pop_mark()
    _push_new(machine, {}, DICT_BYTES)
    machine.set_items(pairs)


Action = Callable[[Machine], object]

STOP = ord(".")

# Refused: classes by number, and data from outside the pickle.
REFUSED = {0x82: "EXT1", 0x83: "EXT2", 0x84: "EXT4", 0x97: "NEXT_BUFFER", 0x98: "READONLY_BUFFER"}

ACTIONS: dict[int, Action] = {
    code[0]: action
    for code, action in (
        (b"\x80", lambda m: m.take(1)),  # PROTO
        (b"\x95", lambda m: m.take(8)),  # FRAME
        (b"(", lambda m: m.push(MARK)),
        (b"0", lambda m: m.stack.pop()),
        (b"1", lambda m: m.pop_mark()),
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
        (b"t", lambda m: _push_new(m, tuple(m.pop_mark()), TUPLE_BYTES)),
        (b"\x85", lambda m: _push_new(m, m.pop_many(1), TUPLE_BYTES)),
        (b"\x86", lambda m: _push_new(m, m.pop_many(2), TUPLE_BYTES)),
        (b"\x87", lambda m: _push_new(m, m.pop_many(3), TUPLE_BYTES)),
        (b"]", lambda m: _push_new(m, [], LIST_BYTES)),
        (b"l", lambda m: _push_new(m, m.pop_mark(), LIST_BYTES)),
        (b"a", lambda m: m.extend([m.pop()])),
        (b"e", lambda m: m.extend(m.pop_mark())),
        (b"}", lambda m: _push_new(m, {}, DICT_BYTES)),
        (b"d", _pair_from_mark),
        (b"s", lambda m: m.set_items(m.pop_many(2))),
        (b"u", lambda m: m.set_items(m.pop_mark())),
        (b"\x8f", lambda m: _push_new(m, set(), SET_BYTES)),
        (b"\x90", lambda m: m.add(m.pop_mark())),
        (b"\x91", lambda m: _push_new(m, frozenset(map(hashable, m.pop_mark())), SET_BYTES)),
        (b"p", lambda m: _remember(m, _index(m))),
        (b"q", lambda m: _remember(m, m.number(1))),
        (b"r", lambda m: _remember(m, m.number(4))),
        (b"\x94", _memoize),
        (b"g", lambda m: m.push(m.memo[_index(m)])),
        (b"h", lambda m: m.push(m.memo[m.number(1)])),
        (b"j", lambda m: m.push(m.memo[m.number(4)])),
        (b"c", lambda m: m.push_global(m.line(), m.line())),
        (b"\x93", lambda m: m.push_global(*m.pop_many(2))),
        (b"i", _instance),
        (b"o", _new_from_mark),
        (b"\x81", lambda m: m.push_stub(*m.pop_many(2))),
        (b"\x92", _new_extended),
        (b"R", lambda m: m.call()),
        (b"b", lambda m: m.build()),
        (b"P", lambda m: m.push(m.persistent(m.line()))),
        (b"Q", lambda m: m.push(m.persistent(m.pop()))),
    )
}
