"""The day's quality decisions: which units to inspect, and which processes drift.

The threshold comes from money: a miss against an inspection. What was known when does not belong here (see
`equipment_inputs`), nor the models (see `equipment.quality`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from npq_assets.equipment.quality import (
    RULES,
    Alarm,
    any_of,
    cheapest_alarm,
    held_out_probability,
    individuals_chart,
    learn_defects,
)
from npq_assets.errors import NpqError
from npq_assets.evaluation.ledger import decision_id
from npq_assets.manufacturing.equipment_inputs import QualityInputs

KIND = "quality_alerts"
TREES = 40
FOLDS = 3
# Inspected units, and defects among them, from which a model is learned.
LEAST_UNITS = 100
LEAST_DEFECTS = 8
# Days of a control chart's base, behind the days that are judged against it.
BASE_DAYS = 75
JUDGED_DAYS = 7
# Rules of which a signal is worth a person's look; the others signal now and then on a process in control.
SHOWN_RULES = (1, 2, 3, 5)


@dataclass(frozen=True)
class HeldOut:
    """Probabilities of the inspected units by models that have not seen them: unit_id, p. The threshold is chosen on them."""

    rows: pl.DataFrame


@dataclass(frozen=True)
class QualityDecision:
    """What is decided about units and processes.

    Attributes:
        alerts: The columns of `quality_alerts`.
        signals: The columns of `process_signals`.
        accounts: decision_id, expected_cost, naive_expected_cost, lower_bound of each alert on a unit of the day before, and of
            all those units let pass.
        units: decision_id, unit_id, is_alerted, inspection_cost, miss_cost, booked_probability of the units booked; empty of
            decisions stored before it was kept.
        facts: Everything that is one number or word.
    """

    alerts: pl.DataFrame
    signals: pl.DataFrame
    accounts: pl.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)
    units: pl.DataFrame = field(default_factory=lambda: _units([]))


def held_out(inputs: QualityInputs) -> HeldOut:
    """Judges the model on the units it is learned from, each by models that have not seen it.

    Raises:
        NpqError: Too few units or defects.
    """
    x, defects = _learned(inputs)
    return HeldOut(
        inputs.learned.select("unit_id").with_columns(
            pl.Series("p", held_out_probability(list(inputs.features), x, defects, FOLDS, TREES))
        )
    )


def _learned(inputs: QualityInputs) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rows = inputs.learned
    kinds = sorted(set(rows["defect"].drop_nulls()))
    count = rows.height - rows["defect"].null_count()
    if rows.height < LEAST_UNITS or count < LEAST_DEFECTS:
        raise NpqError(
            f"manufacturing.inspections: {rows.height} units with measurements, {count} of them defective; "
            f"{LEAST_UNITS} and {LEAST_DEFECTS} are needed to learn from"
        )
    defects = {kind: (rows["defect"] == kind).fill_null(False).to_numpy().astype(float) for kind in kinds}
    return _matrix(rows, inputs), defects


def _matrix(rows: pl.DataFrame, inputs: QualityInputs) -> np.ndarray:
    """Measurements of units; what is missing counts as usual."""
    usual = inputs.learned.select(inputs.features).median().row(0)
    return np.column_stack(
        [
            rows[name].fill_null(middle).to_numpy().astype(float)
            for name, middle in zip(inputs.features, usual, strict=True)
        ]
    )


def decide_quality(inputs: QualityInputs, judged: HeldOut) -> QualityDecision:
    """Decides which of the open units are inspected.

    A unit is inspected where its probability of a defect reaches the threshold that costs least on units the model had not
    seen (`equipment.quality.cheapest_alarm`), in proportion to what inspection and miss cost for the unit's product.

    Args:
        inputs: What is known.
        judged: `held_out` of the same units learned from.

    Raises:
        NpqError: Too few units or defects.
    """
    x, defects = _learned(inputs)
    y = np.any(list(defects.values()), axis=0).astype(float)
    p = (
        inputs.learned.select("unit_id")
        .join(judged.rows, on="unit_id", how="left", maintain_order="left")["p"]
        .to_numpy()
    )
    alarm = cheapest_alarm(y, p, miss=inputs.miss_cost, inspection=inputs.inspection_cost)
    model = learn_defects(list(inputs.features), x, defects, trees=TREES)
    signals = _signals(inputs)
    share = inputs.inspected_share
    if inputs.open.is_empty():
        return QualityDecision(_alerts([]), signals, _accounts([], inputs), _facts(inputs, alarm, p, y, 0, 0))
    at = _matrix(inputs.open, inputs)
    kinds = model.by_kind(at)
    chance = any_of(kinds)
    names = list(kinds)
    likely = np.array(names)[np.argmax(np.column_stack([kinds[k] for k in names]), axis=1)]
    ratio = inputs.inspection_cost / inputs.miss_cost
    # Units without an alarm are not all good: what the model missed among units it had not seen is what it will miss.
    quiet = p < alarm.threshold
    missed = float(y[quiet].mean()) if quiet.any() else 0.0
    rows, accounts = [], []
    booked: list[tuple[Any, ...]] = []
    rest = decision_id(inputs.as_of, "manufacturing", KIND, ("units let pass",), inputs.snapshot)
    passed = np.zeros(3)
    wanted: list[int] = []
    units = inputs.open.to_dicts()
    own = [u["inspection_cost"] / max(u["miss_cost"], 1e-9) for u in units]
    # Where inspections usually cost nothing, no threshold can be scaled: a unit's own costs alone say when one pays.
    scale = alarm.threshold / ratio if ratio > 0 else 1.0
    limits = [min(scale * r, 1.0) if np.isfinite(alarm.threshold) else np.inf for r in own]
    for i, unit in enumerate(units):
        look = unit["inspection_cost"]
        if chance[i] >= limits[i]:
            wanted.append(i)
        elif unit["is_new"]:
            defect = max(missed, float(chance[i]))
            left = defect * unit["miss_cost"]
            booked.append((rest, unit["unit_id"], False, look, unit["miss_cost"], defect))
            passed += (left, share * look + (1.0 - share) * left, min(left, look))
    reasons = dict(zip(wanted, model.reasons(at[wanted]), strict=True)) if wanted else {}
    for i in wanted:
        unit = units[i]
        miss, look = float(chance[i] * unit["miss_cost"]), unit["inspection_cost"]
        action = "hold and inspect" if chance[i] >= 0.5 else "inspect before release"
        key = decision_id(inputs.as_of, "manufacturing", KIND, (unit["unit_id"],), inputs.snapshot)
        why = "; ".join(reasons[i]) or "no single measurement stands out"
        rows.append(
            (unit["unit_id"], float(chance[i]), str(likely[i]), action, unit["machine_id"], unit["product_id"],
             float(limits[i]), miss - look, why, key)
        )  # fmt: skip
        if unit["is_new"]:  # a unit that waits is alerted again, but answers once
            accounts.append((key, look, share * look + (1.0 - share) * miss, min(miss, look)))
            booked.append((key, unit["unit_id"], True, look, unit["miss_cost"], float(chance[i])))
    accounts.append((rest, float(passed[0]), float(passed[1]), float(passed[2])))
    stamp = (pl.lit(inputs.as_of).alias("as_of"), pl.lit(inputs.snapshot).alias("input_snapshot"))
    return QualityDecision(
        _alerts(rows).with_columns(*stamp),
        signals,
        _accounts(accounts, inputs),
        _facts(inputs, alarm, p, y, inputs.open.height, len(rows)),
        _units(booked),
    )


_ALERTS = {
    "unit_id": pl.String, "defect_probability": pl.Float64, "likely_defect": pl.String, "action": pl.String,
    "machine_id": pl.String, "product_id": pl.String, "threshold": pl.Float64, "expected_saving": pl.Float64,
    "reason": pl.String, "decision_id": pl.String,
}  # fmt: skip


def _alerts(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=_ALERTS, orient="row").with_columns(
        pl.lit(None, pl.Date).alias("as_of"), pl.lit(None, pl.String).alias("input_snapshot")
    )


def _units(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    schema = {
        "decision_id": pl.String, "unit_id": pl.String, "is_alerted": pl.Boolean, "inspection_cost": pl.Float64,
        "miss_cost": pl.Float64, "booked_probability": pl.Float64,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def _accounts(rows: list[tuple[Any, ...]], inputs: QualityInputs) -> pl.DataFrame:
    schema = {
        "decision_id": pl.String,
        **dict.fromkeys(("expected_cost", "naive_expected_cost", "lower_bound"), pl.Float64),
    }
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        pl.lit(inputs.as_of).alias("as_of"), pl.lit(inputs.snapshot).alias("input_snapshot")
    )


def _facts(
    inputs: QualityInputs, alarm: Alarm, p: np.ndarray, y: np.ndarray, opened: int, alerts: int
) -> dict[str, Any]:
    alarmed = p >= alarm.threshold
    return {
        "threshold": alarm.threshold if np.isfinite(alarm.threshold) else None,
        "cost_per_unit_held_out": alarm.value,
        "cost_per_unit_all_inspected": inputs.inspection_cost,
        "cost_per_unit_none_inspected": float(y.mean() * inputs.miss_cost),
        "caught_held_out": float((alarmed & (y > 0)).sum() / max(y.sum(), 1.0)),
        "alarmed_held_out": float(alarmed.mean()),
        "learned_units": len(y),
        "open_units": opened,
        "alerts": alerts,
        "usually_inspected": inputs.inspected_share,
        "solver": "threshold by cost",
        "status": "optimal",
        "model_version": inputs.snapshot,
        "skipped": list(inputs.notes),
    }


def signals_alone(inputs: QualityInputs) -> QualityDecision:
    """Control charts where defects cannot be learned: they need measurements only."""
    return QualityDecision(
        _alerts([]), _signals(inputs), _accounts([], inputs), {"skipped": list(inputs.notes), "alerts": 0}
    )


def _signals(inputs: QualityInputs) -> pl.DataFrame:
    """Signals of the last days on charts of daily means, by machine and feature."""
    rows = []
    for (machine, feature), days in inputs.daily.group_by("machine_id", "feature", maintain_order=True):
        days = days.filter(pl.col("on") >= inputs.as_of - timedelta(days=BASE_DAYS + JUDGED_DAYS))
        split = pl.col("on") < inputs.as_of - timedelta(days=JUDGED_DAYS)
        base, on = days.filter(split), days["on"].to_list()
        values = days["value"].to_numpy().astype(float)
        try:
            chart = individuals_chart(base["value"].to_numpy().astype(float))
        except NpqError as reason:
            if base.height >= 20:
                rows.append(_stuck_row(str(machine), str(feature), days, str(reason)))
            continue
        low, high = chart.limits
        for rule, flags in chart.signals(values).items():
            late = [k for k in np.flatnonzero(flags) if k >= base.height]
            if rule not in SHOWN_RULES or not late:
                continue
            k = int(late[-1])
            words = (
                f"{feature} of {machine}: {RULES[rule]}, last on {on[k]} ({values[k]:.4g}, centre {chart.centre:.4g})"
            )
            rows.append((machine, feature, RULES[rule], on[k], float(values[k]), chart.centre, low, high, words))
    schema = {
        "machine_id": pl.String, "feature": pl.String, "rule": pl.String, "signalled_on": pl.Date, "value": pl.Float64,
        "centre": pl.Float64, "low": pl.Float64, "high": pl.Float64, "reason": pl.String,
    }  # fmt: skip
    found = pl.DataFrame(rows, schema=schema, orient="row")
    ids = [
        decision_id(inputs.as_of, "manufacturing", "process_signals", key, inputs.snapshot)
        for key in found.select("machine_id", "feature", "rule").iter_rows()
    ]
    return found.with_columns(
        pl.Series("decision_id", ids, dtype=pl.String), pl.lit(inputs.as_of).alias("as_of"),
        pl.lit(inputs.snapshot).alias("input_snapshot"),
    )  # fmt: skip


def _stuck_row(machine: str, feature: str, days: pl.DataFrame, reason: str) -> tuple[Any, ...]:
    value = float(days["value"][-1])
    return (machine, feature, "no variation", days["on"][-1], value, value, value, value,
            f"{feature} of {machine}: {reason.partition(': ')[2]}")  # fmt: skip
