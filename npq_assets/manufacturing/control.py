"""The day's proposals of settings, and the way back from changes that made things worse.

The mathematics is in `equipment.control`, what was known when in `equipment_inputs`; who approves and publishes in `set_points`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import polars as pl

from npq_assets.equipment.control import (
    COMPARED_DAYS,
    HELD_DAYS,
    MachineLog,
    Proposal,
    SettingLimits,
    propose,
    withdraw,
)
from npq_assets.evaluation.ledger import decision_id
from npq_assets.manufacturing.equipment_inputs import USUAL_DAYS, ControlInputs

KIND = "machine_settings"

_COLUMNS = {
    "machine_id": pl.String, "setting": pl.String, "current": pl.Float64, "proposed": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "expected_saving": pl.Float64, "saving_low": pl.Float64, "saving_high": pl.Float64,
    "seen_low": pl.Float64, "seen_high": pl.Float64, "kind": pl.String, "reason": pl.String, "decision_id": pl.String,
}  # fmt: skip


@dataclass(frozen=True)
class ControlDecision:
    """What is proposed for machines on a day.

    Attributes:
        settings: The columns of `machine_settings`; a row a setting that should change.
        accounts: decision_id, expected_cost, naive_expected_cost, lower_bound by machine with a proposal, for the days that it
            is left alone: scrap, energy and time against the middle of the limits.
        refusals: machine_id, reason: machines without a proposal, and why.
        facts: Everything that is one number or word.
    """

    settings: pl.DataFrame
    accounts: pl.DataFrame
    refusals: pl.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)


def decide_settings(inputs: ControlInputs) -> ControlDecision:
    """Proposes settings for every machine that has some."""
    rows: list[tuple[Any, ...]] = []
    accounts: list[tuple[Any, ...]] = []
    refusals: list[tuple[str, str]] = []
    for (machine,), settings in inputs.settings.group_by("machine_id", maintain_order=True):
        name = str(machine)
        limits = [
            SettingLimits(
                s["setting"], s["low"], s["high"], s["current"], s["ramp_limit"], s["cost_per_unit_change"],
                {r: int(s[f"{r}_sign"]) for r in ("scrap", "energy", "minutes")},
            )
            for s in settings.iter_rows(named=True)
        ]  # fmt: skip
        log = machine_log(inputs, name, limits)
        if log is None:
            refusals.append((name, "nothing in the log of the last weeks"))
            continue
        changed_on, before, ours = last_change(inputs, name)
        back = withdraw(log, limits, changed_on, before, inputs.as_of) if changed_on and ours else None
        found = back if back is not None and back.values else propose(log, limits, changed_on, inputs.as_of)
        if not found.values:
            refusals.append((name, "; ".join([found.reason, *found.notes])))
            continue
        _enter(inputs, name, limits, found, rows, accounts)
    stamp = (pl.lit(inputs.as_of).alias("as_of"), pl.lit(inputs.snapshot).alias("input_snapshot"))
    money = {
        "decision_id": pl.String,
        **dict.fromkeys(("expected_cost", "naive_expected_cost", "lower_bound"), pl.Float64),
    }
    return ControlDecision(
        pl.DataFrame(rows, schema=_COLUMNS, orient="row").with_columns(*stamp),
        pl.DataFrame(accounts, schema=money, orient="row").with_columns(*stamp),
        pl.DataFrame(refusals, schema={"machine_id": pl.String, "reason": pl.String}, orient="row"),
        {
            "machines": inputs.settings["machine_id"].n_unique(),
            "proposals": len(accounts),
            "solver": "CVXPY, Clarabel",
            "status": "optimal",
            "model_version": inputs.snapshot,
            "skipped": list(inputs.notes),
        },
    )


def _enter(
    inputs: ControlInputs,
    machine: str,
    limits: list[SettingLimits],
    found: Proposal,
    rows: list[tuple[Any, ...]],
    accounts: list[tuple[Any, ...]],
) -> None:
    """A row a setting, and the machine's account for the days until the next look: later looks cost nothing to wait for."""
    share = found.saving / len(found.values)
    for limit in limits:
        if limit.name not in found.values:
            continue
        seen = found.seen.get(limit.name, (None, None))
        key = decision_id(inputs.as_of, "manufacturing", KIND, (machine, limit.name), inputs.snapshot)
        rows.append(
            (machine, limit.name, limit.current, found.values[limit.name], limit.low, limit.high, share, found.low,
             found.high, *seen, found.kind, found.reason, key)
        )  # fmt: skip
    days = float(HELD_DAYS)
    change = sum(abs(found.values[s.name] - s.current) * s.change_cost for s in limits if s.name in found.values)
    # Costs are against the middle of the limits; a constant on both sides keeps them above nothing.
    floor = abs(found.cost_now) + abs(found.saving)
    naive = (found.cost_now + floor) * days
    # A change is paid once and used for longer than the days until the next look.
    cost = naive - found.saving * days + change * days / 28.0
    key = decision_id(inputs.as_of, "manufacturing", KIND, (machine,), inputs.snapshot)
    accounts.append((key, cost, naive, cost))


def machine_log(inputs: ControlInputs, machine: str, limits: list[SettingLimits]) -> MachineLog | None:
    """A machine's log with the settings in force; None where the last weeks hold nothing."""
    rows = inputs.rows.filter(pl.col("machine_id") == machine)
    recent = rows.filter(pl.col("on") >= inputs.as_of - timedelta(days=USUAL_DAYS))
    if recent.is_empty():
        return None
    values = inputs.values.filter((pl.col("machine_id") == machine) & pl.col("setting").is_in([s.name for s in limits]))
    if values.height:
        wide = values.pivot(on="setting", index="on", values="value", sort_columns=True)
        rows = rows.join(wide, on="on", how="left", maintain_order="left")
    price = inputs.prices.filter(pl.col("machine_id") == machine).row(0, named=True)
    prices = {name: float(price[name]) for name in ("scrap", "energy", "minutes")}
    return MachineLog(rows, prices, float(recent["standard"].sum()) / USUAL_DAYS)


def last_change(inputs: ControlInputs, machine: str) -> tuple[date | None, dict[str, float], bool]:
    """Day of a machine's last change, the values before it, and whether npq's set-points made it."""
    mine = inputs.changes.filter((pl.col("machine_id") == machine) & pl.col("previous").is_not_null())
    mine = mine.filter((pl.col("value") - pl.col("previous")).abs() > 1e-9)
    last = mine["on"].max()
    if not isinstance(last, date) or (inputs.as_of - last).days > COMPARED_DAYS:
        return (last if isinstance(last, date) else None), {}, False
    today = mine.filter(pl.col("on") == last)
    before = {s: float(v) for s, v in today.select("setting", "previous").iter_rows()}
    return last, before, today["decision_id"].is_not_null().any()
