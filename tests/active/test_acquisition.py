"""Every acquisition against plain loops over the definition."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from wafer_lab.active.acquisition import NAMES, Pool, choose, needs
from wafer_lab.active.diversity import gradient_factor, k_centre, k_means_seeds
from wafer_lab.active.start import start
from wafer_lab.active.uncertainty import bald, entropy, margin
from wafer_lab.errors import UserError


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def classes(generator, *shape):
    return generator.dirichlet(np.full(shape[-1], 0.4), shape[:-1])


def pool_of(generator, size=40, target="multiclass", **options):
    draw = classes if target == "multiclass" else lambda generator, *shape: generator.random(shape)
    return Pool(
        target=target,
        size=size,
        probabilities=draw(generator, size, 5),
        members=draw(generator, 6, size, 5),
        features=torch.from_numpy(generator.normal(3, 1, (size, 8))),
        labelled=torch.from_numpy(generator.normal(3, 1, (7, 8))),
        **options,
    )


def test_entropy(generator):
    p = classes(generator, 20, 5)
    p[0] = [1, 0, 0, 0, 0]
    assert entropy(p, "multiclass") == pytest.approx([scipy_entropy(row) for row in p])
    q = generator.random((20, 5))
    q[0] = [0, 1, 0, 1, 1]
    expected = [sum(scipy_entropy([x, 1 - x]) for x in row) for row in q]
    assert entropy(q, "multilabel") == pytest.approx(expected)


def test_margin(generator):
    p, q = classes(generator, 20, 5), generator.random((20, 5))
    best = [sorted(row)[-2:] for row in p.tolist()]
    assert margin(p, "multiclass") == pytest.approx([1 - (first - second) for second, first in best])
    assert margin(q, "multilabel") == pytest.approx([1 - 2 * min(abs(x - 0.5) for x in row) for row in q.tolist()])


@pytest.mark.parametrize("target", ["multiclass", "multilabel"])
def test_bald_is_the_mean_divergence_of_the_members_from_their_mean(generator, target):
    """Mutual information the other way round: mean KL(member || mean)."""
    members = classes(generator, 4, 10, 3) if target == "multiclass" else generator.random((4, 10, 3))
    members[:, 0] = members[0, 0]
    expected = []
    for wafer in range(10):
        total = 0.0
        for member in members[:, wafer]:
            centre = members[:, wafer].mean(0)
            if target == "multiclass":
                total += scipy_entropy(member, centre)
            else:
                total += sum(scipy_entropy([x, 1 - x], [y, 1 - y]) for x, y in zip(member, centre, strict=True))
        expected.append(total / 4)
    assert bald(members, target) == pytest.approx(expected, abs=1e-12)
    assert expected[0] == pytest.approx(0, abs=1e-12)


def slow_k_centre(features, labelled, count):
    centres, chosen = [list(row) for row in labelled], []
    for _ in range(count):
        far = {
            i: min(sum((x - y) ** 2 for x, y in zip(row, centre, strict=True)) for centre in centres)
            for i, row in enumerate(features)
            if i not in chosen
        }
        chosen.append(max(far, key=far.get))
        centres.append(list(features[chosen[-1]]))
    return chosen


def test_k_centre(generator, monkeypatch):
    features, labelled = generator.normal(100, 1, (30, 4)), generator.normal(100, 1, (9, 4))
    monkeypatch.setattr("wafer_lab.active.diversity._DISTANCES", 120)
    expected = slow_k_centre(features.tolist(), labelled.tolist(), 12)
    for dtype in (torch.float64, torch.float32):
        found = k_centre(torch.from_numpy(features).to(dtype), torch.from_numpy(labelled).to(dtype), 12)
        assert found.tolist() == expected
    nothing = torch.empty(0, 4, dtype=torch.float64)
    alone = k_centre(torch.from_numpy(features), nothing, 30)
    assert sorted(alone.tolist()) == list(range(30))
    first = int(np.linalg.norm(features - features.mean(0), axis=1).argmax())
    assert alone[:12].tolist() == [first, *slow_k_centre(features.tolist(), [features[first].tolist()], 11)]


@pytest.mark.parametrize("target", ["multiclass", "multilabel"])
def test_badge_embeddings_are_gradients_of_the_last_layer(generator, target):
    pool = pool_of(generator, size=6, target=target)
    layer = torch.nn.Linear(8, 5).double()
    for h in pool.features:
        logits = layer(h)[None]
        said = logits.softmax(1) if target == "multiclass" else logits.sigmoid()
        if target == "multiclass":
            loss = torch.nn.functional.cross_entropy(logits, logits.argmax(1))
        else:
            hard = (logits > 0).double()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, hard, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, layer.weight)
        torch.testing.assert_close(gradient, torch.outer(gradient_factor(said, target)[0], h))


def test_k_means_seeds_of_the_outer_products(generator):
    """The same draws over the vectors written out, by Arthur and Vassilvitskii's rule."""
    left, right = generator.normal(size=(25, 3)), generator.normal(size=(25, 4))
    vectors = np.einsum("nc,nd->ncd", left, right).reshape(25, -1)
    rng = np.random.default_rng(5)
    expected = [int(np.linalg.norm(vectors, axis=1).argmax())]
    while len(expected) < 10:
        squares = [min(float(((v - vectors[c]) ** 2).sum()) for c in expected) for v in vectors]
        at, place = rng.random() * sum(squares), 0
        while at >= squares[place]:
            at -= squares[place]
            place += 1
        expected.append(place)
    found = k_means_seeds(torch.from_numpy(left), torch.from_numpy(right), 10, np.random.default_rng(5))
    assert found.tolist() == expected
    copies = torch.ones(6, 2)
    assert sorted(k_means_seeds(copies, copies, 6, generator).tolist()) == list(range(6))


