"""What runs of experiment=simulated_to_real score on the real wafers that the simulator was not tuned on.

The fab style was tuned beside the train and val parts of a real sample (`data.seed=0`): their maps without labels for
its statistics, their labels for the scores of its steps. So the test part of the same split is scored apart.

    python benchmarks/simulated_to_real.py LSWMD.pkl outputs/runs/<run> ...
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.prepare import cached
from wafer_lab.data.readers import open_source
from wafer_lab.data.split import split
from wafer_lab.data.store import Store
from wafer_lab.errors import UserError
from wafer_lab.evaluation.external import External
from wafer_lab.evaluation.intervals import judge
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.views import wafers


def parts_of(real: Path, cache: str) -> dict[str, NDArray[np.int64]]:
    """The rows of a real data set that the simulator was tuned beside, and those that nothing was tuned on."""
    source = open_source(real)
    store = source if isinstance(source, Store) else cached(source, cache)
    rows = split(store.label, store.content, seed=0)
    return {"tuned": np.concatenate([rows.train, rows.val]), "test": rows.test}


def judged(run: Path, rows: NDArray[np.int64]) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Scores of a run's external test on some of its rows, and their intervals."""
    external = External.read(run, Predictions.read(run / "predictions.parquet"))
    if external is None:
        raise UserError(f"{run} has no external test; train with data.external=LSWMD.pkl")
    predictor = Predictor.read(run / "predictor.json")
    asked = wafers(external.table, "external", predictor.tta)
    part = asked.take(np.isin(asked.index, rows))
    probabilities = predictor.probabilities(part.logits)
    decisions = predictor.decision(probabilities)
    return judge(part.target, decisions, probabilities, part.class_names, "multiclass", ranking=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("real", type=Path, help="the data.external of the runs")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--parts", nargs="+", choices=("tuned", "test"), default=("tuned", "test"))
    parser.add_argument("--cache", default="outputs/cache")
    options = parser.parse_args()
    parts = parts_of(options.real, options.cache)
    for run in options.runs:
        for name in options.parts:
            scores, intervals = judged(run, parts[name])
            low, high = intervals["f1_macro"]
            score = f"macro F1 {scores['f1_macro']:.4f} [{low:.4f}, {high:.4f}]"
            print(f"{run.name} {name}: {len(parts[name]):,} wafers, {score}")
            each = {key.removeprefix("f1/"): value for key, value in scores.items() if key.startswith("f1/")}
            print("  " + ", ".join(f"{label} {value:.3f}" for label, value in each.items()))


if __name__ == "__main__":
    main()
