"""Which entry of an unpickled file is the state dict, and finding an entry by its name. Knows no file format.

Training scripts save the weights beside the epoch, the loss, the optimizer and moving averages, under any name and at
any depth. This is the rule:

1. A candidate is a dictionary that holds tensors under text keys, or a pickled module. The state of an optimizer is
   none: whatever lies under a key like ``optimizer`` or beside ``param_groups``, or has an optimizer's names alone.
2. Candidates without a float tensor of at least one dimension (a loss, a counter, the state of a random generator)
   count only if there are no others.
3. A dictionary whose names have no dots does not count if a candidate inside it has more of a model's tensors.
4. A moving average does not count where another candidate has tensors of the same shapes.
5. Of several that remain, the one under the first key of `CONVENTIONS` is the state dict, unless another is far larger.
   Without such a key it is the one that is far larger than every other. Otherwise the user must choose.

Nothing is chosen silently: a note names the entry and whatever else holds weights.
"""

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from mergekit_wise.checkpoint.arrays import PickledArray, pickled_array, why_unreadable
from mergekit_wise.checkpoint.modules import Budget, Weights, inner_module, is_module, module_weights
from mergekit_wise.checkpoint.pickle_machine import Stub, UnsuitableError
from mergekit_wise.checkpoint.pickle_report import SEARCHED, call_in, described, name_of
from mergekit_wise.checkpoint.torch_objects import TensorView
from mergekit_wise.wording import did_you_mean, listed, plural, shown

CONVENTIONS = (
    *("state_dict", "model_state_dict", "model", "module", "model_state", "net", "network", "net_state_dict"),
    *("network_state_dict", "network_weights", "model_weights", "weights", "params", "ema", "state_dict_ema"),
    *("model_ema", "params_ema", "ema_state_dict", "ema_model"),
)
"""Keys under which training scripts save the weights, the first that is present being used."""

AVERAGE = re.compile(r"(^|[^a-z])(ema|swa|avg|average[ds]?|averaged|shadow|polyak)($|[^a-z])", re.IGNORECASE)

OPTIMIZER = re.compile(
    r"optimi[sz]ers?(?![a-z])|(^|_)optims?($|_)|scheduler|(^|_)scaler$|^opts?$|^rng|_rng|random_state|param_groups",
    re.IGNORECASE,
)
"""Keys of what a training script keeps beside the weights to resume."""

