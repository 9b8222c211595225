"""The wear of the plant's parts, in one world: how long each part lasts, when it shows, and what is replaced.

The n-th part of a machine has the same life in every world (common random numbers); when it is put in depends on the world.
What a failure costs does not belong here (see `plant`).
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npq_assets.company import streams

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Parts fail at an age with this Weibull shape; some of them without any sign before.
SHAPE = 3.5
SUDDEN = 0.10
# Days before its failure from which a part shows its wear.
WARNING_DAYS = (8, 20)


@dataclass(frozen=True)
class Replaced:
    """A part that was replaced on a day."""

    machine: int
    component: int
    failed: bool


class Wear:
    """Parts in use; arrays are (machines, components), days count from the first of the log.

    Attributes:
        start: Day on which each part was put in.
        number: Which part it is.
        life: Days that it lasts.
        warning: Days before its end from which it shows; 0 for one that fails suddenly.
    """

    def __init__(self, seed: int, machine_keys: NDArray[np.uint64], life_days: Floats, usual_age: float) -> None:
        self._seed, self._keys, self._life_days = seed, machine_keys, life_days
        shape = (len(machine_keys), len(life_days))
        self.start: Ints = np.zeros(shape, dtype=np.int64)
        self.number: Ints = np.zeros(shape, dtype=np.int64)
        self.life: Ints = np.zeros(shape, dtype=np.int64)
        self.warning: Ints = np.zeros(shape, dtype=np.int64)
        for m, c in np.ndindex(shape):
            # The first part is already in use when the log begins.
            age = int(usual_age * 0.9 * float(streams.uniform(seed, "first part", int(self._keys[m]), c)[0]))
            self._put_in(m, c, -age)
            while self.start[m, c] + self.life[m, c] <= 0:
                self._put_in(m, c, int(self.start[m, c] + self.life[m, c]))

    def _put_in(self, m: int, c: int, day: int) -> None:
        key, n = int(self._keys[m]), int(self.number[m, c])
        u = float(streams.uniform(self._seed, "life", key, c, n)[0])
        self.life[m, c] = max(5, int(self._life_days[c] * (-np.log(u)) ** (1 / SHAPE)))
        sudden, length = (float(v[0]) for v in streams.two_uniforms(self._seed, "warning", key, c, n))
        low, high = WARNING_DAYS
        self.warning[m, c] = 0 if sudden < SUDDEN else low + int((high - low + 1) * length)
        self.start[m, c] = day
        self.number[m, c] = n + 1

    def copy(self) -> Wear:
        """An independent copy: the fork at which two worlds part."""
        twin = copy.copy(self)
        twin.start, twin.number = self.start.copy(), self.number.copy()
        twin.life, twin.warning = self.life.copy(), self.warning.copy()
        return twin

    def age(self, day: int) -> Ints:
        """Days that each part has been in use when `day` opens."""
        return np.asarray(day - self.start, np.int64)

    def remaining(self, day: int) -> Ints:
        """Days that each part will last from `day` on."""
        return np.asarray(self.start + self.life - day, np.int64)

    def worn(self, day: int) -> Floats:
        """How far each part is on its way from the first sign (0) to its end (1)."""
        left = self.remaining(day) / np.maximum(self.warning, 1)
        return np.asarray(np.where(self.warning > 0, np.clip(1.0 - left, 0.0, 1.0), 0.0), float)

    def step(self, day: int, planned: Collection[tuple[int, int]]) -> list[Replaced]:
        """Replaces what is planned before `day` opens, then what fails on it."""
        done = []
        for m, c in sorted(set(planned)):
            self._put_in(m, c, day)
            done.append(Replaced(m, c, False))
        for m, c in np.argwhere(self.remaining(day) <= 0):
            self._put_in(int(m), int(c), day)
            done.append(Replaced(int(m), int(c), True))
        return done
