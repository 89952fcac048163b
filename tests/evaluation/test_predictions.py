import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import expit, softmax

from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import Predictions

COLUMNS = ("index", "split", "view", "target", "logits")


def assert_same(found: Predictions, expected: Predictions) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype.kind == getattr(expected, name).dtype.kind
    for name in ("class_names", "target_kind", "split_digest", "data_fingerprint"):
        assert getattr(found, name) == getattr(expected, name)


@pytest.mark.parametrize("rows", [0, 1, 200])
@pytest.mark.parametrize("kind", ["multiclass_table", "multilabel_table"])
def test_round_trip(kind, rows, request, tmp_path: Path) -> None:
    table = request.getfixturevalue(kind)(rows=rows)
    path = table.write(tmp_path / "deep" / "predictions.parquet")
    found = Predictions.read(path)
    assert_same(found, table)
    assert found.logits.dtype == np.float32
    assert found.index.dtype == np.int64
    assert found.view.dtype == np.int8
    assert [item.name for item in path.parent.iterdir()] == ["predictions.parquet"]


def test_the_file_is_plain_parquet(multiclass_table, tmp_path: Path) -> None:
    table = multiclass_table(rows=10)
    found = pq.read_table(table.write(tmp_path / "p.parquet"))
    assert tuple(found.column_names) == COLUMNS
    assert found.schema.field("logits").type == pa.list_(pa.float32(), 3)
    meta = json.loads(found.schema.metadata[b"wafer_lab.predictions"])
    assert meta["class_names"] == list(table.class_names)
    np.testing.assert_array_equal(np.array(found["logits"].to_pylist(), np.float32), table.logits)


def test_many_row_groups_and_views_keep_their_order(multiclass_table, tmp_path: Path) -> None:
    whole = multiclass_table(rows=1000)
    path = whole.write(tmp_path / "p.parquet")
    pq.write_table(pq.read_table(path), path, row_group_size=64)
    assert_same(Predictions.read(path), whole)


def test_probabilities_are_softmax_or_sigmoid(multiclass_table, multilabel_table) -> None:
    table = multiclass_table(rows=50)
    extreme = replace(table, logits=np.where(table.logits > 5, 1e4, -1e4).astype(np.float32))
    np.testing.assert_allclose(table.probabilities(), softmax(table.logits, axis=1), rtol=1e-5)
    np.testing.assert_allclose(extreme.probabilities().sum(axis=1), 1)
    labels = multilabel_table(rows=50)
    wide = replace(labels, logits=np.linspace(-1e3, 1e3, 150, dtype=np.float32).reshape(50, 3))
    np.testing.assert_allclose(wide.probabilities(), expit(wide.logits), atol=1e-7)
    assert table.probabilities().dtype == np.float32


def test_decisions() -> None:
    def table(logits, kind, target):
        logits = np.array(logits, np.float32)
        rows = len(logits)
        return Predictions(
            np.arange(rows), np.full(rows, "val"), np.zeros(rows, np.int8), np.array(target), logits,
            ("a", "b"), kind, "s", "d",
        )  # fmt: skip

    single = table([[1, 2], [2, 1], [3, 3]], "multiclass", [0, 0, -1])
    assert single.decisions().tolist() == [1, 0, 0]
    assert single.labelled.tolist() == [True, True, False]
    several = table([[1, 2], [-2, 1], [0, -1]], "multilabel", [[0, 0], [1, 1], [-1, -1]])
    assert several.decisions().tolist() == [[1, 1], [0, 1], [1, 0]]
    assert several.labelled.tolist() == [True, True, False]


def test_decisions_agree_with_the_metrics_of_training(multilabel_table) -> None:
    import torch

    from wafer_lab.evaluation.intervals import judge
    from wafer_lab.metrics.collection import classification_metrics

    table = multilabel_table(rows=300)
    metrics = classification_metrics("multilabel", 3, table.class_names, ranking=False)
    metrics.update(torch.from_numpy(table.probabilities()), torch.from_numpy(table.target))
    expected = {key: float(value) for key, value in metrics.compute().items()}
    what = (table.target, table.decisions(), table.probabilities(), table.class_names, table.target_kind)
    scores, _ = judge(*what, resamples=100)
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_select_and_concat(multiclass_table) -> None:
    val, test = multiclass_table(rows=20, split="val"), multiclass_table(rows=30, split="test", seed=1)
    turned = replace(test, view=np.full(30, 3, np.int8))
    table = Predictions.concat([val, test, turned])
    assert len(table) == 80
    assert table.splits() == ("val", "test")
    assert_same(table.select(split="val"), val)
    assert_same(table.select(split="test", view=3), turned)
    assert len(table.select(rows=table.index < 5)) == 15
    assert len(table.select(split="nowhere")) == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("class_names", ("x", "y", "z")),
        ("split_digest", "other"),
        ("data_fingerprint", "other"),
    ],
)
def test_concat_refuses_tables_of_different_origin(multiclass_table, name, value) -> None:
    table = multiclass_table(rows=5)
    with pytest.raises(UserError, match=name):
        Predictions.concat([table, replace(table, **{name: value})])


