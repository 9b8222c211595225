"""From deliveries, roads and traffic to routes with a price: planned with the quantile of traffic that pays.

Thin: the problems and their solutions are `npq_assets.optimization.{routing,network_flow}`; this file fills them in, prices
every plan on the same scenarios of traffic, and explains it.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.evaluation.ledger import decision_id
from npq_assets.logistics.inputs import LogisticsInputs, usual_slowness
from npq_assets.logistics.traffic import LEVELS, Traffic, hours_of_day, with_day
from npq_assets.optimization import network_flow
from npq_assets.optimization.route_construction import savings_routes
from npq_assets.optimization.route_evaluation import Outcome, evaluate
from npq_assets.optimization.route_explaining import explanations
from npq_assets.optimization.route_feasibility import left_out, violations
from npq_assets.optimization.route_problem import searched_with, stretched
from npq_assets.optimization.route_relaxation import lower_bound
from npq_assets.optimization.route_timing import clock_text, kilometres, routes_of, schedule, timetable
from npq_assets.optimization.routing import Params, RouteCost, Routes, RoutingProblem, solve
from npq_assets.optimization.vehicle_worth import worth_of_vehicles

Array = NDArray[np.float64]
QUANTILES = (0.5, 0.75, 0.9)
"""Quantiles of traffic that are tried to plan with; the one whose routes are expected to cost least is taken."""
SCENARIOS = 200
_LEAD_MINUTES = 60.0
_ASSUMED = "logistics.trips: {} legs, too few to learn traffic from, so a usual spread is assumed; land more trips"
_WORTH_TELLING = 0.25


@dataclass(frozen=True)
class RoutePlan:
    """Routes of a day with what they are expected to cost.

    Attributes:
        routes: One row a delivery on a route: the columns of the decision table and lower_bound, late_probability.
        dropped: One row a delivery that is not made: the columns of the decision table and lower_bound.
        risks: The columns of the decision table.
        alerts: The columns of the decision table.
        sourcing: The columns of the decision table and lower_bound.
        worth: What limits of sourcing, and vehicles, are worth; see `network_flow.WORTH`.
        quantiles: Expected cost by quantile tried: quantile, factor, expected_cost, driving, late.
        tours: One row a route: vehicle_id, departs, returns, stops, km, load, capacity, expected_cost.
        relaxation: What could not be kept, in words.
        facts: Everything about the plan that is one number or word.
        terms: What sourcing was priced with, which its outcome is priced with: the frames of its `FlowProblem` (a week's
            `sources`, `lanes` and `demand`); None: those that are stored with the plan that this one replaces.
    """

    routes: pl.DataFrame
    dropped: pl.DataFrame
    risks: pl.DataFrame
    alerts: pl.DataFrame
    sourcing: pl.DataFrame
    worth: pl.DataFrame
    quantiles: pl.DataFrame
    tours: pl.DataFrame
    relaxation: list[str]
    facts: dict[str, Any] = field(default_factory=dict)
    terms: dict[str, pl.DataFrame] | None = None


def plan_day(inputs: LogisticsInputs, traffic: Traffic) -> RoutePlan:
    """Plans the day's routes, their risks and warnings, and the sourcing of the week."""
    problem = inputs.problem()
    grid = hours_of_day(inputs)
    by_level = traffic.quantiles(grid).mean(axis=0)
    # The careful planner plans with the time that legs took on average, and does not know what the day will bring.
    usual = usual_slowness(inputs.legs)
    naive_problem = stretched(problem, usual)
    naive_routes = savings_routes(naive_problem)
    naive = expected(inputs, traffic, naive_problem, naive_routes)
    tried: list[tuple[float, float, Routes, RoutingProblem, Outcome]] = []
    start: Routes | None = naive_routes
    params = Params(
        seconds=inputs.settings.solver_seconds,
        iterations=_iterations(inputs),
        seed=inputs.settings.seed,
        bound=False,
        explain=0,
    )
    for quantile in QUANTILES:
        factor = float(np.interp(quantile, LEVELS, by_level))
        slowed = stretched(problem, factor)
        # Windows kept by plan, then lateness planned where that is cheaper; the scenarios decide between the two.
        best: tuple[Routes, RoutingProblem, Outcome] | None = None
        for windows, looked_at in itertools.product(("kept", "priced"), looked_at_as(slowed)):
            routes = routes_of(slowed, solve(looked_at, replace(params, windows=(windows,)), start).plan)
            start = routes
            if slowed.hours is not None and violations(slowed, routes):
                if looked_at is not slowed:
                    continue  # a road that it counts on is closed when it gets there
                # The quickest way of an hour may be longer than a vehicle may drive: this plan keeps to the ways it was made with.
                looked_at = replace(slowed, hours=None)
            outcome = expected(inputs, traffic, looked_at, routes)
            less = 0 if best is None else _lost(problem, routes) - _lost(problem, best[0])
            if best is None or less < 0 or (less == 0 and outcome.total < best[2].total - 1e-6):
                best = (routes, looked_at, outcome)
        assert best is not None
        tried.append((quantile, factor, *best))
        start = best[0]
    quantile, factor, routes, slowed, outcome = min(
        tried, key=lambda t: (_lost(problem, t[2]), round(t[4].total, 6), t[0])
    )
    # Every plan that was looked at keeps its shifts at this factor or more.
    least = min(usual, *(f for _, f, _, _, _ in tried))
    bound = min(expected_bound(inputs, traffic, stretched(problem, least), routes), outcome.total)
    words = explanations(slowed, routes, Params(iterations=_iterations(inputs), seed=inputs.settings.seed, explain=3))
    alerts = alerts_of(inputs, slowed, routes, outcome, words, inputs.snapshot)
    sourcing, worth, flow_facts = _sourcing(inputs)
    worth = pl.concat([worth, worth_of_vehicles(slowed, routes, replace(params, windows=("kept",)))])
    served, dropped = decisions_of(inputs, slowed, routes, outcome, naive, naive_routes, bound, words, inputs.snapshot)
    cost = sum(float(frame["expected_cost"].sum()) for frame in (served, dropped)) - float(
        alerts["expected_saving"].sum()
    )
    risks = risks_of(inputs, outcome, inputs.snapshot)
    table = pl.DataFrame(
        [
            {
                "quantile": q,
                "factor": f,
                "expected_cost": o.total,
                "driving": float(o.driving.mean(axis=1).sum()),
                "late": float(o.late.mean(axis=1).sum()),
                "dropped": float(o.dropped.sum()),
                "planned late": int((schedule(p, r)["late_minutes"].fill_null(0.0) > 0).sum()),
            }
            for q, f, r, p, o in tried
        ]
    )
    facts = {
        "as_of": inputs.as_of.isoformat(),
        "deliveries": inputs.deliveries.height,
        "routes": len(routes),
        "dropped": dropped.height,
        "quantile": quantile,
        "factor": factor,
        "expected_cost": cost,
        "naive_cost": naive.total,
        "lower_bound": min(float(bound), cost),
        "expected late cost": float(outcome.late.mean(axis=1).sum()),
        "naive late cost": float(naive.late.mean(axis=1).sum()),
        "status": "relaxed" if dropped.height else "feasible",
        "solver": "PyVRP; bound by column generation, HiGHS",
        "model_version": traffic.version,
        "model_trained_as_of": traffic.trained_as_of.isoformat(),
        "input_snapshot": inputs.snapshot,
        "ways": inputs.ways,
        "skipped": [*inputs.skipped, *([_ASSUMED.format(traffic.rows)] if traffic.model is None else [])],
        **flow_facts,
    }
    # Of the routes alone: what warnings spare is no work of theirs, and the bound is not told of it.
    facts["gap"] = (outcome.total - bound) / max(outcome.total, 1e-9)
    return RoutePlan(
        served,
        dropped,
        risks,
        alerts,
        sourcing,
        worth,
        table,
        tours_of(slowed, routes, outcome),
        words["message"].to_list(),
        facts,
        _terms(inputs),
    )


