"""A day's routes planned anew while they are driven: orders come in, a vehicle breaks down, a road closes.

What is on the road stays; everybody else's change has its price (`npq_assets.optimization.replanning`). Nothing is written unless
`write` is called. How a day is planned at first does not belong here (see `plan`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from npq_assets.contracts import DECISIONS
from npq_assets.errors import NpqError, RunError
from npq_assets.evaluation.ledger import decision_id
from npq_assets.logistics.checks import judge_plan
from npq_assets.logistics.inputs import LogisticsInputs, read_inputs
from npq_assets.logistics.marts import opening
from npq_assets.logistics.output import load_plan, plan_folder, save_plan
from npq_assets.logistics.plan import (
    RoutePlan,
    alerts_of,
    decisions_of,
    expected,
    expected_bound,
    looked_at_as,
    moment,
    risks_of,
    tours_of,
)
from npq_assets.logistics.showing import route_map, write_dispatch
from npq_assets.logistics.traffic import learn
from npq_assets.optimization.replanning import Replan, Told, replan
from npq_assets.optimization.route_construction import insert_left
from npq_assets.optimization.route_explaining import explanations
from npq_assets.optimization.route_feasibility import violations
from npq_assets.optimization.route_problem import Params, Routes, RoutingProblem, stretched
from npq_assets.optimization.route_timing import clock_text, routes_of, timetable
from npq_assets.publishing import publisher_of, write_decisions
from npq_assets.settings import Home
from npq_assets.storage import fingerprint, write_csv_for_people, write_json, write_parquet

LOADED_MINUTES = 15.0
"""A vehicle that leaves within this time has been loaded, and keeps its route."""
CHANGES: dict[str, Any] = {
    "delivery_id": pl.String,
    "change": pl.String,
    "vehicle_before": pl.String,
    "vehicle_id": pl.String,
    "begins_before": pl.Datetime("us", "UTC"),
    "begins_at": pl.Datetime("us", "UTC"),
    "price": pl.Float64,
}


@dataclass(frozen=True)
class Happened:
    """What has happened since the plan was made; what an earlier re-planning of the day was told of holds until told otherwise.

    Attributes:
        now: Minutes after the day's opening.
        vehicles_down: Vehicles that drive no further; what they have not delivered is delivered by others, from the depot.
        closed: Road segments (from_node, to_node) that are closed.
        vehicles_back: Vehicles that were down and can drive again.
        opened: Road segments that were closed and are open again.
    """

    now: float = 0.0
    vehicles_down: tuple[str, ...] = ()
    closed: tuple[tuple[str, str], ...] = ()
    vehicles_back: tuple[str, ...] = ()
    opened: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Prices:
    """What a change costs (money).

    Attributes:
        vehicle: For each delivery that gets another vehicle.
        time: For each whose service begins at another time than told, where the delivery has no `rebook_cost`.
        tolerance: Minutes earlier or later that are not another time.
        most_routes: Routes that may change at most, where that can be kept; None: no limit.
    """

    vehicle: float = 5.0
    time: float = 5.0
    tolerance: float = 30.0
    most_routes: int | None = None


@dataclass(frozen=True)
class DayReplanned:
    """The day as it is to be driven now.

    Attributes:
        plan: The whole day: what was driven, what is on the road, what is planned anew.
        changes: A row a delivery that changes: delivery_id, change (`new`, `vehicle`, `time`, `vehicle and time`, `dropped`,
            `taken in again`), vehicle_before, vehicle_id, begins_before, begins_at, price.
        curve: Cost against change; see `optimization.replanning.Replan`.
        chosen: Row of the curve.
        cost: Expected cost of the day's routes, lateness and dropped deliveries included, before warnings are acted on.
        cost_by_hand: The same if a dispatcher puts every loose delivery where it adds least.
        locked: Vehicles on the road.
        inputs: What was known.
        inputs_hash: Of the plan that stands.
    """

    plan: RoutePlan
    changes: pl.DataFrame
    curve: pl.DataFrame
    chosen: int
    cost: float
    cost_by_hand: float
    locked: tuple[str, ...]
    inputs: LogisticsInputs = field(repr=False)
    inputs_hash: str = ""

    def as_text(self) -> str:
        """The answer as lines for people."""
        lines = [
            f"{'':2}{'open':>6}{'changed':>9}{'moved':>7}{'times':>7}{'dropped':>9}{'cost':>12}{'with change':>13}"
        ]
        for k, row in enumerate(self.curve.to_dicts()):
            name = "all" if row["free"] else str(row["routes_open"])
            lines.append(
                f"{'>' if k == self.chosen else '':2}{name:>6}{row['routes_changed']:>9}{row['stops_moved']:>7}"
                f"{row['times_changed']:>7}{row['stops_dropped']:>9}{row['cost']:>12,.2f}{row['price']:>13,.2f}"
                + ("  (if change had no price)" if row["free"] else "")
            )
        lines.append(
            f"on the road and left alone: {', '.join(self.locked) or 'nobody'}; the day's routes are expected to cost "
            f"{self.cost:,.2f}, {self.cost_by_hand:,.2f} if every loose delivery is put where it adds least"
        )
        clock = lambda at: clock_text(_minutes(at, self.inputs.as_of))  # noqa: E731
        for row in self.changes.to_dicts():
            was = f"{row['vehicle_before']} {clock(row['begins_before'])}" if row["begins_before"] else "nobody"
            now = f"{row['vehicle_id']} {clock(row['begins_at'])}" if row["vehicle_id"] else "nobody"
            lines.append(f"  {row['delivery_id']}: {row['change']}, {was} -> {now}")
        told = self.plan.facts["replanned"]
        for word, names in (("down", told["vehicles_down"]), ("closed", [",".join(pair) for pair in told["closed"]])):
            if names:
                lines.append(f"{word}, also for later re-plannings of the day: {', '.join(names)}")
        lines += [f"  {text}" for text in self.plan.relaxation]
        if self.changes.is_empty():
            lines.append("  nobody's delivery changes")
        return "\n".join(lines)


def replan_day(home: Home, as_of: date, happened: Happened, prices: Prices | None = None) -> DayReplanned:
    """Plans the rest of a day anew from the routes decided for it; nothing is written.

    Args:
        home: The home; what landed of the day (deliveries with `ordered_at` before now, trips, closures) is taken from its marts.
        as_of: The day.
        happened: What has happened.
        prices: What changes cost.

    Raises:
        NpqError: There is no plan of the day, it was made at a later time of the day, or a vehicle or road is unknown.
    """
    prices = prices or Prices()
    found = load_plan(home, as_of)
    if found is None:
        raise NpqError(f"no routes stand for {as_of}; npq run --domain logistics --as-of {as_of} makes them")
    stands, facts = found
    now = opening(as_of) + timedelta(minutes=happened.now)
    told_of = happened
    happened = _still(happened, facts, now)
    inputs = _with_agreed(read_inputs(home, as_of, now, happened.closed), stands["alerts"])
    names = inputs.vehicles["vehicle_id"].to_list()
    for name in (*told_of.vehicles_down, *told_of.vehicles_back):
        if name not in names and name not in set(stands["routes"]["vehicle_id"].to_list()):
            raise NpqError(f"vehicle {name!r} is not in logistics.vehicles; give one of {', '.join(names[:5])} …")
    whole = stretched(inputs.problem(), float(facts["factor"]))
    standing = routes_of(whole, stands["routes"])
    leaves = dict(stands["routes"].select("vehicle_id", "departs_at").unique("vehicle_id").iter_rows())
    departs = {v: _minutes(leaves[names[v]], as_of) for v in standing}
    down = {v for v, name in enumerate(names) if name in happened.vehicles_down}
    done, heard = _done(home, as_of, now, stands["routes"], whole)
    # Trips know better than the plan who has left.
    out = {v for v, name in enumerate(names) if name in heard} | {
        v for v, r in standing.items() if done.intersection(r)
    }
    locked = {
        v: r
        for v, r in standing.items()
        if v not in down and happened.now > 0 and (v in out or departs[v] <= happened.now + LOADED_MINUTES)
    }
    driven = {v: [s for s in r if s in done] for v, r in standing.items() if v in down and departs[v] <= happened.now}
    settled = {s for r in (*locked.values(), *driven.values()) for s in r}
    stops = [s for s in range(whole.stops.height) if s not in settled]
    ends = whole.vehicles["shift_end"].to_list()
    cars = [v for v in range(len(names)) if v not in locked and v not in down | out and ends[v] > happened.now]
    part = _part(whole, stops, cars, happened.now)
    stop_at, car_at = {s: k for k, s in enumerate(stops)}, {v: k for k, v in enumerate(cars)}
    before = {car_at[v]: [stop_at[s] for s in r] for v, r in standing.items() if v in car_at}
    begins = _begins(stands["routes"], inputs, as_of)
    told = Told(
        {stop_at[s]: at for s, at in begins.items() if s in stop_at},
        {stop_at[s]: _price_of_time(inputs, s, prices) for s in begins if s in stop_at},
        prices.tolerance,
    )
    # A delivery of a lost vehicle has a home too: where it goes to, it changes its vehicle, which no price can help.
    params = Params(
        seconds=inputs.settings.solver_seconds,
        iterations=int(np.clip(40 * len(stops), 600, 6_000)),
        seed=inputs.settings.seed,
        explain=5,
    )
    answers = [
        replan(
            seen,
            before,
            change_price=prices.vehicle,
            told=told,
            most_routes=prices.most_routes,
            params=params,
            free=True,
        )
        for seen in looked_at_as(part)
    ]
    answer = min(answers, key=lambda found: _too_much(found, prices.most_routes))
    words = explanations(answer.problem, answer.routes, params)
    routes = locked | {v: r for v, r in driven.items() if r}
    routes |= {cars[v]: [stops[s] for s in r] for v, r in answer.routes.items() if r}
    settled_departs = {v: departs[v] for v in (*locked, *driven)} | {
        cars[v]: at for v, at in answer.problem.departs.items()
    }
    ready = whole.stops["ready"].to_list()
    for k, s in enumerate(stops):
        ready[s] = float(answer.problem.stops["ready"][k])
    columns = [pl.Series("ready", ready, dtype=pl.Float64)]
    planned = replace(whole, stops=whole.stops.with_columns(columns), departs=settled_departs)
    by_hand = locked | driven | _by_hand(part, before, stops, cars)
    plan, changes, costs = _told_anew(
        home, inputs, stands, facts, planned, routes, replace(whole, departs={v: departs[v] for v in (*locked, *driven)}),
        by_hand, happened, prices, begins, words, [names[v] for v in sorted({*locked, *driven})],
    )  # fmt: skip
    return DayReplanned(
        plan,
        changes,
        answer.curve,
        answer.chosen,
        *costs,
        tuple(names[v] for v in sorted(locked)),
        inputs,
        str(facts["inputs"]),
    )


def write(home: Home, day: date, answer: DayReplanned, *, dispatch: bool = False) -> list[Path]:
    """Makes an answer the day's plan: decisions, ledger, map, what changed; and the drivers' lists if asked.

    A run of the same day reads this plan as long as what was known when the day opened has not changed.

    Returns:
        What was written, the most telling first.

    Raises:
        RunError: The plan does not pass a blocking check.
    """
    from npq_assets.ledger import open_accounts

    frames = {
        name: getattr(answer.plan, name) for name in ("routes", "dropped", "risks", "alerts", "sourcing", "tours")
    }
    for verdict in judge_plan(frames, answer.plan.facts, answer.inputs):
        if verdict.blocking and not verdict.passed:
            raise RunError(
                f"the re-planned routes fail the check {verdict.name}: {verdict.detail}; nothing was written"
            )
    depots = answer.inputs.deliveries.select("delivery_id", "depot_id")
    picture = route_map(answer.plan.routes.join(depots, on="delivery_id"), answer.plan.dropped, answer.inputs.places)
    save_plan(home, day, answer.plan, answer.inputs.places, picture, answer.inputs_hash)
    places = []
    for name in ("routes", "dropped_deliveries", "delivery_risks", "alerts"):
        frame = frames[{"dropped_deliveries": "dropped", "delivery_risks": "risks"}.get(name, name)]
        places.append(write_decisions(home, DECISIONS[f"logistics.{name}"], day, frame))
    open_accounts(home, day)
    publisher_of(home).publish(DECISIONS["logistics.routes"], day, frames["routes"])
    place = home.decisions("logistics", "route_changes", day)
    write_parquet(answer.changes, place)
    write_csv_for_people(answer.changes, place.with_suffix(".csv"))
    write_json(
        {**answer.plan.facts["replanned"], "curve": answer.curve.to_dicts(), "chosen": answer.chosen},
        plan_folder(home, day) / "replanned.json",
    )
    if dispatch:
        places.insert(0, write_dispatch(home, day, answer.plan.routes, answer.inputs.deliveries, answer.plan.alerts))
    return [*places, place.with_suffix(".csv")]


# The parts ---------------------------------------------------------------------------------------------------------------


def _minutes(at: datetime, day: date) -> float:
    return (at - opening(day)).total_seconds() / 60.0


def inputs_of_plan(home: Home, day: date, stands: dict[str, pl.DataFrame], facts: dict[str, Any]) -> LogisticsInputs:
    """What the plan that stands for a day was made from: that of the morning, or of the moment when it was planned anew."""
    again = facts.get("replanned")
    if not again:
        return read_inputs(home, day)
    now = datetime.fromisoformat(again["at"]) if "at" in again else opening(day + timedelta(days=1))
    return _with_agreed(read_inputs(home, day, now), stands["alerts"])


def _with_agreed(inputs: LogisticsInputs, alerts: pl.DataFrame) -> LogisticsInputs:
    """The inputs with windows that end when was agreed on."""
    until = {
        name: _minutes(at, inputs.as_of)
        for name, at in alerts.drop_nulls("agreed_until").select("subject", "agreed_until").iter_rows()
    }
    due = [max(at, until.get(name, at)) for name, at in inputs.deliveries.select("delivery_id", "due").iter_rows()]
    return replace(inputs, deliveries=inputs.deliveries.with_columns(pl.Series("due", due, dtype=pl.Float64)))


def _still(happened: Happened, facts: dict[str, Any], now: datetime) -> Happened:
    """What has happened, with what the plan that stands was told of: nobody says twice that a vehicle has broken down."""
    before = facts.get("replanned") or {}
    if "at" in before and now < datetime.fromisoformat(before["at"]):
        raise NpqError(
            f"the plan that stands was made at {before['now']}, after --now {clock_text(happened.now)}, and may count on what was "
            f"not known then; give --now {before['now']} or later"
        )
    down = {*before.get("vehicles_down", ()), *happened.vehicles_down} - {*happened.vehicles_back}
    closed = {*map(tuple, before.get("closed", ())), *happened.closed} - {*happened.opened}
    return replace(happened, vehicles_down=tuple(sorted(down)), closed=tuple(sorted(closed)))


def _done(
    home: Home, day: date, now: datetime, routes: pl.DataFrame, problem: RoutingProblem
) -> tuple[set[int], set[str]]:
    """Stops that are made, and vehicles whose trips have landed.

    A stop is made by the trips, else by the plan's times where none of the vehicle's trips have landed.
    """
    legs = pl.read_parquet(home.mart("logistics", "legs"))
    legs = legs.filter((pl.col("departed_at") >= opening(day)) & (pl.col("arrived_at") < now))
    heard = set(legs["vehicle_id"].to_list())
    made = set(legs["delivery_id"].to_list())
    made |= set(
        routes.filter((pl.col("arrives_at") < now) & ~pl.col("vehicle_id").is_in(list(heard)))["delivery_id"].to_list()
    )
    return {k for k, name in enumerate(problem.stops["delivery_id"].to_list()) if name in made}, heard


def _part(whole: RoutingProblem, stops: Sequence[int], cars: Sequence[int], now: float) -> RoutingProblem:
    """What is still to be planned: vehicles at their depots, from now on."""
    vehicles = whole.vehicles[list(cars)].with_columns(
        pl.max_horizontal("shift_start", pl.lit(now)).alias("shift_start")
    )
    return replace(whole, stops=whole.stops[list(stops)], vehicles=vehicles, departs={})


def _too_much(found: Replan, most_routes: int | None) -> tuple[bool, float]:
    """Whether the way chosen changes more routes than it may, and its price."""
    row = found.curve.row(found.chosen, named=True)
    return most_routes is not None and row["routes_changed"] > most_routes, round(row["price"], 6)


def _begins(routes: pl.DataFrame, inputs: LogisticsInputs, day: date) -> dict[int, float]:
    """When each stop's service was told to begin."""
    row = {name: k for k, name in enumerate(inputs.deliveries["delivery_id"].to_list())}
    service = inputs.deliveries["service"].to_list()
    return {
        row[name]: _minutes(left, day) - float(service[row[name]])
        for name, left in routes.select("delivery_id", "leaves_at").iter_rows()
        if name in row
    }


