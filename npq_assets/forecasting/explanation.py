"""What moved a forecast, in words that a planner uses, and in parts that add up to the forecast exactly.

A boosted forecast is a product: usual demand x level x season x exp(trees). On the log scale it is a sum, and trees split their
part exactly by feature (TreeSHAP: Lundberg et al., From local explanations to global understanding with explainable AI for
trees, Nature Machine Intelligence 2, 2020). A part's units are the logarithmic mean of forecast and usual demand times the
part, which adds up without remainder and does not depend on any order (Ang, The LMDI approach to decomposition analysis, Energy
Policy 33, 2005). An ensemble is a weighted sum: so are its parts. How forecasts are made does not belong here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.boosting import lightgbm
from npq_assets.forecasting import baseline, features
from npq_assets.forecasting.censoring import raised
from npq_assets.forecasting.forms import segment_of
from npq_assets.forecasting.model import FittedModel, kinds, recent
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
_COVARIATES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (ORDERS, ("order", "backlog", "booked")),
    (EVENTS, ("event", "holiday", "snap", "festival", "school")),
    (PROMOTION, ("promo", "discount", "offer", "campaign", "coupon", "feature")),
    (PRICE, ("price",)),
)
_SITE_WORDS = ("site", "store", "state", "region", "plant", "depot", "country", "city")
_FEATURES: tuple[tuple[str, tuple[str, ...]], ...] = (
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
        if name.endswith(f"_{covariate}_effect"):
            return EVENTS  # what a word that names a date did to demand before
        if name.endswith(f"_{covariate}_usual"):
            return group_of(covariate, [covariate])
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
    for group, starts in _FEATURES:
        if name.startswith(starts):
            return group
    low = name.lower()
    for group, words in _COVARIATES:
        if any(word in low for word in words):
            return group
    return OTHER


@dataclass(frozen=True)
class Member:
    """One of the methods whose weighted sum is the forecast.

    Attributes:
        weight: Its share (r, H); shares add up to 1.
        value: What it expects (r, H).
        logs: Group -> effect on the log scale (r, H); exp of their sum times usual demand is `value`. Empty for a method that
            is no product.
        group: To which the whole of such a method's difference from usual demand belongs.
    """

    weight: Array
    value: Array
    logs: dict[str, Array]
    group: str = LEVEL


@dataclass(frozen=True)
class Parts:
    """A forecast in parts.

    Attributes:
        usual: Long-run demand per period, without season (r).
        forecast: What is explained (r, H).
        units: Group -> units (r, H); their sum and `usual` are the forecast.
        whole: Rows without a usual demand to compare with (new items, series of zeros): all of the forecast is one group (r).
    """

    usual: Array
    forecast: Array
    units: dict[str, Array]
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
    found = model.predict_panel(panel, horizon, threads=threads)
    parts = _parts(model, panel, horizon, rows, found.expected()[rows], threads)
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
        history,
        model.freq,
        future=future,
        static=static,
        available=available,
        horizon=horizon,
        ids=list(ids),
        words=model.words,
    )
    place = {str(name): row for row, name in enumerate(panel.ids)}
    return explain_panel(model, panel, horizon, [place[name] for name in ids], threads)


def _parts(
    model: FittedModel, panel: Panel, horizon: int, rows: np.ndarray, forecast: Array, threads: int | None
) -> Parts:
    past = raised(recent(panel))
    ahead = np.arange(1, horizon + 1)
    base = baseline.fit(past, model.seasons, model.settings.tuning)
    usual = base.prior[rows]
    whole = (usual <= 0) | (base.level[rows] <= 0) | ~(forecast > 0).all(1)
    units: dict[str, Array] = {}

    def add(group: str, values: Array) -> None:
        units[group] = units.get(group, np.zeros(forecast.shape)) + values

    keep = np.nonzero(~whole)[0]
    told = np.zeros(forecast.shape)
    if len(keep):
        start = np.broadcast_to(usual[keep][:, None], (len(keep), horizon))
        for member in members(model, past, base, ahead, rows[keep], threads):
            moved = member.weight * (member.value - start)
            told[keep] += moved
            if not member.logs or not (member.value > 0).all():
                add(member.group, _spread(moved, keep, forecast.shape))
                continue
            per_log = member.weight * logarithmic_mean(member.value, start)
            left = moved.copy()
            for group, effect in member.logs.items():
                part = per_log * effect
                left -= part
                add(group, _spread(part, keep, forecast.shape))
            if np.abs(left).max() > 1e-9 * np.abs(member.value).max():  # limits on what trees may say
                add(REST, _spread(left, keep, forecast.shape))
        gap = np.zeros(forecast.shape)
        gap[keep] = forecast[keep] - start - told[keep]
        if np.abs(gap).max() > 1e-9 * np.abs(forecast).max():
            add(REST, gap)
    return Parts(usual, forecast, units, whole)


def _spread(values: Array, keep: np.ndarray, shape: tuple[int, ...]) -> Array:
    out = np.zeros(shape)
    out[keep] = values
    return out


def logarithmic_mean(a: Array, b: Array) -> Array:
    """(a - b) / ln(a / b), a where they are equal; both above 0."""
    log = np.log(a / b)
    equal = np.abs(log) < 1e-9
    return np.where(equal, a, (a - b) / np.where(equal, 1.0, log))


def members(
    model: FittedModel,
    panel: Panel,
    base: baseline.Baseline,
    ahead: np.ndarray,
    rows: np.ndarray,
    threads: int | None = None,
) -> list[Member]:
    """The methods that make the forecast of `rows`, each as a product where it is one."""
    length, shape = panel.shape[1], (len(rows), len(ahead))
    periods = panel.start + length - 1 + ahead
    level = np.broadcast_to(np.log(base.level[rows] / base.prior[rows])[:, None], shape)
    season: dict[str, Array] = {}
    for (count, width), profile in zip(base.seasons, base.profiles, strict=True):
        short = panel.calendar.week > 0 and count * width <= 31
        group = CALENDAR if short else SEASON
        index = np.log(np.maximum(profile[rows][:, (periods // width) % count], 1e-9))
        season[group] = season.get(group, np.zeros(shape)) + index
    simple = {LEVEL: level, **season}
    mean = base.mean(periods)[rows]
    scatter, counts = base.scatter[rows][:, None], kinds(panel)[0][rows][:, None]
    place = segment_of(mean, scatter, counts)
    table = model.table(features.prepare(panel, base, ahead), rows) if model.boosters else np.zeros((0, 0))
    found = []
    for form, value in model._members(panel, base, ahead, rows, threads).items():
        weight = model.weights[place, model.forms.index(form)]
        text = model.boosters.get(form)
        if text is not None:
            told = _grouped(model, panel, contributions(text, table, threads), shape)
            found.append(Member(weight, value, _together({LEVEL: level} if form == "level" else simple, told)))
        elif form == "seasonal_mean":
            found.append(Member(weight, value, simple))
        else:
            found.append(Member(weight, value, {}, SEASON if form == "seasonal_naive" else LEVEL))
    return found


def _together(*many: dict[str, Array]) -> dict[str, Array]:
    out: dict[str, Array] = {}
    for logs in many:
        for group, effect in logs.items():
            out[group] = out[group] + effect if group in out else effect
    return out


def _grouped(model: FittedModel, panel: Panel, effects: Array, shape: tuple[int, int]) -> dict[str, Array]:
    """Effects by feature (R, F + 1) as effects by group; the trees' average correction counts as level."""
    groups = [group_of(name, panel.known, panel.groups) for name in model.names] + [LEVEL]
    return {
        group: effects[:, [i for i, g in enumerate(groups) if g == group]].sum(1).reshape(shape)
        for group in dict.fromkeys(groups)
    }


