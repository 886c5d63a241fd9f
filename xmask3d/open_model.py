"""Loading of a model that is ready for use, from a configuration and a checkpoint."""

from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator

from xmask3d.build import Assembly, build_labeller, build_model, label_settings
from xmask3d.checkpoints.checkpoint import apply_weights, is_of_network_alone, load_gate, load_weights
from xmask3d.config import Config
from xmask3d.inference.gate_weights import GateWeights
from xmask3d.inference.labeller import Labeller
from xmask3d.splits import Benchmark


def open_model(config: Config, checkpoint: Path, points_only: bool = False) -> Assembly:
    """Build the network of a configuration with the weights of a checkpoint, which is read first.

    Args:
        points_only: as of `build_model`.

    Raises:
        UserError: a file is missing, damaged, or does not fit the configuration.
    """
    weights = load_weights(checkpoint)
    assembly = build_model(config, points_only)
    apply_weights(assembly.model, weights, checkpoint, strict=is_of_network_alone(checkpoint))
    return assembly


def open_labeller(config: Config, checkpoint: Path, benchmark: Benchmark, accelerator: Accelerator) -> Labeller:
    """Open a model that labels views by the classes of a benchmark, on the accelerator's device."""
    labeller = build_labeller(config, open_model(config, checkpoint), benchmark, accelerator)
    if labeller.settings.region_clip and config.evaluate.regions == "gate" and config.evaluate.gate != "clip":
        fitted = GateWeights.read(load_gate(checkpoint)) or labeller.settings.gate_weights
        labeller.settings = replace(labeller.settings, gate_weights=fitted)
    return labeller


def open_gate(config: Config) -> GateWeights:
    """Return the fixed weights of the gate for CLIP's view of masks alone, which users' scans have."""
    without = config.evaluate.model_copy(update={"region_clip": 0.0})
    return label_settings(config.model_copy(update={"evaluate": without})).gate_weights
