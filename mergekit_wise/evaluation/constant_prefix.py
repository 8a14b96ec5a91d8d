"""Finds the part of a forward pass that comes before all weights that vary, so that it is computed once for all.

No architecture is known here: one pass over noise is watched, operation by operation. The part ends where a module
returns a tensor from which alone, of all that was computed from the images, the rest is computed. Knows no alpha.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True, slots=True)
class ConstantPrefix:
    """The first part of a forward pass, which is the same for several settings of the weights.

    Attributes:
        last: the module whose output is kept; nothing else that was computed from the images is needed afterwards.
        order: the dimensions of that output as they lie in memory, the images first.
        skipped: the modules that need not be called again, with the shape (of one image) and dtype of their outputs.
        weights: the parameters and buffers that this part reads.
        blocks: how many of the model's blocks, or layers if it has no blocks, this part contains.
        total: how many the forward pass has.
        unit: "block" or "layer".
        image_bytes: memory of the kept output for one image.
    """

    last: nn.Module
    order: tuple[int, ...]
    skipped: tuple[tuple[nn.Module, tuple[int, ...], torch.dtype], ...]
    weights: tuple[Tensor, ...]
    blocks: int
    total: int
    unit: str
    image_bytes: int

    @property
    def versions(self) -> tuple[int, ...]:
        """Changes whenever one of `weights` is written."""
        return tuple(tensor._version for tensor in self.weights)

    @contextmanager
    def recording(self, kept: list[Tensor]) -> Iterator[None]:
        """Append the output of `last`, in the order in which it lies in memory, to `kept` in each forward pass."""
        compute = self.last.forward

        def recorded(*args: Any, **kwargs: Any) -> Tensor:
            output: Tensor = compute(*args, **kwargs)
            kept.append(output.permute(self.order))
            return output

        with _instead([(self.last, recorded)]):
            yield

    @contextmanager
    def skipping(self, kept: Tensor) -> Iterator[None]:
        """Let forward passes begin with what `recording` kept [B, ...]; the images that they are given do not matter.

        It has the same layout in memory as when it was computed, so that the same kernels read it.
        """
        output = kept.permute([self.order.index(dimension) for dimension in range(kept.ndim)])

        def nothing(shape: tuple[int, ...], dtype: torch.dtype) -> Callable[..., Tensor]:
            return lambda *_, **__: kept.new_zeros(len(kept), *shape, dtype=dtype)

        stubs = [(module, nothing(shape, dtype)) for module, shape, dtype in self.skipped if module is not self.last]
        with _instead([*stubs, (self.last, lambda *_, **__: output)]):
            yield


def constant_prefixes(
    module: nn.Module, compute: Callable[[Tensor], Tensor], images: Tensor, varying: Collection[str]
) -> list[ConstantPrefix]:
    """The parts that may be computed once, the longest first; whether they really may must be tried.

    Of parts with the same blocks, the one that is kept in the least memory comes first.

    Args:
        module: whose calls are watched.
        compute: computes logits with the module.
        images: normalised, [n, 3, H, W], with n > 1.
        varying: names of the module's parameters and buffers that are not always the same.
    """
    named = dict(module.named_modules())
    if all(any(_within(tensor, block) for tensor in varying) for block in _blocks(named, named.keys())[0]):
        return []
    watch = _Watch(module, images, varying)
    with watch.calls_of(module), torch.inference_mode(), watch:
        compute(images)
    called = {id(call.module) for call in watch.calls}
    names, unit = _blocks(named, {name for name, each in named.items() if id(each) in called})
    blocks = [named[name] for name in names]
    places = reversed(range(len(watch.calls)))
    found = [prefix for place in places if (prefix := watch.prefix(place, len(images), blocks, unit)) is not None]
    return sorted((each for each in found if each.blocks), key=lambda each: (-each.blocks, each.image_bytes))


@contextmanager
def _instead(replacements: Sequence[tuple[nn.Module, Callable[..., Tensor]]]) -> Iterator[None]:
    """Call other functions instead of the modules' own."""
    try:
        for module, function in replacements:
            module.__dict__["forward"] = function
        yield
    finally:
        for module, _ in replacements:
            module.__dict__.pop("forward", None)


def _blocks(named: Mapping[str, nn.Module], called: Collection[str]) -> tuple[list[str], str]:
    """The innermost modules with several weights that are repeated in a list; else, the layers with a weight."""

    def weights(module: nn.Module) -> int:
        return sum(parameter.ndim > 1 for parameter in module.parameters())

    listed = {
        id(child)
        for parent in named.values()
        if isinstance(parent, (nn.Sequential, nn.ModuleList))
        for child in parent.children()
    }
    several = [
        name
        for name in called
        if id(named[name]) in listed and not isinstance(named[name], nn.Sequential) and weights(named[name]) > 1
    ]
    inner = [name for name in several if not any(_within(other, name) for other in several)]
    if inner:
        return inner, "block"
    return [name for name in called if not list(named[name].children()) and weights(named[name])], "layer"


def _within(name: str, module: str) -> bool:
    """Whether a tensor or a module lies in this module."""
    return name.startswith(f"{module}.")


