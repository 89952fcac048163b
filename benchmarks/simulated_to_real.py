"""What runs of experiment=simulated_to_real score on the real wafers that the simulator was not tuned on.

The fab style was tuned beside the train and val parts of a real sample (`data.seed=0`): their maps without labels for
its statistics, their labels for the scores of its steps. So the test part of the same split is scored apart.

    python benchmarks/simulated_to_real.py LSWMD.pkl outputs/runs/<run> ...
"""

import argparse
from pathlib import Path

import numpy as np

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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("real", type=Path, help="the data.external of the runs")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--parts", nargs="+", choices=("tuned", "test"), default=("tuned", "test"))
    parser.add_argument("--cache", default="outputs/cache")
    options = parser.parse_args()
    source = open_source(options.real)
    store = source if isinstance(source, Store) else cached(source, options.cache)
    rows = split(store.label, store.content, seed=0)
    parts = {"tuned": np.concatenate([rows.train, rows.val]), "test": rows.test}
    for run in options.runs:
        external = External.read(run, Predictions.read(run / "predictions.parquet"))
        if external is None:
            raise UserError(f"{run} has no external test; train with data.external={options.real}")
        predictor = Predictor.read(run / "predictor.json")
        asked = wafers(external.table, "external", predictor.tta)
        for name in options.parts:
            part = asked.take(np.isin(asked.index, parts[name]))
            probabilities, names = predictor.probabilities(part.logits), part.class_names
            decisions = predictor.decision(probabilities)
            scores, intervals = judge(part.target, decisions, probabilities, names, "multiclass", ranking=False)
            low, high = intervals["f1_macro"]
            print(f"{run.name} {name}: {len(part):,} wafers, macro F1 {scores['f1_macro']:.4f} [{low:.4f}, {high:.4f}]")
            print("  " + ", ".join(f"{label} {scores[f'f1/{label}']:.3f}" for label in part.class_names))


if __name__ == "__main__":
    main()
