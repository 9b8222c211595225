"""LightGBM as every engine loads it; models and features are the engines' own."""

from __future__ import annotations

import os
from typing import Any


def lightgbm() -> Any:
    """LightGBM, imported when needed; idle threads sleep, else a busy machine spends its time waiting for them."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import lightgbm

    return lightgbm
