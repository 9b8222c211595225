"""Small random production plans, shared by the tests of lot sizing."""

import numpy as np

from npq_assets.optimization.lot_sizing import LotSizingProblem

KINDS = ("plain", "late", "bill", "families", "minimum lots", "overtime", "everything")


def random_plan(seed: int, kind: str) -> LotSizingProblem:
    """Three items on two machines over five periods; `kind` says which features are in."""
    rng = np.random.default_rng(seed)
    n, m, t = 3, 2, 5
    demand = np.where(rng.random((n, t)) < 0.7, rng.integers(5, 30, (n, t)), 0).astype(float)
    run = rng.uniform(0.5, 1.5, (n, m))
    run[rng.random((n, m)) < 0.3] = np.inf
    run[~np.isfinite(run).any(axis=1), 0] = 1.0
    every = kind == "everything"
    more: dict = {}
    if kind == "late" or every:
        more.update(late_cost=rng.uniform(1, 10, n), end_late_cost=20.0)
        more.update(initial_backlog=np.where(rng.random(n) < 0.5, 4.0, 0.0))
    if kind in ("late", "overtime") or every:
        more.update(overtime_limit=20.0, overtime_cost=2.0)
    if kind == "bill" or every:
        bill = np.zeros((n, n))
        bill[2, 0], bill[2, 1] = 2.0, 1.0
        demand[2] = np.where(rng.random(t) < 0.3, 5, 0)
        more.update(bill=bill, initial_stock=np.array([3.0, 0.0, 100.0]), lead_time=np.array([0, 0, seed % 2]))
    if kind == "families" or every:
        more.update(families=("a", "a", ""), family_setup_time={"a": 5.0}, family_setup_cost={"a": 30.0})
    if kind == "minimum lots" or every:
        more.update(minimum_lot=np.array([10.0, 0.0, 15.0]), safety_stock=np.array([5.0, 0.0, 0.0]), safety_cost=1.5)
    capacity = np.maximum(20.0, rng.uniform(0.6, 1.2, (m, t)) * demand.sum(axis=0).mean() + 10.0)
    return LotSizingProblem(
        ("a", "b", "c"), ("M1", "M2"), ("1", "2", "3", "4", "5"), demand, run, rng.uniform(0, 5, (n, m)),
        rng.uniform(5, 60, (n, m)), capacity * (3.0 if kind == "bill" else 1.0), rng.uniform(0.1, 2.0, n),
        unit_cost=rng.uniform(0, 0.5, (n, m)), **more,
    )  # fmt: skip
