"""Capacitated lot sizing on public instances and at scale: `python -m benchmarks.lot_sizing --data DIR --out DIR`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from npq_assets.optimization.lot_sizing.problem import LotSizingProblem


def read_trigeiro(path: Path) -> LotSizingProblem:
    """Reads a Trigeiro file: n T, number of resources, capacity, items (run time, holding, setup time, setup cost), demand.

    Wide instances have their demand in two blocks of columns.
    """
    rows = [[float(v) for v in re.findall(r"-?\d+\.?\d*", line)] for line in path.read_text(errors="ignore").splitlines()]
    rows = [r for r in rows if r]
    n, periods = int(rows[0][0]), int(rows[0][1])
    capacity = rows[2][0]
    items = np.array([r[:4] for r in rows[3 : 3 + n]])
    body = rows[3 + n :]
    if len(body[0]) >= n:
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
        capacity=np.full((1, periods), capacity),
        holding_cost=items[:, 1],
    )
