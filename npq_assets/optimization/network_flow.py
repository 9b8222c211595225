"""Which plant or warehouse serves which site: transport and transshipment at least cost.

    minimize    sum_e c_e f_e + sum_v (h_v out_v + o_v over_v) + sum_s p_s short_s
    subject to  in_v + stock_v >= out_v                    for each warehouse and plant v
                out_v <= capacity_v + over_v               for each v
                f_e <= lane capacity_e                     for each lane e
                in_s + short_s = demand_s                  for each site s
                f_ws = demand_s z_ws, z binary, sum_w z_ws <= 1    if a site has one source

The minimum-cost flow problem with node capacities (Ahuja, Magnanti and Orlin, Network Flows, ch. 1 and 2); its linear program in
CVXPY gives the duals (what a unit of stock, of handling capacity, of a lane is worth) and the bound.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.errors import NpqError
from npq_assets.optimization import highs
from npq_assets.optimization.result import RELAXATION

Array = NDArray[np.float64]
_TOLERANCE = 1e-7
WORTH = {
    "subject": pl.String,
    "limit": pl.String,
    "amount": pl.Float64,
    "used": pl.Float64,
    "worth_per_unit": pl.Float64,
    "method": pl.String,
}
"""What one more unit of a limit saves; `method` says whether a dual says so, or the problem solved again with it."""


@dataclass(frozen=True)
class FlowProblem:
    """A week's supply, ways and demand. Quantities in one unit (say kg) throughout.

    Attributes:
        sources: source_id, stock (units it has or makes; null: as many as wanted), capacity (units it can hand out; null: none),
            handling_cost (money per unit handed out), overflow_cost (money per unit above capacity; null: not possible).
        lanes: from_id, to_id, cost_per_unit (money), capacity (units; null: none).
        demand: site_id, quantity, shortage_cost (money per unit not delivered).
    """

    sources: pl.DataFrame
    lanes: pl.DataFrame
    demand: pl.DataFrame


@dataclass(frozen=True)
class FlowResult:
    """Flows and what limits them.

    Attributes:
        flows: from_id, to_id, quantity, cost.
        shortage: site_id, quantity not delivered.
        status: `optimal`, `feasible`, or `relaxed` where demand could not be met.
        objective: Cost (money).
        bound: No flows cost less (money).
        worth: What one more unit of each limit would save: the columns of `WORTH`.
        relaxation: Demand that could not be met, by site.
        seconds: Wall-clock time.
    """

    flows: pl.DataFrame
    shortage: pl.DataFrame
    status: str
    objective: float
    bound: float
    worth: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=WORTH))
    relaxation: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=RELAXATION))
    seconds: float = 0.0

    @property
    def gap(self) -> float:
        """Share of the objective by which the flows may cost more than the best."""
        return max(0.0, self.objective - self.bound) / max(abs(self.objective), 1e-12) if self.objective else 0.0


def solve(problem: FlowProblem, *, single_source: bool = True, seconds: float = 10.0) -> FlowResult:
    """The cheapest flows.

    Args:
        problem: Supply, ways, demand.
        single_source: Whether all of a site's demand comes from one source.
        seconds: Clock limit of the integer program.

    Raises:
        NpqError: A lane leads from or to what is neither source nor site.
    """
    began = time.monotonic()
    lanes = problem.lanes.sort("from_id", "to_id")
    _check(problem, lanes)
    linear = _program(problem, lanes, single=False)
    if not highs.solve(linear.problem):
        raise NpqError(
            "logistics sourcing: the solver found no flows; check lanes, capacities and costs for extreme numbers"
        )
    bound = float(linear.problem.value)
    worth = _worth(problem, lanes, linear)
    solved, status, shared = linear, "optimal", False
    if single_source and _splits(problem, lanes, np.asarray(linear.flow.value)):
        whole = _program(problem, lanes, single=True)
        shared = not highs.solve(whole.problem, time_limit=seconds)
        if not shared:
            solved = whole
            if whole.problem.status == "optimal":  # proven up to the solver's relative gap of 1e-4
                bound = max(bound, float(whole.problem.value) * (1 - 1e-4))
    flow = np.maximum(np.asarray(solved.flow.value, float), 0.0)
    flow[flow < _TOLERANCE * max(1.0, float(flow.max(initial=0.0)))] = 0.0
    short = np.maximum(np.asarray(solved.short.value, float), 0.0)
    objective = price(problem, lanes, flow, short)
    bound = min(bound * (1 - 1e-9), objective)
    if objective - bound > 2e-4 * max(1.0, objective):
        status = "feasible"
    shortage = (
        problem.demand.select("site_id").with_columns(pl.Series("quantity", short)).filter(pl.col("quantity") > 1e-6)
    )
    messages = [
        (row["site_id"], row["quantity"], f"{row['site_id']}: {row['quantity']:,.1f} of its demand cannot be delivered at less "
         "than its shortage cost")
        for row in shortage.sort("quantity", descending=True).to_dicts()
    ]  # fmt: skip
    if shared:
        split = _shared(problem, lanes, flow)
        messages.append(
            ("single source", None, f"no plan with one source a site was found within {seconds:g} s: {len(split)} sites get goods "
             f"from several ({', '.join(split[:3])}{' …' if len(split) > 3 else ''})")
        )  # fmt: skip
    return FlowResult(
        lanes.select("from_id", "to_id", "cost_per_unit")
        .with_columns(pl.Series("quantity", flow))
        .filter(pl.col("quantity") > 0)
        .with_columns((pl.col("quantity") * pl.col("cost_per_unit")).alias("cost")),
        shortage,
        "relaxed" if messages else status,
        objective,
        bound,
        worth,
        pl.DataFrame(messages, schema=RELAXATION, orient="row"),
        time.monotonic() - began,
    )


def price(problem: FlowProblem, lanes: pl.DataFrame, flow: Array, short: Array) -> float:
    """Cost of flows: lanes, handling, overflow, shortage; the same that the program minimizes."""
    sources = problem.sources
    out = _incidence(sources["source_id"], lanes["from_id"]) @ flow
    capacity = _numbers(sources, "capacity", np.inf)
    over = np.maximum(out - capacity, 0.0)
    return float(
        lanes["cost_per_unit"].to_numpy() @ flow
        + _numbers(sources, "handling_cost", 0.0) @ out
        + _numbers(sources, "overflow_cost", 0.0) @ over
        + _numbers(problem.demand, "shortage_cost", 0.0) @ short
    )


def completed(problem: FlowProblem, flow: Array) -> tuple[FlowProblem, Array]:
    """Flows between sources that can have fed what went to sites, at least cost, and limits that allow what went.

    What moves between plants and warehouses is not seen; it cannot have cost less than this. What left a source beyond its
    stock, a firm capacity or a lane's was possible after all, so that the problem's limits are raised to it, by as little as
    can be; it has no price beside its lane and handling.

    Args:
        problem: Supply, ways, demand.
        flow: What went by lane, in the order of `problem.lanes.sort("from_id", "to_id")`; lanes that end at no site are ignored
            (m).

    Returns:
        The problem with raised limits, and flows on all lanes (m).
    """
    lanes, sources = problem.lanes.sort("from_id", "to_id"), problem.sources
    ends = lanes["to_id"].is_in(problem.demand["site_id"].implode()).to_numpy()
    flow = np.where(ends, np.asarray(flow, float), 0.0)
    leave, enter = _incidence(sources["source_id"], lanes["from_id"]), _incidence(sources["source_id"], lanes["to_id"])
    stock, capacity = _numbers(sources, "stock", np.inf), _numbers(sources, "capacity", np.inf)
    width = _numbers(lanes, "capacity", np.inf)
    between = np.flatnonzero(~ends)
    if between.size and bool((leave @ flow > stock).any()):
        flow[between] = _feeding(problem, lanes, flow, between)
    out = leave @ flow
    firm = np.array([value is None for value in sources["overflow_cost"].to_list()], dtype=bool)
    had = np.maximum(stock, out - enter @ flow)
    room = np.where(firm, np.maximum(capacity, out), capacity)

    def column(values: Array) -> pl.Series:
        return pl.Series([float(v) if np.isfinite(v) else None for v in values], dtype=pl.Float64)

    return (
        FlowProblem(
            sources.with_columns(column(had).alias("stock"), column(room).alias("capacity")),
            lanes.with_columns(column(np.maximum(width, flow)).alias("capacity")),
            problem.demand,
        ),
        flow,
    )


def _feeding(problem: FlowProblem, lanes: pl.DataFrame, flow: Array, between: NDArray[np.int64]) -> Array:
    """The cheapest flows on the lanes between sources that bring what they hand out beyond their stock."""
    import cvxpy as cp

    sources = problem.sources
    n = sources.height
    leave, enter = _incidence(sources["source_id"], lanes["from_id"]), _incidence(sources["source_id"], lanes["to_id"])
    fed, over = cp.Variable(len(between), nonneg=True), cp.Variable(n, nonneg=True)
    lack, excess = cp.Variable(n, nonneg=True), cp.Variable(n, nonneg=True)
    stock, capacity = _numbers(sources, "stock", np.inf), _numbers(sources, "capacity", np.inf)
    width = _numbers(lanes, "capacity", np.inf)[between]
    handling, overflow = _numbers(sources, "handling_cost", 0.0), _numbers(sources, "overflow_cost", 0.0)
    unit = lanes["cost_per_unit"].to_numpy()[between]
    out = leave @ flow + leave[:, between] @ fed
    constraints = []
    held, tight = np.flatnonzero(np.isfinite(stock)), np.flatnonzero(np.isfinite(capacity))
    if held.size:
        constraints.append((out - enter[:, between] @ fed - lack)[held] <= stock[held])
    if tight.size:
        constraints.append((out - over - excess)[tight] <= capacity[tight])
    firm = np.flatnonzero(np.array([value is None for value in sources["overflow_cost"].to_list()]))
    if firm.size:
        constraints.append(over[firm] == 0)
    narrow = np.flatnonzero(np.isfinite(width))
    if narrow.size:
        constraints.append(fed[narrow] <= width[narrow])
    # Limits give way only where nothing else is possible: dearer than any way through all sources.
    dear = 10.0 * (1.0 + n * (float(unit.max()) + float(handling.max()) + float(overflow.max())))
    cost = unit @ fed + handling @ (leave[:, between] @ fed) + overflow @ over + dear * (cp.sum(lack) + cp.sum(excess))
    program = cp.Problem(cp.Minimize(cost), constraints)
    if not highs.solve(program):
        raise NpqError("logistics sourcing: no flows between sources were found; check costs for extreme numbers")
    found: Array = np.maximum(np.asarray(fed.value, float), 0.0)
    found[found < _TOLERANCE * max(1.0, float(flow.max(initial=0.0)))] = 0.0
    return found


@dataclass
class _Program:
    problem: Any
    flow: Any
    short: Any
    limits: dict[str, Any]


def _program(problem: FlowProblem, lanes: pl.DataFrame, *, single: bool) -> _Program:
    import cvxpy as cp

    sources, demand = problem.sources, problem.demand
    m, n, s = lanes.height, sources.height, demand.height
    flow, over, short = cp.Variable(m, nonneg=True), cp.Variable(n, nonneg=True), cp.Variable(s, nonneg=True)
    leave = _incidence(sources["source_id"], lanes["from_id"])
    enter = _incidence(sources["source_id"], lanes["to_id"])
    reach = _incidence(demand["site_id"], lanes["to_id"])
    out = leave @ flow
    stock, capacity = _numbers(sources, "stock", np.inf), _numbers(sources, "capacity", np.inf)
    limits: dict[str, Any] = {}
    constraints = [reach @ flow + short == demand["quantity"].to_numpy()]
    held = np.flatnonzero(np.isfinite(stock))
    if held.size:
        limits["stock"] = out[held] - enter[held] @ flow <= stock[held]
    tight = np.flatnonzero(np.isfinite(capacity))
    if tight.size:
        limits["handling capacity"] = out[tight] - over[tight] <= capacity[tight]
    firm = np.flatnonzero(np.array([value is None for value in sources["overflow_cost"].to_list()]))
    if firm.size:
        constraints.append(over[firm] == 0)
    lane = _numbers(lanes, "capacity", np.inf)
    narrow = np.flatnonzero(np.isfinite(lane))
    if narrow.size:
        limits["lane capacity"] = flow[narrow] <= lane[narrow]
    if single:
        last = np.flatnonzero(reach.sum(axis=0) > 0)
        chosen = cp.Variable(len(last), boolean=True)
        wanted = reach[:, last].T @ demand["quantity"].to_numpy()
        constraints += [flow[last] == cp.multiply(wanted, chosen), reach[:, last] @ chosen <= 1]
    cost = (
        lanes["cost_per_unit"].to_numpy() @ flow
        + _numbers(sources, "handling_cost", 0.0) @ out
        + _numbers(sources, "overflow_cost", 0.0) @ over
        + _numbers(demand, "shortage_cost", 0.0) @ short
    )
    return _Program(cp.Problem(cp.Minimize(cost), [*constraints, *limits.values()]), flow, short, limits)


def _worth(problem: FlowProblem, lanes: pl.DataFrame, program: _Program) -> pl.DataFrame:
    sources = problem.sources
    flow = np.asarray(program.flow.value, float)
    out = _incidence(sources["source_id"], lanes["from_id"]) @ flow
    into = _incidence(sources["source_id"], lanes["to_id"]) @ flow
    names, rows = sources["source_id"].to_list(), []
    for limit, amounts, used, subjects in (
        ("stock", _numbers(sources, "stock", np.inf), out - into, names),
        ("handling capacity", _numbers(sources, "capacity", np.inf), out, names),
        (
            "lane capacity",
            _numbers(lanes, "capacity", np.inf),
            flow,
            [f"{a} to {b}" for a, b in lanes.select("from_id", "to_id").iter_rows()],
        ),
    ):
        if limit not in program.limits:
            continue
        dual = np.atleast_1d(program.limits[limit].dual_value)
        for k, value in zip(np.flatnonzero(np.isfinite(amounts)), dual, strict=True):
            rows.append((subjects[k], limit, float(amounts[k]), float(used[k]), max(0.0, float(value)), "dual"))
    return pl.DataFrame(rows, schema=WORTH, orient="row").sort(
        ["worth_per_unit", "limit", "subject"], descending=[True, False, False]
    )


def _shared(problem: FlowProblem, lanes: pl.DataFrame, flow: Array) -> list[str]:
    """Sites that get goods from several sources."""
    sites = problem.demand["site_id"].to_list()
    parts = _incidence(problem.demand["site_id"], lanes["to_id"]) @ (flow > 0)
    return [site for site, count in zip(sites, parts, strict=True) if count > 1]


def _splits(problem: FlowProblem, lanes: pl.DataFrame, flow: Array) -> bool:
    reach = _incidence(problem.demand["site_id"], lanes["to_id"])
    return bool(((reach @ (flow > 1e-6)) > 1).any()) or bool(
        np.any((reach @ flow > 1e-6) & (reach @ flow < problem.demand["quantity"].to_numpy() - 1e-6))
    )


def _incidence(names: pl.Series, ends: pl.Series) -> Array:
    row = {name: k for k, name in enumerate(names.to_list())}
    table = np.zeros((len(names), len(ends)))
    for column, name in enumerate(ends.to_list()):
        if name in row:
            table[row[name], column] = 1.0
    return table


def _numbers(frame: pl.DataFrame, column: str, missing: float) -> Array:
    return frame[column].cast(pl.Float64).fill_null(missing).to_numpy()


def _check(problem: FlowProblem, lanes: pl.DataFrame) -> None:
    known = {*problem.sources["source_id"].to_list(), *problem.demand["site_id"].to_list()}
    for a, b in lanes.select("from_id", "to_id").iter_rows():
        if a not in known or b not in known:
            raise NpqError(f"logistics.lanes: {a} to {b} names a place that neither supplies nor needs anything")


def nearest(problem: FlowProblem, near: pl.DataFrame) -> tuple[Array, Array]:
    """What a planner does: every site from its nearest source, whatever handling costs; returns flows and shortage.

    Args:
        problem: Supply, ways, demand; lanes in the order of `problem.lanes.sort("from_id", "to_id")`.
        near: from_id, to_id, km of the lanes that end at sites.
    """
    lanes = problem.lanes.sort("from_id", "to_id")
    column = {pair: k for k, pair in enumerate(lanes.select("from_id", "to_id").iter_rows())}
    flow, short = np.zeros(lanes.height), np.zeros(problem.demand.height)
    closest = near.sort("km", "from_id").unique("to_id", keep="first", maintain_order=True)
    source_of = dict(closest.select("to_id", "from_id").iter_rows())
    for k, (site, quantity) in enumerate(problem.demand.select("site_id", "quantity").iter_rows()):
        lane = column.get((source_of.get(site), site))
        if lane is None:
            short[k] = quantity
        else:
            flow[lane] += quantity
    _limit(problem, lanes, flow)
    # What a warehouse lacks comes from the plant that is nearest to it.
    stock = _numbers(problem.sources, "stock", np.inf)
    out = _incidence(problem.sources["source_id"], lanes["from_id"]) @ flow
    for k, name in enumerate(problem.sources["source_id"].to_list()):
        lack = out[k] - stock[k]
        if lack <= 1e-9:
            continue
        feeding = [(float(lanes["cost_per_unit"][c]), c) for (_, to), c in column.items() if to == name]
        if feeding:
            flow[min(feeding)[1]] += lack
    _ration(problem, lanes, flow)
    reach = _incidence(problem.demand["site_id"], lanes["to_id"])
    short = np.maximum(problem.demand["quantity"].to_numpy() - reach @ flow, 0.0)
    return flow, short


def _ration(problem: FlowProblem, lanes: pl.DataFrame, flow: Array) -> None:
    """Nobody hands out more than he has and gets, or more than is possible: whose stock is short gives all the same share."""
    sources = problem.sources
    stock = _numbers(sources, "stock", np.inf)
    leave = _incidence(sources["source_id"], lanes["from_id"])
    enter = _incidence(sources["source_id"], lanes["to_id"])
    for _ in range(sources.height):  # a shortage at one is passed on to the next
        _limit(problem, lanes, flow)
        out, has = leave @ flow, stock + enter @ flow
        over = out > has + 1e-9
        if not over.any():
            return
        share = np.where(over, has / np.maximum(out, 1e-12), 1.0)
        flow *= np.where(leave.sum(axis=0) > 0, share @ leave, 1.0)


def _limit(problem: FlowProblem, lanes: pl.DataFrame, flow: Array) -> None:
    """What a lane does not carry, or a source cannot hand out at any price, does not go: else the rule would beat the best."""
    np.minimum(flow, _numbers(lanes, "capacity", np.inf), out=flow)
    firm = np.array([price is None for price in problem.sources["overflow_cost"].to_list()], dtype=bool)
    leave = _incidence(problem.sources["source_id"], lanes["from_id"])
    out = leave @ flow
    most = np.where(firm, _numbers(problem.sources, "capacity", np.inf), np.inf)
    share = np.where(out > most, most / np.maximum(out, 1e-12), 1.0)
    flow *= np.where(leave.sum(axis=0) > 0, share @ leave, 1.0)
