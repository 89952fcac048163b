import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, logsumexp, softmax

from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.calibration import Calibration, _nll, calibration_from, fit_calibration


def draw(seed, rows, views, classes, temperature, bias=0.0, noise=0.0):
    """Logits that are right at a temperature, and targets; the views differ by noise."""
    random = np.random.default_rng(seed)
    right = random.normal(size=(rows, classes)) * 2 + bias
    target = (softmax(right, axis=1).cumsum(1) > random.random((rows, 1))).argmax(1)
    shown = temperature * right[:, None] + noise * random.normal(size=(rows, views, classes))
    return shown.astype(np.float32), target


def draw_labels(seed, rows, views, temperature, bias=0.0):
    random = np.random.default_rng(seed)
    right = random.normal(size=(rows, len(temperature))) * 2
    target = (random.random(right.shape) < expit(right)).astype(np.int8)
    return np.repeat(((right - bias) * temperature)[:, None], views, axis=1).astype(np.float32), target


def averaged_nll(calibration, logits, target):
    probabilities = calibration.probabilities(logits)
    if target.ndim == 2:
        return -np.log(np.where(target == 1, probabilities, 1 - probabilities)).sum(1).mean()
    return -np.log(probabilities[np.arange(len(target)), target]).mean()


@pytest.mark.parametrize("views", [1, 8])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_a_known_temperature_is_recovered(views, temperature):
    logits, target = draw(0, 8000, views, 5, temperature)
    calibration = fit_calibration("temperature", logits, target, "multiclass")
    assert calibration.temperature == pytest.approx(temperature, rel=0.05)
    assert calibration.temperatures == pytest.approx([calibration.temperature] * 5)
    assert set(calibration.bias) == {0.0}


def test_a_temperature_per_label_is_recovered():
    wanted = np.array([0.5, 1.0, 2.5])
    logits, target = draw_labels(0, 8000, 2, wanted)
    calibration = fit_calibration("temperature", logits, target, "multilabel")
    assert calibration.temperatures == pytest.approx(wanted, rel=0.08)


def test_vector_recovers_scale_and_bias_of_labels():
    logits, target = draw_labels(1, 20000, 1, np.array([0.5, 2.0]), bias=np.array([1.0, -0.5]))
    calibration = fit_calibration("vector", logits, target, "multilabel")
    assert calibration.temperatures == pytest.approx([0.5, 2.0], rel=0.08)
    assert calibration.bias == pytest.approx([1.0, -0.5], abs=0.1)


def test_it_is_the_averaged_probability_whose_likelihood_is_best():
    """Noisy views: the best temperature of their mean is not the best of single views."""
    logits, target = draw(1, 3000, 6, 4, 1.0, noise=1.5)
    fitted = fit_calibration("temperature", logits, target, "multiclass")

    def nll(log_scale):
        truth = log_softmax(np.exp(log_scale) * logits.astype(float), axis=2)[np.arange(len(target)), :, target]
        return -(logsumexp(truth, axis=1) - np.log(6)).mean()

    best = minimize(lambda x: nll(x[0]), [0.0], method="Nelder-Mead", options={"xatol": 1e-6})
    assert np.log(fitted.scale[0]) == pytest.approx(best.x[0], abs=2e-3)
    single = fit_calibration("temperature", logits.reshape(-1, 1, 4), np.repeat(target, 6), "multiclass")
    assert averaged_nll(fitted, logits, target) < averaged_nll(single, logits, target) - 0.01


def test_vector_is_the_best_scale_and_bias_there_are():
    logits, target = draw(2, 2000, 3, 3, 1.7, noise=0.5, bias=np.array([0, 1, -1]))
    fitted = fit_calibration("vector", logits, target, "multiclass")

    def nll(free):
        scaled = logits * np.exp(free[:3]) + np.append(0, free[3:])
        truth = log_softmax(scaled, axis=2)[np.arange(len(target)), :, target]
        return -logsumexp(truth - np.log(3), axis=1).mean()

    best = minimize(nll, np.zeros(5), method="BFGS")
    assert averaged_nll(fitted, logits, target) == pytest.approx(best.fun, abs=1e-4)


def test_vector_beats_temperature_where_classes_are_skewed():
    logits, target = draw(3, 6000, 2, 5, 1.5, noise=0.3)
    logits = logits + np.array([0, 2, -1, 0, 1], dtype=np.float32)
    fitted = {
        kind: fit_calibration(kind, logits[:3000], target[:3000], "multiclass") for kind in ("temperature", "vector")
    }
    losses = {kind: averaged_nll(one, logits[3000:], target[3000:]) for kind, one in fitted.items()}
    assert losses["vector"] < losses["temperature"] - 0.05


