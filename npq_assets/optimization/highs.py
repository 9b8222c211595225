"""HiGHS behind CVXPY, without the banner that it prints to standard output, where our JSON goes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


def solve(program: Any, **options: Any) -> bool:
    """Solves a CVXPY problem with HiGHS; whether an optimum, or the best plan within the limits given, was found."""
    import cvxpy as cp

    with silence():
        try:
            program.solve(solver=cp.HIGHS, **options)
        except cp.SolverError:
            return False
    return program.status in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE, cp.USER_LIMIT)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Points file descriptor 1 at nothing: the banner comes from C++ and knows no option."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # no standard output at all
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
