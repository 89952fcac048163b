from dataclasses import replace

import numpy as np
import pytest

from wafer_lab.errors import UserError
from wafer_lab.evaluation.views import VIEWS, wafers


def test_views_are_gathered_wafer_by_wafer(judged_table) -> None:
    table = judged_table(rows=60)
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    for tta, views in VIEWS.items():
        part = wafers(shuffled, "test", tta)
        assert part.index.tolist() == sorted(set(table.index[table.split == "test"].tolist()))
        for place, view in enumerate(views):
            expected = table.select(split="test", view=view)
            assert np.array_equal(part.logits[:, place], expected.logits)
            assert np.array_equal(part.target, expected.target)
            assert np.array_equal(part.lot, expected.lot)


def test_take_keeps_rows_together(judged_table) -> None:
    part = wafers(judged_table(rows=60), "test", "d2")
    few = part.take(np.array([3, 1]))
    assert few.index.tolist() == part.index[[3, 1]].tolist()
    assert np.array_equal(few.logits, part.logits[[3, 1]])
    assert few.knn_distance is None
    assert len(part.take(part.target == part.target[0])) == (part.target == part.target[0]).sum()


def test_what_is_missing_is_said(judged_table) -> None:
    table = judged_table(rows=60)
    with pytest.raises(UserError, match="has no val rows \\(it has test\\)"):
        wafers(table.select(split="test"), "val")
    with pytest.raises(UserError, match=r"needs views 2, 3 of the val wafers.*choose one of none, or.*data.views=d2"):
        wafers(table.select(rows=table.view < 2), "val", "d2")
    with pytest.raises(UserError, match=r"no test wafer .* has a label"):
        wafers(replace(table, target=np.full_like(table.target, -1)), "test")


def test_tables_that_contradict_themselves(judged_table) -> None:
    table = judged_table(rows=60, views=2)
    twice = table.take(np.r_[np.arange(len(table)), 0])
    with pytest.raises(ValueError, match=r"more than once|not of the same wafers"):
        wafers(twice, "val")
    target = table.target.copy()
    target[-1] = (target[-1] + 1) % 9
    with pytest.raises(ValueError, match="not of the same wafers"):
        wafers(replace(table, target=target, view=table.view * 2), "test", "hflip")