OPTIMIZER_TENSORS = frozenset(
    (
        *("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "grad_avg"),
        *("acc_delta", "sum", "eta", "mu", "ax", "prev", "step_size", "exp_avg_sq_row", "exp_avg_sq_col"),
    )
)

COUNTER = "n_averaged"
"""The one tensor of ``torch.optim.swa_utils.AveragedModel`` that is not the averaged model's."""

FAR_LARGER = 4
"""So many times the tensors and the bytes."""

MAX_COMPARED = 100
"""Of more candidates, those with the most tensors are compared with each other."""

MAX_DEPTH = 16
"""How deep entries are searched for."""

Key = object
Steps = tuple[Key, ...]


@dataclass(frozen=True)
class Candidate:
    """A dictionary or module with tensors; `steps` are the keys that lead to it."""

    steps: Steps
    value: object
    weights: Weights

    @property
    def text(self) -> str:
        """What follows ``FILE::``."""
        return ".".join(_text(step) for step in self.steps)

    @cached_property
    def shapes(self) -> Counter[tuple[int, ...]]:
        """Shapes of the tensors that a model could have trained."""
        return Counter(t.shape for t in self.weights.tensors.values() if t.shape and t.dtype.kind in _TRAINED)

    @cached_property
    def count(self) -> int:
        """Tensors that a model could have trained, and those that cannot be read."""
        unread = sum(1 for entry in self.weights.others.values() if why_unreadable(entry))
        return self.shapes.total() + unread

    @cached_property
    def nbytes(self) -> int:
        """Bytes of these tensors, as far as they are read."""
        return sum(_nbytes(t) for t in self.weights.tensors.values() if t.shape and t.dtype.kind in _TRAINED)

    @cached_property
    def has_dots(self) -> bool:
        """Whether names look like those of a module's tensors."""
        return any("." in name for name in self.weights.tensors)

    @property
    def is_average(self) -> bool:
        """Whether a key on the way says that these are averaged weights."""
        return any(AVERAGE.search(_text(step)) for step in self.steps)

    @property
    def rank(self) -> tuple[int, int]:
        """The place of the last key in `CONVENTIONS`, then the first place of all keys."""
        places = [CONVENTIONS.index(key) if key in CONVENTIONS else len(CONVENTIONS) for key in self.steps]
        return (places[-1], min(places)) if places else (len(CONVENTIONS), len(CONVENTIONS))

    def far_larger(self, other: "Candidate") -> bool:
        """Whether this holds several times the tensors and the bytes of another one."""
        return self.count >= FAR_LARGER * other.count and self.nbytes >= FAR_LARGER * other.nbytes

    def is_below(self, other: "Candidate") -> bool:
        """Whether this lies inside another one."""
        return len(self.steps) > len(other.steps) and self.steps[: len(other.steps)] == other.steps


_TRAINED = ("float", "complex")


def find_weights(value: object, path: Path, entry: str | None = None) -> tuple[Weights, list[str]]:
    """The state dict in an unpickled `value`, by the rule above, or the entry of that name; and notes on the choice.

    Raises UnsuitableError if there is none, or several that could be meant: the message lists what to pass instead of
    `path`.
    """
    steps, start = ((), value) if entry is None else _resolve(value, entry)
    found = list(_candidates(start, steps))
    if entry is not None:  # what was asked for, if it is a state dict by itself
        found = [candidate for candidate in found if candidate.steps == steps] or found
    if not found:
        raise UnsuitableError(_nothing(start, entry))
    chosen = _choose(found, path)
    notes = []
    if chosen.steps:
        beside = _summary(_beside(value, chosen.steps))
        notes.append(f"using {shown(chosen.text)!r}" + (f"; ignoring {beside}" if beside else ""))
    others = [o for o in found if o is not chosen and o.count and (o.has_dots or not chosen.is_below(o))]
    if averages := [_alternative(path, other) for other in others if other.is_average]:
        notes.append(f"averaged weights, often the better ones, are in {listed(averages)}; pass that to use them")
    if more := [_alternative(path, other) for other in others if not other.is_average]:
        notes.append(f"other weights are in {listed(more)}; pass that to use them")
    if isinstance(chosen.value, Stub) and is_module(chosen.value):
        notes.append(f"read the weights from a pickled module ({name_of(chosen.value)})")
    if ignored := _summary(chosen.weights.others.items()):
        notes.append(f"ignored entries that are no tensors: {ignored}")
    weights = chosen.weights
    names = weights.tensors.keys() - {COUNTER}
    if COUNTER in weights.tensors and names and all(name.startswith("module.") for name in names):
        weights = replace(weights, tensors={k: t for k, t in weights.tensors.items() if k != COUNTER})
        notes.append(f"left out {COUNTER}, the counter of torch's AveragedModel")
    return weights, notes


def _choose(found: list[Candidate], path: Path) -> Candidate:
    pool = [candidate for candidate in found if candidate.count] or found
    pool = sorted(pool, key=lambda candidate: candidate.count, reverse=True)[:MAX_COMPARED]
    pool = [c for c in pool if c.has_dots or not any(_outdoes(other, c) for other in pool)]
    main = [candidate for candidate in pool if not candidate.is_average]
    pool = [c for c in pool if not (c.is_average and any(_same_shapes(c, other) for other in main))]
    best = min(candidate.rank for candidate in pool)
    leaders = [candidate for candidate in pool if candidate.rank == best]
    if best == (len(CONVENTIONS),) * 2:
        leaders = [c for c in pool if all(c.far_larger(other) for other in pool if other is not c)]
    elif any(other.far_larger(leader) for leader in leaders for other in pool):
        leaders = []
    if len(pool) == 1:
        leaders = pool
    if len(leaders) != 1:
        texts = [_alternative(path, candidate) for candidate in found if candidate.count or not leaders]
        raise UnsuitableError(f"several of its entries hold weights. Name the one to use: {listed(texts)}")
    (chosen,) = leaders
    if not chosen.count and all(not tensor.shape for tensor in chosen.weights.tensors.values()):
        _require_nothing_else(chosen)
    return chosen


def _outdoes(inner: Candidate, outer: Candidate) -> bool:
    return inner.is_below(outer) and (inner.has_dots or inner.count > outer.count)


def _same_shapes(one: Candidate, other: Candidate) -> bool:
    return one.shapes <= other.shapes or other.shapes <= one.shapes


def _require_nothing_else(scalars: Candidate) -> None:
    """Raise UnsuitableError if objects that are not read lie beside a few numbers: these may be the weights."""
    objects = [(k, entry) for k, entry in scalars.weights.others.items() if isinstance(entry, Stub)]
    if objects:
        raise UnsuitableError(
            f"it holds no weights but {listed(scalars.weights.tensors)} (single numbers), and objects that are not "
            f"read: {_summary(objects)}. Save the model's state_dict() with torch.save"
        )


def _candidates(value: object, steps: Steps) -> Iterator[Candidate]:
    """All state dicts and modules at or below a value; each object once, the shallowest first."""
    budget = Budget()
    seen = {id(value)}
    level: list[tuple[Steps, object]] = [(steps, value)]
    for _ in range(MAX_DEPTH):
        below: list[tuple[Steps, object]] = []
        for place, held in level:
            node = inner_module(held)
            if isinstance(node, Stub) and is_module(node):
                weights = module_weights(node, budget)
                if weights.tensors or any(why_unreadable(entry) for entry in weights.others.values()):
                    yield Candidate(place, node, weights)
                continue
            entries = _entries(node)
            if entries is not None:
                if "param_groups" in entries and place != steps:
                    continue
                candidate = Candidate(place, node, _dictionary_weights(entries))
                names = candidate.weights.tensors.keys()
                if (
                    place != steps
                    and names <= OPTIMIZER_TENSORS
                    and names & {"exp_avg", "momentum_buffer", "square_avg"}
                ):
                    continue
                if names or candidate.count:
                    yield candidate
            for key, child in _children(node):
                if isinstance(child, (dict, list, tuple, Stub)) and id(child) not in seen:
                    seen.add(id(child))
                    if not (isinstance(key, str) and OPTIMIZER.search(key)):
                        below.append(((*place, key), child))
        level = below


def _dictionary_weights(entries: dict[object, object]) -> Weights:
    tensors: dict[str, TensorView | PickledArray] = {}
    others: dict[object, object] = {}
    for key, entry in entries.items():
        tensor = entry if isinstance(entry, TensorView) else pickled_array(entry)
        if tensor is not None and isinstance(key, str):
            tensors[key] = tensor
        else:
            others[key] = entry
    return Weights(tensors, others)


def _nbytes(tensor: TensorView | PickledArray) -> int:
    count = 1
    for size in tensor.shape:
        count *= size
    return count * tensor.dtype.itemsize


def _entries(value: object) -> dict[object, object] | None:
    """The entries of a dictionary, of whatever class."""
    return value if isinstance(value, dict) else value.entries if isinstance(value, Stub) else None


def _children(value: object) -> Iterable[tuple[Key, object]]:
    """What a value holds, by key, index or attribute; of a module its submodules as well."""
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, (list, tuple)):
        return enumerate(value)
    if not isinstance(value, Stub):
        return ()
    attributes = value.state if isinstance(value.state, dict) else {}
    modules = attributes.get("_modules") if is_module(value) else None
    return {**attributes, **(modules if isinstance(modules, dict) else {}), **(value.entries or {})}.items()


