"""Applies a LoRA adapter to the checkpoint it was trained on: theta_1 = theta_0 + scale * B A, computed on reading.

Nothing of the adapter is left out: each of its tensors finds its place in the base, or it is refused by name.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mergekit_wise.checkpoint import BY_NAME, Checkpoint, TensorInfo
from mergekit_wise.checkpoint.derived import InMemory, reshaped, transposed
from mergekit_wise.checkpoint.tensors import Tensor
from mergekit_wise.errors import CheckpointError, MismatchError, UsageError
from mergekit_wise.merging.low_rank import low_rank
from mergekit_wise.merging.plan import MIXABLE
from mergekit_wise.models.adapters import ADVICE, Adapter, article, read_adapter
from mergekit_wise.models.families import Family, family_of_modules, translated
from mergekit_wise.wording import fold_names, listed, plural, shown

_FACTOR = re.compile(r"(.+)\.lora_(embedding_)?([AB])(?:\.([^.]+))??(?:\.(weight|bias))?")
"""Module, whether of an embedding, side, the adapter's name (which PEFT leaves out when it saves), and what."""

_PIECE = 1 << 22

_DOUBLED_UNTIL = (0, 21)
"""Up to this version, and perhaps later, peft adds the product twice to the output projection of nn.MultiheadAttention,
when it merges and when it runs the model."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """The factors of one module: A [rank, inputs, ...] and B [outputs, rank, ...], and perhaps a bias of B."""

    name: str
    embedding: bool
    scale: float
    doubled: bool
    rank: int
    a: Tensor
    b: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class _Naming:
    """How the adapter's names become the base's: the prefix `remove` goes, the prefix `add` comes."""

    remove: str = ""
    add: str = ""

    def __call__(self, name: str) -> str:
        return self.add + name.removeprefix(self.remove)

    @property
    def notes(self) -> Iterator[str]:
        if self.add:
            yield f"added prefix {self.add!r} to the adapter's module names"
        if self.remove:
            yield f"removed prefix {self.remove!r} from the adapter's module names"


def apply_adapters(
    zeroshot: Checkpoint, finetuned: Checkpoint, base: Checkpoint | None = None
) -> tuple[Checkpoint, Checkpoint]:
    """Replace each side that is an adapter by the model that it makes of `base`, or else of the zero-shot checkpoint.

    Raises UsageError if there is no base, or no adapter for a base that was given; CheckpointError and MismatchError as
    `with_adapter` does.
    """
    first, second = read_adapter(zeroshot), read_adapter(finetuned)
    if base is not None and (found := read_adapter(base)):
        raise UsageError(
            f"--base {base.path}: is {article(found.kind)} adapter. Give the model that it was trained on."
        )
    if first is None and second is None:
        if base is not None:
            raise UsageError(
                f"--base {base.path}: neither {zeroshot.path} nor {finetuned.path} is an adapter, so there is nothing "
                "to apply to it. Leave --base out."
            )
        return zeroshot, finetuned
    if first is not None and base is None:
        named = f" (it names {first.base_model})" if first.base_model else ""
        raise UsageError(
            f"{zeroshot.path}: is {article(first.kind)} adapter, not a model. Give the model that it was trained on"
            f"{named} as the zero-shot checkpoint or, to mix two adapters of one model, with --base."
        )
    if first is not None and base is not None:
        zeroshot = with_adapter(base, first)
    if second is not None:
        finetuned = with_adapter(base or zeroshot, second)
    if base is not None:
        notes = (f"{base.path.name}: {note}" for note in base.notes)
        finetuned = replace(finetuned, notes=(*notes, *finetuned.notes))
    return zeroshot, finetuned


def with_adapter(base: Checkpoint, adapter: Adapter) -> Checkpoint:
    """The fine-tuned model: the base's tensors under its names, changed and replaced as the adapter says.

    Raises CheckpointError if the adapter is of a kind that cannot be applied exactly or is incomplete; MismatchError
    if it does not fit the base.
    """
    path = adapter.weights.path
    if adapter.refusal is not None:
        raise CheckpointError(f"{path}: this adapter cannot be applied exactly: {adapter.refusal}. {ADVICE}")
    layers, others = _sorted(adapter)
    family = family_of_modules([layer.name for layer in layers], base)
    if family is not None:
        base = translated(base, family)
    naming = _naming(base, adapter, layers)
    replaced = _replacements(base, adapter, others, naming)
    tensors = {**base.tensors, **replaced}
    products = _products(replace(base, tensors=tensors), adapter, layers, naming)
    return Checkpoint(
        path,
        f"LoRA adapter ({adapter.weights.kind})",
        {**tensors, **products},
        base.metadata,
        _digest(adapter),
        (*_notes_on_family(base, family), *_notes(base, adapter, layers, replaced, naming)),
        base=base,
    )


def _sorted(adapter: Adapter) -> tuple[list[_Layer], dict[str, Tensor]]:
    """The adapted modules, and the tensors that are no factors by their names in the model."""
    path = adapter.weights.path
    parts: dict[tuple[str, bool], dict[str, Tensor]] = {}
    others: dict[str, Tensor] = {}
    labels = set()
    for name, tensor in adapter.weights.tensors.items():
        inner = name.removeprefix("base_model.model.")
        found = _FACTOR.fullmatch(inner)
        if found is None:
            others[_without_layers_of_peft(inner)] = tensor
            continue
        module, embedding, side, label, what = found.groups()
        labels.add(label)
        parts.setdefault((module, bool(embedding)), {})[f"{side} bias" if what == "bias" else side] = tensor
    if len(labels) > 1:
        raise CheckpointError(
            f"{path}: holds several adapters ({listed(sorted(map(str, labels)))}). Save one of them by itself: "
            "save_pretrained(FOLDER, selected_adapters=[NAME])."
        )
    wrong = [module for (module, _), found in parts.items() if not {"A", "B"} <= found.keys() <= {"A", "B", "B bias"}]
    if wrong or not parts:
        what = (
            f"of the factors lora_A and lora_B not one each for: {listed(wrong)}" if wrong else "no lora_A and lora_B"
        )
        raise CheckpointError(f"{path}: an incomplete LoRA adapter ({what}). Save it again with save_pretrained.")
    return [_layer(adapter, *key, found) for key, found in parts.items()], others


def _layer(adapter: Adapter, written: str, embedding: bool, parts: Mapping[str, Tensor]) -> _Layer:
    module, inside, _ = written.partition(".base_layer.")  # settings are those of the module around the layer
    rank, name = adapter.rank(module), _without_layers_of_peft(written)
    if parts["A"].info.shape[:1] != (rank,):
        raise CheckpointError(
            f"{adapter.weights.path}: the factor A of {name} has the shape {list(parts['A'].info.shape)}, but "
            f"adapter_config.json says rank {rank}, so the scale is not known. {ADVICE}"
        )
    if inside:
        _require_doubling(adapter, name)
    scale = adapter.scale(module) * (2 if inside else 1)
    return _Layer(name, embedding, scale, bool(inside), rank, parts["A"], parts["B"], parts.get("B bias"))


def _without_layers_of_peft(name: str) -> str:
    """A tensor's or module's name in the model, without what PEFT wraps around modules."""
    return re.sub(r"\.(base_layer|modules_to_save(\.default)?)(?=\.)", "", name)


def _require_doubling(adapter: Adapter, name: str) -> None:
    """Raise CheckpointError unless peft is known to add this product twice: see `_DOUBLED_UNTIL`."""
    version = str(adapter.config.get("peft_version") or "0")
    found = re.match(r"(\d+)(?:\.(\d+))?", version)
    if found is None or (int(found[1]), int(found[2] or 0)) > _DOUBLED_UNTIL:
        raise CheckpointError(
            f"{adapter.weights.path}: peft {shown(version)} wrote the factors of {name}, the output projection of an "
            "nn.MultiheadAttention. Earlier versions add their product twice, and whether this one does is not known. "
            f"{ADVICE}"
        )


def _naming(base: Checkpoint, adapter: Adapter, layers: Sequence[_Layer]) -> _Naming:
    """The names under which the base has every adapted module, with tensors that the factors fit.

    Raises MismatchError if it has not, or if there are several ways to read the names.
    """
    plain = _Naming()
    candidates = [plain, *_candidates(base.tensors, max((each.name for each in layers), key=len))]
    missing = {naming: [e.name for e in layers if _target(base, naming(e.name)) is None] for naming in candidates}
    complete = [naming for naming in candidates if not missing[naming]]
    fitting = [naming for naming in complete if all(_possible(base, naming, layer) for layer in layers)]
    if plain in fitting or len(fitting) == 1:
        return plain if plain in fitting else fitting[0]
    meant = [naming for naming in fitting if _is_tower_of(adapter, naming)]
    if len(meant) == 1:
        return meant[0]
    path = adapter.weights.path
    if fitting:
        prefixes = listed(repr(naming.add or naming.remove) for naming in fitting)
        raise MismatchError(
            f"{path}: its modules fit several parts of {base.path}: {prefixes}. Give as the base the model that it was "
            "trained on, alone."
        )
    if complete:
        wrong = [_misfit(base, complete[0], each) for each in layers if not _possible(base, complete[0], each)]
        raise MismatchError(f"{path} and {base.path} do not fit:\n" + "\n".join(f"  {line}" for line in wrong[:16]))
    names = min(missing.values(), key=len)
    named = f" It names {adapter.base_model}." if adapter.base_model else ""
    raise MismatchError(
        "\n".join(
            [
                f"{path}: {len(names)} of its {plural(len(layers), 'module')} "
                f"{'has' if len(names) == 1 else 'have'} no weight in {base.path}:",
                *(f"  {line}" for line in fold_names(names)[:16]),
                f"Give the model that the adapter was trained on, under the same names.{named}",
            ]
        )
    )


def _candidates(names: Collection[str], probe: str) -> Iterator[_Naming]:
    """Prefixes to remove or to add with which the base has the module `probe`."""
    for name in names:
        module = name.removesuffix("weight").removesuffix("in_proj_").removesuffix(".")
        if module.endswith(f".{probe}"):
            yield _Naming(add=module.removesuffix(probe))
        elif probe.endswith(f".{module}"):
            yield _Naming(remove=probe.removesuffix(module))


def _is_tower_of(adapter: Adapter, naming: _Naming) -> bool:
    """Whether the class of the base model, CLIPVisionModel or CLIPTextModel, is what the added prefix stands for."""
    mapping = adapter.config.get("auto_mapping")
    found = re.search("Vision|Text", str(mapping.get("base_model_class"))) if isinstance(mapping, dict) else None
    return found is not None and naming.add.endswith(f"{found[0].lower()}_model.")


def _target(base: Checkpoint, module: str) -> Tensor | None:
    """The weight of a module; nn.MultiheadAttention has in_proj_weight instead."""
    return base.tensors.get(f"{module}.weight") or base.tensors.get(f"{module}.in_proj_weight")


def _factors(layer: _Layer, shape: tuple[int, ...], *, swapped: bool) -> tuple[Tensor, Tensor] | None:
    """Two matrices whose product has the shape of the weight, [outputs, ...] or `swapped`; None if they do not fit."""
    a, b = layer.a.info.shape, layer.b.info.shape
    if len(a) != len(b) or len(a) < 2 or a[0] != b[1] or 0 in (*a, *b) or any(size != 1 for size in b[2:]):
        return None
    product = (b[0], *a[1:])
    if swapped and len(shape) == 2 and product == shape[::-1]:
        return transposed(layer.a), transposed(layer.b)
    if not swapped and product == shape:
        return reshaped(layer.b, b[:2]), reshaped(layer.a, (a[0], layer.a.info.count // a[0]))
    return None


def _possible(base: Checkpoint, naming: _Naming, layer: _Layer) -> list[bool]:
    """Whether the factors fit the weight as [outputs, inputs] (False), or as [inputs, outputs] (True), or as both."""
    target = _target(base, naming(layer.name))
    orientations = (True,) if layer.embedding else (False, True)
    return [each for each in orientations if target and _factors(layer, target.info.shape, swapped=each)]


def _misfit(base: Checkpoint, naming: _Naming, layer: _Layer) -> str:
    target = _target(base, naming(layer.name))
    assert target is not None
    a, b = list(layer.a.info.shape), list(layer.b.info.shape)
    return f"{target.info.name}: {list(target.info.shape)}, and the factors A {a} and B {b}"


def _replacements(
    base: Checkpoint, adapter: Adapter, others: Mapping[str, Tensor], naming: _Naming
) -> dict[str, Tensor]:
    """The whole tensors that the adapter brings, by the base's names: of modules_to_save, biases, embeddings."""
    found = {naming(name): tensor.renamed(naming(name)) for name, tensor in others.items()}
    strange = [name for name in others if naming(name) not in base.tensors and not adapter.saves(name)]
    if strange:
        raise CheckpointError(
            f"{adapter.weights.path}: {plural(len(strange), 'tensor')} {'is' if len(strange) == 1 else 'are'} neither "
            f"factors, nor in the base, nor of modules_to_save: {listed(map(shown, strange))}. {ADVICE}"
        )
    return found