def expected_bound(inputs: LogisticsInputs, traffic: Traffic, problem: RoutingProblem, routes: Routes) -> float:
    """No plan of the day is expected to cost less before warnings: see `route_relaxation.lower_bound`.

    Args:
        inputs: What was known.
        traffic: How long legs will take.
        problem: The day, with times that plans keep their shifts at or above.
        routes: A good plan to start from; it says which deliveries that must be made cannot be.
    """
    return lower_bound(problem, least_minutes(inputs, traffic), left=left_out(problem, routes), start=routes)


def least_minutes(inputs: LogisticsInputs, traffic: Traffic) -> Array:
    """Mean minutes of every leg at the hour of the shifts at which they are least (P, P), of the distribution that is drawn from,
    on the quickest way of any time of the day.

    A leg's depot and region are those of the stop it leads to, of the stop it leaves on the way home (see `leg_frame`). Means are
    asked for at lengths from short to long; a leg in between takes the lesser factor of its neighbours.
    """
    first, last = inputs.vehicles["shift_start"].min(), inputs.vehicles["shift_end"].max()
    hours = np.arange(np.floor(float(first) / 30.0), np.ceil(float(last) / 30.0) + 1) / 2.0  # type: ignore[arg-type]
    ways = [inputs.minutes] if inputs.hours is None else list(inputs.hours.minutes)
    known = np.concatenate([m[np.isfinite(m) & (m > 0)] for m in ways])
    lengths = np.unique(np.quantile(known, np.linspace(0, 1, 25))) if known.size else np.array([20.0])
    kinds = inputs.deliveries.select("depot_id", "region").unique().sort("depot_id", "region")
    grid = with_day(inputs, kinds.join(pl.DataFrame({"hour": np.unique(hours % 24.0)}), how="cross"))
    asked = grid.join(pl.DataFrame({"usual": lengths}), how="cross", maintain_order="left_right")
    factor = traffic.mean(asked).reshape(kinds.height, -1, len(lengths)).min(axis=1)
    row_of = {pair: k for k, pair in enumerate(kinds.rows())}
    of_place = np.full(len(inputs.minutes), -1)
    for place, pair in zip(
        inputs.deliveries["place"].to_list(), inputs.deliveries.select("depot_id", "region").rows(), strict=True
    ):
        of_place[place] = row_of[pair]
    # Between depots, where nobody drives, the least of all.
    table = np.vstack([factor, factor.min(axis=0)])
    kind = np.where(of_place[None, :] >= 0, of_place[None, :], of_place[:, None])
    factors = []
    for m in ways:
        above = np.clip(np.searchsorted(lengths, np.where(np.isfinite(m), m, 0.0)), 0, len(lengths) - 1)
        factors.append(np.minimum(table[kind, above], table[kind, np.maximum(above - 1, 0)]))
    # A leg may be drawn at the length of one time's way and driven on another's.
    return np.asarray(np.min(ways, axis=0) * np.min(factors, axis=0))