def _text(key: Key) -> str:
    return key if isinstance(key, str) else str(key) if isinstance(key, (int, float)) else name_of(key)


def _alternative(path: Path, candidate: Candidate) -> str:
    """What to pass on the command line to read a candidate."""
    name = shlex.quote(f"{path}::{shown(candidate.text, 200)}")
    return f"{name} ({plural(len(candidate.weights.tensors), 'tensor')})"


def _resolve(value: object, entry: str) -> tuple[Steps, object]:
    """The keys and the value that an entry's name leads to; the longest keys are tried first.

    Raises UnsuitableError that lists the keys that are there.
    """
    steps: list[Key] = []
    while entry:
        children = {_text(key): (key, child) for key, child in _children(value)}
        fitting = [text for text in children if entry == text or entry.startswith(f"{text}.")]
        if not fitting:
            where = f"entry {'.'.join(map(_text, steps))!r}" if steps else "it"
            texts = [shown(text) for text in children]
            raise UnsuitableError(
                f"{where} has no entry {shown(entry)!r}, only {listed(texts) or 'none at all'}."
                + did_you_mean(entry, texts)
            )
        longest = max(fitting, key=len)
        key, value = children[longest]
        steps.append(key)
        entry = entry[len(longest) + 1 :]
    return tuple(steps), value


def _beside(value: object, steps: Steps) -> Iterator[tuple[object, object]]:
    """The entries that lie beside a path, level by level, under their full names."""
    for depth, step in enumerate(steps):
        inner = None
        for key, child in _children(value):
            if key is step or key == step:
                inner = child
            else:
                yield (key if not depth else ".".join(map(_text, (*steps[:depth], key)))), child
        value = inner


def _nothing(value: object, entry: str | None) -> str:
    what = "it" if entry is None else f"entry {shown(entry)!r}"
    if isinstance(value, TensorView):
        return (
            f"{what} holds a single tensor of shape {list(value.shape)}, not a state dict. Save it under a name: "
            "torch.save({'NAME': tensor}, FILE)"
        )
    entries = _entries(value)
    if entries is None:
        return f"{what} holds a {described(value)}, not a state dict"
    return f"{what} holds a dictionary without tensors ({_summary(entries.items()) or 'empty'})"


def _summary(entries: Iterable[tuple[object, object]]) -> str:
    """The first keys; those whose entries hold a call or class come first, with its name."""
    labels: list[str] = []
    calls: list[str] = []
    budget = iter(range(SEARCHED))
    for key, entry in entries:
        name = shown(str(key)) if isinstance(key, (str, int, float)) else name_of(key)
        call = call_in(entry, budget)
        if call is None:
            labels.append(name)
        else:
            calls.append(f"{name} ({name_of(call)})")
    return listed(calls + labels)