def contributions(text: str, table: np.ndarray, threads: int | None = None) -> Array:
    """Exact contributions of a booster's features on the raw scale: (rows, features + 1), the last is the mean."""
    booster = lightgbm().Booster(model_str=text)
    return np.asarray(booster.predict(table, pred_contrib=True, num_threads=threads or 2), float)


def _table(panel: Panel, horizon: int, rows: np.ndarray, parts: Parts) -> pl.DataFrame:
    dates = panel.dates(panel.shape[1] - 1 + np.arange(1, horizon + 1)).to_list()
    names = list(parts.units)
    stacked = np.stack([parts.units[name] for name in names]) if names else np.zeros((0, *parts.forecast.shape))
    records: list[tuple[object, ...]] = []
    for i, row in enumerate(rows):
        unique_id = str(panel.ids[row])
        seen = bool(panel.observed[row].any())
        for h, day in enumerate(dates):
            mean = float(parts.forecast[i, h])
            usual = float(max(parts.usual[i], 0.0)) if seen else 0.0
            records.append((unique_id, day, USUAL, None, None, usual))
            if parts.whole[i]:
                records.append((unique_id, day, LEVEL if seen else PEERS, None, None, mean - usual))
                continue
            units = stacked[:, i, h]
            effect = units / logarithmic_mean(np.array(mean), np.array(usual))
            for k in np.lexsort((np.array(names), -np.abs(units))):
                if units[k] != 0.0:
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
