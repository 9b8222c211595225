"""What is known of a customer's buying when a day opens, as columns for the models of `value`.

Point in time: everything is computed from visits before the day. Labels and models do not belong here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npq_assets.customers.closed_form import fit_beta_geometric, fit_gamma_gamma
from npq_assets.customers.visits import Summary, Visits, summarize

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

WINDOWS = (7, 14, 28, 56, 91, 182, 364)
# Half-lives of visit and spend rates, in horizons.
HALF_LIVES = (0.25, 0.5, 1.0, 2.0, 4.0)
# Quarters of a horizon, counted back from the day: 13 weeks where the horizon is four.
QUARTERS = 13
COUNTED_QUARTERS = 8
GAP_QUANTILES = (0.5, 0.8)
LAST_GAPS = 3


def closed_form(visits: Visits, day: int, horizon: int) -> tuple[Floats, Floats]:
    """P(active) and expected spend over the horizon by BG/NBD and gamma-gamma as of `day`; 0 for the never seen."""
    s = summarize(visits, day)
    seen = s.age > 0
    p, spend = np.zeros(len(seen)), np.zeros(len(seen))
    if seen.sum() < 3:
        return p, spend
    x, t_x, age = s.frequency[seen], s.recency[seen], s.age[seen]
    bg = fit_beta_geometric(x, t_x, age)
    gg = fit_gamma_gamma(x, s.monetary[seen])
    p[seen] = bg.visits_again(x, t_x, age, horizon)
    spend[seen] = bg.expected_visits(x, t_x, age, horizon) * gg.expected_amount(x, s.monetary[seen])
    return p, spend


def feature_names() -> list[str]:
    """Columns of `features`, in order; the closed forms come last."""
    names = ["frequency", "recency_share", "age", "monetary", "mean_amount", "since_last", "gap_mean", "gap_sd", "due"]
    names += [f"{what}_{w}" for w in WINDOWS for what in ("visits", "spend", "discount")]
    names += [f"spend_lag_{k}" for k in range(1, 7)] + [f"visits_lag_{k}" for k in range(1, 5)]
    names += ["active_lags", "lines", "sd_amount", "median_lag", "last_amount", "weekend"]
    names += [f"{what}_{h:g}" for h in HALF_LIVES for what in ("visit_rate", "spend_rate")]
    names += ["visit_trend", "visit_trend_long"]
    names += [f"visits_quarter_{k}" for k in range(1, COUNTED_QUARTERS + 1)] + ["active_quarters_4", "active_quarters"]
    names += ["gap_max", "since_last_by_max", "gaps_longer", "own_return", "gap_decayed", "long_gaps"]
    names += [f"gap_last_{k}" for k in range(1, LAST_GAPS + 1)]
    names += [f"{what}_{p:g}" for p in GAP_QUANTILES for what in ("gap_quantile", "since_last_by")]
    return [*names, "past_horizons", "past_horizons_decayed", "closed_p", "closed_spend"]


def features(visits: Visits, day: int, horizon: int) -> Floats:
    """What is known of each customer when `day` opened: (customers, columns of `feature_names`).

    Rates and counts are scaled to the history there is, so that an early day teaches the same thing as a late one.
    """
    v = visits.before(day)
    s = summarize(v, day)
    closed = closed_form(v, day, horizon)
    length = max(1.0, float(day - v.day.min(initial=day - 1)))
    columns = [
        *_windows(v, s, day, length),
        *_lags(v, s, day, horizon, length),
        *_rates(v, day, horizon, length),
        *_quarters(v, day, horizon, length),
        *_gaps(v, s, day, horizon, closed[0]),
        *_past_horizons(v, s, day, horizon, closed[0]),
        *closed,
    ]
    return np.stack(columns, axis=1)


def linear(x: Floats) -> Floats:
    """Columns for linear models: logs of amounts, gaps filled."""
    return np.log1p(np.maximum(np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0), 0.0))


def _inner_gaps(v: Visits) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Days between consecutive visits, whose they are, and the row of the later visit."""
    row = np.flatnonzero(v.customer[1:] == v.customer[:-1]) + 1
    return (v.day[row] - v.day[row - 1]).astype(float), v.customer[row], row


def _windows(v: Visits, s: Summary, day: int, length: float) -> list[Floats]:
    n = len(v.customers)
    age_of = (day - v.day).astype(float)
    gap, whose, _ = _inner_gaps(v)
    repeats = np.maximum(s.frequency, 1)
    gap_mean = np.where(s.frequency > 0, np.bincount(whose, gap, minlength=n) / repeats, np.nan)
    square = np.bincount(whose, gap**2, minlength=n) / repeats
    gap_sd = np.sqrt(np.maximum(square - np.nan_to_num(gap_mean) ** 2, 0.0))
    columns = [
        s.frequency + (s.age > 0),
        s.recency / np.maximum(s.age, 1),
        s.age,
        s.monetary,
        s.mean_amount,
        s.since_last,
        gap_mean,
        np.where(s.frequency > 1, gap_sd, np.nan),
        s.since_last / np.maximum(np.nan_to_num(gap_mean, nan=1e9), 1.0),
    ]
    for window in WINDOWS:
        inside = age_of <= window
        scale = window / min(window, length)
        paid, off = v.total(v.amount * inside), v.total(v.discount * inside)
        columns += [v.total(inside.astype(float)) * scale, paid * scale, off / np.maximum(paid + off, 1e-9)]
    return columns