def _products(base: Checkpoint, adapter: Adapter, layers: Sequence[_Layer], naming: _Naming) -> dict[str, Tensor]:
    """The adapted weights and biases by the base's names."""
    found: dict[str, Tensor] = {}
    for layer, swapped in zip(layers, _orientations(base, adapter, layers, naming), strict=True):
        target = _target(base, naming(layer.name))
        factors = _factors(layer, target.info.shape, swapped=swapped) if target else None
        assert target is not None
        assert factors is not None
        found[target.info.name] = _changed(adapter, target, *factors, layer.scale)
        if layer.bias is not None:
            bias = base.tensors.get(f"{naming(layer.name)}.bias")
            if bias is None or bias.info.shape != layer.bias.info.shape:
                raise MismatchError(f"{adapter.weights.path}: the base has no bias that fits {layer.name}.lora_B.bias.")
            one = InMemory(TensorInfo("one", BY_NAME["F32"], (1, 1)), np.ones(1, np.float32))
            found[bias.info.name] = _changed(
                adapter, bias, one, reshaped(layer.bias, (1, bias.info.count)), layer.scale
            )
    return found


def _changed(adapter: Adapter, base: Tensor, left: Tensor, right: Tensor, scale: float) -> Tensor:
    for tensor in (base, left, right):
        if tensor.info.dtype.name not in MIXABLE or tensor.info.dtype.kind != "float":
            raise MismatchError(
                f"{adapter.weights.path}: {base.info.name} cannot be changed: {tensor.info.name} holds "
                f"{tensor.info.dtype}, as quantized models do. Give the base in a floating-point dtype."
            )
    return low_rank(base, left, right, scale)


