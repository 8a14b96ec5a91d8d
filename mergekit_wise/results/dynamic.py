"""A line of a results file on an alpha for each image of a sweep: what it achieves, and against what.

Knows no model and no page.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mergekit_wise.analysis import Estimate
from mergekit_wise.analysis.dynamic_gain import DynamicGain
from mergekit_wise.results.identity import setting_of
from mergekit_wise.results.measurement import Finding, as_number, as_text
from mergekit_wise.results.record import Record

DYNAMIC = "dynamic"
"""Value of ``kind`` in such a line."""


def dynamic_entry(gain: DynamicGain, records: Sequence[Record], names: Mapping[str, str]) -> dict[str, object]:
    """The line on a gain in a sweep with these records; `names` are the columns of its data sets."""
    of_column = {names[record.dataset]: record for record in records}
    ends = dict(zip(("zeroshot", "finetuned"), records[0].pair.split("+"), strict=True))
    columns = []
    for each in gain.columns:
        record = of_column.get(each.column)
        facts: dict[str, object] = {"column": each.column}
        if record is not None:
            facts |= {"dataset": record.dataset, "title": record.title, "data": record.data}
            facts |= {"measurement": setting_of(asdict(record))}
        gains = {"value": each.value, "best": each.best, "over_best": _bounds(each.over_best)}
        gains["over_default"] = None if each.over_default is None else _bounds(each.over_default)
        served = [[alpha, images] for alpha, images in gain.served.get(each.column, {}).items()]
        columns.append({**facts, **gains, "served": served})
    same = {"model": records[0].model, "suite": records[0].suite, **ends}
    return {"kind": DYNAMIC, **same, "clusters": gain.clusters, "columns": columns}


def as_findings(source: str, entry: Mapping[str, Any]) -> list[Finding]:
    """What a line holds, for each data set. Raises ValueError with the reason if it holds nothing to show."""
    clusters = entry.get("clusters")
    if not (clusters is None or (type(clusters) is int and clusters > 0)):
        raise ValueError("an impossible number of clusters")
    columns = entry.get("columns")
    found = []
    for column in columns if isinstance(columns, list) else []:
        value = as_number(column.get("value")) if isinstance(column, Mapping) else None
        if value is None or not 0 <= value <= 1 or not isinstance(column.get("dataset"), str):
            continue
        own = {name: as_text(column.get(name) or "") for name in ("dataset", "title", "data", "measurement")}
        shared = {name: as_text(entry.get(name) or "") for name in ("model", "zeroshot", "finetuned")}
        suite = as_text(entry.get("suite") or "unnamed suite")
        found.append(
            Finding(source=source, suite=suite, **shared, **own, values={}, ensembles={}, per_image={clusters: value})
        )
    if not found:
        raise ValueError("an alpha for each image, without values")
    return found


def new_entries(path: Path, entries: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Those that a file does not hold yet."""
    held = set(path.read_text(encoding="utf-8", errors="replace").splitlines())
    return [entry for entry in entries if json.dumps(entry) not in held]


def _bounds(estimate: Estimate) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]
