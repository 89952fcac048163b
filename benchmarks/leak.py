"""What near duplicates on both sides of a random split feign: one model, many splits, grouped against naive.

The model is a fixed network's features under a logistic regression, which trains in a second, so that the answer is a
mean over many data seeds and not the luck of one. Each seed splits twice, once with near duplicates on one side and
once without a look at copies (`data.group=none`), by the same fractions.

    python benchmarks/leak.py images/ --model tf_efficientnet_lite0 --weights tf_efficientnet_lite0.safetensors
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import StandardScaler

from wafer_lab.data.images import canvas, scale
from wafer_lab.data.near_duplicates import near_duplicate_groups
from wafer_lab.data.prepare import cached
from wafer_lab.data.readers import open_source
from wafer_lab.data.split import split
from wafer_lab.models.timm_encoder import timm_encoder
from wafer_lab.models.weights import load_weights

VAL = 0.15
TEST = 0.2


def features(store, size, name, weights, encoding):
    encoder = timm_encoder(name, 3, size)
    print(load_weights(encoder, weights))
    encoder.eval()
    grey = torch.from_numpy(np.stack([canvas(Path(store.root) / path, size) for path in store.path]))
    with torch.inference_mode():
        return torch.cat([encoder(scale(part, encoding)) for part in grey.split(64)]).numpy()


def judged(x, label, groups, part):
    """Accuracy and macro F1 on test; accuracy on test images with a twin in training, and on the others."""
    scaler = StandardScaler().fit(x[part.train])
    model = LogisticRegression(C=0.01, max_iter=1000, class_weight="balanced")
    model.fit(scaler.transform(x[part.train]), label[part.train])
    true, said = label[part.test], model.predict(scaler.transform(x[part.test]))
    twin = np.isin(groups[part.test], groups[part.train])
    right = said == true
    macro = f1_score(true, said, average="macro")
    return accuracy_score(true, said), macro, right[twin].mean() if twin.any() else np.nan, right[~twin].mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument(
        "--encoding", default="inception", choices=("inception", "imagenet"), help="what it was made on"
    )
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--cache", default="outputs/cache")
    chosen = parser.parse_args()
    began = time.perf_counter()
    store = cached(open_source(chosen.images), chosen.cache)
    label, twins = np.asarray(store.label), near_duplicate_groups(store, chosen.cache)
    x = features(store, chosen.size, chosen.model, chosen.weights, chosen.encoding)
    rows = {"grouped": twins.astype(np.uint64), "naive": np.arange(len(label), dtype=np.uint64)}
    scores = {
        side: np.array(
            [
                judged(x, label, twins, split(label, content, val=VAL, test=TEST, seed=seed))
                for seed in range(chosen.seeds)
            ]
        )
        for side, content in rows.items()
    }
    names = ("accuracy", "macro F1", "accuracy, twin in training", "accuracy, no twin")
    print(f"\n{len(label)} images, {chosen.seeds} data seeds; mean and its standard error\n")
    print("| | grouped | naive | naive - grouped |\n| --- | --- | --- | --- |")
    error = np.sqrt(chosen.seeds)
    for k, name in enumerate(names):
        cells = [scores[side][:, k] for side in rows]
        cells.append(cells[1] - cells[0])
        shown = [
            f"{np.nanmean(c):.4f} ± {np.nanstd(c, ddof=1) / error:.4f}" if np.isfinite(c).any() else "-" for c in cells
        ]
        print(f"| {name} | {' | '.join(shown)} |")
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
