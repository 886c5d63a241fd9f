"""Space-filling curves, and windows along them."""

import torch

from xmask3d.models.serialisation import CURVES, DEPTH, coarser_keys, curve_keys, cut_windows


def cube(size: int) -> torch.Tensor:
    line = torch.arange(size)
    cells = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
    return torch.cat([torch.zeros(len(cells), 1, dtype=torch.long), cells], 1)


def test_every_curve_visits_every_cell_once_and_each_eighth_before_the_next() -> None:
    cells = cube(8)
    for curve in CURVES:
        keys = curve_keys(cells, curve)
        assert torch.equal(keys.sort()[0], torch.arange(512)), curve
        eighths = (cells[keys.argsort(), 1:] // 4 * torch.tensor([4, 2, 1])).sum(1)
        assert len(eighths.unique_consecutive()) == 8, curve
    cells = torch.randint(0, 1 << DEPTH, (500, 4))
    cells[:, 0] = 3
    for curve in CURVES:
        keys = curve_keys(cells, curve)
        assert ((keys >> 3 * DEPTH) == 3).all() and ((coarser_keys(keys) >> 3 * DEPTH) == 3).all(), curve
    parents = torch.cat([cells[:, :1], cells[:, 1:] // 2], 1)
    assert torch.equal(coarser_keys(curve_keys(cells, "z")), curve_keys(parents, "z"))


def test_the_order_of_z_and_steps_of_hilbert() -> None:
    cells = cube(16)
    assert cells[curve_keys(cells, "z").argsort(), 1:][:4].tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]
    for curve in ("hilbert", "hilbert-trans"):  # never leaves a cell but for one that shares a face
        path = cells[curve_keys(cells, curve).argsort(), 1:]
        assert ((path[1:] - path[:-1]).abs().sum(1) == 1).all(), curve
    for curve in ("z", "hilbert"):
        assert torch.equal(curve_keys(cells[:, [0, 2, 1, 3]], curve), curve_keys(cells, f"{curve}-trans"))


def test_windows_are_full_and_hold_one_sample() -> None:
    torch.manual_seed(0)
    counts = {0: 10, 2: 3, 3: 4}  # sample 1 is empty
    keys = torch.cat([(sample << 3 * DEPTH) + torch.randperm(1000)[:count] for sample, count in counts.items()])
    keys = keys[torch.randperm(len(keys))]
    windows = cut_windows(keys, 4)
    assert windows.valid is not None and windows.valid.sum(1).tolist() == [4, 4, 4, 3, 4]
    assert torch.equal(windows.rows.flatten()[windows.place], torch.arange(17))  # everyone is where it is looked for
    in_order = keys[windows.rows]
    assert ((in_order >> 3 * DEPTH) == torch.tensor([0, 0, 0, 2, 3])[:, None]).all()
    assert torch.equal(in_order, in_order.sort(1)[0])
    assert torch.equal(in_order[1, 2:], in_order[2, :2])  # the last window of ten voxels repeats two
    assert cut_windows(keys[(keys >> 3 * DEPTH) == 0], 5).valid is None
