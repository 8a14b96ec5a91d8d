"""One architecture under the names of several libraries: what each tensor is, and the same tensors under other names.

A family is a table of names with the parts of a model that they hold. Parts have names of their own here, such as
``image.3.q.weight``, and are as small as in any library, because open_clip stacks query, key and value where Hugging
Face does not. A tensor of a file holds one part, or several that are stacked along the first dimension; it may be
transposed, and have dimensions of size 1 in front. So a table serves in both directions, and two tables translate from
one library to another, exactly: numbers are moved, never changed. Reads headers only, and imports no library.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mergekit_wise.checkpoint import Checkpoint, DType, TensorInfo
from mergekit_wise.checkpoint.derived import InMemory, Widened, reshaped, rows, stacked, transposed
from mergekit_wise.checkpoint.tensors import StorageArray, Tensor
from mergekit_wise.errors import ModelError
from mergekit_wise.merging.arithmetic import Scratch, decode
from mergekit_wise.wording import fold_names, listed, plural


@dataclass(frozen=True, slots=True)
class Row:
    """A tensor's name in a family, and the parts of a model that it holds.

    In both, ``{n}`` stands for a layer's number and ``{p}`` for ``weight`` or ``bias``.

    Attributes:
        name: the tensor's name.
        parts: the parts, stacked along the first dimension.
        transposed: whether the matrix is the transpose of its parts.
        leading: how many dimensions of size 1 precede those of its parts.
    """

    name: str
    parts: tuple[str, ...]
    transposed: bool = False
    leading: int = 0


@dataclass(frozen=True)
class Family:
    """How a library names the tensors of a kind of model.

    Attributes:
        title: for people.
        marks: names that show the family: a file that holds all of them, after one prefix, is of it.
        rows: the table.
        is_evaluable: whether models can be evaluated under these names.
    """

    title: str
    marks: tuple[str, ...]
    rows: tuple[Row, ...]
    is_evaluable: bool = True

    @cached_property
    def _readers(self) -> list[tuple[re.Pattern[str], Row]]:
        return [(_pattern(row.name), row) for row in self.rows]

    @cached_property
    def _writers(self) -> dict[str, list[tuple[re.Pattern[str], Row]]]:
        """The rows by the beginning of their first part, with a pattern of that part."""
        found: dict[str, list[tuple[re.Pattern[str], Row]]] = {}
        for row in self.rows:
            found.setdefault(row.parts[0].partition(".")[0], []).append((_pattern(row.parts[0]), row))
        return found

    def place(self, name: str) -> Row | None:
        """The row of a tensor's name, filled in; None for a name that is not in the table."""
        for pattern, row in self._readers:
            if match := pattern.fullmatch(name):
                return _filled(row, match.groupdict())
        return None

    def has(self, part: str) -> bool:
        """Whether the table has this part of a model, alone in a tensor."""
        return next(self.names([part]), None) is not None

    def names(self, parts: Iterable[str]) -> Iterator[Row]:
        """The rows, filled in, whose parts are all among `parts`."""
        known = dict.fromkeys(parts)
        for part in known:
            for pattern, row in self._writers.get(part.partition(".")[0], ()):
                if match := pattern.fullmatch(part):
                    filled = _filled(row, match.groupdict())
                    if all(each in known for each in filled.parts):
                        yield filled


@dataclass(frozen=True, slots=True)
class Layout:
    """The family of a checkpoint: the prefix of its names, and the rows of the tensors that the family knows."""

    family: Family
    prefix: str
    rows: Mapping[str, Row]


def layout_of(names: Iterable[str]) -> Layout | None:
    """The family whose marks are among `names` after exactly one prefix; None if there is no such family."""
    names = dict.fromkeys(names)
    for family in FAMILIES:
        first = family.marks[0]
        prefixes = {name.removesuffix(first) for name in names if name == first or name.endswith("." + first)}
        found = [prefix for prefix in prefixes if all(prefix + mark in names for mark in family.marks)]
        if found:
            if len(found) > 1:
                return None
            places = {
                name: row
                for name in names
                if name.startswith(found[0]) and (row := family.place(name.removeprefix(found[0])))
            }
            return Layout(family, found[0], places)
    return None


def family_of_modules(modules: Iterable[str], base: Checkpoint) -> Family | None:
    """The family that names the weights of these modules, if the base is of another one and lacks some of the names.

    None if there is no such family.
    """
    layout = layout_of(base.tensors)
    names = [f"{module}.weight" for module in modules]
    if layout is None or not names or all(layout.prefix + name in base.tensors for name in names):
        return None
    for family in FAMILIES:
        if all(family.place(name) for name in names):
            return None if _differ_by_prefix(family, layout.family) else family
    return None


