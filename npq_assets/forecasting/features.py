"""What a model is told about a series, an origin and a horizon: numbers free of scale, known at the origin.

Every value is computed from a panel cut at the origin, so leakage is impossible by construction. Targets, models and
calibration do not belong here.
"""

from __future__ import annotations

import numpy as np

from npq_assets.forecasting.baseline import Baseline
from npq_assets.forecasting.panel import Panel

_CLIP = 3.0


def windows_of(year: int) -> tuple[int, ...]:
    """Windows of rolling means for a year of this many periods."""
    if year >= 300:
        return (1, 3, 7, 14, 28, 56, 112, 364)
    if year >= 40:
        return (1, 2, 4, 8, 13, 26, 52)
    return (1, 2, 3, 6, 12, 24)


def build(panel: Panel, base: Baseline, horizons: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Features of `rows` (series numbers) at the panel's last column for each horizon.

    Args:
        panel: Cut at the origin; its covariates may reach beyond.
        base: The simple method fitted on the same panel.
        horizons: Periods ahead (H), 1 = next.
        rows: Series wanted (r).

    Returns:
        Array (r * H, F) ordered by series then horizon, and the F names.
    """
    n, length = panel.shape
    y, m = panel.y, panel.observed
    year = panel.calendar.year
    target = length - 1 + horizons
    periods = panel.start + target
    fixed: dict[str, np.ndarray] = {}
    level = np.maximum(base.level, 1e-9)
    tiny = 0.05 * level + 1e-9
    fixed["log_level"] = np.log(level)
    fixed["log_scatter"] = np.log(base.scatter)
    fixed["log_prior"] = np.log((np.maximum(base.prior, 0.0) + tiny) / (level + tiny))
    total = np.concatenate([np.zeros((n, 1)), np.cumsum(y, 1)], 1)
    weight = np.concatenate([np.zeros((n, 1)), np.cumsum(base.index * m, 1)], 1)
    count = np.concatenate([np.zeros((n, 1)), np.cumsum(m, 1)], 1)
    recent: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for window in windows_of(year):
        low = max(0, length - window)
        amount, exposure = total[:, -1] - total[:, low], weight[:, -1] - weight[:, low]
        recent[window] = amount, exposure
        mean = np.maximum(np.divide(amount, exposure, out=np.full(n, np.nan), where=exposure > 0.2), 0.0)
        fixed[f"mean_{window}"] = np.clip(np.log((mean + tiny) / (level + tiny)), -_CLIP, _CLIP)
    lags = windows_of(year)
    for window in (lags[3], lags[4]):
        low = max(0, length - window)
        seen = count[:, -1] - count[:, low]
        zero = ((y[:, low:] == 0) & m[:, low:]).sum(1)
        fixed[f"zeros_{window}"] = np.divide(zero, seen, out=np.full(n, np.nan), where=seen > 0)
        fixed[f"stocked_{window}"] = seen / max(1, length - low)
    back = np.arange(length)[::-1]
    fixed["since_sale"] = np.minimum(np.where(y > 0, back, year).min(1), year)
    fixed["since_seen"] = np.minimum(np.where(m, back, year).min(1), year)
    fixed["age"] = np.minimum(length - np.minimum(panel.first, length), 3 * year)
    middle = lags[-2] if len(lags) > 5 else lags[-1]
    levels: dict[str, tuple[np.ndarray, int]] = {"all": (np.zeros(n, int), 1)}
    for name, (_, codes) in panel.groups.items():
        size = int(codes.max()) + 2
        levels[name] = np.where(codes >= 0, codes, size - 1), size
    for name, (code, size) in levels.items():
        scaled = {}
        for window in (lags[2], lags[4], middle, lags[-1]):
            amount, exposure = recent[window]
            a = np.bincount(code, amount / base.scatter, size)
            e = np.bincount(code, exposure * level / base.scatter, size)
            scaled[window] = np.log((np.maximum(a, 0.0) + 2.0) / (e + 2.0))
            fixed[f"{name}_mean_{window}"] = scaled[window][code]
    for window in (lags[2], lags[4]):
        # Growth over the same stretch a year ago: what a seasonal naive forecast lacks.
        if length < year + window:
            for name in ("", *(f"{level}_" for level in levels)):
                fixed[f"{name}growth_{window}"] = np.full(n, np.nan)
            continue
        now = slice(length - window, length)
        then = slice(length - window - year, length - year)
        both = m[:, now] & m[:, then]
        new, old = (y[:, now] * both).sum(1), (y[:, then] * both).sum(1)
        some = both.sum(1) >= max(1, window // 2)
        lean = tiny * window
        own = np.where(some, np.log((np.maximum(new, 0.0) + lean) / (np.maximum(old, 0.0) + lean)), np.nan)
        fixed[f"growth_{window}"] = np.clip(own, -_CLIP, _CLIP)
        for name, (code, size) in levels.items():
            a = np.bincount(code, np.where(some, new, 0.0) / base.scatter, size)
            b = np.bincount(code, np.where(some, old, 0.0) / base.scatter, size)
            fixed[f"{name}_growth_{window}"] = np.log((np.maximum(a, 0.0) + 2.0) / (np.maximum(b, 0.0) + 2.0))[code]
    per_row = np.stack([v[rows] for v in fixed.values()], 1)
    names = list(fixed)
    by_time: dict[str, np.ndarray] = {"horizon": np.broadcast_to(horizons, (len(rows), len(horizons)))}
    season = base.season(periods)[rows]
    whole = base.season_of_all(periods)
    by_time["log_season"] = np.log(np.maximum(season, 1e-3))
    by_time["season_own"] = np.log(np.maximum(season, 1e-3) / np.maximum(whole, 1e-3)[None, :])
    expected = np.maximum(base.level[rows][:, None] * season, 1e-9)
    spread = 3 if year >= 300 else 1
    for back_years in (1, 2):
        past = target - back_years * year
        low, high = np.clip(past - spread, 0, length), np.clip(past + spread + 1, 0, length)
        amount, exposure = total[rows][:, high] - total[rows][:, low], weight[rows][:, high] - weight[rows][:, low]
        ratio = np.maximum(np.divide(amount, exposure, out=np.full(amount.shape, np.nan), where=exposure > 0.2), 0.0)
        by_time[f"year_ago_{back_years}"] = np.clip(
            np.log((ratio + tiny[rows][:, None]) / (level + tiny)[rows][:, None]), -_CLIP, _CLIP
        )
        safe = np.clip(past, 0, length - 1)
        valid = (past >= 0) & (past < length)
        if spread and year < 300:
            exact = np.where(valid & m[:, safe][rows], np.maximum(y[:, safe][rows], 0.0), np.nan)
            by_time[f"same_{back_years}"] = np.clip(
                np.log((exact + tiny[rows][:, None]) / (level + tiny)[rows][:, None]), -_CLIP, _CLIP
            )
        sold = y[:, safe] / base.scatter[:, None]
        usual = base.index[:, safe] * m[:, safe] * (level / base.scatter)[:, None]
        for name, (code, size) in levels.items():
            a = np.stack([np.bincount(code, sold[:, j], size) for j in range(len(safe))], 1)
            e = np.stack([np.bincount(code, usual[:, j], size) for j in range(len(safe))], 1)
            ratio = np.where(valid, np.log((np.maximum(a, 0.0) + 1.0) / (e + 1.0)), np.nan)
            by_time[f"{name}_year_ago_{back_years}"] = ratio[code[rows]]
    if panel.calendar.week:
        for lag in (1, 2):
            past = target - 7 * ((horizons + 6) // 7 + lag - 1)
            valid = (past >= 0) & (past < length)
            safe = np.clip(past, 0, length - 1)
            value = np.where(valid & m[:, safe][rows], np.maximum(base.adjusted[:, safe][rows], 0.0), np.nan)
            by_time[f"week_ago_{lag}"] = np.clip(
                np.log((value + tiny[rows][:, None]) / (level + tiny)[rows][:, None]), -_CLIP, _CLIP
            )
    dates = panel.dates(target)
    day = dates.dt.ordinal_day().to_numpy().astype(float)
    calendar = {"day_of_year": day}
    if panel.calendar.unit == "D":
        calendar |= {
            "weekday": dates.dt.weekday().to_numpy().astype(float),
            "day": dates.dt.day().to_numpy().astype(float),
        }
    elif panel.calendar.unit == "W":
        calendar["day"] = dates.dt.day().to_numpy().astype(float)
    for name, values in calendar.items():
        by_time[name] = np.broadcast_to(values, expected.shape)
    for name, values in panel.known.items():
        now = _ahead(values, target)[rows]
        past_values = values[rows][:, max(0, length - lags[4]) : length]
        there = np.isfinite(past_values)
        usual = np.full(len(rows), np.nan)
        np.divide(np.where(there, past_values, 0.0).sum(1), there.sum(1), out=usual, where=there.any(1))
        by_time[f"{name}"] = now
        by_time[f"{name}_change"] = now - usual[:, None]
        by_time[f"{name}_ratio"] = np.divide(
            now, usual[:, None], out=np.full(now.shape, np.nan), where=np.abs(usual[:, None]) > 1e-9
        )
        by_time[f"{name}_next"] = _ahead(values, target + 1)[rows]
        by_time[f"{name}_before"] = _ahead(values, target - 1)[rows]
    for name, values in panel.numeric.items():
        by_time[f"static_{name}"] = np.broadcast_to(values[rows][:, None], expected.shape)
    out = np.empty((len(rows), len(horizons), len(names) + len(by_time)), np.float32)
    out[:, :, : len(names)] = per_row[:, None, :]
    for i, values in enumerate(by_time.values()):
        out[:, :, len(names) + i] = values
    return out.reshape(len(rows) * len(horizons), -1), names + list(by_time)


def _ahead(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    inside = (columns >= 0) & (columns < values.shape[1])
    return np.where(inside, values[:, np.clip(columns, 0, values.shape[1] - 1)], np.nan)
