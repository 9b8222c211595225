"""What must hold of a replenishment plan before anybody acts on it, as plain functions of frames."""

from __future__ import annotations

import polars as pl

from npq_assets.retail.inputs import PAIR, RetailInputs
from npq_assets.verdicts import Verdict

_TOLERANCE = 1e-6


_CHECKS = ("complete", "packs", "bound", "limits", "beats_naive")


def nothing_to_judge(reason: str) -> list[Verdict]:
    """The verdicts of a day for which nothing could be decided."""
    return [Verdict(name, True, name != "beats_naive", f"nothing was decided: {reason}") for name in _CHECKS]


def judge_plan(orders: pl.DataFrame | None, inputs: RetailInputs) -> list[Verdict]:
    """Judges the orders of a day against the inputs they were made from."""
    if orders is None:
        return [Verdict(name, False, name != "beats_naive", "there is no plan") for name in _CHECKS]
    return [_complete(orders, inputs), _packs(orders, inputs), _bound(orders), _limits(orders, inputs), _naive(orders)]


def _verdict(name: str, broken: pl.DataFrame, good: str, *, blocking: bool = True) -> Verdict:
    if broken.is_empty():
        return Verdict(name, True, blocking, good)
    first = ", ".join(f"{key}={value}" for key, value in broken.row(0, named=True).items())
    return Verdict(name, False, blocking, f"{broken.height} rows, the first: {first}")


def _complete(orders: pl.DataFrame, inputs: RetailInputs) -> Verdict:
    sound = orders.filter(pl.col("quantity").is_finite() & (pl.col("quantity") >= 0))
    return _verdict("complete", inputs.items.select(PAIR).join(sound, on=PAIR, how="anti"), "every pair has an order")


def _packs(orders: pl.DataFrame, inputs: RetailInputs) -> Verdict:
    rows = orders.select(*PAIR, "quantity").join(inputs.items.select(*PAIR, "pack_size", "min_order"), on=PAIR)
    packs = pl.col("quantity") / pl.col("pack_size")
    broken = rows.filter(
        ((packs - packs.round()).abs() > _TOLERANCE)
        | ((pl.col("quantity") > 0) & (pl.col("quantity") < pl.col("min_order") - _TOLERANCE))
    )
    return _verdict("packs", broken, "whole packs, none below its minimum")


def _bound(orders: pl.DataFrame) -> Verdict:
    slack = _TOLERANCE * (1 + pl.col("expected_cost").abs())
    broken = orders.filter(pl.col("expected_cost") < pl.col("lower_bound") - slack)
    return _verdict("bound", broken.select(*PAIR, "expected_cost", "lower_bound"), "no row below its bound")


def _limits(orders: pl.DataFrame, inputs: RetailInputs) -> Verdict:
    items = inputs.items.select(*PAIR, "supplier_id", "unit_cost")
    used = (
        orders.select(*PAIR, "arrives_on", "quantity")
        .join(items, on=PAIR)
        .group_by("supplier_id", "arrives_on")
        .agg(pl.col("quantity").sum(), (pl.col("quantity") * pl.col("unit_cost")).sum().alias("spend"))
        .join(inputs.limits, on=["supplier_id", "arrives_on"])
    )
    over = (pl.col("quantity") > pl.col("max_quantity") + _TOLERANCE) | (
        pl.col("spend") > pl.col("max_spend") * (1 + _TOLERANCE) + _TOLERANCE
    )
    return _verdict("limits", used.filter(over), f"{used.height} limits concern these orders, all kept")


def _naive(orders: pl.DataFrame) -> Verdict:
    ours, naive = float(orders["expected_cost"].sum()), float(orders["naive_expected_cost"].sum())
    detail = f"expected {ours:,.2f}, naive {naive:,.2f}"
    return Verdict("beats_naive", ours <= naive * (1 + _TOLERANCE), False, detail)