def related(first: Layout | None, second: Layout | None) -> bool:
    """Whether two layouts are of different families that name the same parts, so that one can be translated."""
    if first is None or second is None or _differ_by_prefix(first.family, second.family):
        return False
    parts = [{part for row in layout.rows.values() for part in row.parts} for layout in (first, second)]
    return len(parts[0] & parts[1]) * 2 > min(map(len, parts))


def _differ_by_prefix(first: Family, second: Family) -> bool:
    """Whether the names of two families differ by a prefix at most, which is bridged without a translation."""
    return first is second or {first.title, second.title} in PREFIXED


def translated(checkpoint: Checkpoint, family: Family, prefix: str = "", like: Checkpoint | None = None) -> Checkpoint:
    """The checkpoint under the names of a family. Tensors that its own family does not know keep their names.

    Args:
        checkpoint: of any family.
        family: whose names it gets.
        prefix: what precedes these names.
        like: a checkpoint of that family, whose tensors decide about dimensions of size 1 and about buffers.

    Raises:
        ModelError: the checkpoint is of no known family, or parts of one tensor differ in dtype.
    """
    layout = layout_of(checkpoint.tensors)
    if layout is None:
        known = listed(dict.fromkeys(each.title for each in FAMILIES))
        raise ModelError(f"{checkpoint.path}: its tensor names are of no known family ({known}).")
    if layout.family is HF_CLIP and f"{layout.prefix}classifier.weight" in checkpoint.tensors:
        raise ModelError(
            f"{checkpoint.path}: a CLIPForImageClassification, whose head takes the mean of the patches, without norm "
            f"and projection; {family.title} has no such model. It can be merged with another one of its kind."
        )
    parts, left_out, notes = _parts(checkpoint, layout, family)
    tensors: dict[str, Tensor] = {}
    used: set[str] = set()
    for row in family.names(parts):
        name = prefix + row.name
        shape = like.info(name).shape if like is not None and name in like.tensors else None
        tensors[name] = _assembled(checkpoint, name, [parts[part] for part in row.parts], row, shape)
        used.update(row.parts)
    kept: list[str] = []
    dropped: list[str] = []
    for name in [name for name in checkpoint.tensors if name not in left_out]:
        own = layout.rows.get(name)
        if own is not None and used.issuperset(own.parts):
            continue
        if own is not None and not used.isdisjoint(own.parts):
            raise ModelError(f"{checkpoint.path}: {name} has only a part of it in {family.title}.")
        if is_buffer(name) and (like is None or name not in like.tensors):
            dropped.append(name)
            continue
        if name in tensors:
            raise ModelError(f"{checkpoint.path}: two tensors would have the name {name} in {family.title}.")
        tensors[name] = checkpoint.tensors[name]
        kept.append(name)
    moved = len(checkpoint.tensors) - len(kept) - len(dropped) - len(left_out)
    notes.insert(0, f"translated {plural(moved, 'tensor')} from the names of {layout.family.title} to {family.title}")
    if kept:
        names = listed(fold_names(sorted(kept)))
        notes.append(f"{plural(len(kept), 'tensor')} without a counterpart in {family.title}: {names}")
    if dropped:
        names = listed(fold_names(sorted(dropped)))
        notes.append(f"left out {plural(len(dropped), 'buffer')} that {family.title} does not store: {names}")
    return replace(checkpoint, tensors=tensors, is_translated=True, notes=(*checkpoint.notes, *notes))


# Numbers and index tables that some versions of a library store and others compute: they are not learned.
_BUFFER = re.compile(
    r"(?:.*\.)?(?:num_batches_tracked|position_ids|inv_freq|attn_mask|causal_mask|relative_position_index"
    r"|input_resolution|context_length|vocab_size)"
)


def is_buffer(name: str) -> bool:
    """Whether a tensor is a buffer that libraries dropped or added: a counter, an index, a mask, or a size."""
    return _BUFFER.fullmatch(name) is not None


