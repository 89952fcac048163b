import numpy as np
import pytest
import torch

from wafer_lab.config.resolvers import CHANNELS
from wafer_lab.data.augment import MapAugment
from wafer_lab.data.canvas import ENCODINGS, Maps, die_noise, encode, random_d4, render, turn
from wafer_lab.errors import UserError


def ragged(shapes, seed=0):
    generator = np.random.default_rng(seed)
    arrays = [generator.integers(0, 3, shape).astype(np.uint8) for shape in shapes]
    sizes = [a.size for a in arrays]
    offset = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
    height, width = (np.array(side, np.int32) for side in zip(*shapes, strict=True))
    cells = np.concatenate([a.ravel() for a in arrays])
    return arrays, Maps(*(torch.from_numpy(x) for x in (cells, offset, height, width)))


def nearest(array, size):
    """Cell-centred nearest neighbour, pixel by pixel."""
    height, width = array.shape
    out = np.empty((size, size), np.uint8)
    for i in range(size):
        for j in range(size):
            out[i, j] = array[int((i + 0.5) * height / size), int((j + 0.5) * width / size)]
    return out


SHAPES = [(25, 27), (52, 52), (7, 90), (64, 64), (1, 1), (130, 33)]


@pytest.mark.parametrize("size", [16, 52, 64, 97])
def test_render_is_cell_centred_nearest_neighbour(size):
    arrays, maps = ragged(SHAPES)
    index = torch.tensor([3, 0, 5, 1, 2, 4, 0])
    canvases = render(maps, index, size)
    for canvas, i in zip(canvases, index.tolist(), strict=True):
        assert np.array_equal(canvas.numpy(), nearest(arrays[i], size))


def test_render_agrees_with_torch_nearest_exact():
    arrays, maps = ragged(SHAPES)
    for i, array in enumerate(arrays):
        image = torch.from_numpy(array)[None, None].float()
        expected = torch.nn.functional.interpolate(image, (40, 40), mode="nearest-exact")
        assert torch.equal(render(maps, torch.tensor([i]), 40)[0].float(), expected[0, 0])


def test_the_eight_symmetries_move_the_canvas_exactly():
    arrays, maps = ragged(SHAPES)
    for i, array in enumerate(arrays):
        plain = nearest(array, 30)
        seen = set()
        for k in range(8):
            expected = plain
            expected = expected[::-1] if k & 1 else expected
            expected = expected[:, ::-1] if k & 2 else expected
            expected = expected.T if k & 4 else expected
            drawn = render(maps, torch.tensor([i]), 30, torch.tensor([k]))[0].numpy()
            assert np.array_equal(drawn, expected)
            seen.add(drawn.tobytes())
        assert len(seen) == 8 or array.size == 1


def test_int64_offsets_give_the_same_canvas():
    _, maps = ragged(SHAPES)
    wide = Maps(maps.cells, maps.offset.long(), maps.height, maps.width)
    index = torch.arange(len(SHAPES))
    assert torch.equal(render(maps, index, 32), render(wide, index, 32))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings(encoding):
    states = torch.tensor([[[0, 1, 2]]], dtype=torch.uint8)
    image = encode(states, encoding)
    assert image.shape == (1, CHANNELS[encoding], 1, 3)
    expected = {
        "one_hot": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "grey": [[0, 0.5, 1]],
        "masks": [[0, 0, 1], [0, 1, 1]],
        "grey_rgb": [[0, 0.5, 1]] * 3,
        "inception": [[-1, 0, 1]] * 3,
        "imagenet": [[-0.485 / 0.229, 0.015 / 0.229, 0.515 / 0.229],
                     [-0.456 / 0.224, 0.044 / 0.224, 0.544 / 0.224],
                     [-0.406 / 0.225, 0.094 / 0.225, 0.594 / 0.225]],
    }[encoding]  # fmt: skip
    np.testing.assert_allclose(image[0, :, 0], expected, rtol=1e-6)


def test_encoded_batches_are_channels_last():
    image = encode(torch.zeros(2, 8, 8, dtype=torch.uint8), "one_hot")
    assert image.is_contiguous(memory_format=torch.channels_last)


def test_augmentation_is_a_function_of_its_seed():
    _, maps = ragged(SHAPES)
    index = torch.arange(len(SHAPES)).repeat(4)
    draws = [MapAugment(noise=0.1).draw(maps, index, 32, torch.Generator().manual_seed(seed))[0] for seed in (5, 5, 6)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_symmetries_are_uniform():
    counts = torch.bincount(random_d4(80_000, torch.Generator().manual_seed(0)), minlength=8)
    assert (counts - 10_000).abs().max() < 400


def test_die_noise_swaps_pass_and_fail_only():
    states = torch.randint(0, 3, (4, 50, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    noisy = die_noise(states, 0.2, torch.rand(states.shape, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(noisy == 0, states == 0)
    assert (noisy != states)[states > 0].float().mean().item() == pytest.approx(0.2, abs=0.02)


def test_noise_out_of_range_is_refused():
    with pytest.raises(UserError, match="noise"):
        MapAugment(noise=0.7)


@pytest.mark.parametrize("view", range(8))
def test_turn_is_the_symmetry_that_render_draws(view: int) -> None:
    cells = torch.randint(0, 3, (7 * 11,), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    maps = Maps(cells, torch.tensor([0]), torch.tensor([7]), torch.tensor([11]))
    first = torch.tensor([0])
    image = encode(render(maps, first, 16), "one_hot")
    assert torch.equal(turn(image, view), encode(render(maps, first, 16, torch.tensor([view])), "one_hot"))
    assert turn(image, view).is_contiguous(memory_format=torch.channels_last)


def test_turn_on_an_asymmetric_map() -> None:
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    drawn = {view: turn(image, view).flatten().tolist() for view in range(8)}
    assert drawn[1] == [3, 4, 1, 2]  # rows flipped
    assert drawn[2] == [2, 1, 4, 3]  # columns flipped
    assert drawn[3] == [4, 3, 2, 1]  # the half turn
    assert drawn[4] == [1, 3, 2, 4]  # transposed
    assert len({tuple(values) for values in drawn.values()}) == 8
