"""Chooses a method by the problem's shape, keeps the time limit, and falls back until there is a plan or a reason."""

from __future__ import annotations

from npq_assets.optimization.lot_sizing.problem import LotSizingProblem, LotSizingResult, Params


def solve(problem: LotSizingProblem, params: Params | None = None) -> LotSizingResult:
    """The cheapest plan found with a proven bound; always a plan, see `LotSizingResult.status`."""
    raise NotImplementedError