def _lost(problem: RoutingProblem, routes: Routes) -> int:
    """Stops left out that must be made. That costs nothing, so costs must not be compared where it differs: slower traffic, or
    ways of another hour, make a stop hopeless that can be made."""
    return len(left_out(problem, routes))


def looked_at_as(problem: RoutingProblem) -> list[RoutingProblem]:
    """The day as searches see it: with ways that no change of the roads ever meets, and with those of most of the day."""
    if problem.hours is None or problem.hours.longest == 0:
        return [problem]
    return [problem, searched_with(problem, problem.hours.longest)]


def _iterations(inputs: LogisticsInputs) -> int:
    """Work of one search: repeatable, and a second or two on a usual day."""
    largest = int(inputs.deliveries["depot_id"].value_counts()["count"].max() or 0)  # type: ignore[arg-type]
    return int(np.clip(20 * largest, 300, 20_000))


def leg_frame(
    inputs: LogisticsInputs, problem: RoutingProblem, routes: Routes
) -> tuple[pl.DataFrame, dict[int, list[int]]]:
    """Legs of routes (the way home last) as the traffic model sees them, and the rows of each vehicle."""
    rows: list[dict[str, Any]] = []
    where: dict[int, list[int]] = {}
    region, place = inputs.deliveries["region"].to_list(), inputs.deliveries["place"].to_list()
    for vehicle, visits in routes.items():
        start, _, begins, _back = timetable(problem, vehicle, visits)
        depot = int(problem.vehicles["depot"][vehicle])
        name = inputs.vehicles["depot_id"][vehicle]
        clock, at = start, depot
        where[vehicle] = []
        for k, stop in enumerate([*visits, None]):
            to = depot if stop is None else place[stop]
            where[vehicle].append(len(rows))
            rows.append(
                {
                    "depot_id": name,
                    "region": region[stop if stop is not None else visits[-1]],
                    "hour": (clock / 60.0) % 24.0,
                    "usual": float(inputs.minutes[at, to])
                    if problem.hours is None
                    else problem.hours.leg(clock, at, to, problem.stretch)[2],
                }
            )
            if stop is not None:
                clock, at = begins[k] + float(problem.stops["service"][stop]), to
    schema = {"depot_id": pl.String, "region": pl.String, "hour": pl.Float64, "usual": pl.Float64}
    return with_day(inputs, pl.DataFrame(rows, schema=schema)), where


