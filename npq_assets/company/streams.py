"""Keyed random streams: a number depends on its names (seed, purpose, day, site, product), never on the order of calls.

Two worlds that ask for the same names meet the same luck (common random numbers), and a larger company contains the
smaller one. Distributions with a business meaning do not belong here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
Keys = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@lru_cache(maxsize=65536)
def name_key(name: str) -> int:
    """A stable 64-bit key for a name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def name_keys(names: Iterable[str]) -> Keys:
    """Stable 64-bit keys for names, in order."""
    return np.array([name_key(name) for name in names], dtype=np.uint64)


def _mix(x: Keys) -> Keys:
    """Finalizer of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def bits(seed: int, purpose: str, *keys: Any) -> Keys:
    """64 random bits for each combination of `keys` (integers or integer arrays that broadcast)."""
    start = (seed * 0x9E3779B97F4A7C15 + name_key(purpose)) & 0xFFFFFFFFFFFFFFFF
    with np.errstate(over="ignore"):
        state = _mix(np.array([start], dtype=np.uint64))
        for key in keys:
            part = np.asarray(key)
            part = part.astype(np.uint64) if part.dtype != np.uint64 else part
            state = _mix((state ^ (part * _GOLDEN)) + _GOLDEN)
    return state


def uniform(seed: int, purpose: str, *keys: Any) -> Floats:
    """Uniform numbers in (0, 1), one for each combination of `keys`."""
    return (bits(seed, purpose, *keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53 + 2.0**-54


def normal(seed: int, purpose: str, *keys: Any) -> Floats:
    """Standard normal numbers, one for each combination of `keys`."""
    return np.asarray(ndtri(uniform(seed, purpose, *keys)))


def two_uniforms(seed: int, purpose: str, *keys: Any) -> tuple[Floats, Floats]:
    """Two independent uniforms of 32 bits from one draw: half the hashing in the innermost loop."""
    drawn = bits(seed, purpose, *keys)
    scale, half = 2.0**-32, 2.0**-33
    first = (drawn >> np.uint64(32)).astype(np.float64) * scale + half
    second = (drawn & np.uint64(0xFFFFFFFF)).astype(np.float64) * scale + half
    return first, second


def poisson_quantile(u: Floats, mean: Floats) -> NDArray[np.int64]:
    """The Poisson quantile at `u`: summed exactly for small means, by Cornish-Fisher above 9.

    Args:
        u: Probabilities in (0, 1).
        mean: Poisson means, same shape.
    """
    shape = mean.shape
    flat_u, flat_mean = u.ravel(), mean.ravel()
    result = np.zeros(flat_mean.shape, dtype=np.int64)
    large = flat_mean > 9.0
    if large.any():
        m, z = flat_mean[large], ndtri(flat_u[large])
        result[large] = np.maximum(np.floor(m + np.sqrt(m) * z + (z * z - 1.0) / 6.0 + 0.5), 0.0).astype(np.int64)
    active = np.flatnonzero(~large)
    m, target = flat_mean[active], flat_u[active]
    probability = np.exp(-m)
    total = probability.copy()
    count = 0
    while active.size and count < 60:
        left = total < target
        active, m, target, probability, total = active[left], m[left], target[left], probability[left], total[left]
        count += 1
        result[active] = count
        probability = probability * m / count
        total = total + probability
    return result.reshape(shape)


def gamma_factor(u: Floats, squared_cv: Floats | float) -> Floats:
    """A gamma factor of mean 1 and the given squared coefficient of variation (Wilson and Hilferty 1931)."""
    c = np.asarray(squared_cv)
    root = 1.0 - c / 9.0 + np.sqrt(c) / 3.0 * ndtri(u)
    return np.maximum(root, 0.0) ** 3
