"""The day's maintenance plan: risks, the program of least expected cost, what others would pay, and the reasons in words.

What was known when does not belong here (see `equipment_inputs`), nor the mathematics (see `equipment`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from npq_assets.equipment.failure_risk import DAILY, FailureRisk, failure_risk
from npq_assets.equipment.lifetimes import best_interval, remaining_life
from npq_assets.equipment.maintenance import HORIZON
from npq_assets.equipment.maintenance_program import (
    MaintenanceProblem,
    MaintenanceResult,
    expected_of,
    fixed_interval,
    loss_of_waiting,
    run_to_failure,
    solve,
)
from npq_assets.evaluation.ledger import decision_id
from npq_assets.manufacturing.equipment_inputs import MaintenanceInputs, midnight

KIND = "maintenance_plan"
# Attempts to spread replacements over the days where some would share one day's window on a machine.
SPREADS = 3


@dataclass(frozen=True)
class MaintenanceDecision:
    """What is decided about components on a day.

    Attributes:
        plan: The columns of `maintenance_plan`.
        risks: The columns of `component_risks`.
        accounts: One row a component: machine_id, component, decision_id, expected_cost, naive_expected_cost, lower_bound, ….
        stops: machine_id, on, minutes: working time that the plan takes from machines, for the production plan.
        facts: Everything that is one number or word.
    """

    plan: pl.DataFrame
    risks: pl.DataFrame
    accounts: pl.DataFrame
    stops: pl.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)


def plan_maintenance(inputs: MaintenanceInputs) -> MaintenanceDecision:
    """Plans the replacements of the coming week.

    Raises:
        NpqError: No component failed often enough to learn from, or the program was not solved.
    """
    risk = failure_risk(inputs.history, inputs.lives, midnight(inputs.as_of))
    rows = risk.rows.join(inputs.costs, on="component", how="inner", maintain_order="left")
    problem, standstill = _problem(rows, inputs, risk)
    result, beyond = _sharing_windows(problem, rows, standstill)
    intervals = _intervals(rows, problem, risk)
    ages = rows.join(inputs.lives.filter("running").select("machine", "component", "days"), on=["machine", "component"],
                     how="left", maintain_order="left")["days"].to_numpy()  # fmt: skip
    days_left = np.array([intervals[c] for c in rows["component"]]) - ages
    failing, by_age = run_to_failure(problem), fixed_interval(problem, days_left)
    # The careful planner takes the better of the two rules; the fixed age is the component's own, or never.
    interval_total, failure_total = float(by_age.sum()), float(failing.sum())
    naive = by_age if interval_total <= failure_total else failing
    ids = [
        decision_id(inputs.as_of, "manufacturing", KIND, key, inputs.snapshot)
        for key in rows.select("machine", "component").iter_rows()
    ]
    stamp = (pl.lit(inputs.as_of).alias("as_of"), pl.lit(inputs.snapshot).alias("input_snapshot"))
    accounts = rows.select(machine_id="machine", component="component").with_columns(
        pl.Series("decision_id", ids, dtype=pl.String),
        pl.Series("expected_cost", result.expected),
        pl.Series("naive_expected_cost", naive),
        # The program was solved to its proven optimum, so that a share of it is a component's bound.
        pl.Series("lower_bound", np.minimum(result.expected, result.expected * _share(result))),
        # What a replacement, and a failure, of it costs: the prices at which the week is settled.
        pl.Series("planned_price", problem.cost.mean(axis=1)),
        pl.Series("failure_price", problem.failure_cost),
        *stamp,
    )
    plan = _plan(rows, problem, result, standstill, beyond, inputs, ids).with_columns(*stamp)
    stops = plan.filter(pl.col("lost_minutes") > 0).group_by("machine_id", pl.col("planned_on").alias("on")).agg(
        pl.col("lost_minutes").sum().alias("minutes")
    ).sort("machine_id", "on")  # fmt: skip
    notes = [*inputs.notes, *risk.notes, *_stuck(inputs), *_never_open(rows, problem)]
    facts = {
        "expected_cost": float(result.expected.sum()),
        "naive_cost": float(naive.sum()),
        "run_to_failure_cost": failure_total,
        "fixed_interval_cost": interval_total,
        "lower_bound": float(accounts["lower_bound"].sum()),
        "intervals": {c: (t if np.isfinite(t) else None) for c, t in intervals.items()},
        "crew_price": {str(t): v for t, v in result.crew_price.items()},
        "solver": "CVXPY, HiGHS",
        "status": result.status,
        "model_version": inputs.snapshot,
        "horizon_days": HORIZON,
        "skipped": notes,
    }
    return MaintenanceDecision(plan, _risks(rows, problem, risk, ages, ids, stamp), accounts, stops, facts)


def _never_open(rows: pl.DataFrame, problem: MaintenanceProblem) -> list[str]:
    """Replacements that fit into no day of the week, by component."""
    closed = rows.filter(~pl.Series(problem.open.any(axis=1))).filter(pl.col("planned_minutes") > 0)
    return [
        f"{component}: a replacement of {minutes:g} minutes fits into no day's working time and window on {count} machines, the "
        f"first {first}: not planned there"
        for component, minutes, count, first in closed.group_by("component", maintain_order=True)
        .agg(pl.col("planned_minutes").max(), pl.len(), pl.col("machine").first())
        .iter_rows()
    ]


def _share(result: MaintenanceResult) -> float:
    total = float(result.expected.sum())
    return result.bound / total if total > 0 else 1.0


@dataclass(frozen=True)
class _Standstill:
    """Of each component and day: working minutes that its replacement alone takes, the crew's own minutes, worth of a minute."""

    lost: np.ndarray
    window: np.ndarray
    worth: np.ndarray