@dataclass(slots=True)
class _Value:
    """Memory that was computed: when, when it was last read and written, and whether it depends on the images."""

    made: int
    of_images: bool
    read: int = 0
    written: int = 0


@dataclass(slots=True)
class _Call:
    """One call of a module: the call that it is part of, the number of operations before its end, and its output.

    `order` is that of the output's dimensions in memory, if the output fills a piece of memory, image after image.
    """

    module: nn.Module
    parent: "_Call | None"
    end: int = 0
    place: int = -1
    output: tuple[torch.Size, torch.dtype] | None = None
    value: _Value | None = None
    order: tuple[int, ...] | None = None


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes, for each operation, which memory it reads, writes and makes. Calls are in the order in which they end."""

    def __init__(self, module: nn.Module, images: Tensor, varying: Collection[str]) -> None:
        """Before the pass over these images."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.clock, self.first_varying = 0, inf
        self.calls: list[_Call] = []
        self._open: list[_Call] = []
        self._weights: dict[int, list[tuple[Tensor, bool]]] = {}
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            self._weights.setdefault(_storage(tensor), []).append((tensor, name in varying))
        self._read: dict[int, int] = {}
        self._values = {_storage(images): _Value(0, of_images=True)}
        self._all = list(self._values.values())

    @contextmanager
    def calls_of(self, module: nn.Module) -> Iterator[None]:
        """Watch the calls of a module and of all inside it."""
        handles = [each.register_forward_pre_hook(self._enter) for each in module.modules()]
        handles += [each.register_forward_hook(self._leave) for each in module.modules()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute the operation and note what it does."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        self.clock += 1
        of_images = False
        for tensor in _tensors((args, kwargs)):
            of_images |= self._note_read(_storage(tensor))
        for tensor in _tensors(_written(func, args, kwargs)):
            if value := self._values.get(_storage(tensor)):
                value.written, value.of_images = self.clock, value.of_images or of_images
        given = {_storage(tensor) for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(output):
            # Memory that was freed may be used again, then by something that no operand lies in.
            if (key := _storage(tensor)) not in given and key not in self._weights:
                self._values[key] = _Value(self.clock, of_images)
                self._all.append(self._values[key])
        return output

    def _note_read(self, key: int) -> bool:
        """Whether what is read depends on the images."""
        for _, varies in self._weights.get(key, ()):
            self._read.setdefault(key, self.clock)
            if varies:
                self.first_varying = min(self.first_varying, self.clock)
        value = self._values.get(key)
        if value is None:
            return False
        value.read = self.clock
        return value.of_images

    def _enter(self, module: nn.Module, _: Any) -> None:
        self._open.append(_Call(module, self._open[-1] if self._open else None))

    def _leave(self, _: nn.Module, __: Any, output: Any) -> None:
        call = self._open.pop()
        call.end, call.place = self.clock, len(self.calls)
        if isinstance(output, Tensor):
            call.output, call.value = (output.shape, output.dtype), self._values.get(_storage(output))
            steps = output.stride()
            order = (0, *sorted(range(1, output.ndim), key=lambda dimension: -steps[dimension]))
            fills = output.ndim > 0 and output.nbytes == output.untyped_storage().nbytes()
            call.order = order if fills and output.permute(order).is_contiguous() else None
        self.calls.append(call)

    def prefix(self, place: int, images: int, blocks: Sequence[nn.Module], unit: str) -> ConstantPrefix | None:
        """The part of the pass up to the end of a call, if the rest needs nothing but its output."""
        last = self.calls[place]
        times = Counter(id(call.module) for call in self.calls)
        if last.end >= self.first_varying:
            return None
        if last.order is None or times[id(last.module)] > 1 or last.value is None or last.value.written > last.end:
            return None
        alive = [v for v in self._all if v.of_images and v.made <= last.end < v.read and v is not last.value]
        if alive or not last.value.of_images:
            return None
        skipped = []
        for call in self.calls[: place + 1]:
            inside = call.parent is not None and 0 <= call.parent.place <= place
            if inside or times[id(call.module)] > 1 or (call.value is not None and not call.value.of_images):
                continue
            if call.output is None or not call.output[0] or call.output[0][0] != images:
                return None
            skipped.append((call.module, tuple(call.output[0][1:]), call.output[1]))
        done = {id(call.module) for call in self.calls[: place + 1]}
        read = [tensor for key, at in self._read.items() if at <= last.end for tensor, _ in self._weights[key]]
        assert last.output is not None
        return ConstantPrefix(
            last=last.module,
            order=last.order,
            skipped=tuple(skipped),
            weights=tuple(read),
            blocks=sum(id(block) in done for block in blocks),
            total=len(blocks),
            unit=unit,
            image_bytes=last.output[0][1:].numel() * last.output[1].itemsize,
        )


def _storage(tensor: Tensor) -> int:
    """Where a tensor's memory lies."""
    return tensor.untyped_storage().data_ptr()


def _tensors(tree: Any) -> Iterable[Tensor]:
    """The tensors with elements among arguments or results."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.numel()]


def _written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments that an operation writes to."""
    found = []
    for number, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found.append(args[number] if number < len(args) else kwargs.get(argument.name))
    return found