@pytest.mark.parametrize(
    "change",
    [
        {"logits": np.zeros((5, 2), np.float32)},
        {"target": np.zeros((5, 3), np.int8)},
        {"split": np.array(["test"] * 4)},
        {"view": np.zeros(6, np.int8)},
        {"target_kind": "mask"},
    ],
)
def test_columns_that_disagree_are_refused(multiclass_table, change) -> None:
    with pytest.raises(ValueError, match=r"shape|target_kind"):
        replace(multiclass_table(rows=5), **change)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_diverged_logits_are_neither_written_nor_read(multiclass_table, tmp_path, value, monkeypatch) -> None:
    table = multiclass_table(rows=5)
    path = tmp_path / "p.parquet"
    table.logits[2, 1] = value
    with pytest.raises(UserError, match=r"1 of 5 rows are not finite.*learning rate"):
        table.write(path)
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setattr("wafer_lab.evaluation.predictions._check_finite", lambda *args: None)
        table.write(path)
    with pytest.raises(UserError, match=r"p\.parquet.*1 of 5 rows are not finite"):
        Predictions.read(path)


def _missing(path: Path, table: Predictions) -> None:
    del table, path


def _folder(path: Path, table: Predictions) -> None:
    path.mkdir()


def _text(path: Path, table: Predictions) -> None:
    path.write_text("index,split\n")


def _empty(path: Path, table: Predictions) -> None:
    path.touch()


def _other_parquet(path: Path, table: Predictions) -> None:
    pq.write_table(pa.table({"a": [1]}), path)


def _cut(path: Path, table: Predictions) -> None:
    table.write(path)
    path.write_bytes(path.read_bytes()[:-100])


def _newer(path: Path, table: Predictions) -> None:
    found = pq.read_table(table.write(path))
    meta = json.loads(found.schema.metadata[b"wafer_lab.predictions"]) | {"version": 99}
    pq.write_table(found.replace_schema_metadata({b"wafer_lab.predictions": json.dumps(meta)}), path)


def _column(name: str, values: list[object]) -> Callable[[Path, Predictions], None]:
    def spoil(path: Path, table: Predictions) -> None:
        found = pq.read_table(table.write(path))
        changed = pa.array([*values, *found[name].to_pylist()[len(values) :]])
        pq.write_table(found.set_column(found.column_names.index(name), name, changed), path)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_column("target", [99]), "damaged"),
        (_column("target", [None]), "damaged"),
        (_column("index", [None]), "damaged"),
        (_missing, "there is no predictions table"),
        (_folder, "there is no predictions table"),
        (_text, "not a predictions table, nor any Parquet"),
        (_empty, "not a predictions table, nor any Parquet"),
        (_other_parquet, "not a predictions table; name"),
        (_cut, "cut short or damaged"),
        (_newer, "newer wafer_lab"),
    ],
)
def test_unreadable_files_are_one_clear_message(spoil, says, multiclass_table, tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    spoil(path, multiclass_table(rows=50))
    with pytest.raises(UserError, match=says) as caught:
        Predictions.read(path)
    assert str(path) in str(caught.value)


def test_a_flipped_bit_is_noticed_or_harmless(multilabel_table, tmp_path: Path) -> None:
    table = multilabel_table(rows=50)
    path = table.write(tmp_path / "p.parquet")
    content = path.read_bytes()
    noticed = 0
    for position in range(4, len(content), 31):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        try:
            found = Predictions.read(path)
        except UserError:
            noticed += 1
        else:
            for name in COLUMNS:
                np.testing.assert_array_equal(getattr(found, name), getattr(table, name))
    assert noticed > 20


def test_a_failed_write_leaves_the_old_table(multiclass_table, tmp_path: Path, monkeypatch) -> None:
    path = multiclass_table(rows=5).write(tmp_path / "p.parquet")
    before = path.read_bytes()

    def full(table, where, **options):
        where.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(UserError, match="No space left"):
        multiclass_table(rows=9).write(path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["p.parquet"]


def test_lots_and_distances_survive(multiclass_table, tmp_path: Path) -> None:
    plain = multiclass_table(rows=5)
    assert Predictions.read(plain.write(tmp_path / "plain.parquet")).lot is None
    full = replace(plain, lot=np.array(["a", "", "b", "a", "c"]), knn_distance=np.arange(5, dtype=np.float32))
    again = Predictions.read(full.write(tmp_path / "full.parquet")).take(np.array([4, 0]))
    assert again.lot.tolist() == ["c", "a"]
    assert again.knn_distance.tolist() == [4, 0]
    assert Predictions.concat([plain, full]).lot is None  # what not all tables know, the joined one does not know
    with pytest.raises(ValueError, match="lot has shape"):
        replace(plain, lot=np.array(["a"]))
