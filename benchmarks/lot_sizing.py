"""Capacitated lot sizing on public instances and at scale: `python -m benchmarks.lot_sizing --data DIR --out DIR`.

Reads Trigeiro files (any folder, searched through), writes `<instance>.csv` (item, period, quantity, setup) and `summary.csv`
(instance, cost, bound, seconds), and prints a table beside the planner's rule and, with `--rival-seconds`, the textbook big-M
program in HiGHS. `--scale` adds synthetic plans: 1,000 items over 52 weeks on one and on three machines.
"""

from __future__ import annotations

import argparse
import csv
import re
import resource
import statistics
import time
from pathlib import Path

import numpy as np

from npq_assets.optimization.lot_sizing import (
    LotSizingProblem,
    LotSizingResult,
    Params,
    economic_lots,
    price,
    solve,
    violations,
)


def read_trigeiro(path: Path) -> LotSizingProblem:
    """Reads a Trigeiro file: n T, number of resources, capacity, items (run time, holding, setup time, setup cost), demand.

    Wide instances have their demand in two blocks of columns.

    Raises:
        ValueError: It is no such file.
    """
    rows = [
        [float(v) for v in re.findall(r"-?\d+\.?\d*", line)] for line in path.read_text(errors="ignore").splitlines()
    ]
    rows = [r for r in rows if r]
    if len(rows) < 4 or len(rows[0]) != 2 or len(rows[1]) != 1 or len(rows[2]) != 1:
        raise ValueError(f"{path} is no Trigeiro file")
    n, periods = int(rows[0][0]), int(rows[0][1])
    if len(rows) < 3 + n + periods or any(len(r) < 4 for r in rows[3 : 3 + n]):
        raise ValueError(f"{path} is no Trigeiro file")
    items = np.array([r[:4] for r in rows[3 : 3 + n]])
    body = rows[3 + n :]
    if n <= 15 or len(body[0]) >= n:
        demand = np.array([r[:n] for r in body[:periods]]).T
    else:
        demand = np.array([body[t] + body[periods + t] for t in range(periods)]).T
    return LotSizingProblem(
        items=tuple(str(i + 1) for i in range(n)),
        machines=("1",),
        periods=tuple(str(t + 1) for t in range(periods)),
        demand=demand,
        run_time=items[:, :1],
        setup_time=items[:, 2:3],
        setup_cost=items[:, 3:4],
        capacity=np.full((1, periods), rows[2][0]),
        holding_cost=items[:, 1],
    )


def synthetic(items: int, periods: int, machines: int, *, load: float = 0.95, seed: int = 0) -> LotSizingProblem:
    """A plant: demand 50-150 a week with noise, lots of about three weeks, each item on up to two machines (10 % slower).

    `load` is the share of capacity that demand and economic setups need. Stock for up to four weeks lies there at the start.
    """
    rng = np.random.default_rng(seed)
    base = rng.uniform(50, 150, items)
    demand = np.round(base[:, None] * rng.uniform(0.6, 1.4, (items, periods)))
    run = np.full((items, machines), np.inf)
    for i in range(items):
        for k, m in enumerate(rng.permutation(machines)[:2]):
            run[i, m] = 1.0 + 0.1 * k
    setup_time, setup_cost = rng.uniform(10, 50, items), rng.uniform(200, 1000, items)
    holding = rng.uniform(0.5, 2.0, items)
    between = np.maximum(1.0, np.sqrt(2.0 * setup_cost / (holding * base)))
    capacity = (demand.sum(axis=0).mean() + (setup_time / between).sum()) / load / machines
    weeks = rng.integers(0, 5, items)
    return LotSizingProblem(
        items=tuple(f"item {i + 1}" for i in range(items)),
        machines=tuple(f"machine {m + 1}" for m in range(machines)),
        periods=tuple(f"week {t + 1}" for t in range(periods)),
        demand=demand,
        run_time=run,
        setup_time=setup_time,
        setup_cost=setup_cost,
        capacity=np.full((machines, periods), capacity),
        holding_cost=holding,
        initial_stock=np.array([demand[i, :w].sum() for i, w in enumerate(weeks)]),
    )