def expected(inputs: LogisticsInputs, traffic: Traffic, problem: RoutingProblem, routes: Routes) -> Outcome:
    """Routes driven as planned through the day's scenarios of traffic, the same for every plan."""
    legs, where = leg_frame(inputs, problem, routes)
    if legs.is_empty():
        return evaluate(problem, routes, inputs.minutes)
    drawn = traffic.draw(legs, SCENARIOS, inputs.settings.seed + inputs.as_of.toordinal())
    return evaluate(problem, routes, inputs.minutes, {vehicle: drawn[rows] for vehicle, rows in where.items()})


def moment(inputs: LogisticsInputs, minutes: float) -> datetime:
    """Minutes after the day's opening as a moment."""
    return inputs.opened + timedelta(seconds=round(60.0 * float(minutes)))


# Risks and warnings --------------------------------------------------------------------------------------------------------


def risks_of(inputs: LogisticsInputs, outcome: Outcome, snapshot: str) -> pl.DataFrame:
    """When each delivery on a route will arrive, and what its lateness may cost."""
    rows = []
    due = inputs.deliveries["due"].to_numpy()
    for s, name in enumerate(inputs.deliveries["delivery_id"].to_list()):
        arrival = outcome.arrival[s]
        if np.isnan(arrival).any():
            continue
        low, middle, high = np.quantile(arrival, [0.1, 0.5, 0.9])
        rows.append(
            {
                "delivery_id": name,
                "eta_q10": moment(inputs, low),
                "eta_q50": moment(inputs, middle),
                "eta_q90": moment(inputs, high),
                "late_probability": float((arrival > due[s]).mean()),
                "expected_late_cost": float(outcome.late[s].mean()),
                "decision_id": decision_id(inputs.as_of, "logistics", "delivery_risks", (name,), snapshot),
                "as_of": inputs.as_of,
                "input_snapshot": snapshot,
            }
        )
    stamp = pl.Datetime("us", "UTC")
    return pl.DataFrame(
        rows,
        schema={
            "delivery_id": pl.String, "eta_q10": stamp, "eta_q50": stamp, "eta_q90": stamp, "late_probability": pl.Float64,
            "expected_late_cost": pl.Float64, "decision_id": pl.String, "as_of": pl.Date, "input_snapshot": pl.String,
        },
    )  # fmt: skip


ALERTS: dict[str, Any] = {
    "alert_id": pl.String,
    "kind": pl.String,
    "subject": pl.String,
    "money_at_risk": pl.Float64,
    "action": pl.String,
    "act_before": pl.Datetime("us", "UTC"),
    "agreed_until": pl.Datetime("us", "UTC"),
    "action_cost": pl.Float64,
    "expected_saving": pl.Float64,
    "decision_id": pl.String,
    "as_of": pl.Date,
    "input_snapshot": pl.String,
}


