"""What moved a forecast, in words that a planner uses, and in parts that add up to the forecast exactly.

The forecast is a product: usual demand x level x season x exp(trees). On the log scale it is a sum, and trees split their part
exactly by feature (TreeSHAP: Lundberg et al., From local explanations to global understanding with explainable AI for trees,
Nature Machine Intelligence 2, 2020). A part's percentage is exp(part) - 1; its units are the logarithmic mean of forecast and
usual demand times the part, which adds up without remainder and does not depend on any order (Ang, The LMDI approach to
decomposition analysis, Energy Policy 33, 2005). How forecasts are made does not belong here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.forecasting import baseline, features
from npq_assets.forecasting.model import FittedModel, _lightgbm
from npq_assets.forecasting.panel import Panel

Array = NDArray[np.float64]

USUAL = "usual demand"
LEVEL = "level and recent sales"
TREND = "trend"
SEASON = "season"
CALENDAR = "weekday and calendar"
EVENTS = "events"
PRICE = "price"
PROMOTION = "promotion"
ORDERS = "orders in hand"
PEERS = "similar products"
SITE = "same site"
ALL = "all products together"
STOCK = "stock-outs"
ITEM = "the product itself"
KNOWN = "other things known ahead"
OTHER = "other"
REST = "limits and blending"

_SUFFIXES = ("_change", "_ratio", "_next", "_before", "_lead", "_lag", "_level", "_relative")
_COVARIATES = (
    (ORDERS, ("order", "backlog", "booked")),
    (EVENTS, ("event", "holiday", "snap", "festival", "school")),
    (PROMOTION, ("promo", "discount", "offer", "campaign", "coupon", "feature")),
    (PRICE, ("price",)),
)
_SITE_WORDS = ("site", "store", "state", "region", "plant", "depot", "country", "city")
_FEATURES = (
    (STOCK, ("stock", "since_seen", "censor", "available", "in_stock")),
    (TREND, ("trend", "slope", "growth", "drift")),
    (SEASON, ("year_ago", "day_of_year", "log_season", "season", "fourier")),
    (CALENDAR, ("week_ago", "weekday", "day", "month", "quarter", "week")),
    (ITEM, ("static_", "age", "new")),
    (LEVEL, ("mean_", "log_level", "log_prior", "log_scatter", "zeros", "since_sale", "lag", "level", "horizon", "last",
             "std", "ewm", "median", "max_", "min_", "rate", "size", "gap", "form", "pred")),
)  # fmt: skip


def group_of(name: str, covariates: Iterable[str] = (), groups: Iterable[str] = ()) -> str:
    """The planner's word for a feature, by rule.

    Args:
        name: A feature's name.
        covariates: Known covariates; theirs are `<covariate>` and `<covariate>_change` and the like.
        groups: Static attributes; theirs begin with `<attribute>_` (or `all_`).
    """
    for covariate in sorted(covariates, key=len, reverse=True):
        if (
            name == covariate
            or name in {covariate + suffix for suffix in _SUFFIXES}
            or name.startswith(covariate + "_")
        ):
            low = covariate.lower()
            for group, words in _COVARIATES:
                if any(word in low for word in words):
                    return group
            return KNOWN
    for attribute in sorted(groups, key=len, reverse=True):
        if name.startswith(attribute + "_"):
            return SITE if any(word in attribute.lower() for word in _SITE_WORDS) else PEERS
    if name.startswith("all_"):
        return ALL
    for group, words in _FEATURES:
        if any(name.startswith(word) for word in words):
            return group
    low = name.lower()
    for group, words in _COVARIATES:
        if any(word in low for word in words):
            return group
    return OTHER


@dataclass(frozen=True)
class Parts:
    """A forecast on the log scale.

    Attributes:
        usual: Long-run demand per period, without season (r).
        forecast: What is explained (r, H).
        logs: Group -> effect on the log scale (r, H); exp of their sum times `usual` is the forecast.
        whole: Rows that have no such scale (new items, series of zeros): all of the forecast is one group (r).
    """

    usual: Array
    forecast: Array
    logs: dict[str, Array]
    whole: np.ndarray


def explain_panel(
    model: FittedModel, panel: Panel, horizon: int, rows: Sequence[int] | np.ndarray, threads: int | None = None
) -> pl.DataFrame:
    """What moved the forecast of some series; the panel is laid out as for `FittedModel.predict_panel`.

    Args:
        model: The model that made the forecast.
        panel: Fresh history with covariates ahead.
        horizon: Periods ahead.
        rows: Series numbers wanted.
        threads: Threads.

    Returns:
        unique_id, ds, group, log_effect, percent, units; groups by size. The first row of a
        series and day is `usual demand` (units alone); the units of all rows add up to the forecast's mean.
    """
    rows = np.asarray(rows, int)
    forecast = model.predict_panel(panel, horizon, threads=threads).mean[rows]
    parts = _parts(model, panel, horizon, rows, forecast, threads)
    return _table(panel, horizon, rows, parts)


def explain(
    model: FittedModel,
    history: pl.DataFrame,
    horizon: int,
    ids: Sequence[str],
    *,
    future: pl.DataFrame | None = None,
    static: pl.DataFrame | None = None,
    available: pl.DataFrame | None = None,
    threads: int | None = None,
) -> pl.DataFrame:
    """`explain_panel` from frames; series without history can be asked for too."""
    from npq_assets.forecasting.panel import build as build_panel

    panel = build_panel(
        history, model.freq, future=future, static=static, available=available, horizon=horizon, ids=list(ids)
    )
    place = {str(name): row for row, name in enumerate(panel.ids)}
    return explain_panel(model, panel, horizon, [place[name] for name in ids], threads)


def _parts(
    model: FittedModel, panel: Panel, horizon: int, rows: np.ndarray, forecast: Array, threads: int | None
) -> Parts:
    length = panel.shape[1]
    ahead = np.arange(1, horizon + 1)
    periods = panel.start + length - 1 + ahead
    base = baseline.fit(panel, model.seasons, model.settings.tuning)
    usual, level = base.prior[rows], base.level[rows]
    whole = (usual <= 0) | (level <= 0) | ~(forecast > 0).all(1)
    safe = np.where(whole, 1.0, usual)
    logs: dict[str, Array] = {}

    def add(group: str, values: Array) -> None:
        logs[group] = logs.get(group, np.zeros(forecast.shape)) + values

    add(LEVEL, np.broadcast_to(np.log(np.where(whole, 1.0, level) / safe)[:, None], forecast.shape))
    for (count, width), profile in zip(base.seasons, base.profiles, strict=True):
        index = profile[rows][:, (periods // width) % count]
        short = panel.calendar.week > 0 and count * width <= 31
        add(CALENDAR if short else SEASON, np.log(np.maximum(index, 1e-9)))
    if model.boosters and model.weight > 0 and not whole.all():
        keep = np.nonzero(~whole)[0]
        table, names = features.build(panel, base, ahead, rows[keep])
        where = {name: i for i, name in enumerate(names)}
        if "horizon" in where:
            table[:, where["horizon"]] = np.tile(np.minimum(ahead, model.horizon), len(keep))
        aligned = np.full((len(table), len(model.names)), np.nan, np.float32)
        for i, name in enumerate(model.names):
            if name in where:
                aligned[:, i] = table[:, where[name]]
        effects = contributions(model.boosters, aligned, threads)
        groups = [group_of(name, panel.known, panel.groups) for name in model.names] + [LEVEL]
        for group in dict.fromkeys(groups):
            columns = [i for i, g in enumerate(groups) if g == group]
            values = np.zeros(forecast.shape)
            values[keep] = model.weight * effects[:, columns].sum(1).reshape(len(keep), horizon)
            add(group, values)
    told = sum(logs.values(), np.zeros(forecast.shape))
    gap = np.log(np.where(whole[:, None], 1.0, forecast) / safe[:, None]) - told
    gap = np.where(whole[:, None], 0.0, gap)
    if np.abs(gap).max(initial=0.0) > 1e-9:
        add(REST, gap)
    return Parts(usual, forecast, logs, whole)


def contributions(boosters: Sequence[str], table: np.ndarray, threads: int | None = None) -> Array:
    """Exact tree contributions on the raw scale, averaged over boosters: (rows, features + 1), the last is the mean."""
    lgb = _lightgbm()
    total = np.zeros((len(table), table.shape[1] + 1))
    for text in boosters:
        booster = lgb.Booster(model_str=text)
        total += np.asarray(booster.predict(table, pred_contrib=True, num_threads=threads or 2))
    return total / max(1, len(boosters))


def _table(panel: Panel, horizon: int, rows: np.ndarray, parts: Parts) -> pl.DataFrame:
    length = panel.shape[1]
    dates = panel.dates(length - 1 + np.arange(1, horizon + 1)).to_list()
    names = list(parts.logs)
    stacked = np.stack([parts.logs[name] for name in names]) if names else np.zeros((0, *parts.forecast.shape))
    records: list[tuple[object, ...]] = []
    for i, row in enumerate(rows):
        unique_id = str(panel.ids[row])
        seen = bool(panel.observed[row].any())
        for h, day in enumerate(dates):
            mean = float(parts.forecast[i, h])
            if parts.whole[i]:
                usual = float(max(parts.usual[i], 0.0)) if seen else 0.0
                records.append((unique_id, day, USUAL, None, None, usual))
                records.append((unique_id, day, LEVEL if seen else PEERS, None, None, mean - usual))
                continue
            usual = float(parts.usual[i])
            effect = stacked[:, i, h]
            ratio = np.log(mean / usual)
            per_log = (mean - usual) / ratio if abs(ratio) > 1e-12 else usual
            units = per_log * effect
            if abs(ratio) <= 1e-12:
                units[np.argmax(np.abs(effect))] -= units.sum()
            records.append((unique_id, day, USUAL, None, None, usual))
            for k in np.lexsort((names, -np.abs(units))):
                if effect[k] != 0.0:
                    records.append(
                        (unique_id, day, names[k], float(effect[k]), float(100 * np.expm1(effect[k])), float(units[k]))
                    )
    return pl.DataFrame(
        records,
        schema={"unique_id": pl.String, "ds": pl.Date, "group": pl.String, "log_effect": pl.Float64,
                "percent": pl.Float64, "units": pl.Float64},
        orient="row",
    )  # fmt: skip


def sentences(explained: pl.DataFrame, most: int = 5) -> list[str]:
    """The explanation of one series and day in words and numbers.

    Args:
        explained: Rows of one unique_id and ds of `explain`.
        most: Effects named one by one; the others are summed.
    """
    rows = explained.to_dicts()
    if not rows:
        return []
    total = sum(row["units"] for row in rows)
    usual = sum(row["units"] for row in rows if row["group"] == USUAL)
    effects = sorted((row for row in rows if row["group"] != USUAL), key=lambda row: -abs(row["units"]))
    if effects and all(row["percent"] is None for row in effects):
        if usual > 0:
            return [f"{total:.1f} expected, {usual:.1f} of it usual demand"]
        if effects[0]["group"] == PEERS:
            return [f"{total:.1f} expected, as of {PEERS}: it never sold"]
        return [f"{total:.1f} expected, from {effects[0]['group']}"]
    lines = [f"{total:.1f} expected where {usual:.1f} a period are usual:"]
    for row in effects[:most]:
        lines.append(f"{row['group']} {_signed(row['units'])} ({row['percent']:+.0f} %)")
    rest = effects[most:]
    if rest:
        lines.append(f"all else {_signed(sum(row['units'] for row in rest))}")
    return lines


def _signed(units: float) -> str:
    return f"{units:+.1f}" if abs(units) >= 0.05 else "+0.0"
