"""Which factors move output, scrap and energy: a straight line with honest intervals beside a tree model, told in sentences.

Pure functions of frames. The line is least squares, y = b0 + b1 x1 + … + e, with heteroscedasticity-robust errors (HC3: MacKinnon
& White, Some heteroskedasticity-consistent covariance matrix estimators, J. Econometrics 29, 1985); the tree model is LightGBM with
exact additive contributions (TreeSHAP: Lundberg et al., Nature Machine Intelligence 2, 2020). Findings are associations in what was
logged, not the effect of an experiment; what to do about them does not belong here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.boosting import lightgbm

Array = NDArray[np.float64]

# How far back the log is looked at.
WINDOW_DAYS = 182
CONFIDENCE = 0.95
# Above this variance inflation a factor cannot be told apart from the others (O'Brien, Quality & Quantity 41, 2007).
MOST_VIF = 10.0
# Fewer rows than this, and this many for each coefficient, carry no conclusion.
LEAST_ROWS = 60
ROWS_A_COEFFICIENT = 10
# A level with fewer rows is put together with the other rare ones.
RARE_ROWS = 25
MOST_LEVELS = 12
# Share of the latest days that judges both models.
JUDGED_SHARE = 0.2
# Effects below this share of the target's scatter are no news, however sure.
LEAST_EFFECT = 0.02
OTHERS = "others"

FINDINGS = {
    "target": pl.String, "factor": pl.String, "effect": pl.Float64, "low": pl.Float64, "high": pl.Float64,
    "p_value": pl.Float64, "vif": pl.Float64, "contribution": pl.Float64, "conclusive": pl.Boolean, "sentence": pl.String,
}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """What is moved.

    Attributes:
        name: `output`, `scrap` or `energy`.
        column: Its column.
        words: The target in words, as the beginning of a sentence.
        unit: Of an effect, in words.
    """

    name: str
    column: str
    words: str
    unit: str


@dataclass(frozen=True)
class Factor:
    """What may move it.

    Attributes:
        column: Its column: text for kinds, else a number.
        words: Its name; for a number, what one more unit of it is ("an hour more standstill").
    """

    column: str
    words: str


@dataclass(frozen=True)
class DriverFindings:
    """The result.

    Attributes:
        findings: The columns of `FINDINGS`, one row a target and factor (or level of it against the commonest one).
        summary: One row a target: target, rows, r2_line, r2_trees (on later days than those learnt from), conclusive,
            sentence.
    """

    findings: pl.DataFrame
    summary: pl.DataFrame


SUMMARY = {
    "target": pl.String, "rows": pl.Int64, "r2_line": pl.Float64, "r2_trees": pl.Float64, "conclusive": pl.Boolean,
    "sentence": pl.String,
}  # fmt: skip

TARGETS = (
    Target("output", "output", "Output in percent of what standard times allow", "points"),
    Target("scrap", "scrap", "Scrap in percent of the units started", "points"),
    Target("energy", "energy", "Energy per good unit in percent of the product's usual", "points"),
)


def driver_rows(
    production: pl.DataFrame, machines: pl.DataFrame, products: pl.DataFrame, sensors: pl.DataFrame, before: date
) -> tuple[pl.DataFrame, list[Factor]]:
    """One row a run of the log in the window before a day: targets, and what was known of the run.

    Only runs of each product's longest operation count: where the plan counts time, and units are lost or not.

    Args:
        production: The mart `production_day`.
        machines: machine_id, installed_on (null if unknown).
        products: product_id, family.
        sensors: machine_id, measured_on, sensor, value: means of a day; may be empty.
        before: Only runs of earlier days count.

    Returns:
        produced_on, machine_id, output, scrap, energy and the factors' columns; and the factors that the log can tell of.
    """
    since = before - timedelta(days=WINDOW_DAYS)
    started = pl.col("good_quantity") + pl.col("scrap_quantity")
    # A day's standstill is also that of rows without a run.
    logged = production.with_columns(
        (pl.col("down_minutes").sum().over("machine_id", "produced_on") / 60.0).alias("standing")
    )
    # A run of which nothing was good tells most of scrap.
    runs = logged.filter(
        (pl.col("produced_on") >= since)
        & (pl.col("produced_on") < before)
        & (pl.col("run_minutes") > 0)
        & (started > 0)
        & pl.col("standard_minutes").is_not_null()
    )
    slow = runs.group_by("product_id", "operation").agg((pl.col("standard_minutes") / started).min().alias("slow"))
    longest = slow.sort("product_id", "slow", "operation", descending=[False, True, False]).unique(
        "product_id", keep="first"
    )
    runs = runs.join(longest, on=["product_id", "operation"], how="semi")
    per_unit = pl.when(pl.col("good_quantity") > 0).then(pl.col("energy_kwh") / pl.col("good_quantity"))
    rows = (
        runs.join(products.select("product_id", "family").unique("product_id"), on="product_id", how="left")
        .join(machines.select("machine_id", "installed_on"), on="machine_id", how="left")
        .with_columns(
            (100.0 * pl.col("standard_minutes") * pl.col("good_quantity") / started
             / (pl.col("run_minutes") + pl.col("setup_minutes"))).alias("output"),
            (100.0 * pl.col("scrap_quantity") / started).alias("scrap"),
            (100.0 * per_unit / per_unit.median().over("product_id", "operation")).alias("energy"),
            (started / started.median().over("product_id", "operation")).log(2.0).alias("lot"),
            (pl.col("setups") > 0).cast(pl.Float64).alias("set_up"),
            ((pl.lit(before) - pl.col("installed_on")).dt.total_days() / 365.25).alias("age"),
            ((pl.col("produced_on") - since).dt.total_days() / 30.0).alias("month"),
            pl.col("family").fill_null("").alias("family"),
        )
        .sort("produced_on", "machine_id", "product_id", "shift")
    )  # fmt: skip
    factors = [
        Factor("machine_id", "machine"),
        Factor("family", "product family"),
        Factor("shift", "shift"),
        Factor("lot", "a lot twice the product's usual"),
        Factor("set_up", "a set-up just before"),
        Factor("standing", "an hour more standstill on the day"),
        Factor("age", "a year more of machine age"),
        Factor("month", "30 days later in time"),
    ]
    for name in sorted(sensors["sensor"].unique()) if sensors.height else ():
        mine = sensors.filter(pl.col("sensor") == name)
        spread = pl.col("value").std().over("machine_id")
        mine = mine.select(
            "machine_id",
            pl.col("measured_on").alias("produced_on"),
            ((pl.col("value") - pl.col("value").mean().over("machine_id")) / pl.when(spread > 0).then(spread))
            .fill_nan(None)
            .alias(f"sensor_{name}"),
        )
        rows = rows.join(mine, on=["machine_id", "produced_on"], how="left").sort(
            "produced_on", "machine_id", "product_id", "shift"
        )
        factors.append(Factor(f"sensor_{name}", f"{name} a standard deviation above the machine's usual"))
    return rows, factors


def find_drivers(
    rows: pl.DataFrame,
    factors: Sequence[Factor],
    targets: Sequence[Target] = TARGETS,
    *,
    time: str = "produced_on",
    clusters: Sequence[str] = ("machine_id", "produced_on"),
) -> DriverFindings:
    """Fits the line and the trees for each target and says what the data carry.

    An interval is the wider of the HC3 one and the one clustered by `clusters`: runs of a machine's day share its luck, and an
    interval that takes them for independent is too narrow. A finding is conclusive if the false-discovery rate over the target's
    coefficients stays below 5 % (Benjamini & Hochberg 1995), its variance inflation below `MOST_VIF` and the effect is not trifling
    beside the target's scatter. A factor that the others determine exactly is estimated without the factor that absorbs it, and is
    never conclusive.

    Args:
        rows: A row a run; the targets', factors', time and cluster columns.
        factors: What may move the targets; text columns are kinds against the commonest one.
        targets: What is moved.
        time: Column by which later rows judge models of earlier ones.
        clusters: Columns whose equal values share luck.
    """
    found, summaries = [], []
    for target in targets:
        findings, summary = _one_target(rows, factors, target, time, clusters)
        found += findings
        summaries.append(summary)
    return DriverFindings(
        pl.DataFrame(found, schema=FINDINGS, orient="row"), pl.DataFrame(summaries, schema=SUMMARY, orient="row")
    )


@dataclass(frozen=True)
class _Column:
    """A column of the design: its factor, and its words."""

    factor: Factor
    words: str
    values: Array
    level: str | None = None
    reference: str | None = None


def _design(rows: pl.DataFrame, factors: Sequence[Factor]) -> list[_Column]:
    """Columns that vary: kinds as 0/1 against the commonest kind, numbers centred; rare kinds together."""
    out = []
    for factor in factors:
        values = rows[factor.column]
        if values.dtype == pl.String:
            counts = values.value_counts().sort(["count", factor.column], descending=[True, False])
            kept = counts.filter(pl.col("count") >= RARE_ROWS)[factor.column].to_list()[:MOST_LEVELS]
            shown = values.to_list()
            shown = [v if v in set(kept) else OTHERS for v in shown]
            levels = kept + ([OTHERS] if OTHERS in shown and OTHERS not in kept else [])
            for level in levels[1:]:
                flag = np.array([v == level for v in shown], dtype=float)
                out.append(_Column(factor, f"{factor.words} {level} (against {levels[0]})", flag, level, levels[0]))
            continue
        number = values.cast(pl.Float64).to_numpy().astype(float)
        known = np.isfinite(number)
        # Where it is unknown the row counts as usual: leaving it out would choose among the rows.
        filled = np.where(known, number, np.nanmean(number) if known.any() else 0.0)
        if known.mean() >= 0.5 and filled.std() > 1e-9 * max(1.0, abs(filled.mean())):
            out.append(_Column(factor, factor.words, filled - filled.mean()))
    return out


def _one_target(
    rows: pl.DataFrame, factors: Sequence[Factor], target: Target, time: str, clusters: Sequence[str]
) -> tuple[list[tuple[object, ...]], tuple[object, ...]]:
    usable = (
        rows.filter(pl.col(target.column).is_not_null() & pl.col(target.column).is_finite())
        if target.column in rows.columns
        else rows.head(0)
    )
    y = usable[target.column].cast(pl.Float64).to_numpy() if usable.height else np.zeros(0)
    columns = _design(usable, factors) if usable.height else []
    needed = max(LEAST_ROWS, ROWS_A_COEFFICIENT * (len(columns) + 1))
    if len(y) < needed:
        why = f"{len(y)} runs were logged with it, and {needed} are needed: the data carry no conclusion."
        return [], (target.name, len(y), None, None, False, f"{target.words}: {why}")
    if y.std() < 1e-9 * max(1.0, abs(y.mean())) or not columns:
        why = "nothing varied in the log that could show a driver: the data carry no conclusion."
        return [], (target.name, len(y), None, None, False, f"{target.words}: {why}")
    kept, aliased = _independent(columns)
    groups = usable.select(pl.struct(list(clusters)).rank("dense").alias("g"))["g"].to_numpy().astype(np.int64)
    effects = _least_squares(y, np.column_stack([c.values for c in kept]), groups)
    vif = _inflation(kept)
    later = _later(usable[time])
    contributions, r2_trees = _trees(usable, y, factors, later)
    r2_line = _judged_line(y, np.column_stack([c.values for c in kept]), later)
    sure = _discoveries(effects[:, 3])
    scatter = float(y.std())
    found: list[tuple[object, ...]] = []
    for k, column in enumerate(kept):
        effect, low, high, p = (float(v) for v in effects[k])
        entangled = vif[k] > MOST_VIF
        conclusive = bool(sure[k]) and not entangled and abs(effect) >= LEAST_EFFECT * scatter
        found.append(
            (target.name, column.words, effect, low, high, p, float(vif[k]), contributions.get(column.factor.column),
             conclusive, _sentence(target, column, effect, low, high, conclusive, bool(sure[k]), float(vif[k])))
        )  # fmt: skip
    for column in aliased:
        found.append(_aliased_row(target, column, columns, y, groups, contributions))
    told = [row for row in found if row[8]]
    carried = bool(told) and max(r2_line, r2_trees) > 0.0
    if not carried:
        # What does not hold on later days is no conclusion, however small its p-value on the days it was found on.
        found = [(*row[:8], False, f"{row[9]}" if not row[8] else f"No conclusion: {row[9]} It does not hold on later days.")
                 for row in found]  # fmt: skip
    return found, (
        target.name,
        len(y),
        r2_line,
        r2_trees,
        carried,
        _summary(target, len(y), r2_line, r2_trees, told, carried),
    )


def _independent(columns: Sequence[_Column]) -> tuple[list[_Column], list[_Column]]:
    """The columns that are no linear combination of those before them and the constant, and the others."""
    kept: list[_Column] = []
    basis = np.ones((len(columns[0].values), 1)) / np.sqrt(len(columns[0].values))
    aliased = []
    for column in columns:
        rest = column.values - basis @ (basis.T @ column.values)
        rest = rest - basis @ (basis.T @ rest)
        if np.linalg.norm(rest) <= 1e-6 * np.linalg.norm(column.values):
            aliased.append(column)
            continue
        kept.append(column)
        basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
    return kept, aliased


def _least_squares(y: Array, x: Array, groups: NDArray[np.int64]) -> Array:
    """Effect, low, high and p-value of each column of `x` (k, 4)."""
    import statsmodels.api as sm

    model = sm.OLS(y, sm.add_constant(x, has_constant="add"))
    robust = model.fit(cov_type="HC3", use_t=True)
    low, high = np.asarray(robust.conf_int(1.0 - CONFIDENCE)).T
    p = np.asarray(robust.pvalues)
    count = len(np.unique(groups))
    if 20 <= count < len(y):
        shared = model.fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
        wide_low, wide_high = np.asarray(shared.conf_int(1.0 - CONFIDENCE)).T
        wider = (wide_high - wide_low) > (high - low)
        low, high = np.where(wider, wide_low, low), np.where(wider, wide_high, high)
        p = np.where(wider, np.asarray(shared.pvalues), p)
    return np.column_stack([np.asarray(robust.params), low, high, np.clip(np.nan_to_num(p, nan=1.0), 0.0, 1.0)])[1:]


def _inflation(columns: Sequence[_Column]) -> Array:
    """Variance inflation of each column; kinds of one factor share theirs.

    For a factor of d columns it is the d-th root of the generalized inflation det(R11) det(R22) / det(R) (Fox & Monette,
    Generalized collinearity diagnostics, JASA 87, 1992), which does not depend on the reference chosen.
    """
    x = np.column_stack([c.values for c in columns])
    correlation = np.corrcoef(x, rowvar=False).reshape(len(columns), len(columns))
    names = [c.factor.column for c in columns]
    out = np.ones(len(columns))
    whole = float(np.linalg.slogdet(correlation)[1])
    for name in dict.fromkeys(names):
        mine = np.array([n == name for n in names])
        own = float(np.linalg.slogdet(correlation[np.ix_(mine, mine)])[1])
        others = float(np.linalg.slogdet(correlation[np.ix_(~mine, ~mine)])[1]) if (~mine).any() else 0.0
        out[mine] = np.exp(min((own + others - whole) / mine.sum(), 700.0))
    return np.asarray(np.maximum(out, 1.0))


def _discoveries(p: Array) -> NDArray[np.bool_]:
    """Which of the p-values are discoveries at a false-discovery rate of 5 %."""
    from statsmodels.stats.multitest import multipletests

    return np.asarray(multipletests(p, alpha=1.0 - CONFIDENCE, method="fdr_bh")[0])


def _later(days: pl.Series) -> NDArray[np.bool_]:
    """The latest rows, whole days of them, on which both models are judged."""
    ordinal = days.rank("dense").to_numpy().astype(np.int64)
    share = np.sort(ordinal)[int((1.0 - JUDGED_SHARE) * (len(ordinal) - 1))]
    return np.asarray(ordinal > share)


def _judged_line(y: Array, x: Array, later: NDArray[np.bool_]) -> float:
    """R squared of the line on later days than those it was fitted on."""
    full = np.column_stack([np.ones(len(y)), x])
    if later.sum() < 10 or (~later).sum() <= full.shape[1]:
        return 0.0
    beta = np.linalg.lstsq(full[~later], y[~later], rcond=1e-10)[0]
    return _r2(y[later], full[later] @ beta, float(y[~later].mean()))


def _r2(y: Array, fitted: Array, mean: float) -> float:
    """1 - squared error over that of the mean known before."""
    base = float(((y - mean) ** 2).sum())
    return 1.0 - float(((y - fitted) ** 2).sum()) / base if base > 0 else 0.0


def _trees(
    rows: pl.DataFrame, y: Array, factors: Sequence[Factor], later: NDArray[np.bool_]
) -> tuple[dict[str, float], float]:
    """Mean absolute contribution of each factor in the tree model (the target's unit), and R squared on later days."""
    lgb = lightgbm()
    used = [f for f in factors if rows[f.column].drop_nulls().n_unique() > 1]
    if not used:
        return {}, 0.0
    kinds = [k for k, f in enumerate(used) if rows[f.column].dtype == pl.String]
    x = np.column_stack(
        [
            rows[f.column].rank("dense").fill_null(0).to_numpy().astype(float)
            if rows[f.column].dtype == pl.String
            else rows[f.column].cast(pl.Float64).fill_null(float("nan")).to_numpy().astype(float)
            for f in used
        ]
    )
    params = {
        "objective": "regression", "num_leaves": 15, "learning_rate": 0.06, "min_data_in_leaf": max(20, len(y) // 200),
        "lambda_l2": 5.0, "cat_smooth": 20.0, "deterministic": True, "force_row_wise": True, "seed": 0, "verbosity": -1,
        "num_threads": 1,
    }  # fmt: skip

    def fitted(chosen: NDArray[np.bool_]) -> object:
        data = lgb.Dataset(x[chosen], y[chosen], categorical_feature=kinds, free_raw_data=True)
        return lgb.train(params, data, num_boost_round=120)

    r2 = 0.0
    if later.sum() >= 10 and (~later).sum() >= 40:
        r2 = _r2(y[later], np.asarray(fitted(~later).predict(x[later])), float(y[~later].mean()))  # type: ignore[attr-defined]
    parts = np.asarray(fitted(np.ones(len(y), dtype=bool)).predict(x, pred_contrib=True))  # type: ignore[attr-defined]
    return {f.column: float(np.abs(parts[:, k]).mean()) for k, f in enumerate(used)}, r2


def _aliased_row(
    target: Target,
    column: _Column,
    columns: Sequence[_Column],
    y: Array,
    groups: NDArray[np.int64],
    contributions: dict[str, float],
) -> tuple[object, ...]:
    """A factor that others determine: estimated without the factor that absorbs it, and never a conclusion."""
    for name in dict.fromkeys(c.factor.column for c in columns if c.factor.column != column.factor.column):
        rest = [c for c in columns if c.factor.column != name and c is not column]
        kept, _ = _independent([*rest, column])
        if kept and kept[-1] is column:
            effect, low, high, p = (
                float(v) for v in _least_squares(y, np.column_stack([c.values for c in kept]), groups)[-1]
            )
            other = next(c.factor.words for c in columns if c.factor.column == name)
            words = (
                f"No conclusion on {column.words}: the log cannot tell it from {other}; without {other} in the line it "
                f"comes with {_amount(effect, low, high, target)}."
            )
            break
    else:
        effect = low = high = 0.0
        p = 1.0
        words = f"No conclusion on {column.words}: the other factors determine it wholly."
    return (
        target.name, column.words, effect, low, high, p, None, contributions.get(column.factor.column), False, words,
    )  # fmt: skip


def _amount(effect: float, low: float, high: float, target: Target) -> str:
    direction = "more" if effect >= 0 else "less"
    ends = sorted((abs(low), abs(high))) if low * high > 0 else (low, high)
    return f"{abs(effect):.2f} {target.unit} {direction} (95 %: {ends[0]:.2f} to {ends[1]:.2f})"


def _sentence(
    target: Target, column: _Column, effect: float, low: float, high: float, conclusive: bool, sure: bool, vif: float
) -> str:
    amount = _amount(effect, low, high, target)
    if conclusive:
        return f"{target.words}: {column.words} comes with {amount}, other things equal."
    if vif > MOST_VIF:
        return (
            f"No conclusion on {column.words}: it moves together with other factors (variance inflation {vif:.0f}), so its "
            f"share cannot be told from theirs."
        )
    if sure:
        return f"{target.words}: {column.words} makes next to no difference: {amount}."
    return f"No conclusion on {column.words}: {amount} is within chance."


def _summary(
    target: Target, rows: int, line: float, trees: float, told: Sequence[tuple[object, ...]], carried: bool
) -> str:
    head = f"{target.words}, {rows:,} runs: "
    judged = f"the line explains {max(line, 0.0):.0%} and the trees {max(trees, 0.0):.0%} of what differs on later days"
    if not carried:
        return head + judged + "; the data carry no conclusion."
    first = max(told, key=lambda row: (row[7] or 0.0, abs(float(row[2]))))  # type: ignore[arg-type]
    words = f"; {len(told)} findings hold, most of it {str(first[1]).split(' (')[0]}."
    bent = " Part of it is not a straight line: see the tree contributions." if trees > line + 0.05 else ""
    return head + judged + words + bent


__all__ = ["TARGETS", "DriverFindings", "Factor", "Target", "driver_rows", "find_drivers"]