def write_plan(problem: LotSizingProblem, result: LotSizingResult, path: Path) -> None:
    """Writes item, period, quantity, setup (single machine)."""
    assert result.production is not None
    quantity, setup = result.production.quantity[:, 0], result.production.setup[:, 0]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item", "period", "quantity", "setup"])
        for i, t in np.argwhere(setup | (quantity > 0)):
            writer.writerow([i + 1, t + 1, repr(float(quantity[i, t])), int(setup[i, t])])


def big_m(problem: LotSizingProblem, seconds: float) -> tuple[float, float]:
    """Cost and bound of the textbook program in HiGHS."""
    from npq_assets.optimization.linear import solve_integer
    from npq_assets.optimization.lot_sizing.tight import build

    solution = solve_integer(build(problem, split=False).model, seconds=seconds)
    return solution.objective, solution.bound


def main() -> None:
    """Solves every instance and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of Trigeiro instances, searched through")
    parser.add_argument("--out", type=Path, help="where the plans go")
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit an instance")
    parser.add_argument("--rival-seconds", type=float, default=0.0, help="time for the big-M rival; 0 leaves it out")
    parser.add_argument("--only", nargs="*", help="names (or their beginnings) of the instances to solve")
    parser.add_argument("--scale", action="store_true", help="the synthetic plans too")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.scale:
        parser.error("give --data and --out, or --scale")
    print(
        f"{'instance':>16} {'npq':>14} {'bound':>14} {'gap %':>7} {'s':>6} {'rule':>14} {'big-M':>14} {'big-M bound':>14}  status",
        flush=True,
    )
    gaps: dict[str, list[float]] = {}
    summary = []
    if arguments.data is not None:
        if arguments.out is None:
            parser.error("give --out")
        arguments.out.mkdir(parents=True, exist_ok=True)
        for path in sorted(p for p in arguments.data.rglob("*") if p.is_file()):
            if arguments.only and not path.stem.startswith(tuple(arguments.only)):
                continue
            try:
                problem = read_trigeiro(path)
            except ValueError:
                continue
            result = show(path.stem, problem, arguments)
            gaps.setdefault(path.parent.name, []).append(100 * result.gap)
            write_plan(problem, result, arguments.out / f"{path.stem}.csv")
            summary.append((path.stem, result.objective, result.bound, round(result.seconds, 1)))
            with (arguments.out / "summary.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["instance", "cost", "bound", "seconds"])
                writer.writerows(summary)
        if not summary:
            raise SystemExit(f"{arguments.data}: no Trigeiro instances")
    if arguments.scale:
        for machines in (1, 3):
            show(f"1000 x 52 x {machines}", synthetic(1000, 52, machines), arguments)
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        print(f"largest search: {memory:.2f} GB")
    for folder, values in gaps.items():
        print(
            f"{folder}: median gap {statistics.median(values):.3f} %, largest {max(values):.3f} %, {len(values)} instances"
        )


def show(name: str, problem: LotSizingProblem, arguments: argparse.Namespace) -> LotSizingResult:
    """Solves and prints one line."""
    result = solve(problem, Params(seconds=arguments.seconds))
    rule = economic_lots(problem)
    shown_rule = f"{price(problem, rule).total:,.0f}" + ("*" if violations(problem, rule) else "")
    rival = ("", "")
    if arguments.rival_seconds:
        began = time.monotonic()
        cost, bound = big_m(problem, arguments.rival_seconds)
        rival = ("no plan" if np.isinf(cost) else f"{cost:,.0f}", f"{bound:,.0f} in {time.monotonic() - began:.0f} s")
    print(
        f"{name:>16} {result.objective:>14,.1f} {result.bound:>14,.1f} {100 * result.gap:>7.3f} {result.seconds:>6.1f} "
        f"{shown_rule:>14} {rival[0]:>14} {rival[1]:>14}  {result.status}",
        flush=True,
    )
    return result


if __name__ == "__main__":
    main()
