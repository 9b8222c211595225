"""Forecasts at every level of a hierarchy that add up, in means and in every scenario; upper levels help the lower ones.

Aggregates (a state, a department in a state, the whole) are series of their own to the engine. Their forecasts are news
about the sums of the bottom forecasts, and a Bayesian update carries that news down. How a single series is forecast does not
belong here.

Method: bottom forecasts b with error covariance W and aggregate forecasts a with error variances A meet in

    b' = b + W S' (S W S' + A)^-1 (a - S b),    all levels = S b',

the closed form of minimum-trace reconciliation written as an update of the bottom (Wickramasuriya, Athanasopoulos & Hyndman,
Optimal forecast reconciliation..., JASA 114, 2019; Hollyman, Petropoulos & Tipping, Understanding forecast reconciliation,
EJOR 294, 2021). Future noise is in both forecasts' errors alike and cancels in a - S b, so W and A hold what is left: with
e = truth - S b, f = truth - a and d = a - S b, Var(e) - Var(f) = W - A and Var(d) = W + A, level by level, on held-out
periods. W is a diagonal and a factor a level (series of a group are misjudged together), fitted to these variances; A is a
diagonal and one factor, since one model makes all direct forecasts and its levels do not err independently. How far errors are
shared and how much of the update is applied is chosen by held-out error over all levels; none of it, if it does not help.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import optimize, sparse

from npq_assets.errors import NpqError
from npq_assets.forecasting import baseline
from npq_assets.forecasting.censoring import raised
from npq_assets.forecasting.distribution import QUANTILES, ForecastDistribution, check_quantiles, quantile_columns
from npq_assets.forecasting.model import Settings, kinds, train_panel
from npq_assets.forecasting.panel import Frame, Panel, as_polars
from npq_assets.forecasting.panel import build as build_panel

Array = NDArray[np.float64]
BOTTOM = "series"
TOTAL = "total"
_ORIGINS = 5
_FEW = 3.0  # held-out forecasts that the prior (bottom-up and direct equally good) is worth


@dataclass(frozen=True)
class Hierarchy:
    """Who adds up to what.

    Attributes:
        ids: Bottom series, sorted (n).
        levels: Names of the aggregate levels, in the order given.
        names: Name of each aggregate (m).
        level: Level number of each aggregate (m).
        sums: 1 where a bottom series belongs to an aggregate (m, n), sparse.
        attributes: Static attributes of the aggregates: unique_id (level and name), level and the attributes of its level.
    """

    ids: np.ndarray
    levels: tuple[str, ...]
    names: np.ndarray
    level: np.ndarray
    sums: sparse.csr_matrix
    attributes: pl.DataFrame

    @property
    def keys(self) -> list[str]:
        """Unique name of each aggregate: its level and its name."""
        return [f"{self.levels[k]}:{name}" for k, name in zip(self.level, self.names, strict=True)]

    def of_level(self, level: int) -> sparse.csr_matrix:
        """Rows of `sums` of one level."""
        return self.sums[np.nonzero(self.level == level)[0]]


def structure(ids: Sequence[str] | np.ndarray, static: Frame | None, levels: Sequence[Sequence[str]]) -> Hierarchy:
    """The hierarchy that attributes make of series.

    Args:
        ids: Bottom series.
        static: unique_id and attributes; may be None if every level is the empty list (all series together).
        levels: Lists of attributes; series with equal values add up. The empty list is the whole.

    Raises:
        NpqError: An attribute is missing, a level is named twice, or there is no level.
    """
    order = np.sort(np.array(list(ids), dtype=object).astype(str))
    if not levels:
        raise NpqError("levels: none given; name lists of static attributes, [] for the whole")
    named = [tuple(level) for level in levels]
    if len({frozenset(level) for level in named}) < len(named):
        raise NpqError(f"levels: {[list(level) for level in named]} names a level twice; name each once")
    table = pl.DataFrame({"unique_id": order.astype(object)}, schema={"unique_id": pl.String})
    wanted = list(dict.fromkeys(name for level in named for name in level))
    if wanted:
        given = as_polars(static, "static") if static is not None else pl.DataFrame({"unique_id": []})
        for name in wanted:
            if name not in given.columns or name == "unique_id":
                raise NpqError(f"levels: static has no attribute {name!r}; it has {', '.join(given.columns[:8])}")
        given = given.select(
            pl.col("unique_id").cast(pl.String), *[pl.col(name).cast(pl.String).fill_null("") for name in wanted]
        ).unique("unique_id", keep="first", maintain_order=True)
        table = table.join(given, on="unique_id", how="left", maintain_order="left").with_columns(
            pl.col(wanted).fill_null("")
        )
    blocks, names, numbers, attributes = [], [], [], []
    for k, level in enumerate(named):
        joined = pl.concat_str([pl.col(name) for name in level], separator="|") if level else pl.lit(TOTAL)
        values = table.with_columns(joined.alias("_name"))["_name"].to_list()
        labels, code = np.unique(np.array(values, dtype=object).astype(str), return_inverse=True)
        blocks.append(
            sparse.csr_matrix((np.ones(len(order)), (code, np.arange(len(order)))), (len(labels), len(order)))
        )
        names += labels.tolist()
        numbers += [k] * len(labels)
        first = np.array([int(np.argmax(code == c)) for c in range(len(labels))])
        for row, label in zip(first, labels, strict=True):
            known = {name: (table[name][int(row)] if name in level else None) for name in wanted}
            attributes.append({"unique_id": f"{_level_name(level)}:{label}", "level": _level_name(level), **known})
    schema = {"unique_id": pl.String, "level": pl.String, **dict.fromkeys(wanted, pl.String)}
    return Hierarchy(
        order,
        tuple(_level_name(level) for level in named),
        np.array(names, dtype=object),
        np.array(numbers),
        sparse.vstack(blocks).tocsr(),
        pl.DataFrame(attributes, schema=schema),
    )


def _level_name(level: Sequence[str]) -> str:
    return "+".join(level) if level else TOTAL


@dataclass(frozen=True)
class Errors:
    """What held-out periods say about both kinds of forecast, as shares of the aggregate's mean.

    Attributes:
        own: Weight of the bottom series' own variance in W.
        shared: Per level, relative variance that the series of a group are misjudged by together (L).
        direct: Per level, relative variance of the direct forecasts (L).
        spread: Per level, factor on the spread of aggregated scenarios (L).
        common: Share of the direct forecasts' variance that all of them have in common.
        step: Share of the update that is applied; 0 keeps the sums of the bottom forecasts.
        evidence: Held-out measures behind them, by level.
    """

    own: float
    shared: Array
    direct: Array
    spread: Array
    common: float = 0.5
    step: float = 1.0
    evidence: dict[str, Any] = field(default_factory=dict)


def update(
    hierarchy: Hierarchy,
    bottom: Array,
    direct: Array,
    variance: Array,
    errors: Errors,
    signed: np.ndarray | None = None,
) -> Array:
    """The bottom forecasts after the news of the direct aggregate forecasts; see the module for the equation.

    Args:
        hierarchy: Who adds up to what.
        bottom: Means (n, H).
        direct: Means of the aggregates (m, H).
        variance: Variance of bottom demand (n, H).
        errors: Of both kinds of forecast.
        signed: Series that may be negative (n); the others stay at 0 or above, and 0 stays 0.

    Returns:
        Means (n, H); every level is `hierarchy.sums @ means`.
    """
    from scipy import linalg

    s = hierarchy.sums
    out = np.array(bottom, float)
    for h in range(bottom.shape[1] if errors.step > 0 else 0):
        b, size = out[:, h].copy(), np.abs(out[:, h])
        # W = diag(own) + sum over levels k of shared_k F_k F_k', F_k the sizes of the series by group: W S' is never formed,
        # which would be dense where a level is the whole.
        own = errors.own * variance[:, h]
        middle = (s @ sparse.diags(own) @ s.T).toarray()
        factors = []
        for k, share in enumerate(errors.shared):
            if share > 0:
                factor = hierarchy.of_level(k) @ sparse.diags(np.sqrt(share) * size)
                seen = (factor @ s.T).tocsr()
                middle += (seen.T @ seen).toarray()
                factors.append((factor, seen))
        total = np.abs(s @ size)
        noise = errors.direct[hierarchy.level] * np.maximum(total, 1e-12) ** 2
        noise = np.maximum(noise, 1e-12 * max(1.0, float(noise.max())))
        inner = middle + np.diag((1 - errors.common) * noise)
        inner += errors.common * np.sqrt(np.outer(noise, noise))
        news = direct[:, h] - s @ b
        try:
            weight = linalg.solve(inner, news, assume_a="pos")
        except linalg.LinAlgError:  # levels that repeat one another leave no inverse: least squares says the same
            weight = np.linalg.lstsq(inner, news, rcond=None)[0]
        change = own * (s.T @ weight)
        for factor, seen in factors:
            change += factor.T @ (seen @ weight)
        out[:, h] = b + errors.step * np.asarray(change).reshape(-1)
    floor = np.zeros(len(out), bool) if signed is None else np.asarray(signed)
    return np.where(floor[:, None], out, np.where(bottom > 0, np.maximum(out, 0.0), np.maximum(bottom, 0.0)))


@dataclass(frozen=True)
class HierarchicalForecast:
    """A forecast of every series and aggregate that adds up.

    Attributes:
        hierarchy: Who adds up to what.
        bottom: The engine's own distribution of the bottom series.
        mean: Bottom means after the update (n, H).
        direct: Direct means of the aggregates (m, H), for comparison.
        errors: The held-out evidence.
        signed: Series that may be negative (n).
    """

    hierarchy: Hierarchy
    bottom: ForecastDistribution
    mean: Array
    direct: Array
    errors: Errors
    signed: np.ndarray

    def paths(self, n_samples: int, seed: int = 0) -> Array:
        """Scenarios of the bottom series (n, n_samples, H); aggregates are their sums, scenario by scenario."""
        raw = self._moved(self.bottom.paths(n_samples, seed))
        return respread(self.hierarchy, raw, self.errors.spread, additive=bool(self.signed.any()))

    def aggregated(self, values: Array) -> Array:
        """Sums (m, ...) of bottom values (n, ...)."""
        flat = np.asarray(values, float).reshape(len(values), -1)
        return np.asarray(self.hierarchy.sums @ flat).reshape(-1, *np.shape(values)[1:])

    def frame(self, quantiles: Sequence[float] = QUANTILES, n_samples: int = 200, seed: int = 0) -> pl.DataFrame:
        """level, unique_id, ds, cutoff, method, mean, q…: aggregates in the order of the levels, then the series.

        Quantiles of aggregates come from the scenarios, those of the series from their own distribution.
        """
        levels = check_quantiles(quantiles)
        horizon = self.mean.shape[1]
        upper = np.quantile(self.aggregated(self.paths(n_samples, seed)), levels, axis=1).transpose(1, 0, 2)
        lower = self._moved(self.bottom.limits(levels))
        ids = np.concatenate([self.hierarchy.names, self.bottom.ids]).astype(str)
        level = [self.hierarchy.levels[k] for k in self.hierarchy.level] + [BOTTOM] * len(self.bottom.ids)
        method = ["reconciled"] * len(self.hierarchy.names) + [str(m) for m in self.bottom.method]
        dates = np.tile(self.bottom.dates.to_numpy(), len(ids))
        return pl.DataFrame(
            {
                "level": np.repeat(np.array(level), horizon),
                "unique_id": np.repeat(ids, horizon),
                "ds": pl.Series(dates).cast(pl.Date),
                "cutoff": pl.Series([self.bottom.cutoff], dtype=pl.Date).new_from_index(0, len(dates)),
                "method": np.repeat(np.array(method), horizon),
                "mean": np.concatenate([self.aggregated(self.mean), self.mean]).reshape(-1),
            }
        ).with_columns(quantile_columns(np.concatenate([upper, lower]), quantiles))

    def _moved(self, values: Array) -> Array:
        """Values (n, K, H) of the bottom distribution moved to the updated means: scaled, or shifted where signed."""
        before, after = self.bottom.expected(), self.mean
        ratio = np.divide(after, before, out=np.ones_like(before), where=before > 1e-12)
        moved = values * ratio[:, None, :]
        if self.signed.any():
            moved[self.signed] = values[self.signed] + (after - before)[self.signed][:, None, :]
        return moved


def respread(hierarchy: Hierarchy, paths: Array, spread: Array, *, additive: bool = False) -> Array:
    """Scenarios whose sums have `spread` times the spread they had, level by level; they stay sums of the bottom.

    Every member of a group moves by the same factor in a scenario (or, `additive`, by its share of the group's size), from the
    finest level to the coarsest, so that the coarsest is met exactly.
    """
    n, samples, horizon = paths.shape
    flat = np.array(paths, float).reshape(n, samples * horizon)
    order = sorted(range(len(hierarchy.levels)), key=lambda k: -int((hierarchy.level == k).sum()))
    wanted = {}
    for k in order:
        sums = np.asarray(hierarchy.of_level(k) @ flat).reshape(-1, samples, horizon)
        wanted[k] = spread[k] * sums.std(1, keepdims=True)
    for k in order:
        group = hierarchy.of_level(k)
        now = np.asarray(group @ flat).reshape(-1, samples, horizon)
        middle, width = now.mean(1, keepdims=True), now.std(1, keepdims=True)
        factor = np.divide(wanted[k], width, out=np.ones_like(width), where=width > 1e-12)
        target = middle + factor * (now - middle)
        if additive:
            size = np.abs(flat).mean(1)
            share = size / np.maximum(np.asarray(group.T @ (group @ size)).reshape(-1), 1e-12)
            flat += share[:, None] * np.asarray(group.T @ (target - now).reshape(len(now), -1))
        else:
            ratio = np.divide(np.maximum(target, 0.0), now, out=np.ones_like(now), where=now > 1e-12)
            flat *= np.asarray(group.T @ ratio.reshape(len(now), -1))
    return flat.reshape(n, samples, horizon)


def forecast_hierarchy(
    history: Frame,
    horizon: int,
    freq: str,
    levels: Sequence[Sequence[str]],
    *,
    static: Frame | None = None,
    season_length: int | None = None,
    quantiles: Sequence[float] = QUANTILES,
    future: Frame | None = None,
    available: Frame | None = None,
    threads: int | None = None,
    seed: int = 0,
    n_samples: int = 200,
    settings: Settings | None = None,
) -> Frame:
    """Forecasts at every level that add up.

    Args:
        history: unique_id, ds, y (+ known covariates) of the bottom series.
        horizon: Periods ahead.
        freq: See `forecasting.forecast`.
        levels: Lists of static attributes, e.g. [["state"], ["state", "industry"], []]; [] is the whole.
        static: unique_id and attributes.
        season_length: Periods of the season; default: the natural ones.
        quantiles: Levels in (0, 1).
        future: Covariates ahead.
        available: unique_id, ds, in_stock; demand out of stock is imputed in the sums.
        threads: Threads.
        seed: Seed; the same inputs and seed give the same bytes.
        n_samples: Scenarios behind the aggregates' quantiles.
        settings: How models are trained.

    Returns:
        level, unique_id, ds, cutoff, method, mean, q…; `level` is `series` for the bottom. Means of a level are sums of
        the bottom's; pandas for pandas, polars for polars.

    Raises:
        NpqError: Unusable input, or a level that static does not know.
    """
    from npq_assets.forecasting.api import _as_given

    check_quantiles(quantiles)
    found = hierarchical(
        history, horizon, freq, levels, static=static, season_length=season_length, future=future, available=available,
        threads=threads, seed=seed, settings=settings,
    )  # fmt: skip
    return _as_given(found.frame(quantiles, n_samples, seed), history)


def hierarchical(
    history: Frame,
    horizon: int,
    freq: str,
    levels: Sequence[Sequence[str]],
    *,
    static: Frame | None = None,
    season_length: int | None = None,
    future: Frame | None = None,
    available: Frame | None = None,
    threads: int | None = None,
    seed: int = 0,
    settings: Settings | None = None,
) -> HierarchicalForecast:
    """`forecast_hierarchy` as an object that also gives scenarios; arguments and errors as there."""
    panel = raised(build_panel(history, freq, future=future, static=static, available=available, horizon=horizon))
    tree = structure(panel.ids, static, levels)
    settings = settings or Settings()
    upper, order = _aggregates(panel, tree, horizon, freq, baseline.seasons_of(panel, season_length), settings)

    def train(of: Panel) -> Any:
        return train_panel(
            of, horizon, freq, season_length=season_length, threads=threads, seed=seed, settings=settings
        )

    bottom = train(panel).predict_panel(panel, horizon, threads=threads)
    plain = bottom.expected()
    direct = train(upper).predict_panel(upper, horizon, threads=threads).expected()[order]
    signed = kinds(panel)[1]
    length = panel.shape[1]
    held = min(max(4 * horizon, panel.calendar.year), length // 4)
    origins = np.unique(np.linspace(length - held, length - horizon, _ORIGINS).astype(int))
    if held < horizon or length - held < 12:
        evidence = {"reason": f"{length} periods are too few to hold any out; sums of the series are kept"}
        ones = np.ones(len(tree.levels))
        nothing = Errors(0.0, np.zeros(len(tree.levels)), ones, ones, step=0.0, evidence=evidence)
        return HierarchicalForecast(tree, bottom, plain, direct, nothing, signed)
    split = int(origins[0])
    below, above = train(panel.until(split)), train(upper.until(split))
    judged = []
    for origin in origins:
        base = below.predict_panel(panel.until(int(origin)), horizon, threads=threads)
        sums = above.predict_panel(upper.until(int(origin)), horizon, threads=threads).expected()[order]
        paths = base.paths(_SCENARIOS, seed)
        later = slice(int(origin), int(origin) + horizon)
        judged.append(
            _HeldOut(
                upper.y[order][:, later],
                base.expected(),
                sums,
                paths.var(1),
                np.asarray(tree.sums @ paths.reshape(len(paths), -1)).reshape(-1, *paths.shape[1:]).std(1),
            )
        )
    errors = estimate(tree, judged, signed)
    variance = bottom.paths(_SCENARIOS, seed).var(1)
    mean = update(tree, plain, direct, variance, errors, signed)
    return HierarchicalForecast(tree, bottom, mean, direct, errors, signed)


_SCENARIOS = 100


@dataclass(frozen=True)
class _HeldOut:
    """One held-out forecast: truth, bottom, direct means; variance of the bottom (n, H); sd of summed scenarios (m, H)."""

    truth: Array
    bottom: Array
    direct: Array
    variance: Array
    sd: Array


def estimate(hierarchy: Hierarchy, judged: Sequence[_HeldOut], signed: np.ndarray | None = None) -> Errors:
    """The error model from held-out forecasts; see the module for the equations."""
    count = len(hierarchy.levels)
    s = hierarchy.sums
    own_design, shared_design = np.zeros(count), np.zeros((count, count))
    gap, share, evidence = np.zeros(count), np.zeros(count), {}
    for k, name in enumerate(hierarchy.levels):
        rows = np.nonzero(hierarchy.level == k)[0]
        size = apart = low = high = 0.0
        for one in judged:
            up = np.asarray(s @ one.bottom)[rows]
            size += float((up**2).sum())
            low += float(((one.truth[rows] - up) ** 2).sum())
            high += float(((one.truth[rows] - one.direct[rows]) ** 2).sum())
            apart += float(((one.direct[rows] - up) ** 2).sum())
            own_design[k] += float(np.asarray(s[rows] @ one.variance).sum())
            for h in range(one.bottom.shape[1]):
                scaled = sparse.diags(np.abs(one.bottom[:, h]))
                for j in range(count):
                    both = s[rows] @ scaled @ hierarchy.of_level(j).T
                    shared_design[k, j] += float(both.multiply(both).sum())
        size = max(size, 1e-12)
        low, high, apart = low / size, high / size, apart / size
        own_design[k] /= size
        shared_design[k] /= size
        raw = float(np.clip(0.5 + (low - high) / (2 * max(apart, 1e-12)), 0.0, 1.0))
        weight = len(judged) * len(rows) ** 0.5
        share[k] = (weight * raw + _FEW * 0.5) / (weight + _FEW)
        gap[k] = apart
        evidence[name] = {
            "bottom_up_rmse": round(low**0.5, 6),
            "direct_rmse": round(high**0.5, 6),
            "apart_rmse": round(apart**0.5, 6),
            "trust_in_direct": round(float(share[k]), 4),
        }
    # Relative variances of the sums of the bottom, level by level, as own and shared parts; a light pull to none.
    target = np.maximum(share * gap, 1e-12)
    design = np.column_stack([own_design, shared_design]) / target[:, None]
    lean = 0.05 * np.diag(np.linalg.norm(design, axis=0))
    found, _ = optimize.nnls(np.vstack([design, lean]), np.concatenate([np.ones(count), np.zeros(count + 1)]))
    direct = np.maximum((1 - share) * gap, 1e-8)
    errors = Errors(float(found[0]), found[1:], direct, np.ones(count))
    errors = _chosen(hierarchy, judged, errors, signed, evidence)
    return replace(errors, spread=_spread(hierarchy, judged, errors, signed), evidence=evidence)


def _chosen(
    hierarchy: Hierarchy,
    judged: Sequence[_HeldOut],
    errors: Errors,
    signed: np.ndarray | None,
    evidence: dict[str, Any],
) -> Errors:
    """How far direct errors are shared, and how much of the update pays, by held-out squared error relative to bottom-up.

    An update is believed if it saves more than two standard errors of what it saves from one held-out origin to the next: few
    origins say little, and sums of good bottom forecasts are hard to beat.
    """
    none = _losses(hierarchy, judged, replace(errors, step=0.0), signed)
    whole = np.maximum(none.mean(0), 1e-12)
    best, least = replace(errors, step=0.0), 1.0
    tried = {}
    for common in (0.3, 0.9):
        for step in (0.25, 0.5, 1.0):
            option = replace(errors, common=common, step=step)
            by_origin = 1 + ((_losses(hierarchy, judged, option, signed) - none) / whole).mean(1)
            loss = float(by_origin.mean())
            doubt = float(by_origin.std(ddof=1)) / len(by_origin) ** 0.5 if len(by_origin) > 1 else 1.0
            tried[f"common {common:g}, step {step:g}"] = [round(loss, 4), round(doubt, 4)]
            if loss + 2 * doubt < 1.0 and loss < least:
                best, least = option, loss
    evidence["held_out_squared_error_over_bottom_up"] = tried
    return best


def _losses(hierarchy: Hierarchy, judged: Sequence[_HeldOut], errors: Errors, signed: np.ndarray | None) -> Array:
    """Squared error of the sums by held-out origin and level (K, L)."""
    out = np.zeros((len(judged), len(hierarchy.levels)))
    for k, one in enumerate(judged):
        wrong = one.truth - np.asarray(
            hierarchy.sums @ update(hierarchy, one.bottom, one.direct, one.variance, errors, signed)
        )
        out[k] = np.bincount(hierarchy.level, (wrong**2).sum(1), len(hierarchy.levels))
    return out


def _spread(hierarchy: Hierarchy, judged: Sequence[_HeldOut], errors: Errors, signed: np.ndarray | None) -> Array:
    """Per level, how much wider (or narrower) than the summed scenarios held-out errors of the updated means are."""
    scores: list[list[Array]] = [[] for _ in hierarchy.levels]
    for one in judged:
        mean = np.asarray(hierarchy.sums @ update(hierarchy, one.bottom, one.direct, one.variance, errors, signed))
        for k in range(len(hierarchy.levels)):
            rows = hierarchy.level == k
            wide = one.sd[rows] > 1e-12
            scores[k].append(np.abs(one.truth[rows] - mean[rows])[wide] / one.sd[rows][wide])
    out = np.ones(len(hierarchy.levels))
    for k, parts in enumerate(scores):
        z = np.concatenate(parts)
        if len(z):
            # 80 % of normal errors lie within 1.28 sd; periods of a forecast are not independent, so few count for little.
            raw = float(np.quantile(z, 0.8)) / 1.2816
            weight = len(judged) * int((hierarchy.level == k).sum()) ** 0.5
            out[k] = np.clip(np.exp(weight / (weight + _FEW) * np.log(max(raw, 0.05))), 0.4, 3.0)
    return out


def _aggregates(
    panel: Panel, tree: Hierarchy, horizon: int, freq: str, seasons: tuple[tuple[int, int], ...], settings: Settings
) -> tuple[Panel, np.ndarray]:
    """The aggregates as a panel of the engine, and where each aggregate's row is in it."""
    length = panel.shape[1]
    y = panel.y
    born = np.arange(length)[None, :] >= panel.first[:, None]
    lost = born & ~panel.observed
    if lost.any():
        # A shelf that was empty in a period leaves a hole in the sum: demand there is what the season and the level near by say.
        base = baseline.fit(panel, seasons, settings.tuning)
        window = max(3, panel.calendar.year // 4)
        seen = np.cumsum(np.pad(panel.observed * base.index, ((0, 0), (1, 0))), 1)
        sold = np.cumsum(np.pad(panel.y, ((0, 0), (1, 0))), 1)
        low = np.clip(np.arange(length) - window, 0, length)
        high = np.clip(np.arange(length) + 1, 0, length)
        near = np.divide(
            sold[:, high] - sold[:, low],
            seen[:, high] - seen[:, low],
            out=np.broadcast_to(base.level[:, None], y.shape).copy(),
            where=seen[:, high] - seen[:, low] > 0.5,
        )
        y = np.where(lost, near * base.index, y)
        if kinds(panel)[0].all():
            y = np.round(y)
    sums = np.asarray(tree.sums @ y)
    alive = np.asarray(tree.sums @ born) > 0
    keys = tree.keys
    whole = {"unique_id": np.repeat(np.array(keys), length), "ds": np.tile(panel.dates(np.arange(length)), len(keys))}
    ahead = {
        "unique_id": np.repeat(np.array(keys), horizon),
        "ds": np.tile(panel.dates(length + np.arange(horizon)), len(keys)),
    }
    past, future = pl.DataFrame(whole), pl.DataFrame(ahead)
    past = past.with_columns(pl.Series("y", sums.reshape(-1)))
    for name, values in panel.known.items():
        there = np.isfinite(values)
        count = np.asarray(tree.sums @ there.astype(float))
        total = np.asarray(tree.sums @ np.where(there, values, 0.0))
        mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0.5)
        past = past.with_columns(pl.Series(name, mean[:, :length].reshape(-1)))
        if mean.shape[1] >= length + horizon:
            future = future.with_columns(pl.Series(name, mean[:, length : length + horizon].reshape(-1)))
    past = past.with_columns(pl.col("ds").cast(pl.Date)).filter(pl.Series(alive.reshape(-1)))
    upper = build_panel(
        past,
        freq,
        future=future.with_columns(pl.col("ds").cast(pl.Date)) if panel.known else None,
        static=tree.attributes,
        horizon=horizon,
        ids=keys,
    )
    place = {str(key): row for row, key in enumerate(upper.ids)}
    return upper, np.array([place[key] for key in keys])
