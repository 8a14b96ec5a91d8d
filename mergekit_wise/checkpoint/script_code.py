"""Which attributes of a TorchScript archive's modules are weights: the archive's code declares them. Runs no code.

The pickle holds a module's weights and the tensors that it keeps while it runs (the state of a recurrent layer) as
attributes alike. In the code, each class begins with the lists of its parameters and buffers.
"""

import re
import zipfile
import zlib
from collections.abc import Mapping

from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.pickle_machine import Global, Stub
from mergekit_wise.checkpoint.torch_objects import TensorView
from mergekit_wise.wording import listed, shown

MAX_CODE = 1 << 24
"""Bytes of a file of code."""

MAX_FILES = 20_000

_CLASS = re.compile(
    r'^class (\w+)\(Module\):\n  __parameters__ = \[(["\w, ]*)\]\n  __buffers__ = \[(["\w, ]*)\]$', re.M
)

Declared = Mapping[tuple[str, str], frozenset[str]]
"""Names of parameters and buffers, by the module and the name of a class."""


def declared_weights(file: MappedFile, members: Mapping[str, zipfile.ZipInfo], folder: str) -> Declared:
    """What the code in an archive declares. Raises ValueError if the code cannot be read."""
    start = f"{folder}code/"
    found: dict[tuple[str, str], frozenset[str]] = {}
    names = [name for name in members if name.startswith(f"{start}__torch__") and name.endswith(".py")]
    with zipfile.ZipFile(file.path) as archive:
        for name in names[:MAX_FILES]:
            if members[name].file_size > MAX_CODE:
                continue
            try:
                with archive.open(members[name]) as stream:
                    text = stream.read(MAX_CODE).decode()
            except (zlib.error, RuntimeError) as error:  # RuntimeError: encrypted
                raise ValueError(f"{shown(name)} cannot be read: {error}") from error
            module = name.removeprefix(start).removesuffix(".py").replace("/", ".")
            for kind, parameters, buffers in _CLASS.findall(text):
                found[module, kind] = frozenset(re.findall(r"\w+", f"{parameters} {buffers}"))
    return found


def leave_out_undeclared(value: object, declared: Declared) -> tuple[str, ...]:
    """Take the tensors that are no weights out of the modules below `value`; returns a note if there are any.

    Modules whose class the code does not describe stay as they are.
    """
    waiting, seen = [value], {id(value)}
    dropped: dict[str, None] = {}
    while waiting:
        node = waiting.pop()
        if not isinstance(node, Stub) or not isinstance(node.state, dict) or not isinstance(node.kind, Global):
            continue
        wanted = declared.get((node.kind.module, node.kind.name))
        if wanted is not None:
            extra = {k: None for k, entry in node.state.items() if isinstance(entry, TensorView) and k not in wanted}
            dropped |= dict.fromkeys(shown(str(key)) for key in extra)
            node.state = {key: entry for key, entry in node.state.items() if key not in extra}
        for child in node.state.values():
            if id(child) not in seen:
                seen.add(id(child))
                waiting.append(child)
    names = listed(dropped)
    return (f"left out {names}: tensors that the script keeps while it runs, not weights",) if dropped else ()
