import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score, jaccard_score

from wafer_lab.errors import UserError
from wafer_lab.evaluation import drawings, report
from wafer_lab.evaluation.judgement import Judgement, judge_predictions
from wafer_lab.evaluation.masks import Masks, judge, judge_masks, masks_section
from wafer_lab.evaluation.settings import Evaluation

NAMES = ("Center", "Donut", "Scratch")
SIDE = 12


def drawn(wafers: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(N, K, S, S) true and predicted masks: half the wafers lack a pattern, and the last class has fewer still."""
    random = np.random.default_rng(seed)
    has = random.random((wafers, len(NAMES), 1, 1)) < (0.5, 0.5, 0.1)[: len(NAMES)][0]
    has[:, 2] &= np.arange(wafers)[:, None, None] % 5 == 0
    true = (random.random((wafers, len(NAMES), SIDE, SIDE)) < 0.3) & has
    called = true ^ (random.random(true.shape) < 0.05) & (random.random((wafers, len(NAMES), 1, 1)) < 0.7)
    return true, called


def counted(true: np.ndarray, called: np.ndarray, lots: int = 0, split: str = "test") -> Masks:
    rows = len(true)
    pixels = (mask.sum((2, 3)).astype(np.int32) for mask in (true & called, called, true))
    names = ("intersection", "predicted", "true")
    return Masks(
        index=np.arange(rows) + 7,
        split=np.full(rows, split),
        class_names=NAMES,
        canvas=SIDE,
        truth="patterns",
        split_digest="5p117",
        data_fingerprint="da7a",
        lot=np.char.add("lot", (np.arange(rows) % lots).astype(str)) if lots else None,
        **dict(zip(names, pixels, strict=True)),
    )


def plain(true: np.ndarray, called: np.ndarray) -> dict[str, float]:
    """The scores as their words say, wafer by wafer and pixel by pixel."""
    scores, ious, dices, means = {}, [], [], []
    for k, name in enumerate(NAMES):
        both, either = (true[:, k] & called[:, k]).sum(), (true[:, k] | called[:, k]).sum()
        if not either:
            continue
        single = []
        for wafer in range(len(true)):
            union = (true[wafer, k] | called[wafer, k]).sum()
            if union:
                single.append((true[wafer, k] & called[wafer, k]).sum() / union)
        ious.append(both / either)
        dices.append(2 * both / (true[:, k].sum() + called[:, k].sum()))
        means.append(np.mean(single))
        scores |= {f"iou/{name}": ious[-1], f"dice/{name}": dices[-1], f"iou_wafer/{name}": means[-1]}
    return scores | {"iou_macro": np.mean(ious), "dice_macro": np.mean(dices), "iou_wafer_macro": np.mean(means)}


def test_scores_are_those_of_scikit_learn_on_flat_masks() -> None:
    true, called = drawn(40)
    scores, _ = judge(counted(true, called), resamples=100)
    for k, name in enumerate(NAMES):
        flat = true[:, k].ravel(), called[:, k].ravel()
        assert scores[f"iou/{name}"] == pytest.approx(jaccard_score(*flat))
        assert scores[f"dice/{name}"] == pytest.approx(f1_score(*flat))
    every = [mask.transpose(0, 2, 3, 1).reshape(-1, len(NAMES)) for mask in (true, called)]
    assert scores["iou_macro"] == pytest.approx(jaccard_score(*every, average="macro"))
    wafers = [
        jaccard_score(a.ravel(), b.ravel()) for a, b in zip(true[:, 0], called[:, 0], strict=True) if (a | b).any()
    ]
    assert scores["iou_wafer/Center"] == pytest.approx(np.mean(wafers))
    assert scores == pytest.approx(plain(true, called))


@pytest.mark.parametrize("lots", [0, 25, 5], ids=["wafers", "lots", "too few lots"])
def test_intervals_are_those_of_a_plain_loop(lots) -> None:
    true, called = drawn(60, seed=1)
    masks = counted(true, called, lots)
    _, intervals = judge(masks, resamples=120, seed=3)
    groups = (
        [np.flatnonzero(masks.lot == lot) for lot in np.unique(masks.lot)] if lots == 25 else np.arange(60)[:, None]
    )
    found: dict[str, list[float]] = {}
    for draw in range(120):
        chosen = np.random.default_rng((3, draw)).integers(0, len(groups), len(groups), dtype=np.int32)
        rows = np.concatenate([groups[group] for group in chosen])
        for name, value in plain(true[rows], called[rows]).items():
            found.setdefault(name, []).append(value)
    assert intervals.keys() == found.keys()
    for name, values in found.items():
        assert intervals[name] == pytest.approx(tuple(np.quantile(values, [0.025, 0.975]))), name


def test_an_empty_mask_adds_nothing_and_an_invented_one_costs() -> None:
    true, called = drawn(30, seed=2)
    scores, _ = judge(counted(true, called), resamples=100)
    nothing = np.zeros((20, *true.shape[1:]), dtype=bool)
    more, _ = judge(counted(np.concatenate([true, nothing]), np.concatenate([called, nothing])), resamples=100)
    assert more == pytest.approx(scores)
    invented = nothing.copy()
    invented[0, 0, 0, 0] = True
    less, _ = judge(counted(np.concatenate([true, nothing]), np.concatenate([called, invented])), resamples=100)
    assert less["iou/Center"] < scores["iou/Center"]
    counted_in = (true[:, 0] | called[:, 0]).any((1, 2)).sum()
    assert less["iou_wafer/Center"] == pytest.approx(scores["iou_wafer/Center"] * counted_in / (counted_in + 1))


def test_a_class_without_a_pixel_has_no_score_and_is_in_no_mean() -> None:
    true, called = drawn(30)
    true[:, 2] = called[:, 2] = False
    scores, intervals = judge(counted(true, called), resamples=100)
    assert {name for name in scores if name.endswith("Scratch")} == set()
    assert scores["iou_macro"] == pytest.approx((scores["iou/Center"] + scores["iou/Donut"]) / 2)
    assert intervals.keys() == scores.keys()
    true[:], called[:] = False, False
    assert judge(counted(true, called), resamples=100) == ({}, {})


def test_written_and_read_it_is_the_same(tmp_path: Path) -> None:
    masks = counted(*drawn(30), lots=4)
    masks = Masks.concat([masks, replace(masks, split=np.full(30, "val"))], "d1635t")
    read = Masks.read(masks.write(tmp_path / "masks.parquet"))
    for name, value in vars(masks).items():
        assert np.array_equal(getattr(read, name), value), name
    assert [path.name for path in tmp_path.iterdir()] == ["masks.parquet"]
    column = pq.read_table(tmp_path / "masks.parquet")["predicted"]
    assert str(column.type) == "fixed_size_list<element: int32>[3]"
    assert len(read.select("val")) == 30
    assert Masks.concat([masks, replace(masks, lot=None)], "x").lot is None
    with pytest.raises(UserError, match="different canvas"):
        Masks.concat([masks, replace(masks, canvas=64)], "x")


def impossible(masks: Masks) -> Masks:
    object.__setattr__(masks, "intersection", masks.true + 1)
    return masks


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda path: path.unlink(), "no table of masks at"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "cut short or damaged"),
        (lambda path: path.write_bytes(b"index,split"), "nor any Parquet file"),
        (
            lambda path: pq.write_table(pq.read_table(path).replace_schema_metadata(None), path),
            "is not a table of masks",
        ),
        (lambda path: impossible(Masks.read(path)).write(path), "cut short or damaged"),
    ],
    ids=["missing", "cut", "text", "another table", "impossible"],
)
def test_what_is_no_table_of_masks_is_said(tmp_path: Path, change: Callable[[Path], None], says: str) -> None:
    path = counted(*drawn(5)).write(tmp_path / "masks.parquet")
    change(path)
    with pytest.raises(UserError, match=says):
        Masks.read(path)


def test_a_newer_table_is_not_guessed_at(tmp_path: Path) -> None:
    path = counted(*drawn(5)).write(tmp_path / "masks.parquet")
    table = pq.read_table(path)
    ((key, meta),) = ((k, v) for k, v in table.schema.metadata.items() if k.startswith(b"wafer_lab"))
    facts = json.loads(meta) | {"version": 2}
    pq.write_table(table.replace_schema_metadata({key: json.dumps(facts)}), path)
    with pytest.raises(UserError, match="newer wafer_lab"):
        Masks.read(path)


def test_the_median_and_the_worst_wafer_are_shown() -> None:
    true = np.zeros((6, 3, SIDE, SIDE), dtype=bool)
    called = true.copy()
    true[:5, 0, :, 0] = True
    for wafer, hit in enumerate([9, 3, 12, 0, 6]):
        called[wafer, 0, :hit, 0] = True
    called[5, 0] = True  # has no such pattern: its invented mask is in the scores, not on the sheet
    positions, count = counted(true, called).median_and_worst(0)
    assert (positions.tolist(), count) == ([4, 3], 5)
    true[:, 1, 0, 0] = np.arange(6)[:] == 2
    positions, count = counted(true, called).median_and_worst(1)
    assert (positions.tolist(), count) == ([2], 1)
    assert counted(true, called).median_and_worst(2)[1] == 0
    true[:4, 2, 0, :2] = True  # all of IoU 0: the worst is the one that misses most
    true[2, 2] = True
    assert counted(true, called).median_and_worst(2)[0].tolist()[1] == 2


@pytest.fixture
def judgement(judged_table) -> Judgement:
    settings = Evaluation(resamples=100, calibration="none")
    table = judged_table(names=NAMES, target_kind="multilabel", rows=60, views=1)
    true, called = drawn(40)
    masks = Masks.concat([counted(true, called, split=split) for split in ("val", "test")], "5p117")
    return replace(judge_predictions(table, settings, alternatives=False), masks=judge_masks(masks, settings))


def test_the_report_tells_of_the_masks(judgement, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "masks_test.png").write_bytes(b"drawn with the network")
    drawings.write_figures(tmp_path, judgement)
    text = report.write_report(tmp_path, judgement, {}).read_text()
    low, high = judgement.intervals["test/iou/Donut"]
    cell = f"{judgement.scores['test/iou/Donut']:.4f} [{low:.4f}, {high:.4f}]"
    row = next(line for line in text.splitlines() if line.startswith("| Donut |"))
    assert row.startswith(f"| Donut | {(judgement.masks.masks.select('test').true[:, 1] > 0).sum()} | {cell} |")
    assert "![" in text
    assert {"(figures/masks_iou.png)", "(figures/masks_test.png)"} <= set(text.replace("]", "] ").split())
    assert (tmp_path / "figures" / "masks_test.png").read_bytes() == b"drawn with the network"
    assert "simulator's own" in text
    assert report.headline(judgement.scores, judgement.intervals)[1].startswith("mean IoU")


def test_weak_truth_is_said_to_be_weak(judgement) -> None:
    told = {truth: "\n".join(masks_section(with_truth(judgement, truth))) for truth in ("weak", "mine.json")}
    assert "nobody drew or checked them" in told["weak"]
    assert "annotations of mine.json" in told["mine.json"]


def with_truth(judgement: Judgement, truth: str):
    return replace(judgement.masks, masks=replace(judgement.masks.masks, truth=truth))


def test_no_wafers_are_said() -> None:
    with pytest.raises(UserError, match="no wafers whose masks"):
        judge_masks(counted(*drawn(5)), Evaluation(resamples=100), splits=("val",))