def test_hybrid_is_the_core_set_of_the_unsure(generator):
    pool = pool_of(generator, oversample=3)
    unsure = np.argsort(-margin(pool.probabilities, "multiclass"))[:12]
    expected = unsure[slow_k_centre(pool.features[unsure].tolist(), pool.labelled.tolist(), 4)]
    assert choose("hybrid", pool, 4, generator).tolist() == expected.tolist()


@pytest.mark.parametrize("target", ["multiclass", "multilabel"])
@pytest.mark.parametrize("name", NAMES)
def test_every_acquisition_chooses_each_wafer_once_and_repeatably(generator, name, target):
    pool = pool_of(generator, target=target)
    found = [choose(name, pool, 15, np.random.default_rng((3, 1))).tolist() for _ in range(2)]
    assert found[0] == found[1]
    assert len(set(found[0])) == 15
    assert sorted(choose(name, pool, 40, generator).tolist()) == list(range(40))
    with pytest.raises(UserError, match="41 wafers cannot be chosen from a pool of 40"):
        choose(name, pool, 41, generator)


def test_the_most_unsure_come_first_and_equals_at_random(generator):
    p = np.array([[0.5, 0.5], [1, 0], [0.9, 0.1], [0, 1], [0.6, 0.4], [1, 0]])
    pool = Pool("multiclass", 6, probabilities=p)
    orders = {tuple(choose("margin", pool, 6, np.random.default_rng(seed)).tolist()) for seed in range(20)}
    assert {order[:3] for order in orders} == {(0, 4, 2)}
    assert len({order[3:] for order in orders}) > 2


def test_an_unknown_acquisition_is_said():
    assert needs("badge") == ("probabilities", "features")
    with pytest.raises(UserError, match=r"no acquisition entrpy; did you mean entropy\?"):
        needs("entrpy")
    with pytest.raises(UserError, match="choose among random, entropy"):
        needs("zzz")


def test_the_start_has_every_class():
    label = np.repeat([0, 1, 2, 3], [500, 300, 2, 1])
    for seed in range(5):
        chosen = start(label, 6, True, seed)
        assert len(set(chosen.tolist())) == 6
        assert set(label[chosen]) == {0, 1, 2, 3}
    assert set(label[start(label, 6, False, 0)]) <= {0, 1}
    assert start(label, 6, True, 0).tolist() == start(label, 6, True, 0).tolist() != start(label, 6, True, 1).tolist()
    labels = np.zeros((100, 3), int)
    labels[:50, 0], labels[40:44, 1], labels[41, 2] = 1, 1, 1
    assert (labels[start(labels, 4, True, 0)].sum(0) > 0).all()
    assert 41 in start(labels, 1, True, 0)  # one wafer may have all labels
    with pytest.raises(UserError, match=r"workflow\.start=3 is too few .* takes 4"):
        start(label, 3, True, 0)
    with pytest.raises(UserError, match="more than the 803 training wafers"):
        start(label, 900, True, 0)
