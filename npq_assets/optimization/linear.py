"""Linear and mixed-integer programs by blocks of arrays, solved by HiGHS directly.

For programs that CVXPY would take longer to compile than HiGHS to solve, that need a start, or news of better plans while the
search runs. What the variables mean does not belong here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]
INF = float("inf")


@dataclass(frozen=True)
class Solution:
    """What HiGHS found.

    Attributes:
        status: `optimal`, `feasible` (stopped with a plan), `infeasible`, `none` (stopped without one).
        x: Values of the variables; None without a plan.
        objective: Value of x.
        bound: No point has less.
        duals: Of the rows, for linear programs.
        reduced: Reduced costs of the variables, for linear programs.
        nodes: Branch-and-bound nodes.
    """

    status: str
    x: Array | None
    objective: float
    bound: float
    duals: Array | None = None
    reduced: Array | None = None
    nodes: int = 0


class Model:
    """A program built block by block; variables and rows are numbers that the add methods return."""

    def __init__(self) -> None:
        self.cost, self.low, self.high = (np.zeros(0) for _ in range(3))
        self.integer = np.zeros(0, bool)
        self._columns: list[tuple[Array, Array, Array, NDArray[np.bool_]]] = []
        self._rows: list[tuple[Array, Array]] = []
        self._entries: list[tuple[Index, Index, Array]] = []
        self.columns = 0
        self.rows = 0

    def add_columns(
        self, shape: int | tuple[int, ...], cost: ArrayLike = 0.0, low: ArrayLike = 0.0, high: ArrayLike = INF,
        *, integer: bool = False,
    ) -> Index:  # fmt: skip
        """New variables in the given shape; returns their numbers in that shape."""
        count = int(np.prod(shape))
        spread = [np.broadcast_to(np.asarray(v, float), shape).ravel().astype(float) for v in (cost, low, high)]
        self._columns.append((spread[0], spread[1], spread[2], np.full(count, integer)))
        numbers = np.arange(self.columns, self.columns + count).reshape(shape)
        self.columns += count
        return numbers

    def add_rows(self, count: int, low: ArrayLike = -INF, high: ArrayLike = INF) -> Index:
        """New rows low <= row <= high; returns their numbers."""
        self._rows.append(tuple(np.broadcast_to(np.asarray(v, float), (count,)).astype(float) for v in (low, high)))  # type: ignore[arg-type]
        numbers = np.arange(self.rows, self.rows + count)
        self.rows += count
        return numbers

    def add_entries(self, rows: ArrayLike, columns: ArrayLike, values: ArrayLike) -> None:
        """Coefficients; the three broadcast against each other."""
        r, c, v = np.broadcast_arrays(rows, columns, values)
        self._entries.append((r.ravel().astype(np.int64), c.ravel().astype(np.int64), v.ravel().astype(float)))

    def freeze(self) -> Model:
        """Puts the blocks together; called by the solver, may be called again after additions."""
        if self._columns:
            parts = list(zip(*self._columns, strict=True))
            self.cost = np.concatenate([self.cost, *parts[0]])
            self.low = np.concatenate([self.low, *parts[1]])
            self.high = np.concatenate([self.high, *parts[2]])
            self.integer = np.concatenate([self.integer, *parts[3]])
            self._columns = []
        return self

    def row_limits(self) -> tuple[Array, Array]:
        """Lower and upper limits of the rows."""
        if not self._rows:
            return np.zeros(0), np.zeros(0)
        return np.concatenate([r[0] for r in self._rows]), np.concatenate([r[1] for r in self._rows])

    def matrix(self) -> Any:
        """The coefficients as a CSC matrix; repeated entries add up."""
        from scipy.sparse import coo_matrix

        if not self._entries:
            return coo_matrix((self.rows, self.columns)).tocsc()
        r, c, v = (np.concatenate([e[k] for e in self._entries]) for k in range(3))
        return coo_matrix((v, (r, c)), shape=(self.rows, self.columns)).tocsc()

    def load(self, *, relaxed: bool = False) -> Any:
        """A HiGHS object with the program."""
        import highspy

        from npq_assets.optimization.highs import silence

        self.freeze()
        with silence():
            highs = highspy.Highs()
            highs.silent()
        # Not the number of threads: HiGHS refuses one that differs from what another caller in the process has set.
        highs.setOptionValue("parallel", "off")
        a, (low, high) = self.matrix(), self.row_limits()
        kinds = np.zeros(self.columns, np.int32) if relaxed else self.integer.astype(np.int32)
        highs.passModel(
            self.columns, self.rows, a.nnz, int(highspy.MatrixFormat.kColwise), int(highspy.ObjSense.kMinimize), 0.0,
            self.cost, self.low, self.high, low, high, a.indptr.astype(np.int32), a.indices.astype(np.int32), a.data, kinds,
        )  # fmt: skip
        return highs


def solve_linear(model: Model, *, seconds: float = INF) -> Solution:
    """Solves the relaxation without integrality."""
    highs = model.load(relaxed=True)
    if np.isfinite(seconds):
        highs.setOptionValue("time_limit", max(0.01, seconds))
    return run_linear(highs)


def run_linear(highs: Any) -> Solution:
    """Runs a loaded linear program (again, from its last basis) and reads the answer."""
    import highspy

    highs.run()
    status = highs.getModelStatus()
    if status == highspy.HighsModelStatus.kOptimal:
        s = highs.getSolution()
        value = float(highs.getInfo().objective_function_value)
        return Solution("optimal", np.array(s.col_value), value, value, np.array(s.row_dual), np.array(s.col_dual))
    if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
        return Solution("infeasible", None, INF, INF)
    return Solution("none", None, INF, -INF)


def solve_integer(
    model: Model,
    *,
    seconds: float,
    gap: float = 1e-4,
    nodes: int | None = None,
    start: Array | None = None,
    on_plan: Callable[[Array, float, float], None] | None = None,
    on_bound: Callable[[float], None] | None = None,
    options: dict[str, Any] | None = None,
) -> Solution:
    """Branch and bound.

    Args:
        model: The program.
        seconds: HiGHS' own time limit (it may overrun: see watchdog.py).
        gap: Relative gap at which to stop.
        nodes: Node limit.
        start: A point to start from; variables that are nan are left to HiGHS.
        on_plan: Called with point, objective and bound for every better plan.
        on_bound: Called now and then with the proven bound.
        options: Further HiGHS options.
    """
    import highspy

    highs = model.load()
    if not model.integer.any():
        return run_linear(highs)
    highs.setOptionValue("time_limit", max(0.05, seconds))
    highs.setOptionValue("mip_rel_gap", gap)
    if nodes is not None:
        highs.setOptionValue("mip_max_nodes", nodes)
    for name, value in (options or {}).items():
        highs.setOptionValue(name, value)
    if start is not None:
        known = np.flatnonzero(np.isfinite(start)).astype(np.int32)
        highs.setSolution(len(known), known, start[known])
    if on_plan is not None:

        def better(event: Any) -> None:
            data = event.data_out
            on_plan(np.array(data.mip_solution), float(data.objective_function_value), float(data.mip_dual_bound))

        highs.cbMipImprovingSolution += better
    if on_bound is not None:
        last = [0.0]

        def news(event: Any) -> None:
            if time.monotonic() - last[0] > 0.5:
                last[0] = time.monotonic()
                on_bound(float(event.data_out.mip_dual_bound))

        highs.cbMipInterrupt += news
    highs.run()
    status, info = highs.getModelStatus(), highs.getInfo()
    if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
        return Solution("infeasible", None, INF, INF)
    bound, count = float(info.mip_dual_bound), int(info.mip_node_count)
    if info.primal_solution_status != int(highspy.SolutionStatus.kSolutionStatusFeasible):
        return Solution("none", None, INF, bound, nodes=count)
    x = np.array(highs.getSolution().col_value)
    value, told = float(model.cost @ x), float(info.objective_function_value)
    if abs(value - told) > 1e-6 * max(1.0, abs(value)):
        # HiGHS 1.16 can return the start as "optimal", under an objective that is not the start's, where presolve leaves
        # nothing to search. Neither that objective nor the bound is to be believed.
        if (options or {}).get("presolve") == "off":
            return Solution("feasible", x, value, -INF, nodes=count)
        return solve_integer(
            model, seconds=seconds, gap=gap, nodes=nodes, start=start, on_plan=on_plan, on_bound=on_bound,
            options={**(options or {}), "presolve": "off"},
        )  # fmt: skip
    label = "optimal" if status == highspy.HighsModelStatus.kOptimal else "feasible"
    return Solution(label, x, value, bound, nodes=count)
