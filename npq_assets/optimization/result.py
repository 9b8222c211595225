"""What a solver gives back: a plan, what it costs, how far it can be from the best, and what its limits are worth."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

DUALS = {
    "supplier_id": pl.String,
    "arrives_on": pl.Date,
    "limit": pl.String,
    "amount": pl.Float64,
    "used": pl.Float64,
    "worth_per_unit": pl.Float64,
    "method": pl.String,
}
RELAXATION = {"constraint": pl.String, "amount": pl.Float64, "message": pl.String}


@dataclass(frozen=True)
class Result:
    """The outcome of an optimization.

    Attributes:
        plan: The decisions, with business keys.
        status: `optimal`, `feasible` (stopped with a proven gap) or `relaxed` (the inputs contradicted each other).
        objective: Cost of the plan (money).
        bound: No plan can cost less (money).
        duals: Worth of one more unit of each limit: the columns of `DUALS`; `method` says dual or re-solve.
        relaxation: What had to give, cheapest first: the columns of `RELAXATION`; empty if nothing.
        solver: What solved it.
        seconds: Wall-clock time; never stored with decisions.
    """

    plan: pl.DataFrame
    status: str
    objective: float
    bound: float
    duals: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=DUALS))
    relaxation: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=RELAXATION))
    solver: str = ""
    seconds: float = 0.0

    @property
    def gap(self) -> float:
        """Share of the objective by which the plan may cost more than the best."""
        return max(0.0, self.objective - self.bound) / max(abs(self.objective), 1e-12) if self.objective else 0.0