def _problem(
    rows: pl.DataFrame, inputs: MaintenanceInputs, risk: FailureRisk
) -> tuple[MaintenanceProblem, _Standstill]:
    """Money and windows of each component and day; and what a replacement takes of a machine's time."""
    days = [inputs.as_of + timedelta(days=k) for k in range(HORIZON)]
    facts = {(r["machine"], r["on"]): r for r in inputs.days.iter_rows(named=True)}
    count = len(rows)
    cost, lost, opened = np.zeros((count, HORIZON)), np.zeros((count, HORIZON)), np.zeros((count, HORIZON), bool)
    window, minute = np.zeros((count, HORIZON)), np.zeros((count, HORIZON))
    failure = np.zeros(count)
    for i, r in enumerate(rows.iter_rows(named=True)):
        found = [facts.get((r["machine"], day)) for day in days]
        worth = [f["worth"] for f in found if f is not None and f["minutes"] > 0]
        # A failure comes on a working day: it costs a usual day's minutes.
        failure[i] = r["failure_cost"] + r["failure_minutes"] * (float(np.mean(worth)) if worth else 0.0)
        for t, f in enumerate(found):
            if f is None:  # a machine that master data do not know has no calendar: nothing is planned on it
                cost[i, t] = r["planned_cost"]
                continue
            window[i, t], minute[i, t] = f["maintenance_minutes"], f["worth"]
            lost[i, t] = max(0.0, r["planned_minutes"] - window[i, t])
            cost[i, t] = r["planned_cost"] + lost[i, t] * f["worth"]
            opened[i, t] = f["minutes"] + f["maintenance_minutes"] > 0 and lost[i, t] <= f["minutes"] + 1e-9
    life = np.array([risk.lives[c].mean for c in rows["component"]])
    crew = None if inputs.crew is None else np.full(HORIZON, float(inputs.crew))
    probability = rows.select(DAILY).to_numpy().astype(float)
    waiting = rows["planned_cost"].to_numpy().astype(float) / np.maximum(life, 1.0)
    return MaintenanceProblem(probability, cost, failure, opened, crew, waiting), _Standstill(lost, window, minute)


def _sharing_windows(
    problem: MaintenanceProblem, rows: pl.DataFrame, standstill: _Standstill
) -> tuple[MaintenanceResult, np.ndarray]:
    """The plan, and the working minutes that each replacement takes beyond those it would take alone.

    A machine's window is there once a day, while the program prices each replacement as if it had it for itself. So its optimum
    is a bound; where replacements share a window the later ones are charged what they really take, and tried on other days.
    """
    first = solve(problem)
    best, tried = None, first
    cost = problem.cost.copy()
    for _ in range(SPREADS):
        beyond = _beyond(rows, standstill, tried.day)
        money = beyond * standstill.worth[np.arange(len(beyond)), tried.day]
        expected = expected_of(problem, tried.day) + money
        if best is None or expected.sum() < best[1].sum() - 1e-9:
            best = tried.day, expected, beyond
        if not (money > 0).any():
            break
        shared = np.flatnonzero(money > 0)
        cost[shared, tried.day[shared]] = problem.cost[shared, tried.day[shared]] + money[shared]
        tried = solve(replace(problem, cost=cost.copy()))
    assert best is not None
    day, expected, beyond = best
    proven = expected.sum() - first.bound <= 1e-6 * (1.0 + abs(expected.sum()))
    status = first.status if proven else "feasible"
    return replace(first, day=day, expected=expected, status=status), beyond