def _as_late_as(whole: RoutingProblem, planned: RoutingProblem, routes: Routes) -> RoutingProblem:
    """The day with shifts that last until its vehicles are back: one that drives already may come back later than it should."""
    ends = whole.vehicles["shift_end"].to_list()
    for v, visits in routes.items():
        ends[v] = max(float(ends[v]), timetable(planned, v, visits)[3])
    return replace(
        whole, vehicles=whole.vehicles.with_columns(pl.Series("shift_end", ends, dtype=pl.Float64)), departs={}
    )


def _price_of_time(inputs: LogisticsInputs, stop: int, prices: Prices) -> float:
    own = inputs.deliveries["rebook_cost"][stop]
    return prices.time if own is None else float(own)


def _by_hand(part: RoutingProblem, before: Routes, stops: Sequence[int], cars: Sequence[int]) -> Routes:
    """What a dispatcher does: routes stay if they can be driven, every loose delivery goes where it adds least."""
    stay = {v: r for v, r in before.items() if not violations(part, {v: r})}
    placed = {s for r in stay.values() for s in r}
    loose = [s for s in range(len(stops)) if s not in placed]
    routes = insert_left(part, stay, loose, list(range(len(cars))))
    return {cars[v]: [stops[s] for s in r] for v, r in routes.items()}