def alerts_of(
    inputs: LogisticsInputs,
    problem: RoutingProblem,
    routes: Routes,
    outcome: Outcome,
    words: pl.DataFrame,
    snapshot: str,
    now: float = 0.0,
) -> pl.DataFrame:
    """Warnings ranked by money, as of a minute of the day.

    Agreeing on a later time costs what the delivery's `rebook_cost` says and moves its window's end to the arrival that all but
    one in twenty scenarios keep; it is advised where it is expected to cost less than the lateness it avoids.
    """
    late = outcome.late.mean(axis=1)
    rows: list[dict[str, Any]] = []
    deliveries = inputs.deliveries
    departs = {s: timetable(problem, v, r)[0] for v, r in routes.items() for s in r}

    def add(kind: str, subject: str, risk: float, action: str, **more: Any) -> None:
        name = f"{inputs.as_of:%Y%m%d}-{kind}-{subject}"
        rows.append(
            {
                "alert_id": name, "kind": kind, "subject": subject, "money_at_risk": float(risk), "action": action,
                "act_before": None, "agreed_until": None, "action_cost": 0.0, "expected_saving": 0.0, **more,
                "decision_id": decision_id(inputs.as_of, "logistics", "alerts", (name,), snapshot),
                "as_of": inputs.as_of, "input_snapshot": snapshot,
            }
        )  # fmt: skip

    for s in range(deliveries.height):
        row = deliveries.row(s, named=True)
        if s not in departs or late[s] < _WORTH_TELLING:
            continue
        arrival = outcome.arrival[s]
        until = float(np.ceil(np.quantile(arrival, 0.95) / 5.0) * 5.0)
        rest = float(RouteCost.late(row["late_cost"], arrival, max(until, row["due"])).mean())
        price = row["rebook_cost"]
        early, high = clock_text(float(np.quantile(arrival, 0.1))), clock_text(until)
        share = float((arrival > row["due"]).mean())
        # Nobody can act before a time that is over.
        deadline = max(0.0, min(departs[s], row["due"] - _LEAD_MINUTES))
        if price is not None and price + rest < late[s] - 1e-9 and deadline >= now:
            add(
                "late_delivery",
                row["delivery_id"],
                late[s],
                f"agree on arrival between {early} and {high}: late with probability {share:.0%} otherwise",
                act_before=moment(inputs, deadline),
                agreed_until=moment(inputs, until),
                action_cost=float(price),
                expected_saving=float(late[s] - rest - price),
            )
        elif share >= 0.2:
            add(
                "late_risk",
                row["delivery_id"],
                late[s],
                f"watch: late with probability {share:.0%}, expected between {early} and {high}",
                act_before=moment(inputs, max(departs[s], now)),
            )
    named = set(words["constraint"].to_list())
    for s in range(deliveries.height):
        row = deliveries.row(s, named=True)
        if s in departs:
            continue
        text = (
            words.filter(pl.col("constraint") == row["delivery_id"])["message"].to_list()
            if row["delivery_id"] in named
            else []
        )
        must = row["drop_cost"] is None
        add(
            "not_deliverable" if must else "dropped_delivery",
            row["delivery_id"],
            outcome.dropped[s],
            (text[0] if text else f"{row['delivery_id']}: dropped")
            + ("; it must be delivered: add a vehicle, a shift or a later window" if must else "; tell the customer"),
        )
    for line in inputs.skipped:
        for prefix, kind in (("delivery ", "not_planned"), ("depot ", "not_planned"), ("road closure ", "not_closed")):
            if line.startswith(prefix):
                # Up to the last of these: ids may hold colons.
                name = re.match(r"(.+)(?:: | has no )", line.removeprefix(prefix))
                add(kind, name[1] if name else line.removeprefix(prefix), 0.0, line)
    frame = pl.DataFrame(rows, schema=ALERTS)
    return frame.sort(["money_at_risk", "alert_id"], descending=[True, False])


# Decisions -----------------------------------------------------------------------------------------------------------------


