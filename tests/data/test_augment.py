"""What may happen to a map in training, against plain numpy."""

import numpy as np
import pytest
import torch

from wafer_lab.data.augment import MapAugment, gaussian_blur
from wafer_lab.data.canvas import Maps, Windows, render_masked
from wafer_lab.errors import UserError
from wafer_lab.processes import WHOLE, Share

MANY = 3000


def maps_of(*arrays):
    sizes = [a.size for a in arrays]
    offset = np.cumsum([0, *sizes[:-1]])
    return Maps(
        torch.from_numpy(np.concatenate([a.ravel() for a in arrays])),
        torch.from_numpy(offset.astype(np.int32)),
        torch.tensor([a.shape[0] for a in arrays], dtype=torch.int32),
        torch.tensor([a.shape[1] for a in arrays], dtype=torch.int32),
    )


@pytest.fixture(scope="module")
def full():
    """A map of 16 x 16 dies, all on the wafer, half of them fails."""
    return np.random.default_rng(0).integers(1, 3, (16, 16)).astype(np.uint8)


def drawn(array, count=1, size=16, seed=0, share=WHOLE, **options):
    generator = torch.Generator().manual_seed(seed)
    augment = MapAugment(d4=False, **options)
    states, masks = augment.draw(maps_of(array), torch.zeros(count, dtype=torch.int64), size, generator, share)
    assert masks is None
    return states.numpy()


def test_a_window_shows_that_part_of_the_map_and_nothing_beyond_it(full):
    quarter, beyond = (0.25, 0.5, 0.5), (-0.25, 0.0, 1.0)
    top, left, side = (torch.tensor(values) for values in zip(quarter, beyond, strict=True))
    states, _ = render_masked(maps_of(full), torch.zeros(2, dtype=torch.int64), 8, None, Windows(top, left, side))
    assert np.array_equal(states[0], full[4:12, 8:16])
    expected = np.zeros((8, 8), np.uint8)
    expected[2:] = full[1::2, 1::2][:6]  # a pixel shows the die under its centre
    assert np.array_equal(states[1], expected)


def test_a_symmetry_turns_what_the_window_shows(full):
    window = Windows(*(torch.tensor([value]) for value in (0.25, 0.5, 0.5)))
    for d4 in range(8):
        states, _ = render_masked(maps_of(full), torch.zeros(1, dtype=torch.int64), 8, torch.tensor([d4]), window)
        expected = full[4:12, 8:16]
        expected = expected[::-1] if d4 & 1 else expected
        expected = expected[:, ::-1] if d4 & 2 else expected
        assert np.array_equal(states[0], expected.T if d4 & 4 else expected)


def test_a_shifted_map_has_moved_by_whole_dies_and_left_off_wafer_behind(full):
    for states in drawn(full, 200, shift=0.25):
        moves = [
            (down, right)
            for down in range(-4, 5)
            for right in range(-4, 5)
            if np.array_equal(states, shifted(full, down, right))
        ]
        assert len(moves) == 1
    assert len(np.unique(drawn(full, 200, shift=0.25), axis=0)) > 40


def shifted(array, down, right):
    padded = np.pad(array, 4)
    return padded[4 - down : 20 - down, 4 - right : 20 - right]


def test_cutout_wipes_one_square_out_as_often_and_as_large_as_it_says(full):
    cut = drawn(full, MANY, cutout=0.4, cutout_side=(0.25, 0.5)) == 0
    hit = cut.any((1, 2))
    assert hit.mean() == pytest.approx(0.4, abs=4 * (0.24 / MANY) ** 0.5)
    for square in cut[hit]:
        rows, columns = np.flatnonzero(square.any(1)), np.flatnonzero(square.any(0))
        assert square.sum() == len(rows) * len(columns)
        assert {4 <= len(rows) <= 8, 4 <= len(columns) <= 8, abs(len(rows) - len(columns)) <= 1} == {True}
    middle = cut[hit].mean(0)
    assert middle[8, 8] > middle[0, 0] > 0  # squares lie within the canvas, anywhere


