"""Defects from process measurements: `python -m benchmarks.quality --data DIR --out DIR`.

The folder, or folders in it, hold `train.parquet` and `test_features.parquet`: machine failures (with the kinds of failure, if
known) or classes of surface faults (column `label`). Writes `ai4i.parquet` (row_id, p, alarm) and `steel_plates.parquet` (row_id,
label), and prints what cross-validation over the training units says, beside rivals on the same folds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import polars as pl

from npq_assets.equipment.learners import Array, Learner, boosted, cross_validated
from npq_assets.equipment.quality import (
    PLACE,
    blemish_features,
    blemish_place,
    cheapest_alarm,
    classifier,
    f1_alarm,
    held_out_probability,
    learn_defects,
    machining_features,
)

REPEATS = 3
KINDS = ("TWF", "HDF", "PWF", "OSF")  # RNF is drawn at random and does not count as a failure


def machining(frame: pl.DataFrame) -> tuple[list[str], Array]:
    """Names and values of the features of AI4I rows."""
    grade = frame["Type"].replace_strict({"L": 0.0, "M": 1.0, "H": 2.0}, default=None, return_dtype=pl.Float64)
    if grade.null_count():
        raise SystemExit(f"Type: {grade.null_count()} rows are neither L, M nor H")
    words = (
        "Torque [Nm]",
        "Rotational speed [rpm]",
        "Tool wear [min]",
        "Air temperature [K]",
        "Process temperature [K]",
    )
    torque, speed, wear, air, process = (frame[w].cast(pl.Float64).to_numpy() for w in words)
    made = machining_features(torque, speed, wear, air, process, grade.to_numpy())
    return list(made), np.column_stack(list(made.values()))


def logistic(x: Array, y: Array, new: Array, weight: Array | None = None) -> Array:
    """The plain rival: logistic regression on standardized measurements."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    p = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x, y).predict_proba(new)
    return np.asarray(p[:, 1] if p.shape[1] == 2 else p, float)


def failures(data: Path, out: Path, miss: float, inspection: float) -> None:
    """AI4I: probability and alarm of every asked unit."""
    from sklearn.metrics import average_precision_score

    train, asked = pl.read_parquet(data / "train.parquet"), pl.read_parquet(data / "test_features.parquet")
    names, x = machining(train)
    y = train["Machine failure"].cast(pl.Float64).to_numpy()
    kinds = {k: train[k].to_numpy() for k in KINDS if k in train.columns} or {"failure": y}
    p = held_out_probability(names, x, kinds)
    raw = x[:, [names.index(n) for n in ("torque", "speed", "wear", "air", "process", "grade")]]
    groups = np.arange(len(y))
    rivals = {
        "npq: a forest a kind": p,
        "LightGBM, raw": cross_validated(boosted("binary", trees=150, leaves=15, columns=0.8), raw, y, groups),
        "logistic regression": cross_validated(logistic, raw, y, groups),
        "the same for all": np.zeros(len(y)),
    }
    print(
        f"failures: {len(y):,} units, {100 * y.mean():.1f} % fail; 5 folds; cost: {miss:g} a miss, {inspection:g} an alarm"
    )
    print(f"  {'model':<24}{'F1':>8}{'PR-AUC':>8}{'threshold':>11}{'cost':>8}{'its threshold':>15}")
    for name, guess in rivals.items():
        best, cheap = f1_alarm(y, guess), cheapest_alarm(y, guess, miss=miss, inspection=inspection)
        print(
            f"  {name:<24}{best.value:>8.3f}{average_precision_score(y, guess):>8.3f}{best.threshold:>11.3f}"
            f"{cheap.value:>8.3f}{cheap.threshold:>15.3f}"
        )
    alarm = f1_alarm(y, p)
    model = learn_defects(names, x, kinds)
    fresh = machining(asked)[1]
    q = model.probability(fresh)
    answer = pl.DataFrame({"row_id": asked["row_id"], "p": q, "alarm": (q >= alarm.threshold).astype(np.int64)})
    answer.write_parquet(out / "ai4i.parquet")
    print(f"  asked: {len(q):,} units, {answer['alarm'].sum()} alarms; for example")
    for i, words in zip(np.argsort(-q)[:3], model.reasons(fresh[np.argsort(-q)[:3]]), strict=True):
        likely = {k: float(v[0]) for k, v in model.by_kind(fresh[[i]]).items()}
        print(f"    {asked['row_id'][int(i)]}: {max(likely, key=lambda k: likely[k])}; {'; '.join(words)}")


