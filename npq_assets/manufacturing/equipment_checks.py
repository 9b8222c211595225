"""What must hold of decisions about equipment before anybody acts on them, as plain functions of frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from npq_assets.manufacturing.control import ControlDecision
from npq_assets.manufacturing.maintenance import MaintenanceDecision
from npq_assets.manufacturing.quality import QualityDecision
from npq_assets.verdicts import Verdict

MAINTENANCE_CHECKS = ("probabilities", "crew", "maintenance_bound")
EQUIPMENT_CHECKS = ("within_limits", "alerts_pay")


def _verdict(name: str, broken: pl.DataFrame, good: str) -> Verdict:
    if broken.is_empty():
        return Verdict(name, True, True, good)
    first = ", ".join(f"{key}={value}" for key, value in broken.row(0, named=True).items())
    return Verdict(name, False, True, f"{broken.height} rows, the first: {first}")


def judge_maintenance(decision: MaintenanceDecision | None, crew: int | None, reason: str | None) -> list[Verdict]:
    """Judges a day's maintenance plan; without one, the reason is the verdict."""
    if decision is None:
        return [Verdict(n, reason is not None, True, f"nothing was decided: {reason}") for n in MAINTENANCE_CHECKS]
    p = pl.col("failure_probability")
    life = (pl.col("remaining_low") > pl.col("remaining_days")) | (pl.col("remaining_days") > pl.col("remaining_high"))
    wrong = decision.risks.filter(~p.is_between(0, 1) | life).select("machine_id", "component", "failure_probability")
    a_day = decision.plan.group_by("planned_on").len("replacements")
    over = a_day.filter(pl.col("replacements") > crew) if crew is not None else a_day.clear()
    slack = 1e-6 * (1 + pl.col("expected_cost").abs())
    below = decision.accounts.filter(pl.col("expected_cost") < pl.col("lower_bound") - slack)
    return [
        _verdict(
            "probabilities", wrong, f"{decision.risks.height} components with probability and remaining life in order"
        ),
        _verdict("crew", over, f"{decision.plan.height} replacements within what the crew can do"),
        _verdict("maintenance_bound", below.select("machine_id", "component"), "no component below its bound"),
    ]


def judge_equipment(
    quality: QualityDecision | None, control: ControlDecision | None, reasons: Mapping[str, Any]
) -> list[Verdict]:
    """Judges a day's alerts and set-points; a set-point outside its limits stops everything behind it."""
    found = []
    if control is None:
        found.append(Verdict("within_limits", True, True, f"nothing was proposed: {reasons.get('control')}"))
    else:
        s, value = control.settings, pl.col("proposed")
        out = s.filter(~value.is_finite() | (value < pl.col("low")) | (value > pl.col("high")))
        unseen = (value < pl.min_horizontal("seen_low", "current") - 1e-9) | (
            value > pl.max_horizontal("seen_high", "current") + 1e-9
        )
        out = pl.concat([out, s.filter((pl.col("kind") == "improve") & unseen)]).unique(["machine_id", "setting"])
        detail = f"{s.height} set-points within limits and what the log has seen"
        found.append(
            _verdict("within_limits", out.select("machine_id", "setting", "proposed").sort("machine_id"), detail)
        )
    if quality is None:
        found.append(Verdict("alerts_pay", True, True, f"nothing was decided: {reasons.get('quality')}"))
    else:
        low = quality.alerts.filter(pl.col("defect_probability") < pl.col("threshold"))
        detail = f"{quality.alerts.height} units above their threshold"
        found.append(_verdict("alerts_pay", low.select("unit_id", "defect_probability"), detail))
    return found
