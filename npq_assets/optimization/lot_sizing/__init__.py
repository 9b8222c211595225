"""Which lots to make on which machine when: capacitated lot sizing with a proven bound (no Dagster).

`problem` has the data, the cost model and the result; `solve` chooses a method by shape: `tight` (one integer program on a
facility-location form) or `decomposition` (column generation by item); `explain` answers the planner's questions; `rules`
has the careful planner's rule; `general_form` states the model in CVXPY.
"""

from npq_assets.optimization.lot_sizing.explain import (
    explain_late,
    force_in,
    force_near,
    worth_by_resolving,
    worth_of_capacity,
)
from npq_assets.optimization.lot_sizing.problem import (
    Cost,
    Flow,
    LotSizingProblem,
    LotSizingResult,
    Params,
    Production,
    flow,
    price,
    violations,
)
from npq_assets.optimization.lot_sizing.rules import economic_lots
from npq_assets.optimization.lot_sizing.solving import solve

__all__ = [
    "Cost",
    "Flow",
    "LotSizingProblem",
    "LotSizingResult",
    "Params",
    "Production",
    "economic_lots",
    "explain_late",
    "flow",
    "force_in",
    "force_near",
    "price",
    "solve",
    "violations",
    "worth_by_resolving",
    "worth_of_capacity",
]
