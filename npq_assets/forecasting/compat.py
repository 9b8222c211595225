"""What readers of a fitted model need from the engine, in one place: so that they do not know how a model is built inside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from npq_assets.forecasting import model as engine
from npq_assets.forecasting.distribution import ForecastDistribution
from npq_assets.forecasting.model import FittedModel
from npq_assets.forecasting.panel import Panel


def expected_of(found: ForecastDistribution) -> np.ndarray:
    """The means that the forecast frame shows (n, H)."""
    return np.asarray(found.expected() if hasattr(found, "expected") else found.mean)


def limits_of(found: ForecastDistribution, levels: np.ndarray) -> np.ndarray:
    """The quantiles that the forecast frame shows (n, K, H)."""
    return np.asarray(found.limits(levels) if hasattr(found, "limits") else found.quantile(levels[None, :, None]))


def seen_by_model(panel: Panel) -> Panel:
    """The part of a panel that a model looks at."""
    crop = getattr(engine, "recent", None)
    return crop(panel) if crop is not None else panel


def lightgbm() -> Any:
    """LightGBM as the engine imports it."""
    if hasattr(engine, "_lightgbm"):
        return engine._lightgbm()
    return engine.forms.lightgbm()


def segment_of_rows(mean: np.ndarray, scatter: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Ensemble segment (r, H) of an ensemble model's rows."""
    return np.asarray(engine.forms.segment_of(mean, scatter[:, None], counts[:, None]))


def simple_of(model: FittedModel) -> FittedModel:
    """The model reduced to the simple method, with the same spread: the rival that no model may lose to."""
    if hasattr(model, "forms"):
        return replace(model, boosters={}, forms=("seasonal_mean",), weights=np.ones((len(model.weights), 1)))
    return replace(model, boosters=(), weight=0.0)
