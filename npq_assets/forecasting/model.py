"""The global model: an ensemble centred by held-out loss, spread and shaped by held-out errors.

`train` learns from history up to its last period; `FittedModel.predict` forecasts from any later history, so that a
model is trained weekly and asked daily. It knows no series by name: new items need no retraining. Orders and costs do
not belong here.

Method: `rows` lays out what was known at past origins, `forms` gives the centre (boosted corrections stacked with simple
and local methods), `calibration` the spread and the shape. Everything is chosen on a recent stretch of time that the
models being judged have not seen; then the boosted forms learn from all of it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from npq_assets.errors import NpqError
from npq_assets.forecasting import baseline, features, forms, local, selection
from npq_assets.forecasting import rows as training
from npq_assets.forecasting.baseline import Tuning
from npq_assets.forecasting.calibration import LEVELS, Calibration, calibrate, default_shape
from npq_assets.forecasting.censoring import raised, redrawn
from npq_assets.forecasting.distribution import Dependence, ForecastDistribution
from npq_assets.forecasting.panel import Frame, Panel
from npq_assets.forecasting.panel import build as build_panel
from npq_assets.forecasting.rows import Rows
from npq_assets.storage import write_json, write_text

_MIN_ROWS = 400
_MIN_SALES = 20
_BLOCK = 200_000  # rows of features held at once when predicting
_YEARS = {"D": 3, "W": 8, "M": 40, "Q": 40}


@dataclass(frozen=True)
class Settings:
    """How models are trained; the defaults serve all data.

    Attributes:
        boosting: Settings of the boosted forms.
        max_rows: Training rows at most (bounds memory and time).
        max_series: Series used for training at most.
        tuning: Constants of the baseline.
    """

    boosting: forms.Boosting = field(default_factory=forms.Boosting)
    max_rows: int = 200_000
    max_series: int = 4_000
    tuning: Tuning = field(default_factory=Tuning)


@dataclass(frozen=True)
class FittedModel:
    """A trained model: everything `predict` needs beside fresh history.

    Attributes:
        freq: Frequency it was trained for.
        unit: Unit of the period grid.
        seasons: Seasons as (positions, periods per position).
        horizon: Furthest period ahead it has learned.
        cutoff: Last period it was trained on.
        names: Features in order.
        forms: Names of the ensemble's members.
        weights: Weight of each member by segment (S, F).
        boosters: LightGBM models as text, by form; none where data could not carry a model.
        poisson: Whether the boosted forms have a Poisson likelihood (else squared error of logarithms).
        calibration: Spread, shape and dependence.
        words: Vocabulary of each covariate in words.
        settings: How it was trained.
        evidence: Held-out measures behind the choices.
        reason: Why there is no LightGBM model, if so.
    """

    freq: str
    unit: str
    seasons: tuple[tuple[int, int], ...]
    horizon: int
    cutoff: date
    names: tuple[str, ...]
    forms: tuple[str, ...]
    weights: np.ndarray
    boosters: dict[str, str]
    poisson: bool
    calibration: Calibration
    words: dict[str, tuple[str, ...]]
    settings: Settings
    evidence: dict[str, Any]
    reason: str = ""

    @property
    def version(self) -> str:
        """Hash of the model's content, 16 hex digits."""
        digest = hashlib.sha256(json.dumps(self._document(), sort_keys=True).encode())
        for text in self.boosters.values():
            digest.update(text.encode())
        return digest.hexdigest()[:16]

    def _document(self) -> dict[str, Any]:
        shape = self.calibration.shape if self.calibration.shape is not None else default_shape()
        return {
            "freq": self.freq,
            "unit": self.unit,
            "seasons": [list(s) for s in self.seasons],
            "horizon": self.horizon,
            "cutoff": self.cutoff.isoformat(),
            "names": list(self.names),
            "forms": list(self.forms),
            "weights": [[float(v) for v in row] for row in self.weights],
            "poisson": self.poisson,
            "variance": list(self.calibration.variance),
            "excess": list(self.calibration.excess),
            "shape": [[float(v) for v in row] for row in shape],
            "dependence": asdict(self.calibration.dependence),
            "words": {name: list(words) for name, words in self.words.items()},
            "settings": asdict(self.settings),
            "evidence": self.evidence,
            "reason": self.reason,
            "boosters": list(self.boosters),
        }

    def save(self, folder: Path | str) -> Path:
        """Writes model.json and lightgbm_<form>.txt into `folder`."""
        folder = Path(folder)
        for form, text in self.boosters.items():
            write_text(text, folder / f"lightgbm_{form}.txt")
        write_json(self._document(), folder / "model.json")
        return folder

    def predict(
        self,
        history: Frame,
        horizon: int | None = None,
        *,
        future: Frame | None = None,
        static: Frame | None = None,
        available: Frame | None = None,
        ids: list[str] | None = None,
        threads: int | None = None,
    ) -> ForecastDistribution:
        """Forecasts the periods after the last of `history`, for every series in it.

        Args:
            history: unique_id, ds, y (+ covariates), as for `train`; may be fresher than the training.
            horizon: Periods ahead; default: as trained. Beyond it the furthest learned horizon's correction holds.
            future: unique_id, ds and the same covariates.
            static: unique_id and attributes.
            available: unique_id, ds, in_stock; absent rows are in stock.
            ids: Further series to forecast, also without history (new items).
            threads: Threads for prediction.

        Raises:
            NpqError: Unusable input.
        """
        horizon = _checked_horizon(self.horizon if horizon is None else horizon)
        panel = build_panel(
            history,
            self.freq,
            future=future,
            static=static,
            available=available,
            horizon=horizon,
            ids=ids,
            words=self.words,
        )
        return self.predict_panel(panel, horizon, threads=threads)

    def predict_panel(self, panel: Panel, horizon: int, threads: int | None = None) -> ForecastDistribution:
        """`predict` on a panel that is already laid out."""
        panel = raised(recent(panel))
        n, length = panel.shape
        ahead = np.arange(1, horizon + 1)
        base = baseline.fit(panel, self.seasons, self.settings.tuning)
        counts, signed = kinds(panel)
        seen = panel.observed.sum(1)
        modelled = (seen >= 4) & (base.level > 0)
        members = self._members(panel, base, ahead, np.nonzero(modelled)[0], threads)
        first = base.mean(panel.start + length - 1 + ahead)
        place = forms.segment_of(first, base.scatter[:, None], counts[:, None])
        mean = first.copy()
        if members:
            mean[modelled] = sum(
                self.weights[place[modelled], self.forms.index(form)] * values for form, values in members.items()
            )
        weight = sum(
            (self.weights[place[:, 0], f] for f, form in enumerate(self.forms) if form in self.boosters), np.zeros(n)
        )
        method = np.where(modelled & (weight > 0), "lightgbm", "seasonal_mean").astype(object)
        method[(seen > 0) & (base.prior == 0)] = "zero"
        constant = _constant(panel)
        method[constant & (seen >= 3) & (base.prior != 0)] = "constant"
        new = seen == 0
        method[new] = "new_item"
        if new.any():
            mean[new] = _new_items(panel, mean, new)
        mean = np.where(signed[:, None], mean, np.maximum(mean, 0.0))
        calibration = self.calibration
        shape = calibration.shape if calibration.shape is not None else default_shape()
        scatter = np.broadcast_to(base.scatter[:, None], mean.shape)
        variance = calibration.variance_of(mean, scatter, np.broadcast_to(ahead, mean.shape), counts[:, None])
        sd = np.sqrt(variance)
        sd[constant & (seen >= 3)] *= 0.25
        sd[new] = np.maximum(sd[new], np.abs(mean[new]))
        return ForecastDistribution(
            panel.ids,
            panel.dates(length - 1 + ahead),
            panel.dates(np.array([length - 1]))[0],
            mean,
            sd,
            counts,
            signed,
            LEVELS,
            shape,
            forms.segment_of(mean, scatter, counts[:, None]),
            method,
            self.version,
            calibration.dependence,
        )

    def _members(
        self, panel: Panel, base: baseline.Baseline, ahead: np.ndarray, rows: np.ndarray, threads: int | None
    ) -> dict[str, np.ndarray]:
        """What each form expects of `rows` (r, H)."""
        length, horizon = panel.shape[1], len(ahead)
        mean = base.mean(panel.start + length - 1 + ahead)
        out = {"seasonal_mean": mean[rows]}
        if "seasonal_naive" in self.forms:
            out["seasonal_naive"] = baseline.seasonal_naive(panel, base, ahead, mean)[rows]
        if set(local.NAMES) & set(self.forms):
            found = local.predict(panel, self.seasons, horizon, mean)
            out |= {name: found[i][rows] for i, name in enumerate(local.NAMES)}
        for form in self.boosters:
            out[form] = np.empty((len(rows), horizon))
        step = max(1, _BLOCK // horizon)
        prepared = features.prepare(panel, base, ahead) if self.boosters else None
        for low in range(0, len(rows) if prepared else 0, step):
            part = rows[low : low + step]
            assert prepared is not None
            table = self.table(prepared, part)
            for form, text in self.boosters.items():
                offset = forms.offset_of(form, mean[part], base.level[part][:, None])
                factor = forms.boosted(text, table, self.poisson, threads).reshape(len(part), horizon)
                out[form][low : low + step] = offset * factor
        return {form: out[form] for form in self.forms}

    def table(self, prepared: features.Prepared, rows: np.ndarray) -> np.ndarray:
        """Features of `rows` for each period ahead, in the order of `names`: (r * H, F)."""
        values, names = prepared.table(rows)
        where = {name: i for i, name in enumerate(names)}
        # Beyond what was learned, the furthest learned horizon's correction holds.
        values[:, where["horizon"]] = np.tile(np.minimum(prepared.horizons, self.horizon), len(rows))
        if tuple(names) == self.names:
            return values
        aligned = np.full((len(values), len(self.names)), np.nan, np.float32)
        for i, name in enumerate(self.names):
            if name in where:
                aligned[:, i] = values[:, where[name]]
        return aligned


def load(folder: Path | str) -> FittedModel:
    """Reads a model that `FittedModel.save` wrote.

    Raises:
        NpqError: The folder holds no readable model.
    """
    folder = Path(folder)
    try:
        document = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        boosters = {
            form: (folder / f"lightgbm_{form}.txt").read_text(encoding="utf-8") for form in document["boosters"]
        }
        settings = document["settings"]
        return FittedModel(
            document["freq"],
            document["unit"],
            tuple((int(a), int(b)) for a, b in document["seasons"]),
            document["horizon"],
            date.fromisoformat(document["cutoff"]),
            tuple(document["names"]),
            tuple(document["forms"]),
            np.array(document["weights"], float),
            boosters,
            document["poisson"],
            Calibration(
                tuple(document["variance"]),
                tuple(document["excess"]),
                np.array(document["shape"], float),
                Dependence(**document["dependence"]),
            ),
            {name: tuple(words) for name, words in document["words"].items()},
            Settings(
                **{
                    **settings,
                    "boosting": forms.Boosting(**settings["boosting"]),
                    "tuning": Tuning(**settings["tuning"]),
                }
            ),
            document["evidence"],
            document["reason"],
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise NpqError(f"{folder}: no readable forecasting model ({error}); train it again") from error


def train(
    history: Frame,
    horizon: int,
    freq: str,
    *,
    season_length: int | None = None,
    future: Frame | None = None,
    static: Frame | None = None,
    available: Frame | None = None,
    threads: int | None = None,
    seed: int = 0,
    settings: Settings | None = None,
) -> FittedModel:
    """Trains on all of `history`; cut it at the as-of day before.

    Args:
        history: unique_id, ds, y (+ covariates known ahead).
        horizon: Periods ahead to learn.
        freq: See `Calendar.of`.
        season_length: Periods of the season; default: the natural ones of `freq`.
        future: Covariates ahead; only the names matter here.
        static: unique_id and attributes.
        available: unique_id, ds, in_stock; demand of periods out of stock is unknown, never zero.
        threads: Threads of LightGBM (default 2).
        seed: Seed of everything random.
        settings: How to train.

    Raises:
        NpqError: Unusable input.
    """
    horizon = _checked_horizon(horizon)
    panel = build_panel(history, freq, future=future, static=static, available=available, horizon=horizon)
    return train_panel(panel, horizon, freq, season_length=season_length, threads=threads, seed=seed, settings=settings)


def train_panel(
    panel: Panel,
    horizon: int,
    freq: str,
    *,
    season_length: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    settings: Settings | None = None,
) -> FittedModel:
    """`train` on a panel that is already laid out."""
    settings = settings or Settings()
    seasons = baseline.seasons_of(panel, season_length)
    rng = np.random.default_rng(seed)
    if panel.shape[0] > settings.max_series:
        panel = _some(panel, np.sort(rng.choice(panel.shape[0], settings.max_series, replace=False)))
    panel = raised(recent(panel))
    n, length = panel.shape
    last = panel.dates(np.array([length - 1]))[0]
    year = panel.calendar.year
    counts = kinds(panel)[0]
    simple = FittedModel(
        freq,
        panel.calendar.unit,
        seasons,
        horizon,
        last,
        (),
        ("seasonal_mean",),
        np.ones((len(forms.SEGMENTS), 1)),
        {},
        bool(counts.mean() > 0.5),
        Calibration(shape=default_shape()),
        panel.words,
        settings,
        {},
        "",
    )
    # Held-out stretch: recent, long enough for every horizon, short enough to leave something to learn from.
    held = int(min(max(2 * horizon, year // 4), length // 3))
    first = max(6, min(year + year // 6, length // 3))
    if held < 2 or length - held - 1 <= first:
        return replace(simple, reason=f"{length} periods are too few for a model")
    reach = min(horizon, max(1, held))
    split = length - held

    def rows(origins: np.ndarray, end: int, most: int) -> Rows | None:
        return training.build(panel, seasons, settings.tuning, origins, reach, end, most, rng)

    some = max(30, int(np.ceil(settings.max_rows / max(1, n * reach))))
    use_local = local.applies(panel, seasons)
    judged_at = training.spaced(split, max(split + 1, length - (reach - 1) // 2), 5 if use_local else 40)
    test = rows(judged_at, length, settings.max_rows // 2)
    if test is None or len(test.y) < 30:
        return replace(simple, reason="no held-out demand to judge a model by")
    learn = rows(training.spaced(first, split, some), split, settings.max_rows)
    members = {"seasonal_mean": test.base}
    if not simple.poisson:  # a single count of a year ago is mostly luck
        members["seasonal_naive"] = test.naive
    if use_local:
        members |= _local_members(panel, seasons, test, reach)
    trees: dict[str, int] = {}
    reason = ""
    if learn is None or len(learn.y) < _MIN_ROWS or (learn.y > 0).sum() < _MIN_SALES:
        found = 0 if learn is None else len(learn.y)
        reason = f"{found} training rows: fewer than {_MIN_ROWS}, or than {_MIN_SALES} with demand"
    else:
        texts, trees = forms.boost(learn, simple.poisson, settings.boosting, seed, threads, test)
        for form, text in texts.items():
            offset = forms.offset_of(form, test.base, test.level)
            members[form] = offset * forms.boosted(text, test.x, simple.poisson, threads)
    chosen = selection.choose(members, test, counts[test.series])
    if test.floor.any():
        first_try = calibrate(test, chosen.mean, counts[test.series])
        test = _redrawn(test, panel, chosen.mean, first_try, counts)
        chosen = selection.choose(members, test, counts[test.series])
    model = replace(
        simple,
        names=tuple(test.names),
        forms=chosen.forms,
        weights=chosen.weights,
        calibration=calibrate(test, chosen.mean, counts[test.series]),
        evidence={**chosen.evidence, "held_out_rows": len(test.y), "held_out_periods": held, "trees": trees},
        reason=reason,
    )
    wanted = {form: trees[form] for form in trees if form in chosen.forms}
    if not wanted:
        return replace(model, reason=reason or "simple methods had the lower held-out loss")
    everything = rows(training.spaced(first, length, some), length, settings.max_rows)
    assert everything is not None  # what was learned from before is among it
    if everything.floor.any():
        expected = _expected(everything, {form: texts[form] for form in wanted}, model, counts, threads)
        everything = _redrawn(everything, panel, expected, model.calibration, counts)
    texts, _ = forms.boost(everything, simple.poisson, settings.boosting, seed, threads, trees=trees)
    return replace(model, boosters={form: texts[form] for form in wanted})


def _redrawn(rows: Rows, panel: Panel, mean: np.ndarray, by: Calibration, counts: np.ndarray) -> Rows:
    whole = counts[rows.series]
    return redrawn(rows, panel, mean, by.variance_of(mean, rows.scatter, rows.horizon, whole), whole)


def _expected(
    rows: Rows, texts: dict[str, str], model: FittedModel, counts: np.ndarray, threads: int | None
) -> np.ndarray:
    """What the members that can tell of training rows expect of them together (R)."""
    members = {"seasonal_mean": rows.base, "seasonal_naive": rows.naive}
    for form, text in texts.items():
        offset = forms.offset_of(form, rows.base, rows.level)
        members[form] = offset * forms.boosted(text, rows.x, model.poisson, threads)
    segment = forms.segment_of(rows.base, rows.scatter, counts[rows.series])
    weights = {form: model.weights[segment, i] for i, form in enumerate(model.forms) if form in members}
    total = sum(weights.values(), np.zeros(len(rows.y)))
    found = sum((weights[form] * members[form] for form in weights), np.zeros(len(rows.y)))
    return np.where(total > 0, found / np.maximum(total, 1e-12), rows.base)


def _local_members(panel: Panel, seasons: tuple[tuple[int, int], ...], test: Rows, reach: int) -> dict[str, np.ndarray]:
    out = {name: test.base.copy() for name in local.NAMES}
    for origin in np.unique(test.origin):
        past = panel.until(int(origin))
        found = local.predict(past, seasons, reach, np.full((panel.shape[0], reach), np.nan))
        here = np.nonzero(test.origin == origin)[0]
        for i, name in enumerate(local.NAMES):
            values = found[i][test.series[here], test.horizon[here] - 1]
            out[name][here] = np.where(np.isfinite(values), values, test.base[here])
    return out


def recent(panel: Panel) -> Panel:
    """The last years of a panel: what came before costs time and memory and tells little."""
    length = panel.shape[1]
    keep = _YEARS[panel.calendar.unit] * panel.calendar.year + panel.calendar.year // 4
    return panel if length <= keep else panel.since(length - keep)


def kinds(panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """(counts, signed) per series, from the demand seen; series without any follow the majority."""
    whole = (panel.y == np.round(panel.y)).all(1)
    negative = (panel.y < 0).any(1)
    seen = panel.observed.any(1)
    if seen.any():
        whole = np.where(seen, whole, whole[seen].mean() > 0.5)
        if whole[seen].mean() < 0.5:  # a few whole-numbered series among measured ones are a coincidence
            whole = np.zeros(len(whole), bool)
    return np.asarray(whole & ~negative), np.asarray(negative)


def _new_items(panel: Panel, mean: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Expected demand of series without history: the median of the series that share most of their attributes."""
    out = np.zeros((int(new.sum()), mean.shape[1]))
    known = ~new
    if not known.any():
        return out
    out[:] = np.median(mean[known], 0)
    for _, codes in sorted(panel.groups.values(), key=lambda g: len(g[0])):
        for code in np.unique(codes[new]):
            peers = known & (codes == code)
            if code >= 0 and peers.any():
                out[codes[new] == code] = np.median(mean[peers], 0)
    return out


def _constant(panel: Panel) -> np.ndarray:
    high = np.where(panel.observed, panel.y, -np.inf).max(1)
    low = np.where(panel.observed, panel.y, np.inf).min(1)
    return high == low


def _some(panel: Panel, rows: np.ndarray) -> Panel:
    return Panel(
        panel.ids[rows],
        panel.calendar,
        panel.start,
        panel.y[rows],
        panel.observed[rows],
        panel.in_stock[rows],
        panel.first[rows],
        {k: v[rows] for k, v in panel.known.items()},
        {k: (v[0], v[1][rows]) for k, v in panel.groups.items()},
        {k: v[rows] for k, v in panel.numeric.items()},
        panel.words,
        None if panel.bound is None else panel.bound[rows],
    )


def _checked_horizon(horizon: int) -> int:
    if int(horizon) != horizon or horizon < 1:
        raise NpqError(f"horizon {horizon!r} must be a whole number of periods, at least 1")
    return int(horizon)
