import pytest
import torch

from tests.sparse.clouds import random_cloud
from xmask3d.errors import UserError
from xmask3d.sparse import coordinates as module
from xmask3d.sparse.coordinates import CoordinateMaps, kernel_offsets


def brute_force(coordinates: torch.Tensor, stride: int, kernel_size: int) -> torch.Tensor:
    """The neighbour table by looking every tap up in a dictionary."""
    rows = {tuple(row): index for index, row in enumerate(coordinates.tolist())}
    offsets = kernel_offsets(kernel_size).tolist()
    return torch.tensor(
        [
            [rows.get((b, x + i * stride, y + j * stride, z + k * stride), len(rows)) for i, j, k in offsets]
            for b, x, y, z in coordinates.tolist()
        ],
        dtype=torch.int32,
    )


@pytest.fixture(params=["grid", "search"])
def lookup(request, monkeypatch) -> None:
    if request.param == "search":
        monkeypatch.setattr(module, "_GRID_CELLS_A_VOXEL", 0)


@pytest.mark.parametrize(("stride", "kernel_size"), [(1, 3), (1, 5), (2, 3), (4, 3), (16, 3)])
def test_neighbours_are_those_of_a_dictionary(lookup, stride: int, kernel_size: int) -> None:
    maps = CoordinateMaps(random_cloud())
    table = maps.neighbours(stride, kernel_size).table
    assert torch.equal(table, brute_force(maps.coordinates(stride), stride, kernel_size))


def test_neighbourhood_is_mutual_and_centred(lookup) -> None:
    maps = CoordinateMaps(random_cloud())
    table = maps.neighbours(1, 3).table.long()
    rows = torch.arange(table.shape[0])
    assert torch.equal(table[:, 13], rows)
    for tap in range(27):
        found = table[:, tap] < table.shape[0]
        assert torch.equal(table[table[found, tap], 26 - tap], rows[found])


def test_samples_of_a_batch_do_not_touch() -> None:
    cloud = random_cloud()
    maps = CoordinateMaps(cloud)
    table = maps.neighbours(1, 5).table.long()
    batch = torch.cat([maps.coordinates(1)[:, 0], torch.tensor([-1], dtype=torch.int32)])
    assert ((batch[table] == batch[:-1, None]) | (batch[table] == -1)).all()


def test_order_and_rank_are_inverse() -> None:
    cloud = random_cloud()
    maps = CoordinateMaps(cloud)
    assert torch.equal(maps.coordinates(1), cloud[maps.order])
    assert torch.equal(maps.coordinates(1)[maps.rank], cloud)


def test_coarse_levels_hold_every_parent_once() -> None:
    cloud = random_cloud(lowest=-7)
    maps = CoordinateMaps(cloud)
    for stride in (2, 4, 8, 16):
        cells = torch.div(cloud[:, 1:], stride, rounding_mode="floor") * stride
        expected = torch.cat([cloud[:, :1], cells], 1).unique(dim=0)
        assert torch.equal(maps.coordinates(stride).unique(dim=0), expected)
        assert maps.coordinates(stride).shape == expected.shape


def test_children_and_slots_name_each_other() -> None:
    maps = CoordinateMaps(random_cloud())
    link = maps.stride_map(2)
    fine, coarse = maps.coordinates(2), maps.coordinates(4)
    rows = torch.arange(fine.shape[0])
    assert torch.equal(link.children.view(-1)[link.slot].long(), rows)
    assert (link.children < fine.shape[0]).sum() == fine.shape[0]
    step = kernel_offsets(2)[link.slot % 8] * 2
    assert torch.equal(coarse[link.slot // 8, 1:] + step.int(), fine[:, 1:])
    assert (link.slot.diff() > 0).all()


def test_maps_are_built_once() -> None:
    maps = CoordinateMaps(random_cloud())
    assert maps.neighbours(2, 3) is maps.neighbours(2, 3)
    assert maps.stride_map(1) is maps.stride_map(1)


def test_kernel_offsets_run_along_x_first() -> None:
    assert kernel_offsets(3)[[0, 1, 13, 26]].tolist() == [[-1, -1, -1], [0, -1, -1], [0, 0, 0], [1, 1, 1]]
    assert kernel_offsets(2)[[0, 1, 2, 4]].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_far_apart_voxels_and_many_samples() -> None:
    cloud = torch.tensor([[0, -30000, 5, 0], [300, 29999, -7, 3], [300, 30000, -7, 3]], dtype=torch.int32)
    maps = CoordinateMaps(cloud)
    assert maps.batch_size == 301
    found = maps.neighbours(1, 3).table
    assert torch.equal(found, brute_force(maps.coordinates(1), 1, 3))
    assert (found < 3).sum() == 5
    assert maps.coordinates(16).shape[0] == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 1, 2, 3], [0, 1, 2, 3]], "occurs twice"),
        ([[-1, 1, 2, 3]], "negative"),
        ([[0, 0, 0, 0], [0, 2**30, 0, 0]], "too large"),
    ],
)
def test_faulty_coordinates_are_refused(rows: list[list[int]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CoordinateMaps(torch.tensor(rows, dtype=torch.int32))


def test_faulty_shapes_and_types_are_refused() -> None:
    with pytest.raises(UserError, match="V x 4"):
        CoordinateMaps(torch.zeros(5, 3, dtype=torch.int32))
    with pytest.raises(UserError, match="int32"):
        CoordinateMaps(torch.zeros(5, 4))