def faults(data: Path, out: Path) -> None:
    """Steel plates: the class of every asked blemish."""
    from sklearn.metrics import accuracy_score, f1_score

    train, asked = pl.read_parquet(data / "train.parquet"), pl.read_parquet(data / "test_features.parquet")
    keep = pl.all().exclude("row_id", "label", "__index_level_0__").cast(pl.Float64)
    classes, y = np.unique(train["label"].to_numpy().astype(str), return_inverse=True)
    x, fresh = (
        pl.concat([blemish_features(f.select(keep)), blemish_place(f.select(keep))], how="horizontal").to_numpy()
        for f in (train, asked)
    )
    place = list(range(x.shape[1] - len(PLACE), x.shape[1]))
    alone, raw = x[:, : place[0]], train.select(keep).to_numpy()
    groups = np.arange(len(y))
    plates = np.unique(x[:, place[:3]], axis=0, return_inverse=True)[1].ravel()
    chosen = classifier(len(classes), place=place)
    # A plain split has luck of about a point: the choice between our own is judged on several.
    rivals: dict[str, tuple[Learner, Array, np.ndarray, int]] = {
        "npq": (chosen, x, groups, REPEATS),
        "npq, no plate known": (chosen, x, plates, 1),
        "npq, without neighbours": (classifier(len(classes)), alone, groups, REPEATS),
        "LightGBM, raw": (boosted("multiclass", classes=len(classes), trees=100), raw, groups, 1),
        "logistic regression": (logistic, raw, groups, 1),
    }
    print(
        f"faults: {len(y):,} blemishes of {len(classes)} classes on {plates.max() + 1} plates; 5 folds, npq averaged over "
        f"{REPEATS} divisions"
    )
    print(f"  {'model':<26}{'accuracy':>10}{'macro F1':>10}  (lowest to highest)")
    each = np.zeros(len(classes))
    for name, (learner, table, held, repeats) in rivals.items():
        found = []
        for seed in range(repeats):
            guess = cross_validated(learner, table, y.astype(float), held, seed=seed).argmax(axis=1)
            found.append((accuracy_score(y, guess), f1_score(y, guess, average="macro")))
            if name == "npq":
                each += f1_score(y, guess, average=None) / repeats
        right, macro = np.mean(found, axis=0)
        spread = f"  ({min(f for _, f in found):.3f} to {max(f for _, f in found):.3f})" if repeats > 1 else ""
        print(f"  {name:<26}{right:>10.3f}{macro:>10.3f}{spread}", flush=True)
    print("  F1 by class: " + ", ".join(f"{c} {v:.2f}" for c, v in zip(classes, each, strict=True)))
    label = classes[chosen(x, y.astype(float), fresh).argmax(axis=1)]
    pl.DataFrame({"row_id": asked["row_id"], "label": label}).write_parquet(out / "steel_plates.parquet")


def main() -> None:
    """Runs what the folder holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--miss", type=float, default=20.0, help="cost of a defect without an alarm")
    parser.add_argument("--inspection", type=float, default=1.0, help="cost of an alarm")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = [
        p.parent
        for p in (arguments.data / "train.parquet", *sorted(arguments.data.glob("*/train.parquet")))
        if p.exists()
    ]
    done = 0
    for folder in found:
        began, columns = time.monotonic(), pl.read_parquet_schema(folder / "train.parquet")
        if "Machine failure" in columns:
            failures(folder, arguments.out, arguments.miss, arguments.inspection)
        elif "label" in columns and "Pixels_Areas" in columns:
            faults(folder, arguments.out)
        else:
            continue
        done += 1
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
    if not done:
        raise SystemExit(f"{arguments.data}: no train.parquet with a column 'Machine failure' or 'label'")


if __name__ == "__main__":
    main()
