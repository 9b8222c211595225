"""A plan that breaks a rule is caught, by name."""

from dataclasses import dataclass
from datetime import date

import polars as pl
import pytest

from npq_assets.retail.checks import judge_plan

DAY = date(2024, 4, 15)


@dataclass
class Inputs:
    """As much of the inputs as the checks look at."""

    items: pl.DataFrame
    limits: pl.DataFrame


INPUTS = Inputs(
    pl.DataFrame(
        {"site_id": ["s", "t"], "product_id": ["p", "p"], "pack_size": [6.0, 1.0], "min_order": [0.0, 5.0],
         "supplier_id": ["v", "v"], "unit_cost": [2.0, 2.0]}
    ),
    pl.DataFrame({"supplier_id": ["v"], "arrives_on": [DAY], "max_quantity": [20.0], "max_spend": [None]},
                 schema_overrides={"max_spend": pl.Float64}),
)  # fmt: skip


def plan(**changes: list[object]) -> pl.DataFrame:
    rows = {
        "site_id": ["s", "t"], "product_id": ["p", "p"], "quantity": [12.0, 8.0], "arrives_on": [DAY, DAY],
        "expected_cost": [2.0, 3.0], "lower_bound": [2.0, 2.5], "naive_expected_cost": [4.0, 3.0],
    }  # fmt: skip
    return pl.DataFrame({**rows, **changes})


def failed(orders: pl.DataFrame | None) -> set[str]:
    return {verdict.name for verdict in judge_plan(orders, INPUTS) if not verdict.passed}  # type: ignore[arg-type]


def test_a_sound_plan_passes() -> None:
    assert failed(plan()) == set()


@pytest.mark.parametrize(
    ("orders", "names"),
    [
        (plan(quantity=[13.0, 5.0]), {"packs"}),
        (plan(quantity=[12.0, 3.0]), {"packs"}),
        (plan(quantity=[18.0, 8.0]), {"limits"}),
        (plan(lower_bound=[2.1, 2.5]), {"bound"}),
        (plan(expected_cost=[9.0, 3.0]), {"beats_naive"}),
        (plan(quantity=[float("nan"), 8.0]).head(2), {"complete", "packs"}),
        (plan().head(1), {"complete"}),
        (None, {"complete", "packs", "bound", "limits", "beats_naive"}),
    ],
)
def test_a_broken_rule_is_named(orders: pl.DataFrame | None, names: set[str]) -> None:
    assert names <= failed(orders)
