import pytest

from wafer_lab.errors import UserError
from wafer_lab.evaluation.settings import Evaluation


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tta": "d8"}, "choose none, hflip, d2, d4"),
        ({"calibration": "platt"}, "choose none, temperature, vector"),
        ({"decision": "f2"}, "choose argmax, f1, cost, recall"),
        ({"cost_ratio": 0.0}, "cost_ratio must be positive"),
        ({"cost_ratio": float("nan")}, "cost_ratio must be positive"),
        ({"wrong_defect_cost": -1.0}, "not negative"),
        ({"max_escape_rate": 1.0}, "max_escape_rate=1.0 must lie between"),
        ({"coverage": 0.0}, "coverage=0.0 must lie between"),
        ({"resamples": 10}, "at least 100"),
        ({"min_count": 0}, "at least 1"),
        ({"seed": -1}, "seed not negative"),
        ({"normal": "none"}, r"\[none\]"),
    ],
)
def test_what_cannot_be_is_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        Evaluation(**wrong)


def test_lists_are_as_good_as_tuples():
    lists = Evaluation(normal=["none"], cost_matrix=[[0, 1], [10, 0]])
    assert lists == Evaluation(normal=("none",), cost_matrix=((0, 1), (10, 0)))
    assert hash(lists) == hash(Evaluation(normal=("none",), cost_matrix=((0, 1), (10, 0))))
