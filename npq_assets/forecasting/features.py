"""What a model is told about a series, an origin and a horizon: numbers free of scale, known at the origin.

Every value is computed from a panel cut at the origin, so leakage is impossible by construction. What does not depend on
the rows wanted is computed once (`Prepared`), so that many series are asked for block by block. Targets, models and
calibration do not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    return prepare(panel, base, horizons).table(rows)


@dataclass(frozen=True)
class Prepared:
    """Everything about an origin that rows share or that is computed for all series at once.

    Attributes:
        panel: Cut at the origin.
        base: The simple method fitted on it.
        horizons: Periods ahead (H).
        fixed: Features of a series (n each).
        grouped: Features of a group and horizon: name -> (values (G, H), group of each series (n)).
        total: Demand up to each column (n, T + 1), running sum.
        exposure: The same of what the season would have it.
    """

    panel: Panel
    base: Baseline
    horizons: np.ndarray
    fixed: dict[str, np.ndarray]
    grouped: dict[str, tuple[np.ndarray, np.ndarray]]
    total: np.ndarray
    exposure: np.ndarray

    def table(self, rows: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """Features of `rows`: array (r * H, F) ordered by series then horizon, and the F names."""
        per_row = {name: values[rows] for name, values in self.fixed.items()}
        by_time = self._by_time(rows)
        names = [*per_row, *by_time]
        out = np.empty((len(rows), len(self.horizons), len(names)), np.float32)
        for i, values in enumerate(per_row.values()):
            out[:, :, i] = values[:, None]
        for i, values in enumerate(by_time.values(), len(per_row)):
            out[:, :, i] = values
        return out.reshape(len(rows) * len(self.horizons), -1), names

    def _by_time(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        panel, base, horizons = self.panel, self.base, self.horizons
        length, year = panel.shape[1], panel.calendar.year
        target = length - 1 + horizons
        periods = panel.start + target
        y, m = panel.y, panel.observed
        shape = (len(rows), len(horizons))
        level = np.maximum(base.level[rows], 1e-9)[:, None]
        tiny = 0.05 * level + 1e-9

        def against_level(values: np.ndarray) -> np.ndarray:
            return np.clip(np.log((values + tiny) / (level + tiny)), -_CLIP, _CLIP)

        out: dict[str, np.ndarray] = {"horizon": np.broadcast_to(horizons, shape)}
        season = base.season(periods, rows)
        out["log_season"] = np.log(np.maximum(season, 1e-3))
        whole = base.season_of_all(periods)
        out["season_own"] = np.log(np.maximum(season, 1e-3) / np.maximum(whole, 1e-3)[None, :])
        spread = 3 if year >= 300 else 1
        for back in (1, 2):
            past = target - back * year
            low, high = np.clip(past - spread, 0, length), np.clip(past + spread + 1, 0, length)
            amount = self.total[np.ix_(rows, high)] - self.total[np.ix_(rows, low)]
            usual = self.exposure[np.ix_(rows, high)] - self.exposure[np.ix_(rows, low)]
            ratio = np.divide(amount, usual, out=np.full(shape, np.nan), where=usual > 0.2)
            out[f"year_ago_{back}"] = against_level(np.maximum(ratio, 0.0))
            if year < 300:
                safe, inside = _inside(past, length)
                exact = np.where(inside & m[np.ix_(rows, safe)], np.maximum(y[np.ix_(rows, safe)], 0.0), np.nan)
                out[f"same_{back}"] = against_level(exact)
        if panel.calendar.week:
            for lag in (1, 2):
                safe, inside = _inside(target - 7 * ((horizons + 6) // 7 + lag - 1), length)
                value = np.maximum(base.adjusted[np.ix_(rows, safe)], 0.0)
                out[f"week_ago_{lag}"] = against_level(np.where(inside & m[np.ix_(rows, safe)], value, np.nan))
        for name, (values, group) in self.grouped.items():
            out[name] = values[group[rows]]
        for name, day in _calendar(panel, target).items():
            out[name] = np.broadcast_to(day, shape)
        window = windows_of(year)[4]
        for name, known in panel.known.items():
            now = _ahead(known, target, rows)
            before = known[rows, max(0, length - window) : length]
            there = np.isfinite(before)
            mean = np.full((len(rows), 1), np.nan)
            sums, seen = np.where(there, before, 0.0).sum(1, keepdims=True), there.sum(1, keepdims=True)
            np.divide(sums, seen, out=mean, where=seen > 0)
            out[name] = now
            out[f"{name}_change"] = now - mean
            out[f"{name}_ratio"] = np.divide(now, mean, out=np.full(shape, np.nan), where=np.abs(mean) > 1e-9)
            out[f"{name}_next"] = _ahead(known, target + 1, rows)
            out[f"{name}_before"] = _ahead(known, target - 1, rows)
        for name, values in panel.numeric.items():
            out[f"static_{name}"] = np.broadcast_to(values[rows][:, None], shape)
        return out


def prepare(panel: Panel, base: Baseline, horizons: np.ndarray) -> Prepared:
    """Computes what rows share at the panel's last column."""
    n, length = panel.shape
    y, m = panel.y, panel.observed
    year = panel.calendar.year
    target = length - 1 + horizons
    level = np.maximum(base.level, 1e-9)
    tiny = 0.05 * level + 1e-9
    fixed = {
        "log_level": np.log(level),
        "log_scatter": np.log(base.scatter),
        "log_prior": np.log((np.maximum(base.prior, 0.0) + tiny) / (level + tiny)),
    }
    total = np.concatenate([np.zeros((n, 1)), np.cumsum(y, 1)], 1)
    exposure = np.concatenate([np.zeros((n, 1)), np.cumsum(base.index * m, 1)], 1)
    lags = windows_of(year)
    recent: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for window in lags:
        low = max(0, length - window)
        amount, usual = total[:, -1] - total[:, low], exposure[:, -1] - exposure[:, low]
        recent[window] = amount, usual
        mean = np.maximum(np.divide(amount, usual, out=np.full(n, np.nan), where=usual > 0.2), 0.0)
        fixed[f"mean_{window}"] = np.clip(np.log((mean + tiny) / (level + tiny)), -_CLIP, _CLIP)
    for window in (lags[3], lags[4]):
        low = max(0, length - window)
        seen = m[:, low:].sum(1)
        zero = ((y[:, low:] == 0) & m[:, low:]).sum(1)
        fixed[f"zeros_{window}"] = np.divide(zero, seen, out=np.full(n, np.nan), where=seen > 0)
        fixed[f"stocked_{window}"] = seen / max(1, length - low)
    fixed["since_sale"] = _since(y > 0, year)
    fixed["since_seen"] = _since(m, year)
    fixed["age"] = np.minimum(length - np.minimum(panel.first, length), 3 * year)
    levels: dict[str, tuple[np.ndarray, int]] = {"all": (np.zeros(n, int), 1)}
    for name, (_, codes) in panel.groups.items():
        size = int(codes.max()) + 2
        levels[name] = np.where(codes >= 0, codes, size - 1), size
    middle = lags[-2] if len(lags) > 5 else lags[-1]
    for name, (code, size) in levels.items():
        for window in (lags[2], lags[4], middle, lags[-1]):
            amount, usual = recent[window]
            a = np.bincount(code, amount / base.scatter, size)
            e = np.bincount(code, usual * level / base.scatter, size)
            fixed[f"{name}_mean_{window}"] = np.log((np.maximum(a, 0.0) + 2.0) / (e + 2.0))[code]
    for window in (lags[2], lags[4]):
        fixed |= _growth(panel, base, window, tiny, levels)
    grouped: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for back in (1, 2):
        safe, inside = _inside(target - back * year, length)
        sold = y[:, safe] / base.scatter[:, None]
        usual = base.index[:, safe] * m[:, safe] * (level / base.scatter)[:, None]
        for name, (code, size) in levels.items():
            a, e = _by_group(code, sold, size), _by_group(code, usual, size)
            ratio = np.where(inside[None, :], np.log((np.maximum(a, 0.0) + 1.0) / (e + 1.0)), np.nan)
            grouped[f"{name}_year_ago_{back}"] = ratio, code
    grouped |= _word_effects(panel, base, target, levels)
    grouped |= _family_moves(panel, target, levels)
    return Prepared(panel, base, horizons, fixed, grouped, total, exposure)