def test_a_crop_shows_a_window_as_often_and_as_large_as_it_says():
    ramp = np.ones((64, 64), np.uint8)
    ramp[:32] = 2
    fails = (drawn(ramp, MANY, 32, crop=0.5, crop_side=(0.25, 0.25)) == 2).mean((1, 2))
    # A window of a quarter lies within one half for two thirds of its places.
    expected = 0.5 * 2 / 3
    assert np.isin(fails, (0.0, 1.0)).mean() == pytest.approx(
        expected, abs=4 * (expected * (1 - expected) / MANY) ** 0.5
    )


def test_surroundings_of_a_map_are_off_wafer(full):
    states = drawn(full, 50, 32, crop=1.0, crop_side=(2.0, 2.0))
    assert ((states > 0).mean((1, 2)) == 0.25).all()


def test_noise_swaps_pass_and_fail_and_leaves_what_is_off_the_wafer(full):
    wafer = full.copy()
    wafer[:4] = 0
    states = drawn(wafer, MANY, noise=0.1)
    assert (states[:, :4] == 0).all()
    assert (states[:, 4:] > 0).all()
    dies = states[:, 4:].size
    assert (states[:, 4:] != wafer[4:]).mean() == pytest.approx(0.1, abs=4 * (0.09 / dies) ** 0.5)


def test_nothing_asked_for_is_nothing_done(full):
    assert np.array_equal(drawn(full, 3), np.stack([full] * 3))
    image = torch.rand(2, 3, 8, 8)
    assert MapAugment().soften(image, torch.Generator()) is image


@pytest.mark.parametrize("options", [{"noise": 0.2}, {"shift": 0.2}, {"crop": 0.7}, {"cutout": 0.7}])
def test_a_wafer_is_distorted_alike_whichever_process_draws_it(full, options):
    whole = drawn(full, 8, seed=3, **options)
    assert not np.array_equal(whole, drawn(full, 8, seed=4, **options))
    halves = [drawn(full, 4, seed=3, share=Share(rank, 2), **options) for rank in range(2)]
    together = np.empty_like(whole)
    for rank in range(2):
        together[Share(rank, 2).places] = halves[rank]
    assert np.array_equal(together, whole)


def test_blur_is_a_gaussian_whose_weights_beyond_the_border_go_within():
    image = torch.rand(3, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    sigma = [0.0, 0.7, 2.0]
    found = gaussian_blur(image, torch.tensor(sigma)).numpy()
    assert np.array_equal(found[0], image[0])
    for wafer in (1, 2):
        expected = np.zeros((2, 12, 12))
        for row in range(12):
            for column in range(12):
                down = np.exp(-((np.arange(12) - row) ** 2) / (2 * sigma[wafer] ** 2))
                across = np.exp(-((np.arange(12) - column) ** 2) / (2 * sigma[wafer] ** 2))
                weight = np.outer(down, across) / down.sum() / across.sum()
                expected[:, row, column] = (image[wafer].double().numpy() * weight).sum((1, 2))
        np.testing.assert_allclose(found[wafer], expected, atol=1e-6)
    flat = gaussian_blur(torch.full((1, 1, 9, 9), 0.25), torch.tensor([1.5]))
    np.testing.assert_allclose(flat, 0.25, rtol=1e-6)


def test_blur_comes_as_often_as_it_says():
    image = torch.zeros(MANY, 1, 5, 5)
    image[:, :, 2, 2] = 1
    soft = MapAugment(blur=0.3).soften(image, torch.Generator().manual_seed(0))
    assert float((soft[:, 0, 2, 2] < 1).float().mean()) == pytest.approx(0.3, abs=4 * (0.21 / MANY) ** 0.5)


@pytest.mark.parametrize(
    "options", [{"shift": 0.6}, {"crop": 1.1}, {"cutout": -0.1}, {"crop_side": [0.5]}, {"cutout_side": [0.5, 0.2]}]
)
def test_what_cannot_be_is_refused(options):
    (name,) = options
    with pytest.raises(UserError, match=f"augment.maps.{name}"):
        MapAugment(**options)