def _orientations(base: Checkpoint, adapter: Adapter, layers: Sequence[_Layer], naming: _Naming) -> list[bool]:
    """For each module, whether its weight is [inputs, outputs], as of embeddings and of layers with fan_in_fan_out.

    Only the configuration says it of a square weight. Raises CheckpointError if the shapes of others contradict it.
    """
    stated = bool(adapter.config.get("fan_in_fan_out"))
    possible = [_possible(base, naming, layer) for layer in layers]
    square = [layer.name for layer, each in zip(layers, possible, strict=True) if len(each) == 2]
    contrary = [
        layer.name
        for layer, each in zip(layers, possible, strict=True)
        if each == [not stated] and not layer.embedding and len(layer.a.info.shape) == 2
    ]
    if square and contrary:
        raise CheckpointError(
            f"{adapter.weights.path}: adapter_config.json says fan_in_fan_out = {str(stated).lower()}, which the "
            f"shapes of {listed(contrary, 4)} contradict, so whether {listed(square, 4)} must be transposed is not "
            f"known. {ADVICE}"
        )
    return [stated if stated in each else each[0] for each in possible]


def _digest(adapter: Adapter) -> str:
    """SHA-256 over the configuration and all tensors: two adapters often differ in their numbers alone."""
    digest = hashlib.sha256(adapter.content)
    for name, tensor in sorted(adapter.weights.tensors.items()):
        digest.update(f"{name} {tensor.info.dtype} {tensor.info.shape}\n".encode())
        for start in range(0, tensor.info.count, _PIECE):
            piece = tensor.read(start, min(start + _PIECE, tensor.info.count))
            digest.update(np.ascontiguousarray(piece).view(np.uint8).data)
    return digest.hexdigest()


