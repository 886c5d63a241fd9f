import pytest
import torch
import torch.nn.functional as F

from xmask3d.losses.point_losses import point_cross_entropy

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 0, 0, 2, 3, 3])  # 3 is null
ROWS = torch.arange(6)


def test_every_point_counts_alike_by_default() -> None:
    torch.testing.assert_close(point_cross_entropy(LOGITS, LABELS, ROWS), F.cross_entropy(LOGITS[:4], LABELS[:4]))


def test_full_balance_is_the_mean_over_the_classes_that_occur() -> None:
    each = F.cross_entropy(LOGITS, LABELS, reduction="none")
    torch.testing.assert_close(point_cross_entropy(LOGITS, LABELS, ROWS, 1.0), (each[:3].mean() + each[3]) / 2)


def test_half_balance_weighs_by_the_root_of_the_count() -> None:
    each = F.cross_entropy(LOGITS, LABELS, reduction="none")
    expected = (each[:3].sum() / 3**0.5 + each[3]) / (3**0.5 + 1)
    torch.testing.assert_close(point_cross_entropy(LOGITS, LABELS, ROWS, 0.5), expected)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_no_label_no_loss_and_no_gradient(balance: float) -> None:
    logits = LOGITS.float().requires_grad_()
    loss = point_cross_entropy(logits, torch.full((6,), 3), ROWS, balance)
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()
