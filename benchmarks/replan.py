"""Stable re-planning: `python -m benchmarks.replan --data DIR --out DIR [--only NAME,…] [--seconds 20] [--added 3]`.

Takes CVRPLIB instances of about 200 stops from DIR and all folders below it, plans each without one of its stops, adds the stop,
and sets beside each other: a free re-solve of `--seconds`, the cheapest insertion, and re-planning with a price of change of which
at most `--most-routes` routes may change. Prints cost and routes changed of each; a row a stop added is written to replan.json.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import vrplib

from npq_assets.optimization.replanning import replan
from npq_assets.optimization.route_construction import insert_left
from npq_assets.optimization.route_evaluation import total_cost
from npq_assets.optimization.route_feasibility import violations
from npq_assets.optimization.route_timing import routes_of
from npq_assets.optimization.routing import Params, Routes, RoutingProblem, solve

ALL_WORK = 10**9


def read_problem(path: Path) -> RoutingProblem:
    """A CVRPLIB instance with rounded Euclidean distances: a unit of distance costs one, stops must be served."""
    raw = vrplib.read_instance(str(path), compute_edge_weights=False)
    at = np.asarray(raw["node_coord"], float)
    km = np.floor(np.hypot(at[:, None, 0] - at[None, :, 0], at[:, None, 1] - at[None, :, 1]) + 0.5)
    demand = np.asarray(raw["demand"], float)
    n = len(demand) - 1
    vehicles = int(np.ceil(demand.sum() / float(raw["capacity"]))) + 3
    stops = pl.DataFrame(
        {"delivery_id": [str(k) for k in range(1, n + 1)], "place": list(range(1, n + 1)), "quantity": demand[1:]}
    )
    cars = pl.DataFrame({"vehicle_id": [f"v{k:03d}" for k in range(vehicles)]})
    return RoutingProblem(
        stops.with_columns(
            pl.lit(0, pl.Int64).alias("depot"), pl.lit(0.0).alias("ready"), pl.lit(1e6).alias("due"), pl.lit(0.0).alias("service"),
            pl.lit(0.0).alias("late_cost"), pl.lit(None, pl.Float64).alias("drop_cost"),
        ),
        cars.with_columns(
            pl.lit(0, pl.Int64).alias("depot"), pl.lit(float(raw["capacity"])).alias("capacity"), pl.lit(0.0).alias("fixed_cost"),
            pl.lit(1.0).alias("cost_per_km"), pl.lit(0.0).alias("cost_per_minute"), pl.lit(0.0).alias("shift_start"),
            pl.lit(1e6).alias("shift_end"), pl.lit(None, pl.Float64).alias("max_km"),
        ),
        km,
        np.zeros_like(km),
    )  # fmt: skip


def without(problem: RoutingProblem, stop: int) -> RoutingProblem:
    """The problem without a stop."""
    kept = [s for s in range(problem.stops.height) if s != stop]
    return RoutingProblem(problem.stops[kept], problem.vehicles, problem.km, problem.minutes)


def changed(before: Routes, after: Routes) -> int:
    """Routes of `before` that are not driven as they were, whoever drives them, and routes that are new."""
    old = {tuple(r) for r in before.values() if r} | {tuple(reversed(r)) for r in before.values() if r}
    return sum(tuple(r) not in old for r in after.values() if r)


def one(problem: RoutingProblem, before: Routes, seconds: float, most: int, share: float, seed: int) -> dict[str, Any]:
    """Adds what `before` does not serve, in three ways."""
    plan = Params(seconds=seconds, iterations=ALL_WORK, seed=seed, bound=False, explain=0)
    free = routes_of(problem, solve(problem, plan).plan)
    began = time.monotonic()
    price = share * total_cost(problem, before)
    calm = Params(seconds=seconds / 10, iterations=ALL_WORK, seed=seed)
    found = replan(problem, before, change_price=price, most_routes=most, params=calm)
    took = time.monotonic() - began
    placed = {s for r in before.values() for s in r}
    loose = [s for s in range(problem.stops.height) if s not in placed]
    hand = insert_left(problem, before, loose, list(range(problem.vehicles.height)))
    left = problem.stops.height - sum(map(len, hand.values()))
    assert not violations(problem, found.routes) and sum(map(len, found.routes.values())) == problem.stops.height
    cost = {
        "free": total_cost(problem, free),
        "npq": total_cost(problem, found.routes),
        "by hand": total_cost(problem, hand),
    }
    return {
        "free": cost["free"], "free_changed": changed(before, free), "npq": cost["npq"],
        "npq_changed": changed(before, found.routes), "npq_moved": int(found.curve["stops_moved"][found.chosen]),
        "by_hand": cost["by hand"] if not left else None, "above_free": cost["npq"] / cost["free"] - 1, "seconds": took,
        "curve": found.curve.to_dicts(),
    }  # fmt: skip


def main() -> None:
    """Adds stops to solved plans and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="Only instances whose name contains one of these (comma-separated).")
    parser.add_argument("--stops", default="180,230", help="Only instances with so many stops: from,to.")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="Of the free re-solve; each way of ours has a tenth of it."
    )
    parser.add_argument("--added", type=int, default=1, help="How many stops to try, one after the other.")
    parser.add_argument("--most-routes", type=int, default=4)
    parser.add_argument("--price", type=float, default=0.0001, help="Of moving a stop, as a share of the plan's cost.")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    low, high = (int(word) for word in arguments.stops.split(","))
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    print(f"{'instance':<16}{'added':>6}{'free':>10}{'changed':>9}{'npq':>10}{'changed':>9}{'moved':>7}{'by hand':>10}"
          f"{'npq/free':>10}{'s':>7}", flush=True)  # fmt: skip
    for path in sorted(p for p in arguments.data.rglob("X-n*.vrp") if re.fullmatch(r"X-n\d+-k\d+", p.stem)):
        count = int(path.stem.split("-n")[1].split("-")[0]) - 1
        if not low <= count <= high or (arguments.only and not any(w in path.name for w in arguments.only.split(","))):
            continue
        problem = read_problem(path)
        rng = np.random.default_rng(arguments.seed)
        for stop in rng.choice(problem.stops.height, arguments.added, replace=False).tolist():
            fewer = without(problem, stop)
            plan = Params(
                seconds=arguments.seconds, iterations=ALL_WORK, seed=arguments.seed + 1, bound=False, explain=0
            )
            before = routes_of(problem, solve(fewer, plan).plan)
            row = {"instance": path.stem, "stop": stop + 1}
            row |= one(problem, before, arguments.seconds, arguments.most_routes, arguments.price, arguments.seed)
            rows.append(row)
            hand = "-" if row["by_hand"] is None else f"{row['by_hand']:,.0f}"
            print(f"{path.stem:<16}{row['stop']:>6}{row['free']:>10,.0f}{row['free_changed']:>9}{row['npq']:>10,.0f}"
                  f"{row['npq_changed']:>9}{row['npq_moved']:>7}{hand:>10}{row['above_free']:>+10.2%}{row['seconds']:>7.1f}",
                  flush=True)  # fmt: skip
    (arguments.out / "replan.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
