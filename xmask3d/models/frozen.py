"""Pre-trained networks that never train."""

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor, nn

ForeignNetwork: TypeAlias = Any
"""Network of diffusers, open_clip or timm: a tree of modules with attributes unknown to type checkers."""


class FrozenNetworks(nn.Module):
    """Base of a module that uses pre-trained networks without owning them.

    The networks are attributes: they follow the module to other devices and dtypes, stay in evaluation mode and take no
    gradient. They are hidden from `parameters()`, `modules()` and `state_dict()`, so optimisers, data parallelism and
    checkpoints do not see them, and a checkpoint loads strictly without them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._frozen: tuple[str, ...] = ()

    def freeze(self, name: str, network: nn.Module) -> None:
        """Keep `network` as the attribute `name`."""
        network.requires_grad_(False).eval()
        # Bypasses nn.Module.__setattr__, which would register it as a submodule.
        self.__dict__[name] = network
        self._frozen = (*self._frozen, name)

    def frozen_networks(self) -> list[nn.Module]:
        """Return the networks passed to `freeze`, in that order."""
        return [self.__dict__[name] for name in self._frozen]

    def release(self) -> None:
        """Let go of the networks, of a model that is asked for nothing that needs them."""
        for name in self._frozen:
            del self.__dict__[name]
        self._frozen = ()

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "FrozenNetworks":
        for network in self.frozen_networks():
            network._apply(fn, *args, **kwargs)
            # The conversion may have created new parameters.
            network.requires_grad_(False)
        return super()._apply(fn, *args, **kwargs)