def _lags(v: Visits, s: Summary, day: int, horizon: int, length: float) -> list[Floats]:
    """Spend and visits of past horizons; what a visit is like."""
    n = len(v.customers)
    lag = (day - v.day - 1) // horizon
    spend_lags = np.stack([v.total(v.amount * (lag == j)) for j in range(6)], axis=1)
    visit_lags = np.stack([v.total((lag == j).astype(float)) for j in range(4)], axis=1)
    known = min(6, max(1, int(length // horizon)))
    spend_lags[:, known:] = np.nan
    visit_lags[:, known:] = np.nan
    count = np.maximum(s.frequency + 1, 1)
    spread = v.total(v.amount**2) / count - s.mean_amount**2
    last_amount = np.full(n, np.nan)
    newest = np.flatnonzero(np.r_[v.customer[1:] != v.customer[:-1], True]) if len(v.customer) else np.zeros(0, int)
    last_amount[v.customer[newest]] = v.amount[newest]
    return [
        *spend_lags.T,
        *visit_lags.T,
        (np.nan_to_num(spend_lags) > 0).sum(axis=1) / known,
        v.total(v.lines) / count,
        np.sqrt(np.maximum(spread, 0.0)),
        np.median(spend_lags[:, :known], axis=1),
        last_amount,
        v.total((v.day % 7 >= 5).astype(float)) / count,
    ]


def _rates(v: Visits, day: int, horizon: int, length: float) -> list[Floats]:
    """Visits and spend a horizon, exponentially decayed, and whether visits become more or fewer."""
    age_of = (day - v.day).astype(float)
    columns: list[Floats] = []
    visits: dict[float, Floats] = {}
    for half_life in HALF_LIVES:
        days = horizon * half_life
        weight = 0.5 ** (age_of / days)
        scale = np.log(2) / half_life / (1 - 0.5 ** (length / days))
        visits[half_life] = v.total(weight) * scale
        columns += [visits[half_life], v.total(weight * v.amount) * scale]
    short, long = (visits[a] + 0.3 for a in (0.5, 1.0)), (visits[b] + 0.3 for b in (2.0, 4.0))
    return [*columns, *(np.log(a / b) for a, b in zip(short, long, strict=True))]


def _quarters(v: Visits, day: int, horizon: int, length: float) -> list[Floats]:
    """Visits of the last quarters of a horizon, and in how many of them there were any."""
    size = max(1, round(horizon / 4))
    number = (day - v.day - 1) // size
    known = max(1, min(QUARTERS, int(length // size)))
    counts = np.stack([v.total((number == k).astype(float)) for k in range(QUARTERS)], axis=1)
    active = counts > 0
    counts[:, known:] = np.nan
    return [*counts.T[:COUNTED_QUARTERS], active[:, : min(4, known)].sum(axis=1), active[:, :known].mean(axis=1)]


def _gaps(v: Visits, s: Summary, day: int, horizon: int, closed_p: Floats) -> list[Floats]:
    """The present silence against the customer's own past ones.

    `own_return` is the share of those past gaps longer than the silence that ended within the horizon, shrunk to the closed form by
    two gaps.
    """
    n = len(v.customers)
    gap, whose, row = _inner_gaps(v)
    count = np.bincount(whose, minlength=n)
    begin = np.cumsum(count) - count
    silence = np.nan_to_num(s.since_last, nan=1e9)[whose]
    longer = np.bincount(whose, gap > silence, minlength=n)
    ended = np.bincount(whose, (gap > silence) & (gap <= silence + horizon), minlength=n)
    most = np.zeros(n)
    np.maximum.at(most, whose, gap)
    weight = 0.5 ** ((day - v.day[row]) / (2.0 * horizon))
    decayed = np.bincount(whose, weight * gap, minlength=n) / np.maximum(np.bincount(whose, weight, minlength=n), 1e-9)
    columns = [
        np.where(count > 0, most, np.nan),
        s.since_last / np.maximum(most, 1),
        (longer + 0.5) / (count + 1),
        (ended + 2 * closed_p) / (longer + 2),
        np.where(count > 0, decayed, np.nan),
        np.bincount(whose, gap > horizon, minlength=n) / np.maximum(s.age / horizon, 1),
    ]
    padded = np.r_[gap, np.nan]
    for k in range(1, LAST_GAPS + 1):
        columns.append(padded[np.where(count >= k, begin + count - k, len(gap))])
    ordered = np.r_[gap[np.lexsort((gap, whose))], np.nan]
    for share in GAP_QUANTILES:
        place = begin + np.round(share * np.maximum(count - 1, 0)).astype(np.int64)
        quantile = ordered[np.where(count > 0, place, len(gap))]
        columns += [quantile, s.since_last / np.maximum(np.nan_to_num(quantile, nan=1e9), 1)]
    return columns


def _past_horizons(v: Visits, s: Summary, day: int, horizon: int, closed_p: Floats) -> list[Floats]:
    """Share of past horizons, a quarter apart, in which the customer came; plain and decayed, shrunk to the closed form by one."""
    n = len(v.customers)
    size = max(1, round(horizon / 4))
    begun = day - s.age
    hit, known = np.zeros((2, n)), np.zeros((2, n))
    for start in range(day - horizon, int(v.day.min(initial=day)), -size):
        inside = (v.day >= start) & (v.day < start + horizon)
        active = np.bincount(v.customer[inside], minlength=n) > 0
        there = begun < start
        weight = np.array([[1.0], [0.5 ** ((day - horizon - start) / (3.0 * horizon))]])
        hit += weight * (active & there)
        known += weight * there
    return list((hit + closed_p) / (known + 1))
