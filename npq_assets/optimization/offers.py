"""Who gets which offer: incremental profit under budgets and contact limits, with the worth of one more unit of budget.

    max   sum_ij pi_ij x_ij
    s.t.  sum_i c_ij x_ij <= B_j        for each offer j with a budget
          sum_ij c_ij x_ij <= B         if there is one for all
          sum_j x_ij <= n_i             contacts left for customer i
          0 <= x_ij <= 1

A generalized assignment problem whose linear relaxation is integral but for at most one pair a budget (its vertices have at
most as many fractional customers as there are budget rows; Dantzig 1957), so that the relaxation's optimum is a tight bound.
Who may be written to at all is decided before: pairs without consent do not enter.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.errors import NpqError
from npq_assets.optimization import highs
from npq_assets.optimization.result import DUALS, Result

Floats = NDArray[np.float64]
TOTAL = "all offers"


@dataclass(frozen=True)
class OfferProblem:
    """Whom to send what.

    Attributes:
        pairs: customer, offer_id, profit (expected incremental, cost of sending included), cost (expected, >= 0).
        budgets: Money by offer_id; offers that are not named have none.
        budget: Money for all offers; None for no limit.
        contacts: Messages left by customer; customers that are not named have `default_contacts`.
        default_contacts: Messages left for the others.
    """

    pairs: pl.DataFrame
    budgets: dict[str, float] = field(default_factory=dict)
    budget: float | None = None
    contacts: dict[str, int] = field(default_factory=dict)
    default_contacts: int = 1


@dataclass(frozen=True)
class Params:
    """How the problem is solved.

    Attributes:
        seconds: Clock limit.
    """

    seconds: float = 30.0


def solve(problem: OfferProblem, params: Params | None = None) -> Result:
    """The allocation of most expected incremental profit; objective and bound are costs, that is, minus profit.

    Returns:
        A result whose plan holds the chosen pairs (columns of `pairs`), duals the worth of one more unit of each budget.

    Raises:
        NpqError: A number is not finite, or a cost or budget is negative.
    """
    import cvxpy as cp
    from scipy import sparse

    params = params or Params()
    started = time.monotonic()
    pairs = problem.pairs.sort("customer", "offer_id")
    _check(problem, pairs)
    # Sending what is expected to lose money is never better than not sending it.
    useful = pairs.filter(pl.col("profit") > 0)
    if useful.is_empty():
        return Result(useful, "optimal", 0.0, 0.0, solver="none needed", seconds=time.monotonic() - started)
    profit, cost = useful["profit"].to_numpy(), useful["cost"].to_numpy()
    customers = useful["customer"].unique(maintain_order=True)
    position = useful["customer"].replace_strict(customers, pl.int_range(len(customers), eager=True)).to_numpy()
    room = np.array([problem.contacts.get(c, problem.default_contacts) for c in customers.to_list()], float)
    n = useful.height
    by_customer = sparse.csr_matrix((np.ones(n), (position, np.arange(n))), shape=(len(customers), n))
    offers = useful["offer_id"].to_numpy()
    limits = [
        (name, problem.budgets[name], offers == name) for name in sorted(problem.budgets) if (offers == name).any()
    ]
    if problem.budget is not None:
        limits.append((TOTAL, problem.budget, np.ones(n, bool)))
    x = cp.Variable(n)
    contact = [by_customer @ x <= np.maximum(room, 0.0), x >= 0, x <= 1]
    spending = [(cost * mask) @ x <= amount for _, amount, mask in limits]
    program = cp.Problem(cp.Maximize(profit @ x), contact + spending)
    if not highs.solve(program, highs_options={"time_limit": params.seconds}):
        raise NpqError("offers: the solver gave no answer; raise solver_seconds in npq.toml")
    share = np.clip(np.asarray(x.value), 0.0, 1.0)
    bound = float(program.value)
    chosen = _whole(share, profit, cost, position, room, limits)
    plan = useful.filter(pl.Series(chosen))
    value = float(profit[chosen].sum())
    duals = _duals(limits, spending, cost, chosen)
    gap_closed = bound - value <= 1e-6 * max(1.0, abs(bound))
    return Result(
        plan,
        "optimal" if gap_closed else "feasible",
        -value,
        -max(bound, value),
        duals,
        solver="HiGHS (linear relaxation, rounded)",
        seconds=time.monotonic() - started,
    )


def _check(problem: OfferProblem, pairs: pl.DataFrame) -> None:
    for name in ("profit", "cost"):
        values = pairs[name].to_numpy()
        bad = np.flatnonzero(~np.isfinite(values) | ((values < 0) & (name == "cost")))
        if len(bad):
            row = pairs.row(int(bad[0]), named=True)
            raise NpqError(
                f"offers: {name} of offer {row['offer_id']} is {row[name]}; give a finite number, costs >= 0"
            )
    for name, amount in problem.budgets.items():
        if not amount >= 0:
            raise NpqError(f"offers: the budget of {name} is {amount}; give a number >= 0")


def _whole(
    share: Floats,
    profit: Floats,
    cost: Floats,
    position: NDArray[np.int64],
    room: Floats,
    limits: list[tuple[str, float, NDArray[np.bool_]]],
) -> NDArray[np.bool_]:
    """Whole pairs: those that the relaxation takes whole, then the best per cost that still fit."""
    chosen = share > 1 - 1e-6
    used = [float(cost[chosen & mask].sum()) for _, _, mask in limits]
    taken = np.bincount(position[chosen], minlength=len(room)).astype(float)
    ratio = np.where(share > 1e-6, 1e6 + share, 0.0) + profit / np.maximum(cost, 1e-9)
    for k in np.argsort(-ratio, kind="stable"):
        if chosen[k] or taken[position[k]] + 1 > room[position[k]] + 1e-9:
            continue
        if any(mask[k] and used[j] + cost[k] > amount + 1e-9 for j, (_, amount, mask) in enumerate(limits)):
            continue
        chosen[k] = True
        taken[position[k]] += 1
        for j, (_, _, mask) in enumerate(limits):
            used[j] += cost[k] * mask[k]
    return np.asarray(chosen)


def _duals(
    limits: list[tuple[str, float, NDArray[np.bool_]]], spending: list[object], cost: Floats, chosen: NDArray[np.bool_]
) -> pl.DataFrame:
    rows = [
        {
            "supplier_id": name,
            "arrives_on": None,
            "limit": "budget",
            "amount": amount,
            "used": float(cost[chosen & mask].sum()),
            "worth_per_unit": max(0.0, float(constraint.dual_value)),  # type: ignore[attr-defined]
            "method": "dual",
        }
        for (name, amount, mask), constraint in zip(limits, spending, strict=True)
    ]
    return pl.DataFrame(rows, schema=DUALS)


def everyone_in_the_segment(problem: OfferProblem, order: pl.DataFrame) -> pl.DataFrame:
    """The naive rule: each offer goes to everyone in its segment, the best customers first, while budget and contacts last.

    Args:
        problem: The problem.
        order: customer, offer_id, rank (1 is written to first): who is in an offer's segment, in a careful marketer's order.
    """
    pairs = problem.pairs.join(order, on=["customer", "offer_id"], how="inner").sort("rank", "offer_id", "customer")
    left = dict(problem.budgets)
    total = problem.budget if problem.budget is not None else float("inf")
    room: dict[str, int] = {}
    keep = []
    for row in pairs.iter_rows(named=True):
        customer, offer = row["customer"], row["offer_id"]
        contacts = room.setdefault(customer, problem.contacts.get(customer, problem.default_contacts))
        fits = row["cost"] <= left.get(offer, float("inf")) + 1e-9 and row["cost"] <= total + 1e-9
        take = contacts > 0 and fits
        keep.append(take)
        if take:
            room[customer] -= 1
            if offer in left:
                left[offer] -= row["cost"]
            total -= row["cost"]
    return pairs.filter(pl.Series(keep, dtype=pl.Boolean)).drop("rank")