def _told_anew(
    home: Home,
    inputs: LogisticsInputs,
    stands: dict[str, pl.DataFrame],
    facts: dict[str, Any],
    planned: RoutingProblem,
    routes: Routes,
    by_hand_problem: RoutingProblem,
    by_hand: Routes,
    happened: Happened,
    prices: Prices,
    begins: dict[int, float],
    words: pl.DataFrame,
    on_the_road: Sequence[str],
) -> tuple[RoutePlan, pl.DataFrame, tuple[float, float]]:
    """The whole day as a plan in which what has not changed keeps its rows, the changes, and cost beside the dispatcher's."""
    snapshot = fingerprint(
        inputs.snapshot, repr(happened), repr(prices), ",".join(sorted(stands["routes"]["decision_id"].to_list()))
    )
    traffic = learn(inputs, home)
    outcome = expected(inputs, traffic, planned, routes)
    naive = expected(inputs, traffic, by_hand_problem, by_hand)
    bound = min(expected_bound(inputs, traffic, _as_late_as(by_hand_problem, planned, routes), routes), outcome.total)
    alerts = alerts_of(inputs, planned, routes, outcome, words, snapshot, happened.now)
    served, dropped = decisions_of(
        inputs, planned, routes, outcome, naive, by_hand, bound, words, snapshot, rule="a dispatcher's insertion"
    )
    changes = _changes(inputs, stands, planned, routes, begins, prices)
    same = _unchanged(stands["routes"], served)
    changed = set(changes["delivery_id"].to_list())
    keep = lambda old, new, column: pl.concat(  # noqa: E731
        [old.filter(pl.col(column).is_in(list(same))), new.filter(~pl.col(column).is_in(list(same)))],
        how="diagonal_relaxed",
    ).select(old.columns)
    served = keep(stands["routes"], served, "delivery_id").sort("vehicle_id", "stop")
    risks = keep(stands["risks"], risks_of(inputs, outcome, snapshot), "delivery_id")
    warned = keep(stands["alerts"], alerts, "subject")
    warned = pl.concat(
        [
            warned,
            _agreed_on(stands["alerts"], warned, inputs).select(warned.columns),
            _news(inputs, changes, snapshot, happened.now).select(warned.columns),
        ]
    ).sort(["money_at_risk", "alert_id"], descending=[True, False])
    everything = pl.concat([f.select("expected_cost", "naive_expected_cost", "lower_bound") for f in (served, dropped)])
    cost = float(everything["expected_cost"].sum() - warned["expected_saving"].sum())
    more: dict[str, Any] = {
        "deliveries": inputs.deliveries.height,
        "routes": len(routes),
        "dropped": dropped.height,
        "expected_cost": cost,
        "naive_cost": float(everything["naive_expected_cost"].sum()),
        # Rows that do not change keep the bounds they were decided with; the day's is that of the day as it is known now.
        "lower_bound": min(bound, cost),
        "status": "relaxed" if dropped.height else "feasible",
        "input_snapshot": snapshot,
        "replanned": {
            "now": clock_text(happened.now),
            "at": (opening(inputs.as_of) + timedelta(minutes=happened.now)).isoformat(),
            "vehicles_down": list(happened.vehicles_down),
            "closed": [list(pair) for pair in happened.closed],
            "on_the_road": list(on_the_road),
            "deliveries_changed": len(changed),
        },
    }
    more["gap"] = (outcome.total - bound) / max(outcome.total, 1e-9)  # of the routes, before warnings
    plan = RoutePlan(
        served,
        dropped,
        risks,
        warned,
        stands["sourcing"],
        stands["worth"],
        stands["quantiles"],
        tours_of(planned, routes, outcome),
        words["message"].to_list(),
        {**facts, **more},
    )
    return plan, changes, (outcome.total, naive.total)


