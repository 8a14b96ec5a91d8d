"""A model card as the Hugging Face hub reads it: metadata in YAML, and what the model is, in Markdown.

The same facts give the same card: it has no clock and no path. A comment in it holds a digest of the rest, by which a
card that nobody has edited is recognised. Knows no checkpoint and no results file.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined

from mergekit_wise import __version__
from mergekit_wise.models.hub_layout import CLASSIFICATION, ZERO_SHOT, HubLayout
from mergekit_wise.report.card_origin import SOUP, Making
from mergekit_wise.report.card_results import (
    GIVEN,
    MADE,
    CardResults,
    calibration_table,
    chosen,
    described,
    head_of,
    results_table,
    table_lines,
    versions_of,
)
from mergekit_wise.report.exports import escaped_markdown
from mergekit_wise.report.table import Table
from mergekit_wise.results import Measurement
from mergekit_wise.results.measurement import as_text

METRICS = {"top-1": ("accuracy", "Top-1 accuracy"), "top-5": ("accuracy", "Top-5 accuracy")}
"""The hub's identifier and the name of a metric; others keep the name that records have."""

RETRIEVAL, OTHER = "image-text-retrieval", "other"
"""Tasks of evaluators: retrieval, which has a recall at k, and those of one's own, which tell no task."""

