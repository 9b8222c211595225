"""What a careful planner does without an optimizer: the rule every plan is shown beside."""

from __future__ import annotations

from npq_assets.optimization.lot_sizing.problem import LotSizingProblem, Production


def economic_lots(problem: LotSizingProblem) -> Production:
    """Economic lots loaded by earliest due period.

    Each item's lot is the economic order quantity sqrt(2 D Q / h), at least the minimum lot, rounded up to whole periods of
    demand; lots are loaded in order of due period onto the eligible machine that finishes cheapest, in the latest period
    with room at or before the due one, else with overtime, else later (backlog).
    """
    raise NotImplementedError