def _parts(checkpoint: Checkpoint, layout: Layout, family: Family) -> tuple[dict[str, Tensor], set[str], list[str]]:
    """The parts of the model that a checkpoint holds, by name; the names of tensors that are left out; and notes."""
    parts: dict[str, Tensor] = {}
    left_out: set[str] = set()
    notes: list[str] = []
    for name, row in layout.rows.items():
        whole = _bare(checkpoint.tensors[name], row)
        if whole is None:
            continue
        if len(row.parts) == 1:
            parts[row.parts[0]] = whole
        elif whole.info.shape and whole.info.shape[0] % len(row.parts) == 0:
            height = whole.info.shape[0] // len(row.parts)
            parts |= {part: rows(whole, i * height, (i + 1) * height) for i, part in enumerate(row.parts)}
    bias = parts.get(_PROJECTION_BIAS)
    if bias is not None and not family.has(_PROJECTION_BIAS):
        # The zero bias that timm adds to CLIP's projection; with any other one the layer is a classifier.
        del parts[_PROJECTION_BIAS]
        if bias.read(0, bias.info.count).any():
            parts.pop(_PROJECTION, None)
        else:
            left_out |= {name for name, row in layout.rows.items() if row.parts == (_PROJECTION_BIAS,)}
            notes.append(f"left out {listed(left_out)}, which is zero: {family.title} projects without a bias")
    elif bias is None and family.has(_PROJECTION_BIAS) and _PROJECTION in parts:
        info = parts[_PROJECTION].info
        zeros = np.zeros(info.shape[0], info.dtype.storage)
        parts[_PROJECTION_BIAS] = InMemory(TensorInfo(_PROJECTION_BIAS, info.dtype, (info.shape[0],)), zeros)
        notes.append(f"added a bias of zeros to the projection, as {family.title} has it")
    return parts, left_out, notes


def _bare(tensor: Tensor, row: Row) -> Tensor | None:
    """A tensor as its parts are: not transposed, and without leading dimensions; None if its shape is another one."""
    shape = tensor.info.shape
    if shape[: row.leading] != (1,) * len(shape[: row.leading]) or (row.transposed and len(shape) != 2):
        return None
    if row.leading:
        tensor = reshaped(tensor, shape[row.leading :])
    elif row.parts[0].startswith("logit_") and shape == (1,):  # saved with a dimension by some versions
        tensor = reshaped(tensor, ())
    return transposed(tensor) if row.transposed else tensor


def _assembled(
    checkpoint: Checkpoint, name: str, parts: Sequence[Tensor], row: Row, shape: tuple[int, ...] | None
) -> Tensor:
    if len({part.saved_as for part in parts}) > 1:
        raise ModelError(f"{checkpoint.path}: {', '.join(row.parts)} differ in dtype, but are one tensor, {name}.")
    # A part that an adapter changes is computed in a wider dtype than those that it does not change.
    widest = max((part.info.dtype for part in parts), key=lambda dtype: dtype.itemsize)
    tensor = stacked(name, [_widened(part, widest) for part in parts])
    if row.transposed:
        tensor = transposed(tensor)
    own = (1,) * row.leading + tensor.info.shape
    if shape is not None and [n for n in shape if n != 1] == [n for n in own if n != 1]:
        own = shape
    return (reshaped(tensor, own) if own != tensor.info.shape else tensor).renamed(name)


def _widened(tensor: Tensor, dtype: DType) -> Tensor:
    own, real = tensor.info.dtype, np.float64 if dtype.name == "F64" else np.float32
    if own == dtype:
        return tensor

    def function(elements: StorageArray) -> StorageArray:
        return np.array(decode(elements, own, real, Scratch(), 0), dtype.storage)

    return Widened(replace(tensor.info, dtype=dtype), tensor, function)


def _pattern(template: str) -> re.Pattern[str]:
    text = re.escape(template).replace(r"\{n\}", r"(?P<n>\d+)").replace(r"\{p\}", r"(?P<p>weight|bias)")
    return re.compile(text)


def _filled(row: Row, values: Mapping[str, str]) -> Row:
    return replace(row, name=row.name.format(**values), parts=tuple(part.format(**values) for part in row.parts))


# The tables. `name` is where a tower or a block is in a file, `part` where it is in the model.

_PROJECTION = "image.projection.weight"
_PROJECTION_BIAS = "image.projection.bias"


def _qkv(part: str) -> tuple[str, ...]:
    return tuple(f"{part}.{each}.{{p}}" for each in "qkv")


def _open_clip_block(name: str, part: str) -> tuple[Row, ...]:
    return (
        Row(f"{name}.ln_1.{{p}}", (f"{part}.norm1.{{p}}",)),
        Row(f"{name}.attn.in_proj_{{p}}", _qkv(part)),
        Row(f"{name}.attn.out_proj.{{p}}", (f"{part}.out.{{p}}",)),
        Row(f"{name}.ln_2.{{p}}", (f"{part}.norm2.{{p}}",)),
        Row(f"{name}.mlp.c_fc.{{p}}", (f"{part}.up.{{p}}",)),
        Row(f"{name}.mlp.c_proj.{{p}}", (f"{part}.down.{{p}}",)),
    )


