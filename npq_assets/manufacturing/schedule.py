"""The plan's first days in sequence: which lot runs when on which machine, for which orders.

Thin: the problem and its solution are `npq_assets.optimization.job_shop`; this file makes jobs of lots, gives the orders their
share of each lot, and sets the schedule beside earliest due date. Lot sizes do not belong here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import polars as pl

from npq_assets.evaluation.ledger import decision_id
from npq_assets.manufacturing.inputs import ManufacturingInputs
from npq_assets.manufacturing.plan import ProductionPlan
from npq_assets.optimization.job_shop import (
    Job,
    JobShopParams,
    JobShopProblem,
    JobShopResult,
    Operation,
    Replanning,
    cost_of_change,
    dispatch,
    setup_money,
    solve,
)

# Days of the plan that are put in sequence.
SCHEDULED_DAYS = 2
# The working day opens at this hour (UTC); a day's minute 0.
OPENS_AT = time(6, 0)
DAY = 1440
# Deterministic work of the search (about seconds of an idle core): what makes runs repeatable.
WORK = 1.5
# What moving one lot against the schedule in force costs (money).
PRICE_OF_MOVE = 5.0
# What starts so early in the day is not moved at all: people and material stand ready (minutes).
FROZEN_MINUTES = 240
# The curve of cost against change: prices of a move, and the work of each search.
CURVE_PRICES = (0.0, 20.0, 1e4)
CURVE_WORK = 0.3
# Minutes of shift that nobody minds.
TOLERANCE = 30
# A lot late against the plan's day costs at least this share of its orders' lateness; it keeps stock lots on their day.
STOCK_LATE_PER_DAY = 2.0


@dataclass(frozen=True)
class JobSchedule:
    """A day's schedule.

    Attributes:
        rows: The columns of the decision table `job_schedule`.
        jobs: One row a lot and operation: lot_id, product_id, machine_id, operation, starts_at, ends_at, setup_starts_at,
            setup_minutes, family.
        accounts: One row a lot: decision_id, expected_cost, naive_expected_cost, lower_bound, as_of, input_snapshot.
        facts: One number or word each.
    """

    rows: pl.DataFrame
    jobs: pl.DataFrame
    accounts: pl.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)


def lot_name(row: dict[str, Any]) -> str:
    """A lot's name: its day, product and planned machine."""
    return f"{row['period_start']}|{row['product_id']}|{row['machine_id']}"


