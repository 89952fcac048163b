"""Combining logits, against scipy on probabilities."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit, softmax

from wafer_lab.errors import UserError
from wafer_lab.evaluation.ensembles.combination import aligned, calibrated, combined, ensemble_of
from wafer_lab.evaluation.predictor.calibration import fit_calibration
from wafer_lab.evaluation.predictor.predictor import calibrate
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.evaluation.views import wafers

D2 = Evaluation(tta="d2", resamples=100)


def test_the_mean_of_probabilities_is_what_the_logits_say():
    logits = np.random.default_rng(0).normal(0, 3, (4, 50, 2, 5))
    mean = softmax(logits, axis=-1).mean(0)
    assert softmax(combined(logits, "multiclass", "probabilities"), axis=-1) == pytest.approx(mean, abs=1e-6)
    assert combined(logits, "multilabel", "probabilities") == pytest.approx(logit(expit(logits).mean(0)), abs=1e-4)
    assert combined(logits, "multiclass", "logits") == pytest.approx(logits.mean(0), abs=1e-6)
    geometric = np.exp(np.log(softmax(logits, axis=-1)).mean(0))
    geometric /= geometric.sum(-1, keepdims=True)
    assert softmax(combined(logits, "multiclass", "logits"), axis=-1) == pytest.approx(geometric, abs=1e-6)


def test_a_member_alone_says_what_it_said_and_certainty_stays_finite():
    logits = np.array([[900.0, -900.0, 0.0]])
    assert np.isfinite(combined([logits, -logits], "multilabel", "probabilities")).all()
    assert np.isfinite(combined([logits, -logits], "multiclass", "probabilities")).all()
    assert combined([logits], "multilabel", "probabilities") == pytest.approx(logits)
    assert softmax(combined([logits], "multiclass", "probabilities")) == pytest.approx(softmax(logits))


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_every_member_is_calibrated_by_itself_and_val_out_of_fold(judged_table, kind):
    """The calibrated logits, averaged over views as an uncalibrated model's, are the calibrated probabilities."""
    table = judged_table(rows=300, target_kind=kind)
    (part,) = aligned([table], D2)
    found = calibrated(part, D2)
    val, test = (wafers(table, split, "d2") for split in ("val", "test"))
    link = (lambda x: softmax(x, axis=-1)) if kind == "multiclass" else expit
    own = fit_calibration("temperature", val.logits, val.target, kind)
    said = link(wafers(found, "test", "d2").logits).mean(1)
    assert said == pytest.approx(own.probabilities(test.logits), abs=1e-5)
    assert not np.allclose(said, link(test.logits).mean(1), atol=0.01)  # its logits are three times too large
    assert link(wafers(found, "val", "d2").logits).mean(1) == pytest.approx(calibrate(val, D2).probabilities, abs=1e-5)


def test_tables_are_put_in_one_order_and_their_common_views(judged_table):
    one, other = judged_table(rows=60), judged_table(rows=60, seed=1)
    other = replace(other, target=one.target)
    shuffled = other.take(np.random.default_rng(0).permutation(len(other)))
    shuffled = shuffled.select(rows=np.isin(shuffled.view, (0, 1, 2, 3, 5)))
    tables = aligned([one, shuffled], Evaluation())
    together = ensemble_of(tables, "probabilities")
    assert set(together.view) == {0, 1, 2, 3, 5}
    row = next(k for k in range(len(together)) if (together.index[k], together.view[k]) == (41, 3))
    logits = [t.select(view=3, rows=t.index == 41).logits[0] for t in (one, other)]
    assert softmax(together.logits[row]) == pytest.approx(softmax(logits, axis=-1).mean(0), abs=1e-6)


def test_members_without_the_views_or_with_other_labels_are_refused(judged_table):
    table = judged_table(rows=60)
    with pytest.raises(UserError, match=r"tta=d4 needs views .* choose one of none, .*data\.views=d4"):
        aligned([table, table.select(view=0)], Evaluation(tta="d4"))
    changed = replace(table, target=(table.target + 1) % 9)
    with pytest.raises(UserError, match="differ in target"):
        aligned([table, changed], Evaluation())
