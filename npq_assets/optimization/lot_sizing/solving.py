"""Chooses a method by the problem's shape, keeps the time limit, and falls back until there is a plan or a reason.

Few items on which nothing but demand draws: the facility-location form gives the bound by branch and bound; the plan comes from
the rounded mixture of column generation, improved by fix-and-optimize, and branch and bound goes on from there. Many such items:
column generation by item gives the bound, the rounded mixture improved by groups of items the plan. Bills of material, minimum
lots, safety stock: the split form instead, from its relaxation rounded up.

Every form is elastic while a plan is sought: minutes and units that are missing have a price above all others. If the best plan
still needs some, the problem is relaxed: what gave way is the cheapest relaxation found, and the rows of the elastic linear
program with a price are the conflict.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from npq_assets.errors import RunError
from npq_assets.optimization import watchdog
from npq_assets.optimization.linear import INF, Array, solve_integer, solve_linear
from npq_assets.optimization.lot_sizing import decomposition, improve, pure, tight
from npq_assets.optimization.lot_sizing.link_cuts import solve_tightened
from npq_assets.optimization.lot_sizing.problem import (
    WORTH,
    LotSizingProblem,
    LotSizingResult,
    Params,
    Production,
    flow,
    result_of,
    violations,
)
from npq_assets.optimization.lot_sizing.rules import economic_lots
from npq_assets.optimization.result import RELAXATION

# Neighbourhoods tried after the root node where the limit is work (each takes longer in the split form), and how many setups
# are free in each.
POLISH_PASSES = 11
SPLIT_PASSES = 4
POLISH_SETUPS = 120
LINKED_SETUPS = 40  # with as many links
LINKED_SMALL = 120  # setups up to which the split form with links is searched as long as the other
MANY_SETUPS = 1_200  # setups from which branch and bound on the whole plan stops paying


def solve(problem: LotSizingProblem, params: Params | None = None, start: Production | None = None) -> LotSizingResult:
    """The cheapest plan found with a proven bound; always a plan, see `LotSizingResult.status`.

    Args:
        problem: The data.
        params: How long and how to search.
        start: A plan to start from, e.g. yesterday's.
    """
    params = params or Params()
    started = time.monotonic()
    # The child needs about a second to start and a little to report; what it may use is less.
    budget = params.seconds if not params.watchdog else max(0.5, params.seconds - 1.0)
    outcome = watchdog.run(
        "npq_assets.optimization.lot_sizing.solving:search", problem, params, start, budget,
        seconds=params.seconds, grace=1.0, here=not params.watchdog,
    )  # fmt: skip
    state = outcome.state
    plan: Production | None = state.get("plan")
    if outcome.failed:
        raise RunError(f"production plan: the search failed: {outcome.error}")
    if plan is None:
        plan = economic_lots(problem)
    bound = float(state.get("bound", 0.0))
    more: dict[str, Any] = {}
    broken = violations(problem, plan)
    if broken:
        more["relaxation"] = pl.DataFrame(broken, schema=RELAXATION, orient="row").sort("amount", "constraint")
        more["conflict"] = tuple(state.get("conflict", ()))
    worth = state.get("worth")
    result = result_of(
        problem, plan, bound, gap=params.gap, solver=str(state.get("solver", "rule")), seconds=0.0,
        duals=worth_frame(problem, plan, worth), **more,
    )  # fmt: skip
    return replace(result, seconds=time.monotonic() - started)


def worth_frame(problem: LotSizingProblem, plan: Production, worth: tuple[Array, str] | None) -> pl.DataFrame:
    """The columns of `WORTH` from the price of a minute by machine and period (M, T), and where it comes from."""
    if worth is None:
        return pl.DataFrame(schema=WORTH)
    f = flow(problem, plan)
    price, method = worth
    rows = [
        (
            problem.machines[m], problem.periods[t], float(problem.capacity[m, t]), float(f.used[m, t]),
            float(f.overtime[m, t]), float(60.0 * price[m, t]), method,
        )
        for m in range(len(problem.machines))
        for t in range(len(problem.periods))
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=WORTH, orient="row")


def search(
    report: watchdog.Report, problem: LotSizingProblem, params: Params, start: Production | None, budget: float
) -> None:
    """The search itself, in the child: reports plan, bound, solver, worth and conflict as they come."""
    ends = time.monotonic() + budget
    run = _Search(problem, params, report, ends)
    is_pure = pure.is_pure(problem)
    setups = int(problem.eligible.sum()) * len(problem.periods)
    many = setups > MANY_SETUPS and is_pure
    run.begin(start, rule=not many)
    method = params.method if params.method != "auto" else ("decomposition" if many else "tight")
    if method == "decomposition" and not is_pure:
        method = "tight"
    if method == "decomposition":
        run.decompose()
    elif params.nodes is not None:
        run.by_work(is_pure)
    else:
        run.tight(is_pure)
    run.finish(is_pure)


class _Search:
    """Best plan and bound of one search, reported as they improve."""

    def __init__(self, problem: LotSizingProblem, params: Params, report: watchdog.Report, ends: float) -> None:
        self.problem, self.params, self._report, self._ends = problem, params, report, ends
        self.bound = -INF
        self.best = improve.Best(Production(np.zeros(problem.shape), np.zeros(problem.shape, bool)))
        self.price: Array | None = None

    def left(self) -> float:
        return self._ends - time.monotonic()

    def begin(self, start: Production | None, *, rule: bool) -> None:
        self.offer(self.best.production)
        if rule:
            self.offer(economic_lots(self.problem))
        if start is not None:
            self.offer(start)
        self._report(plan=self.best.production, solver="rule")

    def offer(self, plan: Production) -> None:
        if self.best.offer(self.problem, plan):
            self._report(plan=plan)

    def found(self, plan: Production) -> None:
        self._report(plan=plan)

    def raise_bound(self, bound: float) -> None:
        if np.isfinite(bound) and bound > self.bound:
            self.bound = bound
            self._report(bound=bound)

    def close(self) -> bool:
        return not self.best.broken and self.best.value - self.bound <= self.params.gap * abs(self.best.value)

    @property
    def target(self) -> float:
        return self.bound + self.params.gap * abs(self.bound)

    def decompose(self) -> None:
        p, params = self.problem, self.params
        self._report(solver="column generation, HiGHS")
        mixture = decomposition.generate(p, seconds=0.6 * self.left(), gap=min(2e-4, params.gap))
        self.raise_bound(mixture.bound)
        self.price = mixture.price
        self._report(worth=(mixture.price, "dual of the relaxation"))
        if not len(mixture.item):
            return
        self.offer(improve.round_mixture(p, mixture))
        passes = 4 if params.nodes is not None else 10_000
        improve.improve_items(
            p, mixture, self.best, self.left, passes=passes, nodes=params.nodes, found=self.found, target=self.target
        )

    def by_work(self, is_pure: bool) -> None:
        """The daily plan: the root node from a plan that is there, then some neighbourhoods; limited by nodes, not by time."""
        p, params = self.problem, self.params
        self._report(solver="facility location, HiGHS" if is_pure else "split form, HiGHS")
        window = self._window(is_pure)
        elastic = pure.build_pure(p, elastic=True) if is_pure else tight.build(p, elastic=True, window=window)
        constant = elastic.constant if isinstance(elastic, pure.PureForm) else 0.0
        relaxed, windows = solve_tightened(p, elastic, seconds=self.left())
        if relaxed.x is not None:
            self.raise_bound(relaxed.bound + constant)
            if self.best.broken:
                self.offer(improve.round_up(p, elastic, relaxed.x))
        if self.close():
            return
        form: pure.PureForm | tight.Form = elastic
        if not self.best.broken:
            form = pure.build_pure(p) if is_pure else tight.build(p, window=window)
            windows.add_to(p, form)
        solution = solve_integer(
            form.model, seconds=self.left() - 0.5, gap=params.gap, nodes=params.nodes,
            start=improve.start_of(p, form, self.best.production), options=improve.SHORT,
            on_plan=lambda x, value, bound: self.offer(form.production(x, p)),
            on_bound=lambda bound: self.raise_bound(bound + constant),
        )  # fmt: skip
        if solution.status != "infeasible":
            self.raise_bound(solution.bound + constant)
        if solution.x is not None:
            self.offer(form.production(solution.x, p))
        if self.close():
            return
        small = p.carry_over and int(p.eligible.sum()) * len(p.periods) <= LINKED_SMALL
        improve.fix_and_optimize(
            p, form, self.best, self.left, passes=POLISH_PASSES if is_pure or small else SPLIT_PASSES, nodes=params.nodes,
            found=self.found, until_feasible=self.best.broken, target=self.target, gap=0.25 * params.gap,
            binaries=LINKED_SETUPS if p.carry_over else POLISH_SETUPS, options=improve.SHORT,
        )  # fmt: skip

    def _window(self, is_pure: bool) -> int | None:
        """Periods between making and serving that get a variable of their own; None for all."""
        setups = int(self.problem.eligible.sum()) * len(self.problem.periods)
        if not is_pure and setups * len(self.problem.periods) > 40_000:
            return max(3, 40_000 // setups)
        return None

    def tight(self, is_pure: bool) -> None:
        p, params = self.problem, self.params
        total = max(0.1, self.left())
        self._report(solver="facility location, HiGHS" if is_pure else "split form, HiGHS")
        window = self._window(is_pure)
        elastic = pure.build_pure(p, elastic=True) if is_pure else tight.build(p, elastic=True, window=window)
        constant = elastic.constant if isinstance(elastic, pure.PureForm) else 0.0
        relaxed, windows = solve_tightened(p, elastic, seconds=0.5 * total)
        if relaxed.status == "optimal":
            self.raise_bound(relaxed.bound + constant)
            assert relaxed.x is not None
            if isinstance(elastic, pure.PureForm):
                mixture = decomposition.generate(p, seconds=0.2 * total, gap=2e-4)
                if len(mixture.item):
                    self.offer(improve.round_mixture(p, mixture))
                    self._round_support(elastic, mixture)
            self.offer(improve.round_up(p, elastic, relaxed.x))
        # Until the plan keeps all limits nothing else matters; afterwards a short polish gives branch and bound a start.
        if self.best.broken:
            self._polish(elastic, 0.5 * total, until_feasible=True)
        form: pure.PureForm | tight.Form = elastic
        if not self.best.broken:
            form = pure.build_pure(p) if is_pure else tight.build(p, window=window)
            windows.add_to(p, form)
            self._polish(form, 0.1 * total, until_feasible=False)
        if self.close() or self.left() < 1.0:
            return
        solution = solve_integer(
            form.model,
            seconds=self.left() - 0.5,
            gap=params.gap,
            nodes=params.nodes,
            start=improve.start_of(p, form, self.best.production),
            on_plan=lambda x, value, bound: self.offer(form.production(x, p)),
            on_bound=lambda bound: self.raise_bound(bound + constant),
        )
        if solution.status == "infeasible":
            return
        self.raise_bound(solution.bound + constant)
        if solution.x is not None:
            self.offer(form.production(solution.x, p))

    def _polish(self, form: Any, seconds: float, *, until_feasible: bool) -> None:
        ends, by_work = time.monotonic() + seconds, self.params.nodes is not None
        improve.fix_and_optimize(
            self.problem, form, self.best, self.left if by_work else lambda: min(self.left(), ends - time.monotonic()),
            passes=3 if by_work else 10_000, nodes=self.params.nodes, found=self.found, until_feasible=until_feasible,
            target=self.target, gap=0.25 * self.params.gap if by_work else 1e-4,
        )  # fmt: skip

    def _round_support(self, form: pure.PureForm, mixture: decomposition.Mixture) -> None:
        """Setups only where some plan of the mixture or the best plan has one."""
        p = self.problem
        lots, _ = decomposition.support(p, mixture, least=-1.0)
        low, high = form.model.low.copy(), form.model.high.copy()
        outside = (form.y >= 0) & ~(lots | self.best.production.setup)
        form.model.high[form.y[outside]] = low[form.y[outside]]
        limit = self.left() if self.params.nodes is not None else min(0.15 * self.left(), 6.0)
        solution = solve_integer(
            form.model, seconds=limit, gap=1e-3, nodes=self.params.nodes or 200,
            start=improve.start_of(p, form, self.best.production),
        )  # fmt: skip
        form.model.low[:], form.model.high[:] = low, high
        if solution.x is not None:
            self.offer(form.production(solution.x, p))

    def finish(self, is_pure: bool) -> None:
        """Quantities at their best for the setups found, the worth of capacity, and the conflict if limits gave way."""
        p, setup = self.problem, self.best.production.setup
        setups = int(p.eligible.sum()) * len(p.periods)
        if setups <= 20_000 and self.params.worth and self.left() > 0.5:
            form = (
                pure.build_pure(p, elastic=True, allowed=setup)
                if is_pure
                else tight.build(p, elastic=True, split=False)
            )
            improve.fix(p, form, self.best.production)
            solution = solve_linear(form.model, seconds=max(0.5, self.left()))
            if solution.x is not None:
                self.offer(form.production(solution.x, p))
                assert solution.duals is not None
                price = np.maximum(0.0, -solution.duals[form.capacity_rows])
                self._report(worth=(price, "dual, setups as planned"))
        if self.best.broken:
            names = [name for name, _, _ in violations(p, self.best.production)]
            small = setups * len(p.periods) <= 200_000
            self._report(conflict=self._conflict(is_pure) if small and self.left() > 0.5 else names)

    def _conflict(self, is_pure: bool) -> list[str]:
        """Capacities and demands with a price in the elastic relaxation: together they cannot be kept."""
        p = self.problem
        if not is_pure:
            form: Any = tight.build(p, elastic=True, window=0)
        else:
            form = pure.build_pure(p, elastic=True)
        model = form.model
        elastic_columns = np.zeros(model.columns, bool)
        elastic_columns[form.extra.ravel()] = True
        if not is_pure:
            elastic_columns[form.unmet[form.unmet >= 0]] = True
        model.cost = np.where(elastic_columns, model.cost, 0.0)
        solution = solve_linear(model, seconds=max(0.5, self.left()))
        if solution.duals is None or solution.objective <= 1e-6:
            # Only the setups' integrality is in the way: the machines that lack minutes in the plan found.
            return [name for name, _, _ in violations(p, self.best.production)]
        tight_rows = solution.duals[form.capacity_rows] < -1e-7
        names = [f"capacity of {p.machines[m]} in {p.periods[t]}" for m, t in np.argwhere(tight_rows)]
        latest = int(np.argwhere(tight_rows)[:, 1].max(initial=0)) if tight_rows.any() else len(p.periods) - 1
        busy = tight_rows.any(axis=1)
        for i in np.flatnonzero((p.eligible & busy[None, :]).any(axis=1) & ~p.may_be_late):
            due = np.flatnonzero(p.demand[i, : latest + 1] > 0)
            if len(due):
                names.append(f"demand of {p.items[i]} until {p.periods[due[-1]]}")
        return names