_MARKER = re.compile(r"<!-- Written by wise card; it replaces this file unless it was edited \(([0-9a-f]{16})\)\. -->")


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card says.

    Attributes:
        title: the model's name.
        name: of its file or folder.
        repository: the one on the hub that it is loaded from, if it is there.
        layout: what it is, and what loads it.
        making: how it was made.
        base_models: repositories on the hub that it derives from.
        license: the hub's identifier; empty if none is known.
        results: what it achieves, for each suite.
        unmeasured: the sentence in place of results.
        plots: the name of the picture for each of `results`; empty where there is none.
        hub_data_sets: the repository on the hub for each data set that is known to be the same, by its name in records.
        weights: name, bytes and SHA-256 of each file of weights.
    """

    title: str
    name: str
    repository: str | None
    layout: HubLayout
    making: Making
    base_models: tuple[str, ...]
    license: str
    results: tuple[CardResults, ...]
    unmeasured: str
    plots: tuple[str, ...]
    hub_data_sets: Mapping[str, str]
    weights: tuple[tuple[str, int, str], ...]


def render_card(facts: CardFacts) -> str:
    """The card, ending in a line feed."""
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined, autoescape=False
    )
    environment.filters["md"] = escaped_markdown
    template = files("mergekit_wise.report").joinpath("card.md.j2").read_text("utf-8")
    weights = Table.of_texts(
        ("File of weights", "Bytes", "SHA-256"), ((name, f"{size:,}", digest) for name, size, digest in facts.weights)
    )
    text = environment.from_string(template).render(
        front_matter=_front_matter(facts),
        marker="",
        title=as_text(facts.title),
        layout=facts.layout,
        making=facts.making,
        loading=facts.layout.loading(facts.name, facts.repository),
        results=[_shown(*pair) for pair in zip(facts.results, facts.plots, strict=True)],
        unmeasured=facts.unmeasured,
        sources=facts.making.sources and table_lines(facts.making.sources),
        weights=table_lines(weights),
        versions=_versions(facts),
    )
    text = re.sub(r"\n{3,}", "\n\n", text)
    head, line, body = text.partition("\n---\n")
    return head + line + _marker(head + line + body.lstrip("\n")) + "\n\n" + body.lstrip("\n")


def is_unedited(text: str) -> bool:
    """Whether `render_card` wrote a text, and nobody has changed it since."""
    found = _MARKER.search(text)
    return found is not None and _marker(text.replace(f"{found[0]}\n\n", "", 1)) == found[0]


def _marker(rest: str) -> str:
    digest = hashlib.sha256(rest.encode()).hexdigest()[:16]
    return f"<!-- Written by wise card; it replaces this file unless it was edited ({digest}). -->"


def _front_matter(facts: CardFacts) -> str:
    from huggingface_hub import ModelCardData

    making, layout = facts.making, facts.layout
    data: dict[str, Any] = {}
    if facts.license:
        data["license"] = facts.license
    if facts.base_models:
        data["base_model"] = facts.base_models[0] if len(facts.base_models) == 1 else list(facts.base_models)
        data["base_model_relation"] = "merge" if making.is_merged else "finetune"
    data["library_name"] = layout.library
    if layout.task:
        data["pipeline_tag"] = layout.task
    method = ["model-soup"] if making.method == SOUP else ["wise-ft", "robust-fine-tuning"]
    data["tags"] = [*(["merge", *method] if making.is_merged else []), "mergekit_wise"]
    if results := _eval_results(facts):
        data |= {"model_name": as_text(facts.title), "eval_results": results}
    return ModelCardData(**data).to_yaml()


def _eval_results(facts: CardFacts) -> list[Any]:
    """An entry of the model-index for each data set and metric.

    What was measured with a head from another file is left out: the hub would show it as the accuracy of these weights.
    """
    from huggingface_hub import EvalResult

    found = []
    for row in (row for results in facts.results if results.head != GIVEN for row in results.rows):
        metrics = {row.metric: row.result.value}
        metrics |= {name: value for name, value in row.values.items() if name == "top-5"}
        repository = facts.hub_data_sets.get(row.dataset)
        for metric, value in metrics.items():
            kind, name = METRICS.get(metric, (_identifier(metric), metric))
            found.append(
                EvalResult(
                    task_type=_task(row, facts.layout.task),
                    dataset_type=repository or _identifier(row.dataset),
                    dataset_name=row.title,
                    dataset_split="test" if repository else None,
                    dataset_args=_subset(row),
                    metric_type=kind,
                    metric_name=name,
                    metric_value=round(value, 6),
                )
            )
    return found


def _task(row: Measurement, of_model: str) -> str:
    """The hub's name of the task that a number was measured on, which need not be the model's usual one."""
    if row.details.get("evaluator"):
        return RETRIEVAL if row.metric.startswith("recall@") else OTHER
    return ZERO_SHOT if head_of(row) == MADE else of_model or CLASSIFICATION


def _subset(row: Measurement) -> dict[str, int] | None:
    """How a random subset of a data set was drawn; None for the whole."""
    limit, seed = (row.details.get(name, "") for name in ("limit", "seed"))
    if not limit.isdecimal():
        return None
    return {"limit": int(limit), "seed": int(seed) if seed.isdecimal() else 0}


def _identifier(name: str) -> str:
    """A name as the identifiers of the hub are written, for example ``recall_at_1``."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower().replace("@", "_at_")).strip("-.") or "unnamed"


def _shown(results: CardResults, plot: str) -> dict[str, str]:
    calibration = calibration_table(results)
    return {
        "sentence": described(results),
        "table": table_lines(results_table(results)),
        "chosen": chosen(results),
        "calibration": "" if calibration is None else table_lines(calibration),
        "plot": quote(plot),
    }


def _versions(facts: CardFacts) -> str:
    """Which versions wrote the weights, measured the numbers, and wrote the card."""
    merged = f"Merged by mergekit_wise {facts.making.version}. " if facts.making.version else ""
    libraries = ", ".join(f"{name} {version}" for name, version in versions_of(facts.results).items())
    measured = f"Measured with {libraries}. " if libraries else ""
    return f"{merged}{measured}Card by mergekit_wise {__version__}."


def unmeasured_sentence(results: str | None, name: str, suites: Sequence[str] = ()) -> str:
    """Why a card has no table of results, and what to do."""
    if results is None:
        return "Not measured: the card was written without a results file."
    known = f" It holds results of other weights on {', '.join(suites)}." if suites else ""
    return f"{results} holds no result of these weights, so none is shown.{known}"