def _growth(
    panel: Panel, base: Baseline, window: int, tiny: np.ndarray, levels: dict[str, tuple[np.ndarray, int]]
) -> dict[str, np.ndarray]:
    """Growth over the same stretch a year ago: what a seasonal naive forecast lacks."""
    n, length = panel.shape
    year = panel.calendar.year
    if length < year + window:
        return {f"{name}growth_{window}": np.full(n, np.nan) for name in ("", *(f"{level}_" for level in levels))}
    y, m = panel.y, panel.observed
    now, then = slice(length - window, length), slice(length - window - year, length - year)
    both = m[:, now] & m[:, then]
    new, old = (y[:, now] * both).sum(1), (y[:, then] * both).sum(1)
    some = both.sum(1) >= max(1, window // 2)
    lean = tiny * window
    own = np.where(some, np.log((np.maximum(new, 0.0) + lean) / (np.maximum(old, 0.0) + lean)), np.nan)
    out = {f"growth_{window}": np.clip(own, -_CLIP, _CLIP)}
    for name, (code, size) in levels.items():
        a = np.bincount(code, np.where(some, new, 0.0) / base.scatter, size)
        b = np.bincount(code, np.where(some, old, 0.0) / base.scatter, size)
        out[f"{name}_growth_{window}"] = np.log((np.maximum(a, 0.0) + 2.0) / (np.maximum(b, 0.0) + 2.0))[code]
    return out


def _word_effects(
    panel: Panel, base: Baseline, target: np.ndarray, levels: dict[str, tuple[np.ndarray, int]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What a word that names a date (an event) did to demand when it was last there, by group.

    Only for covariates in words that are the same for all series on a date; demand over level times season on the
    dates of each word, drawn to no effect.
    """
    out: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    length = panel.shape[1]
    for name in panel.words:
        values = panel.known[name]
        if not panel.same_for_all(name):
            continue
        code_of = np.nan_to_num(values[0], nan=0.0).astype(int)
        size = int(code_of.max()) + 1
        past = code_of[:length]
        wanted = np.where(target < len(code_of), code_of[np.clip(target, 0, len(code_of) - 1)], 0)
        weight = base.level / base.scatter
        for group, (code, count) in levels.items():
            amount, usual = np.zeros((count, size)), np.zeros((count, size))
            for word in np.unique(wanted[wanted > 0]):
                there = np.nonzero(past == word)[0]
                if not len(there):
                    continue
                sold = panel.y[:, there].sum(1) / base.scatter
                expected = (base.index[:, there] * panel.observed[:, there]).sum(1) * weight
                amount[:, word], usual[:, word] = np.bincount(code, sold, count), np.bincount(code, expected, count)
            ratio = np.log((np.maximum(amount, 0.0) + 3.0) / (usual + 3.0))
            ratio[:, 0] = 0.0
            out[f"{group}_{name}_effect"] = ratio[:, wanted], code
    return out


def _family_moves(
    panel: Panel, target: np.ndarray, levels: dict[str, tuple[np.ndarray, int]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """How far a group's positive covariates (prices) stand from what is usual for their series.

    Beside a series' own move it tells a product that became cheap among its family from a family that became cheap.
    """
    out: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    length = panel.shape[1]
    window = windows_of(panel.calendar.year)[4]
    for name, values in panel.known.items():
        if name in panel.words or panel.same_for_all(name):
            continue
        # Decided by all that is known, not by the window: the same columns whatever the origin.
        finite = values[np.isfinite(values)]
        if not len(finite) or finite.min() <= 0:
            continue
        before = values[:, max(0, length - window) : length]
        there = np.isfinite(before)
        usual = np.where(there, before, 0.0).sum(1) / np.maximum(there.sum(1), 1)
        safe, inside = _inside(target, values.shape[1])
        now = np.where(inside, values[:, safe], np.nan)
        move = np.where((usual > 0)[:, None] & (now > 0), now / np.maximum(usual, 1e-9)[:, None], np.nan)
        known = np.isfinite(move)
        for group, (code, size) in levels.items():
            total, count = _by_group(code, np.where(known, move, 0.0), size), _by_group(code, known * 1.0, size)
            mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
            out[f"{group}_{name}_usual"] = mean, code
    return out


def _by_group(code: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    return np.stack([np.bincount(code, values[:, j], size) for j in range(values.shape[1])], 1)


def _since(there: np.ndarray, most: int) -> np.ndarray:
    """Periods since the last true column (n), at most `most`."""
    last = there[:, ::-1]
    return np.minimum(np.where(last.any(1), last.argmax(1), most), most)


def _inside(columns: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    return np.clip(columns, 0, length - 1), (columns >= 0) & (columns < length)


def _calendar(panel: Panel, target: np.ndarray) -> dict[str, np.ndarray]:
    dates = panel.dates(target)
    out = {"day_of_year": dates.dt.ordinal_day().to_numpy().astype(float)}
    if panel.calendar.unit == "D":
        out["weekday"] = dates.dt.weekday().to_numpy().astype(float)
    if panel.calendar.unit in {"D", "W"}:
        out["day"] = dates.dt.day().to_numpy().astype(float)
    return out


def _ahead(values: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    safe, inside = _inside(columns, values.shape[1])
    return np.where(inside, values[np.ix_(rows, safe)], np.nan)