@pytest.mark.parametrize("target_kind", ["multiclass", "multilabel"])
def test_the_gradient_is_that_of_autograd(target_kind):
    random = np.random.default_rng(4)
    logits = random.normal(size=(4, 3, 50)) * 3
    labels = random.integers(0, 2, (4, 50))
    classes = random.integers(0, 4, 50)
    scale, bias = (torch.tensor(random.random(4) + 0.5, requires_grad=True) for _ in range(2))
    scores = torch.tensor(logits) * scale[:, None, None] + bias[:, None, None]
    if target_kind == "multiclass":
        right = torch.softmax(scores, 0).gather(0, torch.tensor(classes)[None, None].expand(1, 3, -1))
    else:
        right = torch.where(torch.tensor(labels)[:, None] == 1, scores.sigmoid(), 1 - scores.sigmoid())
    loss = -right.mean(1).log().sum()
    loss.backward()
    target = classes if target_kind == "multiclass" else labels
    found = _nll(logits, target, scale.detach().numpy(), bias.detach().numpy())
    assert found[0] == pytest.approx(loss.item())
    np.testing.assert_allclose(found[1], scale.grad.numpy(), rtol=1e-9)
    np.testing.assert_allclose(found[2], bias.grad.numpy(), rtol=1e-9)


def test_none_changes_nothing():
    logits, target = draw(5, 30, 2, 3, 2.0)
    calibration = fit_calibration("none", logits, target, "multiclass")
    assert (calibration.scale, calibration.bias) == ((1.0,) * 3, (0.0,) * 3)
    np.testing.assert_allclose(calibration.probabilities(logits), softmax(logits.astype(float), axis=2).mean(1))
    labels = fit_calibration("none", logits, target, "multilabel")
    np.testing.assert_allclose(labels.probabilities(logits), expit(logits.astype(float)).mean(1))


@pytest.mark.parametrize("kind", ["temperature", "vector"])
@pytest.mark.parametrize("target_kind", ["multiclass", "multilabel"])
@pytest.mark.parametrize("case", ["separated", "one wafer", "flat", "huge", "absent", "all wrong"])
def test_data_without_a_best_temperature_do_no_harm(kind, target_kind, case):
    random = np.random.default_rng(6)
    target = random.integers(0, 2 if case == "absent" else 3, 1 if case == "one wafer" else 60)
    logits = random.normal(size=(len(target), 2, 3)) + 20 * np.eye(3)[target][:, None] * (case != "flat")
    logits *= {"flat": 0, "huge": 1e6, "all wrong": -1}.get(case, 1)
    truth = target if target_kind == "multiclass" else np.eye(3, dtype=np.int8)[target]
    calibration = fit_calibration(kind, logits.astype(np.float32), truth, target_kind)
    assert min(calibration.temperatures) >= 0.01 * (1 - 1e-9)
    assert max(calibration.temperatures) <= 100 * (1 + 1e-9)
    assert max(map(abs, calibration.bias)) < 20
    probabilities = calibration.probabilities(logits)
    assert np.isfinite(probabilities).all()
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1 + 1e-12


def test_a_class_that_hardly_occurs_stays_as_the_others_are():
    logits, target = draw(7, 3000, 1, 4, 2.0)
    rows = target < 3
    calibration = fit_calibration("vector", logits[rows], target[rows], "multiclass")
    assert abs(np.log(calibration.temperatures[3] / 2)) < 1
    assert -10 < calibration.bias[3] < 0


def test_the_mean_over_views_and_extreme_logits():
    calibration = Calibration("vector", "multiclass", (1.0, 2.0), (0.5, 0.0))
    logits = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    first, second = 1 / (1 + np.exp(-1.5)), 1 / (1 + np.exp(1.5))
    np.testing.assert_allclose(calibration.probabilities(logits), [[(first + second) / 2, 1 - (first + second) / 2]])
    extreme = Calibration("none", "multilabel", (1.0,), (0.0,)).probabilities(np.array([[[1e5]], [[-1e5]]]))
    assert extreme.tolist() == [[1], [0]]
    assert calibration.probabilities(np.empty((0, 2, 2))).shape == (0, 2)
    for shape in [(4, 2), (4, 1, 3), (4, 0, 2)]:
        with pytest.raises(ValueError, match="not"):
            calibration.probabilities(np.zeros(shape))


def test_a_description_is_read_back_and_nonsense_refused():
    calibration = Calibration("vector", "multiclass", (0.1, 1 / 3), (0.0, -2.0))
    assert calibration_from(calibration.to_dict()) == calibration
    whole = calibration.to_dict()
    for wrong in (
        {},
        {"kind": "platt"},
        {"scale": [1.0]},
        {"scale": [1.0, -1.0]},
        {"scale": [1.0, float("nan")]},
        {"bias": ["a", 0]},
        {"bias": None},
        {"target_kind": "mask"},
    ):
        with pytest.raises(UserError, match="no calibration"):
            calibration_from(whole | wrong if wrong else {})
