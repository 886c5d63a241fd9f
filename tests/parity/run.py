"""Runs recorded cases and reports how far the package is from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.parity import (
    diffusion,
    end_to_end,
    fusion,
    geometry,
    inference,
    loader,
    mask_generator,
    point_networks,
)
from tests.parity.compare import Case, Comparison, Results, compare
from xmask3d.errors import UserError

RUNNERS: dict[str, Callable[[Case], Results]] = {
    "a_MinkUNet34C": point_networks.run_unet,
    "a_MinkUNet18A": point_networks.run_unet,
    "a_pc_processors": point_networks.run_parts,
    "b_mapping": geometry.run_mapping,
    "b_voxelize": geometry.run_voxelize,
    "c_decoder": mask_generator.run_decoder,
    "d_projection": mask_generator.run_projection,
    "e_ldm_full": diffusion.run_features,
    "e_ldm_small": diffusion.run_features,
    "e_ldm_small_grad": diffusion.run_gradients,
    "f_criterion": fusion.run,
    "g_maskclip": mask_generator.run_mask_clip,
    "h_inference": inference.run,
    "k_end2end": end_to_end.run,
    "l_loader": loader.run,
}


@dataclass(frozen=True)
class Report:
    """The outcome of one case.

    Attributes:
        case: its name.
        comparisons: of every recorded array that was not left out.
        left_out: recorded arrays without counterpart, with the reason.
        failure: why the case could not be run, if it could not.
    """

    case: str
    comparisons: list[Comparison]
    left_out: dict[str, str]
    failure: str = ""

    @property
    def passed(self) -> bool:
        """Whether something was compared and everything agrees."""
        return not self.failure and bool(self.comparisons) and all(item.passed for item in self.comparisons)

    def lines(self) -> list[str]:
        """The case's verdict with its largest errors, then what failed and what was left out."""
        verdict = "PASS" if self.passed else "FAIL"
        lines = [f"{verdict}  {self.case}: {self._summary()}"]
        for item in self.comparisons:
            if not item.passed:
                why = item.note or f"error {item.error:.2e}, tolerance {item.tolerance:.0e}"
                lines.append(f"      {item.name}: {why}")
        for reason in dict.fromkeys(self.left_out.values()):
            names = [name for name, why in self.left_out.items() if why == reason]
            lines.append(f"      left out {len(names)} ({names[0]}{', ...' if len(names) > 1 else ''}): {reason}")
        return lines

    def _summary(self) -> str:
        if self.failure:
            return self.failure
        if not self.comparisons:
            return "nothing recorded"
        parts = []
        for tolerance in sorted({item.tolerance for item in self.comparisons}):
            items = [item for item in self.comparisons if item.tolerance == tolerance]
            worst = max(items, key=lambda item: (item.error != item.error, item.error))
            kind = "equal" if tolerance == 0 else f"tolerance {tolerance:.0e}"
            parts.append(f"{len(items)} {kind}, largest error {worst.error:.2e} ({worst.name})")
        return "; ".join(parts)


def run_case(folder: Path) -> Report:
    """Run the case of a folder. A case that cannot be run has failed; its report says why."""
    try:
        case = Case.load(folder)
        results = RUNNERS[folder.name](case)
        return Report(folder.name, compare(case, results), results.left_out)
    except UserError as error:
        return Report(folder.name, [], {}, f"cannot be run: {error}")
    except Exception as error:  # whatever it is, the other cases are still to be run
        return Report(folder.name, [], {}, f"cannot be run: {type(error).__name__}: {str(error)[:300]}")


def find_cases(root: Path, name: str | None = None) -> list[Path]:
    """Folders of cases: `root` itself if it is one, else those in it, or the one of a name.

    Raises:
        UserError: there is none.
    """
    if name is not None:
        found = [root] if root.name == name and _is_case(root) else [root / name]
        found = [folder for folder in found if _is_case(folder)]
    elif _is_case(root):
        found = [root]
    else:  # those of which a file is missing too: they fail instead of being passed over
        found = sorted(folder for folder in root.glob("*/") if _is_case(folder))
    if not found:
        what = f"no case '{name}'" if name else "no cases"
        raise UserError(f"{root}: {what} (a case is a folder with inputs.npz and outputs.npz)")
    return found


def _is_case(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("inputs.npz", "outputs.npz"))