def _hugging_face_block(name: str, part: str) -> tuple[Row, ...]:
    return (
        Row(f"{name}.layer_norm1.{{p}}", (f"{part}.norm1.{{p}}",)),
        *(Row(f"{name}.self_attn.{each}_proj.{{p}}", (f"{part}.{each}.{{p}}",)) for each in "qkv"),
        Row(f"{name}.self_attn.out_proj.{{p}}", (f"{part}.out.{{p}}",)),
        Row(f"{name}.layer_norm2.{{p}}", (f"{part}.norm2.{{p}}",)),
        Row(f"{name}.mlp.fc1.{{p}}", (f"{part}.up.{{p}}",)),
        Row(f"{name}.mlp.fc2.{{p}}", (f"{part}.down.{{p}}",)),
    )


def _timm_block(name: str, part: str) -> tuple[Row, ...]:
    return (
        Row(f"{name}.norm1.{{p}}", (f"{part}.norm1.{{p}}",)),
        Row(f"{name}.attn.qkv.{{p}}", _qkv(part)),
        Row(f"{name}.attn.proj.{{p}}", (f"{part}.out.{{p}}",)),
        Row(f"{name}.norm2.{{p}}", (f"{part}.norm2.{{p}}",)),
        Row(f"{name}.mlp.fc1.{{p}}", (f"{part}.up.{{p}}",)),
        Row(f"{name}.mlp.fc2.{{p}}", (f"{part}.down.{{p}}",)),
    )


def _open_clip_image(name: str) -> tuple[Row, ...]:
    return (
        Row(f"{name}class_embedding", ("image.class",)),
        Row(f"{name}conv1.weight", ("image.patch.weight",)),
        Row(f"{name}positional_embedding", ("image.positions",)),
        Row(f"{name}ln_pre.{{p}}", ("image.norm_pre.{p}",)),
        *_open_clip_block(f"{name}transformer.resblocks.{{n}}", "image.{n}"),
        Row(f"{name}ln_post.{{p}}", ("image.norm_post.{p}",)),
        Row(f"{name}proj", (_PROJECTION,), transposed=True),
    )


def _open_clip_text(name: str) -> tuple[Row, ...]:
    return (
        Row(f"{name}token_embedding.weight", ("text.tokens",)),
        Row(f"{name}positional_embedding", ("text.positions",)),
        *_open_clip_block(f"{name}transformer.resblocks.{{n}}", "text.{n}"),
        Row(f"{name}ln_final.{{p}}", ("text.norm.{p}",)),
    )


def _hugging_face_image(name: str) -> tuple[Row, ...]:
    return (
        Row(f"{name}embeddings.class_embedding", ("image.class",)),
        Row(f"{name}embeddings.patch_embedding.{{p}}", ("image.patch.{p}",)),
        Row(f"{name}embeddings.position_embedding.weight", ("image.positions",)),
        Row(f"{name}pre_layrnorm.{{p}}", ("image.norm_pre.{p}",)),  # sic
        *_hugging_face_block(f"{name}encoder.layers.{{n}}", "image.{n}"),
        Row(f"{name}post_layernorm.{{p}}", ("image.norm_post.{p}",)),
    )


_HUGGING_FACE_TEXT = (
    Row("text_model.embeddings.token_embedding.weight", ("text.tokens",)),
    Row("text_model.embeddings.position_embedding.weight", ("text.positions",)),
    *_hugging_face_block("text_model.encoder.layers.{n}", "text.{n}"),
    Row("text_model.final_layer_norm.{p}", ("text.norm.{p}",)),
)


def _timm_image(name: str) -> tuple[Row, ...]:
    return (
        Row(f"{name}cls_token", ("image.class",), leading=2),
        Row(f"{name}patch_embed.proj.{{p}}", ("image.patch.{p}",)),
        Row(f"{name}pos_embed", ("image.positions",), leading=1),
        Row(f"{name}norm_pre.{{p}}", ("image.norm_pre.{p}",)),
        *_timm_block(f"{name}blocks.{{n}}", "image.{n}"),
        Row(f"{name}norm.{{p}}", ("image.norm_post.{p}",)),
        # SigLIP pools by attention, with one query that is learned.
        Row(f"{name}attn_pool.latent", ("image.pool.query",), leading=2),
        Row(f"{name}attn_pool.q.{{p}}", ("image.pool.q.{p}",)),
        Row(f"{name}attn_pool.kv.{{p}}", ("image.pool.k.{p}", "image.pool.v.{p}")),
        Row(f"{name}attn_pool.proj.{{p}}", ("image.pool.out.{p}",)),
        Row(f"{name}attn_pool.norm.{{p}}", ("image.pool.norm.{p}",)),
        Row(f"{name}attn_pool.mlp.fc1.{{p}}", ("image.pool.up.{p}",)),
        Row(f"{name}attn_pool.mlp.fc2.{{p}}", ("image.pool.down.{p}",)),
    )