def peg(inputs: ManufacturingInputs, plan: ProductionPlan) -> pl.DataFrame:
    """Which orders each lot is made for: stock first serves the earliest orders, then lots in the order of their days.

    Returns:
        lot_id, order_id (an order made in several lots has /1, /2, … behind it in all but the last; what no order in hand
        needs is named STOCK), quantity, due_on (null for stock), late_rate.
    """
    rows: list[tuple[str, str, float, date | None, float]] = []
    stock = dict(inputs.products.select("product_id", "on_hand").iter_rows())
    orders: dict[str, list[list[Any]]] = {}
    for o in inputs.orders.sort("due_on", "order_id").iter_rows(named=True):
        there = min(o["owed"], stock.get(o["product_id"], 0.0))
        if there > 0:
            stock[o["product_id"]] -= there
        if o["owed"] - there > 1e-6:
            orders.setdefault(o["product_id"], []).append(
                [o["order_id"], o["owed"] - there, o["due_on"], o["late_rate"], 0]
            )
    for lot in plan.lots.sort("product_id", "period_start", "machine_id").iter_rows(named=True):
        left, waiting = lot["quantity"], orders.get(lot["product_id"], [])
        while left > 1e-6 and waiting:
            order = waiting[0]
            given = min(left, order[1])
            whole = given >= order[1] - 1e-6
            order[4] += not whole
            name = order[0] if whole else f"{order[0]}/{order[4]}"
            rows.append((lot_name(lot), name, given, order[2], order[3]))
            left, order[1] = left - given, order[1] - given
            if whole:
                waiting.pop(0)
        if left > 1e-6:
            rows.append(
                (lot_name(lot), f"STOCK-{lot['period_start']}-{lot['product_id']}-{lot['machine_id']}", left, None, 0.0)
            )
    schema = {
        "lot_id": pl.String,
        "order_id": pl.String,
        "quantity": pl.Float64,
        "due_on": pl.Date,
        "late_rate": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def problem_of(inputs: ManufacturingInputs, plan: ProductionPlan, pegged: pl.DataFrame) -> JobShopProblem:
    """Lots of the first days as jobs: all operations, on every machine that can do them."""
    until = inputs.as_of + timedelta(days=SCHEDULED_DAYS)
    lots = plan.lots.filter(pl.col("period_start") < until)
    pace = dict(inputs.machines.select("machine_id", "pace").iter_rows())
    routes: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for r in inputs.routings.iter_rows(named=True):
        routes.setdefault(r["product_id"], {}).setdefault(r["operation"], []).append(r)
    served = {key[0]: frame for key, frame in pegged.group_by("lot_id", maintain_order=True)}
    jobs = []
    for lot in lots.sort("period_start", "machine_id", "product_id").iter_rows(named=True):
        name, day = lot_name(lot), (lot["period_start"] - inputs.as_of).days
        mine = served.get(name)
        rate = (
            STOCK_LATE_PER_DAY
            if mine is None
            else max(STOCK_LATE_PER_DAY, float((mine["quantity"] * mine["late_rate"]).sum()))
        )
        steps = []
        for number in sorted(routes[lot["product_id"]]):
            alternatives = routes[lot["product_id"]][number]
            minutes = {
                r["machine_id"]: max(
                    1, math.ceil(lot["quantity"] * r["minutes_per_unit"] * pace.get(r["machine_id"], 1.0))
                )
                for r in alternatives
            }
            if lot["machine_id"] in minutes:
                # The plan chose the machine for its time; the schedule keeps to it.
                minutes = {lot["machine_id"]: minutes[lot["machine_id"]]}
            batch = next((r["transport_batch"] for r in alternatives if r["transport_batch"]), None)
            steps.append(
                Operation(
                    number,
                    minutes,
                    family=lot["product_id"],
                    first_batch=min(1.0, float(batch) / lot["quantity"]) if batch else 1.0,
                )
            )
        jobs.append(
            Job(
                name,
                tuple(steps),
                release=day * DAY,
                due=(day + inputs.days) * DAY,
                late_cost=rate / DAY,
            )
        )
    machines = tuple(inputs.machines["machine_id"])
    minutes, money, first = _setups(inputs, {lot["product_id"] for lot in lots.iter_rows(named=True)})
    return JobShopProblem(
        jobs=tuple(jobs),
        machines=machines,
        closed=_closed(inputs, plan, machines),
        setup_minutes=minutes,
        setup_cost=money,
        first_family=first,
    )


def _closed(
    inputs: ManufacturingInputs, plan: ProductionPlan, machines: Sequence[str]
) -> dict[str, list[tuple[int, int]]]:
    """Closed minutes of each machine over the days that a late lot can reach: all beyond regular time and planned overtime."""
    facts = {r["machine_id"]: r for r in inputs.machines.iter_rows(named=True)}
    special = {(r[0], r[1]): (r[2], r[3]) for r in inputs.calendar.iter_rows()}
    planned = {
        (r[0], r[1]): r[2] for r in plan.load.select("machine_id", "period_start", "overtime_minutes").iter_rows()
    }
    at_plan = set(plan.load["machine_id"])
    closed: dict[str, list[tuple[int, int]]] = {}
    for m in machines:
        gaps, left = [], 0.0
        for k in range(SCHEDULED_DAYS + inputs.days + 4):
            day = inputs.as_of + timedelta(days=k)
            regular, limit = special.get((m, day), (facts[m]["minutes_per_day"], None))
            usual = facts[m]["overtime_minutes_per_day"] if regular > 0 else 0.0
            over = usual if limit is None else limit
            if m in at_plan:
                # A period's overtime is worked on its first days; machines that the plan does not look at may work overtime
                # when the schedule needs it.
                left = planned.get((m, day), left if k % inputs.days else 0.0)
                over = min(left, over) if inputs.days > 1 else left
                left -= over
            opened = min(DAY, math.ceil((regular or 0.0) + over))
            if opened < DAY:
                gaps.append((k * DAY + opened, (k + 1) * DAY))
        closed[m] = gaps
    return closed


Table = dict[tuple[str, str], Any]


def _setups(
    inputs: ManufacturingInputs, products: set[str]
) -> tuple[dict[str, Table], dict[str, Table], dict[str, str]]:
    """Minutes and money from product to product on each machine, and what each is set up for; "" where that is not known.

    A change costs the product's own setup, and the family's where the family changes.
    """
    minutes: dict[str, Table] = {}
    money: dict[str, Table] = {}
    first: dict[str, str] = {}
    last = dict(inputs.machines.select("machine_id", "last_product").iter_rows())
    for (machine,), frame in inputs.routings.group_by("machine_id", maintain_order=True):
        rows = {r["product_id"]: r for r in frame.iter_rows(named=True)}
        name = str(machine)
        first[name] = last[name] if last.get(name) in rows else ""
        minutes[name], money[name] = {}, {}
        for p in sorted(products & set(rows)):
            r = rows[p]
            for b in sorted({"", first[name], *(products & set(rows))} - {p}):
                other = not b or not r["setup_family"] or rows[b]["setup_family"] != r["setup_family"]
                minutes[name][b, p] = math.ceil(r["setup_minutes"] + (r["family_setup_minutes"] if other else 0.0))
                money[name][b, p] = float(r["setup_cost"] + (r["family_setup_cost"] if other else 0.0))
    return minutes, money, first


def schedule_jobs(inputs: ManufacturingInputs, plan: ProductionPlan, workers: int = 1) -> JobSchedule:
    """Solves the first days' job shop; what starts first stays, other lots keep their place unless moving them pays.

    Args:
        inputs: What is known, the schedule in force included.
        plan: The day's plan.
        workers: Search threads; more than one are interleaved, so that runs stay repeatable.
    """
    pegged = peg(inputs, plan)
    problem = problem_of(inputs, plan, pegged)
    if not problem.jobs:
        return _empty(inputs)
    params = JobShopParams(
        seconds=inputs.settings.solver_seconds, work=WORK, workers=workers, seed=inputs.settings.seed
    )
    replanning = _replanning(inputs, problem)
    result = solve(problem, params, replanning)
    naive = dispatch(problem, "earliest_due_date", replanning)
    curve: list[dict[str, Any]] = []
    if replanning is not None:
        short = JobShopParams(
            seconds=inputs.settings.solver_seconds / 3, work=CURVE_WORK, workers=workers, seed=inputs.settings.seed
        )
        curve = cost_of_change(problem, replanning, CURVE_PRICES, short).to_dicts()
        curve = _with_chosen(curve, result)
    return _assemble(inputs, plan, pegged, problem, replanning, result, naive, curve)


def _replanning(inputs: ManufacturingInputs, problem: JobShopProblem) -> Replanning | None:
    """The schedule in force, as far as its lots are in the plan; None if none is."""
    if inputs.scheduled.is_empty():
        return None
    known = inputs.scheduled.filter(pl.col("job").is_in([job.job for job in problem.jobs]))
    if known.is_empty():
        return None
    return Replanning(known, frozen_until=FROZEN_MINUTES, price=PRICE_OF_MOVE, tolerance=TOLERANCE, earliest=0)


def _with_chosen(curve: list[dict[str, Any]], result: JobShopResult) -> list[dict[str, Any]]:
    """The curve with the schedule chosen, in the order of the prices; no point costs more than the chosen schedule there."""
    mine = {"price": PRICE_OF_MOVE, "schedule_cost": result.schedule_cost, "moved_jobs": len(result.moved),
            "bound": result.bound, "status": result.status}  # fmt: skip
    points = [point for point in curve if point["price"] != PRICE_OF_MOVE]
    for point in points:
        if mine["schedule_cost"] + point["price"] * mine["moved_jobs"] < (
            point["schedule_cost"] + point["price"] * point["moved_jobs"] - 1e-9
        ):
            point.update(schedule_cost=mine["schedule_cost"], moved_jobs=mine["moved_jobs"], status="feasible")
    return sorted([*points, mine], key=lambda point: point["price"])


def _empty(inputs: ManufacturingInputs) -> JobSchedule:
    from npq_assets.contracts import DECISIONS

    accounts = pl.DataFrame(schema={"decision_id": pl.String, "expected_cost": pl.Float64, "naive_expected_cost": pl.Float64,
                                    "lower_bound": pl.Float64, "as_of": pl.Date, "input_snapshot": pl.String})  # fmt: skip
    jobs = pl.DataFrame(schema={"lot_id": pl.String, "product_id": pl.String, "operation": pl.Int64, "machine_id": pl.String,
                                "start": pl.Int64, "end": pl.Int64, "setup_minutes": pl.Int64})  # fmt: skip
    facts = {"as_of": inputs.as_of.isoformat(), "jobs": 0, "expected_cost": 0.0, "naive_cost": 0.0, "lower_bound": 0.0,
             "gap": 0.0, "status": "optimal", "solver": "none", "model_version": "none"}  # fmt: skip
    return JobSchedule(DECISIONS["manufacturing.job_schedule"].empty(), jobs, accounts, facts)


def moment(as_of: date, minute: float) -> datetime:
    """The time of a minute after the first day's opening."""
    return datetime.combine(as_of, OPENS_AT, UTC) + timedelta(minutes=minute)


def _assemble(
    inputs: ManufacturingInputs,
    plan: ProductionPlan,
    pegged: pl.DataFrame,
    problem: JobShopProblem,
    replanning: Replanning | None,
    result: JobShopResult,
    naive: JobShopResult,
    curve: list[dict[str, Any]],
) -> JobSchedule:
    from npq_assets.contracts import DECISIONS

    lots = {lot_name(r): r for r in plan.lots.iter_rows(named=True)}
    jobs = result.plan.with_columns(
        pl.Series("product_id", [lots[name]["product_id"] for name in result.plan["job"]], dtype=pl.String)
    ).rename({"job": "lot_id", "machine": "machine_id"})
    served = {key[0]: frame.to_dicts() for key, frame in pegged.group_by("lot_id", maintain_order=True)}
    open_time = {m: list(problem.closed.get(m, ())) for m in problem.machines}
    rows = []
    for step in jobs.iter_rows(named=True):
        slices = served[step["lot_id"]]
        total = sum(s["quantity"] for s in slices)
        done, begin = 0.0, step["start"]
        for k, one in enumerate(slices):
            done += one["quantity"]
            end = _at_share(step["start"], step["end"], done / total, open_time[step["machine_id"]])
            due = None if one["due_on"] is None else (one["due_on"] - inputs.as_of).days * DAY + DAY
            rows.append(
                {
                    "order_id": one["order_id"], "operation": step["operation"], "machine_id": step["machine_id"],
                    "starts_at": moment(inputs.as_of, begin), "ends_at": moment(inputs.as_of, end),
                    "due": due, "end": end, "product_id": step["product_id"], "quantity": one["quantity"],
                    "lot_id": step["lot_id"], "setup_minutes": float(step["setup_minutes"] or 0) if k == 0 else 0.0,
                    "due_on": one["due_on"],
                }
            )  # fmt: skip
            begin = end
    frame = pl.DataFrame(rows, infer_schema_length=None)
    late = frame.group_by("order_id").agg(
        (pl.col("end").max() - pl.col("due").max())
        .clip(lower_bound=0)
        .fill_null(0)
        .cast(pl.Float64)
        .alias("late_minutes")
    )
    ids = {name: decision_id(inputs.as_of, "manufacturing", "job_schedule", (name,), inputs.snapshot) for name in lots}
    stamp = (pl.lit(inputs.as_of).alias("as_of"), pl.lit(inputs.snapshot).alias("input_snapshot"))
    frame = (
        frame.drop("due", "end")
        .join(late, on="order_id")
        .with_columns(pl.col("lot_id").replace_strict(ids, return_dtype=pl.String).alias("decision_id"), *stamp)
    )
    accounts = _accounts(problem, result, naive, ids).with_columns(*stamp)
    columns = list(DECISIONS["manufacturing.job_schedule"].schema)
    cost, least = float(accounts["expected_cost"].sum()), float(accounts["lower_bound"].sum())
    return JobSchedule(
        frame.select(columns).sort("order_id", "operation"),
        jobs.select("lot_id", "product_id", "operation", "machine_id", "start", "end", "setup_minutes").sort(
            "machine_id", "start", "lot_id"
        ),
        accounts,
        {
            "as_of": inputs.as_of.isoformat(),
            "jobs": len(problem.jobs),
            "expected_cost": cost,
            "naive_cost": float(accounts["naive_expected_cost"].sum()),
            "lower_bound": least,
            "gap": max(0.0, cost - least) / max(cost, 1e-9) if cost > 0 else 0.0,
            "moved": len(result.moved),
            "followed": 0 if replanning is None else replanning.previous["job"].n_unique(),
            "frozen": 0 if replanning is None else replanning.previous.filter(pl.col("start") < FROZEN_MINUTES).height,
            "unfrozen": result.relaxation["message"].to_list(),
            "price_of_move": PRICE_OF_MOVE,
            "cost_of_change": curve,
            "makespan": int(result.makespan),
            "status": result.status,
            "solver": result.solver,
            "model_version": "none",
        },
    )


def _at_share(start: int, end: int, share: float, closed: Sequence[tuple[int, int]]) -> int:
    """The minute at which a share of an operation's open time has passed."""
    pauses = [(max(a, start), min(b, end)) for a, b in sorted(closed) if a < end and b > start]
    working = (end - start) - sum(b - a for a, b in pauses)
    left, at = round(working * min(share, 1.0)), start
    for a, b in pauses:
        if left <= a - at:
            break
        left, at = left - (a - at), b
    return end if share >= 1.0 - 1e-9 else at + left


def _accounts(
    problem: JobShopProblem, result: JobShopResult, naive: JobShopResult, ids: dict[str, str]
) -> pl.DataFrame:
    """Money of each lot: lateness against the plan's day, the setups before it, and the price of a move.

    The bound of all lots together is shared in proportion to what they cost.
    """
    ours, theirs = _by_job(problem, result), _by_job(problem, naive)
    total = sum(ours.values())
    least = min(max(0.0, result.bound), total)
    rows = [
        (ids[name], name, cost, theirs[name], least * cost / total if total > 0 else 0.0) for name, cost in ours.items()
    ]
    schema = {"decision_id": pl.String, "lot_id": pl.String, "expected_cost": pl.Float64, "naive_expected_cost": pl.Float64,
              "lower_bound": pl.Float64}  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def _by_job(problem: JobShopProblem, result: JobShopResult) -> dict[str, float]:
    late = dict(result.lateness.select("job", "late_cost").iter_rows())
    setups = setup_money(problem, result.plan)
    return {
        job.job: late.get(job.job, 0.0) + setups.get(job.job, 0.0) + PRICE_OF_MOVE * (job.job in result.moved)
        for job in problem.jobs
    }


def dispatch_list(rows: pl.DataFrame, machine_id: str) -> pl.DataFrame:
    """What a machine's operator reads: the machine's work in sequence."""
    return (
        rows.filter(pl.col("machine_id") == machine_id)
        .sort("starts_at", "order_id")
        .select(
            "starts_at", "ends_at", "order_id", "operation", "product_id", pl.col("quantity").round(1), "setup_minutes",
            "due_on", "late_minutes", "lot_id",
        )
    )  # fmt: skip


__all__ = ["JobSchedule", "dispatch_list", "lot_name", "moment", "peg", "problem_of", "schedule_jobs"]