def _unchanged(old: pl.DataFrame, new: pl.DataFrame) -> set[str]:
    """Deliveries that keep vehicle, position, way and, to the minute, departure of the vehicle and arrival."""
    both = old.join(new, on=["delivery_id", "vehicle_id", "stop"], suffix="_new")
    on_time = [
        (pl.col(name) - pl.col(f"{name}_new")).dt.total_seconds().abs() < 60 for name in ("departs_at", "arrives_at")
    ]
    same = [(pl.col(name) - pl.col(f"{name}_new")).abs() < by for name, by in (("load", 1e-6), ("km", 0.05))]
    return set(both.filter(*on_time, *same)["delivery_id"].to_list())


def _agreed_on(before: pl.DataFrame, warned: pl.DataFrame, inputs: LogisticsInputs) -> pl.DataFrame:
    """Agreements on later times of deliveries that change: they hold and are paid for, and the routes count on them already."""
    known = set(inputs.deliveries["delivery_id"].to_list())
    return (
        before.drop_nulls("agreed_until")
        .join(warned.select("alert_id"), on="alert_id", how="anti")
        .filter(pl.col("subject").is_in(list(known)))
        .with_columns(pl.lit(0.0).alias("money_at_risk"), (-pl.col("action_cost")).alias("expected_saving"))
    )