def decisions_of(
    inputs: LogisticsInputs,
    problem: RoutingProblem,
    routes: Routes,
    outcome: Outcome,
    naive: Outcome,
    naive_routes: Routes,
    bound: float,
    words: pl.DataFrame,
    snapshot: str,
    rule: str = "the planner's routes",
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of `routes` and `dropped_deliveries`: each delivery with its share of the costs, which add up to the plans'.

    Lateness is counted as if nobody were warned: what warnings spare is the account of `alerts`.

    Args:
        inputs: What was known.
        problem: The day, with the times that were planned with.
        routes: What is planned.
        outcome: What that is expected to cost.
        naive: What the naive rule's routes are expected to cost.
        naive_routes: Those routes.
        bound: No plan costs less.
        words: Why stops are dropped or late, and what forcing them in costs; see `route_explaining.explanations`.
        snapshot: Hash of all that was looked at.
        rule: The naive rule in words.
    """
    cost = outcome.by_stop
    total = float(cost.sum())
    share = cost / total if total > 0 else np.zeros_like(cost)
    plan = schedule(problem, routes)
    names = inputs.deliveries["delivery_id"].to_list()
    row_of = {name: s for s, name in enumerate(names)}
    naive_vehicle = {s: inputs.vehicles["vehicle_id"][v] for v, r in naive_routes.items() for s in r}
    prices = dict(words.select("constraint", "amount").iter_rows())
    messages = dict(words.select("constraint", "message").iter_rows())
    served: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    for row in plan.to_dicts():
        s = row_of[row["delivery_id"]]
        common = {
            "delivery_id": row["delivery_id"],
            "expected_cost": float(cost[s]),
            "naive_expected_cost": float(naive.by_stop[s]),
            "lower_bound": float(min(bound, total) * share[s]),
            "decision_id": decision_id(inputs.as_of, "logistics", "routes", (row["delivery_id"],), snapshot),
            "as_of": inputs.as_of,
            "input_snapshot": snapshot,
        }
        if row["vehicle_id"] is None:
            price = prices.get(row["delivery_id"], float("nan"))
            dropped.append(
                {
                    **common,
                    "price_to_serve": float(price) if np.isfinite(price) else None,
                    "reason": messages.get(row["delivery_id"], "serving it costs more than dropping it"),
                }
            )
            continue
        chance = float((outcome.arrival[s] > inputs.deliveries["due"][s]).mean())
        rival = naive_vehicle.get(s)
        planned_late = (
            f"; planned {messages[row['delivery_id']].split(': ', 1)[1]}" if row["delivery_id"] in messages else ""
        )
        served.append(
            {
                **common,
                "route_id": f"R-{inputs.as_of:%Y%m%d}-{row['vehicle_id']}",
                "stop": row["stop"],
                "vehicle_id": row["vehicle_id"],
                "arrives_at": moment(inputs, row["arrives"]),
                "leaves_at": moment(inputs, row["leaves"]),
                "departs_at": moment(inputs, row["departs"]),
                "load": row["load"],
                "km": row["km"],
                "late_probability": chance,
                "reason": f"stop {row['stop']} of {row['vehicle_id']}, window to "
                f"{clock_text(inputs.deliveries['due'][s])}, late with probability {chance:.0%}{planned_late}; {rule} "
                + (f"give it to {rival}" if rival else "do not serve it"),
            }
        )
    return pl.DataFrame(served, schema=ROUTES), pl.DataFrame(dropped, schema=DROPPED)


_COMMON: dict[str, Any] = {
    "delivery_id": pl.String,
    "expected_cost": pl.Float64,
    "naive_expected_cost": pl.Float64,
    "lower_bound": pl.Float64,
    "decision_id": pl.String,
    "as_of": pl.Date,
    "input_snapshot": pl.String,
    "reason": pl.String,
}
ROUTES: dict[str, Any] = {
    "route_id": pl.String,
    "stop": pl.Int64,
    "vehicle_id": pl.String,
    "arrives_at": pl.Datetime("us", "UTC"),
    "leaves_at": pl.Datetime("us", "UTC"),
    "departs_at": pl.Datetime("us", "UTC"),
    "load": pl.Float64,
    "km": pl.Float64,
    "late_probability": pl.Float64,
    **_COMMON,
}
DROPPED: dict[str, Any] = {**_COMMON, "price_to_serve": pl.Float64}


def tours_of(problem: RoutingProblem, routes: Routes, outcome: Outcome) -> pl.DataFrame:
    """A row a route: when it leaves and is back, its stops, km, load and cost."""
    rows = []
    for vehicle, visits in sorted(routes.items()):
        start, _, _, back = timetable(problem, vehicle, visits)
        rows.append(
            {
                "vehicle_id": problem.vehicles["vehicle_id"][vehicle],
                "departs": start,
                "returns": back,
                "stops": len(visits),
                "km": float(sum(kilometres(problem, vehicle, visits))),
                "load": float(problem.stops["quantity"].gather(visits).sum()),
                "capacity": float(problem.vehicles["capacity"][vehicle]),
                "expected_cost": float(outcome.by_stop[visits].sum()),
            }
        )
    kinds = {"vehicle_id": pl.String, "departs": pl.Float64, "returns": pl.Float64, "stops": pl.Int64, "km": pl.Float64,
             "load": pl.Float64, "capacity": pl.Float64, "expected_cost": pl.Float64}  # fmt: skip
    return pl.DataFrame(rows, schema=kinds)


# Sourcing ------------------------------------------------------------------------------------------------------------------

SOURCING: dict[str, Any] = {
    "site_id": pl.String,
    "source_id": pl.String,
    "quantity": pl.Float64,
    "expected_cost": pl.Float64,
    "naive_source_id": pl.String,
    "naive_expected_cost": pl.Float64,
    "lower_bound": pl.Float64,
    "reason": pl.String,
    "decision_id": pl.String,
    "as_of": pl.Date,
    "input_snapshot": pl.String,
}
_DAYS = 7


def flow_problem(inputs: LogisticsInputs) -> network_flow.FlowProblem:
    """The week's sourcing problem: daily capacities, stocks and lanes times seven, the demand of the next seven days."""
    week = [(pl.col(name) * _DAYS).alias(name) for name in ("capacity", "stock")]
    return network_flow.FlowProblem(
        inputs.sources.with_columns(week),
        inputs.lanes.with_columns((pl.col("capacity") * _DAYS).alias("capacity")),
        inputs.demand.select(
            "site_id", "quantity", pl.lit(inputs.settings.sourcing_shortage_cost).alias("shortage_cost")
        ),
    )


def _nothing_to_source(inputs: LogisticsInputs) -> bool:
    return inputs.sources.is_empty() or inputs.lanes.is_empty() or inputs.demand.is_empty()


def _terms(inputs: LogisticsInputs) -> dict[str, pl.DataFrame]:
    if _nothing_to_source(inputs):
        return {}
    problem = flow_problem(inputs)
    return {name: getattr(problem, name) for name in ("sources", "lanes", "demand")}


def _sourcing(inputs: LogisticsInputs) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """Which source serves which site, beside the nearest; rows add up to the cost of all flows."""
    nothing: tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]] = (
        pl.DataFrame(schema=SOURCING),
        pl.DataFrame(schema=network_flow.WORTH),
        {},
    )
    if _nothing_to_source(inputs):
        return nothing
    problem = flow_problem(inputs)
    result = network_flow.solve(problem, seconds=inputs.settings.solver_seconds)
    lanes = problem.lanes.sort("from_id", "to_id")
    sites = inputs.demand["site_id"].to_list()
    to_sites = lanes.filter(pl.col("to_id").is_in(sites)).drop_nulls("km")
    flow, short = network_flow.nearest(problem, to_sites)
    naive_cost = network_flow.price(problem, lanes, flow, short)
    near = dict(
        to_sites.sort("km", "from_id")
        .unique("to_id", keep="first", maintain_order=True)
        .select("to_id", "from_id")
        .rows()
    )
    last = result.flows.filter(pl.col("to_id").is_in(sites))
    missing = dict(result.shortage.select("site_id", "quantity").iter_rows())
    price = inputs.settings.sourcing_shortage_cost
    # Carrying and handling is shared by load; what a site lacks is its own.
    shipped = float(last["quantity"].sum()) or 1.0
    carried = result.objective - price * sum(missing.values())
    wanted = float(inputs.demand["quantity"].sum()) or 1.0
    known = dict(inputs.demand.select("site_id", "known").iter_rows())
    dear = result.worth.filter(pl.col("worth_per_unit") > 1e-9)
    note = (
        f"; a unit of {dear['limit'][0]} at {dear['subject'][0]} is worth {dear['worth_per_unit'][0]:.3f}"
        if dear.height
        else ""
    )
    sent: list[tuple[str, str, float]] = list(
        last.select("from_id", "to_id", "quantity").sort("to_id", "from_id").iter_rows()
    )
    served = {site for _, site, _ in sent}
    sent += [(near.get(site, "none"), site, 0.0) for site in sorted(missing) if site not in served]
    rows = []
    for source, site, quantity in sent:
        lacks = missing.pop(site, 0.0)
        nearest = near.get(site, source)
        cost = carried * quantity / shipped + price * lacks
        why = (
            "its nearest source"
            if source == nearest
            else f"cheaper in all than {nearest}, which is nearest"
            if quantity
            else "no lane leads there"
        )
        rows.append(
            {
                "site_id": site,
                "source_id": source,
                "quantity": float(quantity),
                "expected_cost": cost,
                "naive_source_id": nearest,
                "naive_expected_cost": naive_cost * (quantity + lacks) / wanted,
                "lower_bound": result.bound * cost / result.objective if result.objective > 0 else 0.0,
                "reason": f"{quantity:,.0f} over seven days ({known[site]:,.0f} of its demand ordered); {why}"
                + (f"; {lacks:,.0f} that it needs cannot be sent, at {price:g} a unit" if lacks else "")
                + note,
                "decision_id": decision_id(inputs.as_of, "logistics", "sourcing", (site, source), inputs.snapshot),
                "as_of": inputs.as_of,
                "input_snapshot": inputs.snapshot,
            }
        )
    facts = {
        "sourcing_cost": result.objective,
        "sourcing_naive_cost": naive_cost,
        "sourcing_bound": result.bound,
        "sourcing_status": result.status,
    }
    return pl.DataFrame(rows, schema=SOURCING), result.worth, facts
