"""Alarms that ring before decisions degrade: inputs that are not what the model learned from, errors that grow or lean.

Every alarm comes with the bound that it crossed, set by how often it may ring for nothing. What is done about an alarm does
not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from npq_assets.forecasting import baseline
from npq_assets.forecasting.baseline import Tuning
from npq_assets.forecasting.panel import Panel

Array = NDArray[np.float64]
_PRACTICAL_PSI = 0.25  # the customary "large shift"; smaller ones are significant in large samples and matter little


@dataclass(frozen=True)
class Alarm:
    """What a monitor measured.

    Attributes:
        name: Of the monitor.
        value: The statistic.
        bound: It rings above this (for `coverage`: outside the bounds in `detail`).
        rings: Whether it rings.
        detail: One line with the numbers.
        at: Index of the first period at which it rang; -1 if it did not, or has no time.
    """

    name: str
    value: float
    bound: float
    rings: bool
    detail: str
    at: int = -1


def population_stability(
    reference: ArrayLike, current: ArrayLike, *, name: str = "input", bins: int = 10, false_alarms: float = 1e-3
) -> Alarm:
    """Population stability index of an input: sum (p - q) ln(p / q) over bins of the reference; missing values are a bin.

    Under no change the index is about (1/N + 1/M) times a chi-square of B - 1 degrees of freedom (Yurdakul & Naranjo,
    Statistical properties of the population stability index, J. of Risk Model Validation 14, 2020); the bound is that
    quantile, at least 0.25. Values are taken as independent: give one a series rather than one a series and period.

    Args:
        reference: Values that the model learned from.
        current: Values of now.
        name: What is watched.
        bins: Bins of equal reference mass; ties share a bin.
        false_alarms: Probability of ringing for nothing.
    """
    old, new = np.asarray(reference, float).reshape(-1), np.asarray(current, float).reshape(-1)
    if len(old) < 20 or len(new) < 20:
        return Alarm(name, 0.0, float("inf"), False, f"{name}: {min(len(old), len(new))} values are too few to compare")
    seen = old[np.isfinite(old)]
    edges = np.unique(np.quantile(seen, np.linspace(0, 1, bins + 1)[1:-1])) if len(seen) else np.zeros(0)

    def mass(values: Array) -> Array:
        there = np.isfinite(values)
        # A value on an edge belongs below it, so that a spike (zero sales, one price) is a bin of its own.
        place = np.searchsorted(edges, values[there], side="left")
        return np.append(np.bincount(place, minlength=len(edges) + 1), (~there).sum()).astype(float)

    a, b = mass(old), mass(new)
    # A spike at the reference's top has all its mass on the last edge; what lies above it is news, not noise.
    used = (a + b) > 0
    p, q = (a[used] + 0.5) / (len(old) + 0.5 * used.sum()), (b[used] + 0.5) / (len(new) + 0.5 * used.sum())
    value = float(((p - q) * np.log(p / q)).sum())
    freedom = max(1, int(used.sum()) - 1)
    bound = max(_PRACTICAL_PSI, float(stats.chi2.ppf(1 - false_alarms, freedom)) * (1 / len(old) + 1 / len(new)))
    middle = [float(np.median(v[np.isfinite(v)])) if np.isfinite(v).any() else float("nan") for v in (old, new)]
    detail = f"{name}: stability index {value:.2f} (rings above {bound:.2f}), median {middle[0]:.3g} then, {middle[1]:.3g} now"
    return Alarm(name, value, bound, value > bound, detail)


def cusum(
    values: ArrayLike,
    reference: int,
    *,
    name: str = "bias",
    allowance: float = 0.5,
    false_alarms: float = 0.01,
    two_sided: bool = True,
) -> Alarm:
    """Cumulative sums of standardized values after a reference stretch (Page 1954): the bias tracking signal.

    Mean and long-run standard deviation (Newey & West 1987, so that correlated errors do not ring for nothing) come from the
    first `reference` values. The decision interval is the one whose average run length makes an alarm in all that follows as
    rare as asked (Siegmund, Sequential Analysis, 1985, eq. 2.50).

    Args:
        values: One a period, in order (errors, or losses with `two_sided=False`: the Page-Hinkley test for a rise).
        reference: How many of them are known to be good.
        name: What is watched.
        allowance: Shift in standard deviations that is let pass; the test is sharpest for shifts of twice that.
        false_alarms: Probability of ringing for nothing in the stretch watched.
        two_sided: Whether a fall rings too.
    """
    x = np.asarray(values, float)
    x = x[np.isfinite(x)]
    reference = min(reference, len(x))
    watched = len(x) - reference
    if reference < 8 or watched < 1:
        return Alarm(name, 0.0, float("inf"), False, f"{name}: {len(x)} periods are too few to judge")
    good = x[:reference]
    sides = 2 if two_sided else 1
    # The reference is short: its mean and scale are themselves uncertain, which widens every z by Student's tail.
    scale = _long_run_sd(good) * float(stats.t.ppf(0.999, reference - 1) / stats.norm.ppf(0.999)) ** 0.5
    scale = max(scale * np.sqrt(1 + 1 / reference), 1e-12)
    z = np.clip((x[reference:] - good.mean()) / scale, -4.0, 4.0)
    bound = decision_interval(allowance, sides * watched / false_alarms)
    up = down = 0.0
    value, at = 0.0, -1
    for i, step in enumerate(z):
        up = max(0.0, up + step - allowance)
        down = max(0.0, down - step - allowance) if two_sided else 0.0
        value = max(value, up, down)
        if at < 0 and max(up, down) > bound:
            at = reference + i
    late = float(x[reference:].mean() - good.mean())
    detail = f"{name}: signal {value:.1f} (rings above {bound:.1f}), {late:+.3g} against the reference over {watched} periods"
    return Alarm(name, value, bound, at >= 0, detail, at)


def decision_interval(allowance: float, run_length: float) -> float:
    """The interval at which a one-sided CUSUM of normal values rings for nothing once in `run_length` periods."""

    def excess(h: float) -> float:
        b = h + 1.166
        return float((np.exp(2 * allowance * b) - 2 * allowance * b - 1) / (2 * allowance**2)) - run_length

    return float(optimize.brentq(excess, 0.0, 200.0)) if excess(0.0) < 0 else 0.0


def _long_run_sd(x: Array) -> float:
    """Standard deviation times the square root of the sum of autocorrelations (Bartlett weights); never below the plain one."""
    e = x - x.mean()
    variance = float((e**2).sum() / max(1, len(x) - 1))
    lags = int(np.floor(4 * (len(x) / 100) ** (2 / 9)))
    total = variance
    for lag in range(1, min(lags, len(x) - 2) + 1):
        total += 2 * (1 - lag / (lags + 1)) * float((e[lag:] * e[:-lag]).sum() / max(1, len(x) - 1))
    return float(np.sqrt(max(total, variance)))


def coverage(
    inside: ArrayLike,
    judged: ArrayLike,
    *,
    level: float = 0.8,
    slack: float = 0.06,
    above: float = 0.17,
    false_alarms: float = 1e-3,
    name: str = "coverage",
) -> Alarm:
    """Whether outcomes fall into their intervals as often as they should, with binomial bounds.

    Periods share their luck, so the bounds are the binomial's widened by the scatter between periods (beta-binomial). `slack`
    below `level` is let pass; above it `above`, since intervals of small counts cover more than asked by nature.

    Args:
        inside: Outcomes within their interval, by period (T).
        judged: Outcomes judged, by period (T).
        level: Share that should lie inside.
        slack: Undercoverage that does not matter.
        above: Overcoverage that does not matter.
        false_alarms: Probability of ringing for nothing.
        name: What is watched.
    """
    k, n = np.asarray(inside, float), np.asarray(judged, float)
    use = n > 0
    k, n = k[use], n[use]
    total = float(n.sum())
    if len(n) < 2 or total < 50:
        return Alarm(
            name, float("nan"), level, False, f"{name}: {total:.0f} outcomes in {len(n)} periods are too few to judge"
        )
    share = float(k.sum() / total)
    pooled = max(share * (1 - share), 1e-9)
    spread = float((n * (k / n - share) ** 2).sum() / (pooled * max(1, len(n) - 1)))
    effective = total / max(1.0, spread)
    low_at, high_at = max(level - slack, 0.0), min(level + above, 1.0)
    low = float(stats.binom.ppf(false_alarms / 2, int(effective), low_at)) / effective
    high = float(stats.binom.ppf(1 - false_alarms / 2, int(effective), high_at)) / effective
    # A share of few periods is Student's, not normal.
    wider = float(stats.t.ppf(1 - false_alarms / 2, len(n) - 1) / stats.norm.ppf(1 - false_alarms / 2))
    low, high = low_at - (low_at - low) * wider, high_at + (high - high_at) * wider
    detail = (
        f"{name}: {share:.0%} of {total:.0f} outcomes inside, {level:.0%} asked "
        f"(rings outside {max(low, 0):.0%} to {min(high, 1):.0%})"
    )
    return Alarm(name, share, low, not low <= share <= high, detail)


def stuck(values: ArrayLike, *, name: str = "sales", least: int = 3, false_alarms: float = 1e-3) -> Alarm:
    """Sales of all series that stopped, or a reading that stands still: the last values are equal, as they never were.

    Args:
        values: One a period, in order (the total of all series).
        name: What is watched.
        least: Equal values at the end before it may ring.
        false_alarms: Probability of ringing for nothing, given how often neighbours were equal before.
    """
    x = np.asarray(values, float)
    x = x[np.isfinite(x)]
    if len(x) < 20:
        return Alarm(name, 0.0, float("inf"), False, f"{name}: {len(x)} periods are too few to judge")
    same = np.diff(x) == 0
    run = int(np.argmin(same[::-1])) if not same.all() else len(same)
    before = same[: len(same) - run]
    usual = (before.sum() + 0.5) / (len(before) + 1)
    bound = max(least - 1.0, float(np.log(false_alarms) / np.log(min(usual, 0.999))))
    detail = f"{name}: {run + 1} equal values of {x[-1]:.6g} at the end (rings above {bound + 1:.0f})"
    return Alarm(
        name, float(run), bound, run > bound - 1e-9 and not same.all(), detail, len(x) - run - 1 if run else -1
    )


def drifted(panel: Panel, split: int, seasons: tuple[tuple[int, int], ...], tuning: Tuning | None = None) -> Alarm:
    """Whether demand after column `split` left what the simple method, fitted before it, says: the retraining alarm.

    The log of total demand over expectation, a number a period, after `split` against the same number over as long a stretch
    before it (forecast from before that). It looks at nothing but the panel, so it gives the same answer on any machine.

    Args:
        panel: Demand up to now.
        split: Columns that the model learned from.
        seasons: As `baseline.seasons_of` gives them.
        tuning: Constants of the simple method.
    """
    tuning = tuning or Tuning()
    length = panel.shape[1]
    stretch = max(length - split, _LEAST_REFERENCE)
    if split - stretch < 2 * stretch or length - split < 2:
        return Alarm("demand", 0.0, float("inf"), False, "demand: too short to judge")
    before = _log_ratio(panel, split - stretch, split, seasons, tuning)
    after = _log_ratio(panel, split, length, seasons, tuning)
    found = cusum(np.concatenate([before, after]), len(before), name="demand", allowance=0.75)
    return replace(found, at=found.at - len(before) + split if found.at >= 0 else -1)


_LEAST_REFERENCE = 13


def _log_ratio(panel: Panel, origin: int, end: int, seasons: tuple[tuple[int, int], ...], tuning: Tuning) -> Array:
    past = panel.until(origin)
    base = baseline.fit(past, seasons, tuning)
    columns = np.arange(origin, end)
    mean = base.mean(panel.start + columns)
    seen = panel.observed[:, columns]
    sold = np.where(seen, panel.y[:, columns], 0.0).sum(0)
    expected = np.where(seen, mean, 0.0).sum(0)
    lean = max(1e-9, 0.02 * float(expected.mean()))
    return np.asarray(np.log((np.maximum(sold, 0.0) + lean) / (expected + lean)))