def _notes_on_family(base: Checkpoint, family: Family | None) -> Iterator[str]:
    if family is not None:
        yield f"applied to {base.path.name} under the names of {family.title}, on which it was trained"


def _notes(
    base: Checkpoint, adapter: Adapter, layers: Sequence[_Layer], replaced: Collection[str], naming: _Naming
) -> Iterator[str]:
    yield from adapter.weights.notes
    ranks, scales = (
        [f"{value:g}" for value in sorted(set(values))]
        for values in ([layer.rank for layer in layers], [layer.scale for layer in layers])
    )
    of = f", for {adapter.base_model}" if adapter.base_model else ""
    yield (
        f"LoRA adapter{of}, applied to {plural(len(layers), 'weight')} of {base.path.name}: rank "
        f"{listed(ranks)}, scale {listed(scales)}"
    )
    yield from naming.notes
    if doubled := [layer.name for layer in layers if layer.doubled]:
        yield (
            f"the update of {plural(len(doubled), 'output projection')} of nn.MultiheadAttention counts twice, as it "
            "does in peft when the model is trained, run and merged"
        )
    for what, names in (
        ("replaced by", [name for name in replaced if name in base.tensors]),
        ("only in", [name for name in replaced if name not in base.tensors]),
    ):
        if names:
            yield f"{plural(len(names), 'tensor')} {what} the adapter: {listed(fold_names(names))}"
    if adapter.unknown:
        yield f"entries of adapter_config.json that this version does not know, and ignores: {listed(adapter.unknown)}"