def _beyond(rows: pl.DataFrame, standstill: _Standstill, day: np.ndarray) -> np.ndarray:
    """Working minutes that replacements take since others of the machine and day used the crew's window before them."""
    used: dict[tuple[str, int], float] = {}
    found = np.zeros(len(day))
    for i, (machine, minutes) in enumerate(rows.select("machine", "planned_minutes").iter_rows()):
        t = int(day[i])
        if t < 0:
            continue
        left = max(0.0, standstill.window[i, t] - used.get((machine, t), 0.0))
        used[machine, t] = used.get((machine, t), 0.0) + minutes
        found[i] = max(0.0, minutes - left) - standstill.lost[i, t]
    return found


def _intervals(rows: pl.DataFrame, problem: MaintenanceProblem, risk: FailureRisk) -> dict[str, float]:
    """The best fixed age of replacement of each component (days)."""
    found = {}
    for component in sorted(set(rows["component"])):
        mine = (rows["component"] == component).to_numpy()
        planned = float(problem.cost[mine].mean())
        found[component] = best_interval(risk.lives[component], planned, float(problem.failure_cost[mine].mean()))
    return found


def _plan(
    rows: pl.DataFrame,
    problem: MaintenanceProblem,
    result: MaintenanceResult,
    standstill: _Standstill,
    beyond: np.ndarray,
    inputs: MaintenanceInputs,
    ids: Sequence[str],
) -> pl.DataFrame:
    out = []
    loss = problem.probability * loss_of_waiting(problem)
    for i, r in enumerate(rows.iter_rows(named=True)):
        t = int(result.day[i])
        if t < 0:
            continue
        on = inputs.as_of + timedelta(days=t)
        lost = float(standstill.lost[i, t] + beyond[i])
        cost = float(problem.cost[i, t] + beyond[i] * standstill.worth[i, t])
        failure = float(problem.failure_cost[i])
        saving = float(loss[i, t:].sum() - cost)
        why = [f"fails within {HORIZON} days with {r['p']:.0%} by {r['method']}"]
        if r["signs"]:
            why.append(r["signs"])
        if r["age"] is not None:
            why.append(f"{r['age']:.0f} days old")
        why.append(f"planned {cost:,.0f}, a failure {failure:,.0f}")
        if lost < r["planned_minutes"]:
            why.append("the crew has the machine while it stands anyway")
        elif t > 0:
            why.append("no day before costs less")
        out.append(
            (r["machine"], r["component"], on, float(r["p"]), saving, "; ".join(why), float(r["planned_minutes"]),
             lost, cost, failure, ids[i])
        )  # fmt: skip
    schema = {
        "machine_id": pl.String, "component": pl.String, "planned_on": pl.Date, "failure_probability": pl.Float64,
        "expected_saving": pl.Float64, "reason": pl.String, "minutes": pl.Float64, "lost_minutes": pl.Float64,
        "cost": pl.Float64, "failure_cost": pl.Float64, "decision_id": pl.String,
    }  # fmt: skip
    return pl.DataFrame(out, schema=schema, orient="row")


def _risks(
    rows: pl.DataFrame,
    problem: MaintenanceProblem,
    risk: FailureRisk,
    ages: np.ndarray,
    ids: Sequence[str],
    stamp: tuple[pl.Expr, ...],
) -> pl.DataFrame:
    out = []
    for i, r in enumerate(rows.iter_rows(named=True)):
        life = risk.lives[r["component"]]
        low, middle, high = remaining_life(problem.probability[i], life, float(ages[i]), (0.1, 0.5, 0.9))
        why = [r["signs"] or "nothing unusual in readings and errors" if "age" not in r["method"] else "by its age"]
        why.append(f"parts last {life.mean:.0f} days in the mean ({life.failures} failures on record)")
        out.append(
            (r["machine"], r["component"], r["age"], float(r["p"]), middle, low, high,
             float(r["p"] * problem.failure_cost[i]), r["method"], "; ".join(why), ids[i])
        )  # fmt: skip
    schema = {
        "machine_id": pl.String, "component": pl.String, "age_days": pl.Float64, "failure_probability": pl.Float64,
        "remaining_days": pl.Float64, "remaining_low": pl.Float64, "remaining_high": pl.Float64,
        "money_at_risk": pl.Float64, "method": pl.String, "reason": pl.String, "decision_id": pl.String,
    }  # fmt: skip
    return pl.DataFrame(out, schema=schema, orient="row").with_columns(*stamp)


def _stuck(inputs: MaintenanceInputs) -> list[str]:
    return [
        f"sensor {sensor} of {machine} has not moved since {since}: its readings are not used"
        for machine, sensor, since in inputs.stuck.iter_rows()
    ]
