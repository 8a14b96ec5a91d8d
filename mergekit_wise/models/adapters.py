"""Adapters as PEFT saves them, adapter_config.json and weights next to it, and which of them can be applied exactly.

Reads the configuration and the names of tensors. adapted.py applies an adapter to its base.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.checkpoint.folder import ADAPTERS, weights_in
from mergekit_wise.errors import CheckpointError
from mergekit_wise.wording import listed, shown

CONFIG = "adapter_config.json"

ADVICE = (
    "Let peft compute the weights (PeftModel.from_pretrained(base, adapter).merge_and_unload()"
    ".save_pretrained(FOLDER)) and give FOLDER as the fine-tuned checkpoint."
)

_MAX_JSON_BYTES = 1 << 24

_TYPES = {"LORA": "LoRA", "ADALORA": "AdaLoRA", "IA3": "IA3", "LOHA": "LoHa", "LOKR": "LoKr", "VERA": "VeRA"}

_INITIALISATIONS = (True, False, "gaussian", "eva", "orthogonal")
"""Values of init_lora_weights with which the base keeps its weights."""

_VARIANTS = {
    "use_dora": "DoRA, which also normalizes the weights (use_dora)",
    "use_qalora": "QALoRA (use_qalora)",
    "use_bdlora": "BD-LoRA (use_bdlora)",
    "arrow_config": "Arrow, which routes each input to several adapters (arrow_config)",
    "kasa_config": "KaSA (kasa_config)",
    "monteclora_config": "MonteCLoRA (monteclora_config)",
    "velora_config": "VeLoRA (velora_config)",
    "alora_invocation_tokens": "activated LoRA, which changes weights for some tokens only (alora_invocation_tokens)",
    "layer_replication": "a model with repeated layers (layer_replication)",
    "target_parameters": "LoRA on bare parameters (target_parameters)",
    "trainable_token_indices": "single rows of an embedding (trainable_token_indices)",
}
"""Entries that change what the factors mean, with what they are for people."""

_READ = (
    *("peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out", "lora_bias"),
    *("bias", "modules_to_save", "init_lora_weights", "base_model_name_or_path", "target_modules", "auto_mapping"),
    "peft_version",
)
SHOWN = (
    *("base_model_name_or_path", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules"),
    *("modules_to_save", "bias", *_VARIANTS),
)
"""Entries that say what an adapter changes, and how much."""

_IMMATERIAL = (
    *("task_type", "inference_mode", "revision", "lora_dropout", "layers_to_transform", "layers_pattern"),
    *("exclude_modules", "megatron_config", "megatron_core", "loftq_config", "eva_config", "corda_config"),
    *("lora_ga_config", "qalora_group_size", "ensure_weight_tying", "runtime_config"),
)
"""Entries that chose modules, or how they were trained: the weights show the outcome."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A PEFT adapter.

    Attributes:
        weights: its tensors, under PEFT's names.
        config: adapter_config.json.
        content: the bytes of that file.
    """

    weights: Checkpoint
    config: Mapping[str, Any]
    content: bytes

    @property
    def kind(self) -> str:
        """The method, for people: ``LoRA``."""
        return _TYPES.get(str(self.config.get("peft_type")).upper(), shown(str(self.config.get("peft_type"))))

    @property
    def parameters(self) -> int:
        """Elements of all its tensors."""
        return sum(tensor.info.count for tensor in self.weights.tensors.values())

    @property
    def base_model(self) -> str:
        """The base model that the configuration names; empty if it names none."""
        return shown(str(self.config.get("base_model_name_or_path") or ""), 200)

    @property
    def refusal(self) -> str | None:
        """Why the adapter cannot be applied exactly; None if it can."""
        config = self.config
        if config.get("peft_type") != "LORA":
            return f"it is of the type {self.kind}, and wise applies LoRA only"
        if found := [text for key, text in _VARIANTS.items() if config.get(key)]:
            return f"it uses {listed(found)}"
        start = config.get("init_lora_weights", True)
        if start not in _INITIALISATIONS:
            return (
                f"its initialization, init_lora_weights = {shown(repr(start))}, changes the weights of the base, so "
                "the factors belong to other weights than the base checkpoint's"
            )
        return None

    @property
    def unknown(self) -> tuple[str, ...]:
        """Entries of the configuration that are set and of which this version does not know what they mean."""
        return tuple(
            f"{shown(key)} = {shown(json.dumps(value))}"
            for key, value in self.config.items()
            if value and key not in (*_READ, *_IMMATERIAL, *_VARIANTS)
        )

    def rank(self, module: str) -> int:
        """The rank that the configuration gives a module."""
        return int(self._of("rank_pattern", "r", module))

    def scale(self, module: str) -> float:
        """By what the product of a module's factors is multiplied."""
        rank = self.rank(module)
        return float(self._of("alpha_pattern", "lora_alpha", module)) / (
            sqrt(rank) if self.config.get("use_rslora") else rank
        )

    def saves(self, module: str) -> bool:
        """Whether a module is one of ``modules_to_save``, or in one of them."""
        wanted = self.config.get("modules_to_save") or ()
        return any(f".{name}." in f".{module}." for name in wanted)

    def _of(self, patterns: str, default: str, module: str) -> float:
        """As peft finds it: the first pattern that matches the end of the module's path."""
        for pattern, value in (self.config.get(patterns) or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return float(value)
        return float(self.config[default])


def read_adapter(checkpoint: Checkpoint) -> Adapter | None:
    """The adapter that a checkpoint holds; None if it is a model.

    Raises CheckpointError if its configuration is unreadable, or a folder holds an adapter and a model's weights.
    """
    path = checkpoint.path
    folder = path if path.is_dir() else path.parent
    file = folder / CONFIG
    if not file.is_file():
        return None
    if not _has_names_of_peft(checkpoint):
        found = [name for name in ADAPTERS if path.is_dir() and (folder / name).is_file()]
        if found:
            raise CheckpointError(
                f"{path}: holds both the weights of a model and an adapter. Name the file to use: "
                f"{folder / weights_in(folder).name} or {folder / found[0]}"
            )
        return None
    content = _content(file)
    return Adapter(checkpoint, _parsed(file, content), content)


def refuse_adapter(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError if a checkpoint that must be a model is an adapter."""
    adapter = read_adapter(checkpoint)
    if adapter is not None:
        base = f", probably {adapter.base_model}" if adapter.base_model else ""
        advice = ADVICE if adapter.refusal else f"Apply it first: wise merge BASE {checkpoint.path} --alpha 1 -o OUTPUT"
        raise CheckpointError(
            f"{checkpoint.path}: is {article(adapter.kind)} adapter, not a model: it holds changes to the weights of "
            f"a base model{base}. {advice}"
        )


def article(kind: str) -> str:
    """A method with its article: ``a LoRA``, ``an IA3``."""
    return f"{'an' if kind[:1] in 'AEIOaeio' else 'a'} {kind}"


def _has_names_of_peft(checkpoint: Checkpoint) -> bool:
    path = checkpoint.path
    file = weights_in(path) if path.is_dir() else path
    return file.name in ADAPTERS or any(
        name.startswith("base_model.model.") or re.search(r"\.lora_(embedding_)?[AB]\b", name)
        for name in checkpoint.tensors
    )


def _content(file: Path) -> bytes:
    try:
        if file.stat().st_size > _MAX_JSON_BYTES:
            raise CheckpointError(f"{file}: {file.stat().st_size:,} bytes are too many for the settings of an adapter.")
        return file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}).") from error


def _parsed(file: Path, content: bytes) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: expected JSON that describes an adapter: {shown(str(error))}.") from error
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise CheckpointError(f"{file}: expected the settings of an adapter with a 'peft_type', and found none.")
    if config["peft_type"] == "LORA" and (wrong := _wrong_values(config)):
        raise CheckpointError(f"{file}: {wrong} cannot be used. Give the file that peft wrote.")
    return config


def _wrong_values(config: Mapping[str, Any]) -> str:
    """The first entries that have impossible values; empty if there are none."""
    patterns = {key: config.get(key) or {} for key in ("rank_pattern", "alpha_pattern")}
    flags = ("use_rslora", "fan_in_fan_out", "lora_bias")
    right = {
        "r": _is_number(config.get("r")) and config["r"] == int(config["r"]) > 0,
        "lora_alpha": _is_number(config.get("lora_alpha")),
        "modules_to_save": _is_names(config.get("modules_to_save") or []),
        "bias": config.get("bias", "none") in ("none", "all", "lora_only"),
        **{key: isinstance(config.get(key) or False, bool) for key in flags},
        **{
            key: isinstance(found, dict) and all(_is_pattern(name) and _is_number(n) for name, n in found.items())
            for key, found in patterns.items()
        },
    }
    right["rank_pattern"] = right["rank_pattern"] and all(n == int(n) > 0 for n in patterns["rank_pattern"].values())
    return listed(f"{key} = {shown(json.dumps(config.get(key)))}" for key, fine in right.items() if not fine)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_pattern(text: str) -> bool:
    """Whether a regular expression is valid, and simple enough that matching a name takes no time worth mentioning."""
    if len(text) > 1000 or re.search(r"\)[*+?{]", text) or len(re.findall(r"[*+{]", text)) > 2:
        return False
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError):
        return False
    return True