def _changes(
    inputs: LogisticsInputs,
    stands: dict[str, pl.DataFrame],
    planned: RoutingProblem,
    routes: Routes,
    begins: dict[int, float],
    prices: Prices,
) -> pl.DataFrame:
    names = inputs.vehicles["vehicle_id"].to_list()
    was = dict(stands["routes"].select("delivery_id", "vehicle_id").iter_rows())
    dropped_before = set(stands["dropped"]["delivery_id"].to_list())
    rows: list[dict[str, Any]] = []
    at: dict[int, tuple[int, float]] = {}
    for v, r in routes.items():
        at |= {s: (v, begins_at) for s, begins_at in zip(r, timetable(planned, v, r)[2], strict=True)}
    for s, name in enumerate(inputs.deliveries["delivery_id"].to_list()):
        vehicle: int | None = None
        begin: float | None = None
        if s in at:
            vehicle, begin = at[s]
        old = was.get(name)
        words: list[str] = []
        price = 0.0
        if vehicle is None:
            if old is None and name in dropped_before:
                continue
            words = ["dropped"]
            price = float(inputs.deliveries["drop_cost"][s] or 0.0)
            if old is not None:
                price += prices.vehicle + _price_of_time(inputs, s, prices)
        elif old is None:
            words = ["taken in again" if name in dropped_before else "new"]
        else:
            assert begin is not None
            if names[vehicle] != old:
                words.append("vehicle")
                price += prices.vehicle
            if s in begins and abs(begin - begins[s]) > prices.tolerance + 0.02:
                words.append("time")
                price += _price_of_time(inputs, s, prices)
        if words:
            rows.append(
                {
                    "delivery_id": name,
                    "change": " and ".join(words),
                    "vehicle_before": old,
                    "vehicle_id": None if vehicle is None else names[vehicle],
                    "begins_before": moment(inputs, begins[s]) if s in begins and old is not None else None,
                    "begins_at": None if begin is None else moment(inputs, begin),
                    "price": price,
                }
            )
    return pl.DataFrame(rows, schema=CHANGES).sort("price", "delivery_id", descending=[True, False])


def _news(inputs: LogisticsInputs, changes: pl.DataFrame, snapshot: str, now: float) -> pl.DataFrame:
    """What customer service has to tell: an alert for each delivery whose time is another one."""
    from npq_assets.logistics.plan import ALERTS

    rows = []
    for row in changes.filter(pl.col("change").str.contains("time")).to_dicts():
        name = f"{inputs.as_of:%Y%m%d}-time_changed-{row['delivery_id']}"
        rows.append(
            {
                "alert_id": name,
                "kind": "time_changed",
                "subject": row["delivery_id"],
                "money_at_risk": row["price"],
                "action": "tell the customer: "
                + " instead of ".join(
                    clock_text(_minutes(row[name], inputs.as_of)) for name in ("begins_at", "begins_before")
                ),
                "act_before": max(row["begins_before"], moment(inputs, now)),
                "agreed_until": None,
                "action_cost": 0.0,
                "expected_saving": 0.0,
                "decision_id": decision_id(inputs.as_of, "logistics", "alerts", (name,), snapshot),
                "as_of": inputs.as_of,
                "input_snapshot": snapshot,
            }
        )
    return pl.DataFrame(rows, schema=ALERTS)
