import pytest
import torch

from wafer_lab.data.gathers import Memory, look_up, read_grids


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
@pytest.mark.parametrize("size", [1, 5, 16])
def test_grids_are_read_as_by_plain_indexing(size, kind):
    generator = torch.Generator().manual_seed(size)
    cells = torch.randint(0, 255, (400,), generator=generator).to(torch.uint8)
    down = torch.randint(0, 6, (7, size), generator=generator).sort(1).values.to(kind) * 30  # most lines repeat
    across = torch.randint(0, 200, (7, size), generator=generator, dtype=torch.int32)
    down[3], down[4] = down[2], down[2]  # the same lines of the next wafer, under other columns
    places = down[:, :, None].long() + across[:, None].long()
    assert torch.equal(read_grids(cells, down, across), cells[places])
    assert torch.equal(read_grids(cells.short(), down, across), cells[places].short())


def test_a_grid_beyond_the_reach_of_int32_is_asked_for_in_int64():
    start = torch.tensor([[2**40, 2**40 + 1]])
    with pytest.raises(IndexError):  # not a place that has wrapped round
        read_grids(torch.zeros(9, dtype=torch.uint8), start, torch.zeros((1, 2), dtype=torch.int32))


@pytest.mark.parametrize("shape", [(2, 4, 6), (1, 1, 3), (3, 5, 5), (9, 256, 256)])  # the last in several parts
@pytest.mark.parametrize("channels", [1, 3])
def test_states_are_looked_up_as_by_plain_indexing(shape, channels):
    generator = torch.Generator().manual_seed(channels)
    states = torch.randint(0, 3, shape, generator=generator).to(torch.uint8)
    table = torch.randn(3, channels, generator=generator)
    assert torch.equal(look_up(states, table), table[states.long()])
    turned = states.transpose(1, 2)
    assert torch.equal(look_up(turned, table), table[turned.long()])


def test_memory_is_used_again_only_when_nobody_holds_it():
    memory = Memory(above=0)
    first = memory.of(100)
    place = first.data_ptr()
    view = first.view(10, 10)[3:, 3:]
    del first
    assert memory.of(100).data_ptr() != place  # a view holds it
    weight = torch.ones(7, requires_grad=True)
    product = view @ weight
    del view
    assert memory.of(100).data_ptr() != place  # the graph holds it
    del product
    assert memory.of(90).data_ptr() == place


def test_a_batch_that_is_kept_stays_as_it_is():
    memory = Memory(kept=2, above=0)
    kept = [memory.of(50).fill_(value) for value in range(6)]
    assert [tensor[0].item() for tensor in kept] == list(range(6))
