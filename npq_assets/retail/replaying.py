"""What `npq replay` does: our policy, the naive rule and users' own over this company's past."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from npq_assets.deciding import Decider, require_landing
from npq_assets.evaluation.policies import Policy, load_policy
from npq_assets.evaluation.replay import ReplayResult, replay
from npq_assets.optimization.replenishment import Params, solve
from npq_assets.retail.demand import forecast_demand
from npq_assets.retail.inputs import PAIR, RetailInputs, read_inputs
from npq_assets.retail.plan import problem_of
from npq_assets.settings import Home

DEFAULT_PERIODS = {"week": 6, "day": 14}


@dataclass(frozen=True)
class NpqPolicy:
    """The product's own decision: the forecast and the optimization that a run makes.

    Attributes:
        home: Where trained models are kept, so that days between trainings share one.
    """

    home: Home

    def orders(self, view: object) -> pl.DataFrame:
        """One order a pair."""
        assert isinstance(view, RetailInputs)
        forecast = forecast_demand(view, self.home)
        result = solve(problem_of(view, forecast), Params(seconds=view.settings.solver_seconds))
        return result.plan.select(*PAIR, "quantity")


def replay_policies(
    home: Home, names: Sequence[str], windows: int, periods: int, say: Callable[[str], None]
) -> ReplayResult:
    """Takes new files in, then replays the policies over the last windows.

    The naive rule is always among them, since the others are compared with it.
    """
    require_landing(home)
    policies: dict[str, Policy] = {"naive": load_policy("naive")}
    for name in names:
        policies[name] = NpqPolicy(home) if name == "npq" else load_policy(name)
    decider = Decider(home, "retail")
    as_of = decider.latest()
    decider.runner.run("transform").raise_for_failure()
    inputs = read_inputs(home, as_of)
    stock = pl.read_parquet(home.mart("retail", "stock_position"))

    def start(day: date) -> tuple[np.ndarray, None]:
        counted = stock.filter(pl.col("counted_on") == day)
        joined = inputs.items.select(PAIR).join(counted, on=PAIR, how="left", maintain_order="left")
        return joined["on_hand"].cast(pl.Float64).fill_null(float("nan")).to_numpy(), None

    return replay(
        inputs, policies, windows=windows, periods=periods or DEFAULT_PERIODS[inputs.period], start=start, say=say
    )