_SCALE = Row("logit_scale", ("logit_scale",))
_TEXT_PROJECTION = ("text.projection.weight",)

OPEN_CLIP = Family(
    "open_clip",
    ("visual.class_embedding", "visual.conv1.weight"),
    (
        *_open_clip_image("visual."),
        *_open_clip_text(""),
        Row("text_projection", _TEXT_PROJECTION, transposed=True),
        _SCALE,
    ),
)
OPEN_CLIP_TEXT = Family(
    "open_clip (with a text tower under 'text.')",
    ("text.token_embedding.weight", "visual.class_embedding"),
    (
        *_open_clip_image("visual."),
        *_open_clip_text("text."),
        Row("text.text_projection", _TEXT_PROJECTION, transposed=True),
        _SCALE,
    ),
)
OPEN_CLIP_SIGLIP = Family(
    "open_clip's SigLIP",
    ("visual.trunk.attn_pool.latent", "visual.trunk.pos_embed"),
    (
        *_timm_image("visual.trunk."),
        *_open_clip_text("text."),
        Row("text.text_projection.{p}", ("text.projection.{p}",)),
        _SCALE,
        Row("logit_bias", ("logit_bias",)),
    ),
)
OPEN_CLIP_TOWER = Family("open_clip's image tower", ("class_embedding", "conv1.weight"), _open_clip_image(""))
HF_CLIP = Family(
    "Hugging Face's CLIPModel",
    ("vision_model.embeddings.class_embedding",),
    (
        *_hugging_face_image("vision_model."),
        Row("visual_projection.weight", (_PROJECTION,)),
        *_HUGGING_FACE_TEXT,
        Row("text_projection.weight", _TEXT_PROJECTION),
        _SCALE,
    ),
)
HF_VISION = Family(
    "Hugging Face's CLIPVisionModel",
    ("embeddings.class_embedding",),
    (*_hugging_face_image(""), Row("visual_projection.weight", (_PROJECTION,))),
    is_evaluable=False,
)
HF_SIGLIP = Family(
    "Hugging Face's SiglipModel",
    ("vision_model.head.probe",),
    (
        *_hugging_face_image("vision_model."),
        Row("vision_model.head.probe", ("image.pool.query",), leading=2),
        Row("vision_model.head.attention.in_proj_{p}", _qkv("image.pool")),
        Row("vision_model.head.attention.out_proj.{p}", ("image.pool.out.{p}",)),
        Row("vision_model.head.layernorm.{p}", ("image.pool.norm.{p}",)),
        Row("vision_model.head.mlp.fc1.{p}", ("image.pool.up.{p}",)),
        Row("vision_model.head.mlp.fc2.{p}", ("image.pool.down.{p}",)),
        *_HUGGING_FACE_TEXT,
        Row("text_model.head.{p}", ("text.projection.{p}",)),
        Row("logit_scale", ("logit_scale",), leading=1),
        Row("logit_bias", ("logit_bias",), leading=1),
    ),
    is_evaluable=False,
)
TIMM = Family(
    "timm",
    ("cls_token", "norm_pre.weight"),
    (*_timm_image(""), Row("head.{p}", ("image.projection.{p}",))),
    is_evaluable=False,
)
TIMM_SIGLIP = Family("timm's SigLIP", ("attn_pool.latent", "pos_embed"), _timm_image(""), is_evaluable=False)

PREFIXED = ({OPEN_CLIP.title, OPEN_CLIP_TOWER.title}, {HF_CLIP.title, HF_VISION.title})
"""Families that differ by a prefix alone."""

FAMILIES = (
    HF_CLIP,
    HF_SIGLIP,
    HF_VISION,
    OPEN_CLIP_SIGLIP,
    OPEN_CLIP_TEXT,
    OPEN_CLIP,
    TIMM_SIGLIP,
    TIMM,
    OPEN_CLIP_TOWER,
)
"""In the order in which they are tried: names of the later ones end like names of the earlier ones."""
