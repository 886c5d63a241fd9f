"""Choice of a model by name: the shipped model, a run of the user's, a file or folder, a published one, or the hub."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xmask3d.checkpoints.checkpoint import find_checkpoint
from xmask3d.checkpoints.export import CONFIG_FILE, WEIGHTS_FILE, read_about
from xmask3d.checkpoints.hub import fetch_from_hub
from xmask3d.checkpoints.model_names import NEWEST_NAME, PUBLISHED, SHIPPED_NAME, check_name
from xmask3d.checkpoints.published_models import fetch_published
from xmask3d.checkpoints.validations import best_metrics
from xmask3d.config import load_config
from xmask3d.errors import UserError
from xmask3d.files import newest, sha256_of
from xmask3d.guarded import parse_json
from xmask3d.resources import IS_CHECKOUT, REPOSITORY, is_of_hub
from xmask3d.seal import digest_beside
from xmask3d.weights import SHIPPED, TRAINING

SCORE = "fused_hiou"
"""Score of a validation by which models of the same benchmark are compared."""


@dataclass(frozen=True)
class Source:
    """Source of a model: weights, configuration, a sentence about the choice, and possibly a hint."""

    checkpoint: Path
    config: Path
    words: str
    hint: str = ""


def find_source(model: Path | str | None = None, config: Path | str | None = None, runs: Path | None = None) -> Source:
    """Find weights and their configuration.

    Args:
        model: "shipped"; "newest", the newest run below `runs`; a file, a run's folder, a folder of `xmask3d export`;
            a published model, such as "scannet20-b15n4"; or "org/name" of the Hugging Face hub. None means the shipped
            model, or a run of the user's with a better recorded score on the same benchmark.
        config: configuration of the model; by default `config.yaml` of the run, or a YAML file beside the weights.
        runs: folders of runs; by default `runs` in the working folder and, in a checkout, in the repository.

    Raises:
        UserError: there is no such model; the message says what to do.
    """
    if model is None:
        return _by_score(config, runs)
    name, path = str(model), Path(model)
    check_name(name)
    if name == SHIPPED_NAME:
        return _shipped(config)
    if name == NEWEST_NAME:
        found = _newest_run(runs)
        if found is None:
            raise UserError("--model newest: no run below runs/; train one (sh scripts/quickstart.sh)")
        return Source(found, _config_of(found, config), f"the newest run, {found}")
    if path.exists():
        path, words = weights_in(path), name
    elif name.lower() in PUBLISHED:
        path, words = fetch_published(name.lower()), f"the published model {name.lower()}"
    else:
        assert is_of_hub(name)
        path, words = fetch_from_hub(name) / WEIGHTS_FILE, f"{name} of the Hugging Face hub"
    return Source(path, _config_of(path, config), words)


def weights_in(path: Path) -> Path:
    """Return the weights of a run's or an exported folder; a file is returned unchanged."""
    if (path / WEIGHTS_FILE).is_file():
        return path / WEIGHTS_FILE
    if not path.is_dir():
        return path
    best = path / "checkpoints" / "best.pt"
    return best if best.is_file() else find_checkpoint("newest", path)


def _shipped(config: Path | str | None) -> Source:
    path = SHIPPED / WEIGHTS_FILE
    if not path.is_file():
        raise UserError(
            "no shipped model in this installation; train one (sh scripts/quickstart.sh) and name it with "
            "--model newest, or name any with --model"
        )
    benchmark = read_about(path).get("benchmark", "")
    return Source(path, _config_of(path, config), f"the shipped small model ({benchmark}: {TRAINING})")


def _by_score(config: Path | str | None, runs: Path | None) -> Source:
    """Choose between the shipped model and the user's runs; an unusable run never stops the choice."""
    found = list(_folders(runs))
    if not (SHIPPED / WEIGHTS_FILE).is_file() and found:
        return find_source(NEWEST_NAME, config, runs)
    shipped = _shipped(config)
    score = _score(_metrics(read_about(shipped.checkpoint)))
    better = [(own, folder) for folder in found if (own := _score(best_metrics(folder))) > score]
    benchmark = load_config(SHIPPED / CONFIG_FILE).benchmark if better else ""
    for own, folder in sorted(better, reverse=True):
        best = folder / "best.pt"
        if _is_usable(best, benchmark):
            words = f"your run {best}: {SCORE} {own:.3f}, the shipped model {score:.3f}"
            return Source(best, _config_of(best, config), words, "--model shipped takes the shipped model")
    hint = "--model newest takes the newest run below runs/ instead" if found else ""
    return Source(shipped.checkpoint, shipped.config, shipped.words, hint)


def _is_usable(best: Path, benchmark: str) -> bool:
    """Return True if the best checkpoint of a run is intact, of the benchmark, and has a trustworthy configuration."""
    try:
        same = load_config(_config_of(best, None), trusted=False).benchmark == benchmark
        return same and sha256_of(best) == digest_beside(best)
    except (UserError, OSError):
        return False


def _metrics(about: dict[str, str]) -> object:
    """Return the scores in the metadata of an exported file; None if there are none."""
    try:
        return parse_json(about.get("metrics", "{}"), "metrics")
    except UserError:
        return None


def _score(metrics: object) -> float:
    """Return the score by which models are compared; minus infinity if none is recorded."""
    score = metrics.get(SCORE) if isinstance(metrics, dict) else None
    return float(score) if isinstance(score, int | float) else -float("inf")


def _folders(runs: Path | None) -> Iterator[Path]:
    """Yield the folders of checkpoints of all runs."""
    folders = [runs or Path("runs")]
    if runs is None and IS_CHECKOUT and folders[0].resolve() != REPOSITORY / "runs":
        folders.append(REPOSITORY / "runs")
    for folder in folders:
        yield from (path for path in folder.glob("**/checkpoints") if any(path.glob("*.pt")))


def _newest_run(runs: Path | None) -> Path | None:
    files = ([path for path in folder.glob("*.pt") if path.is_file()] for folder in _folders(runs))
    found = [max(of_run, key=lambda path: path.stat().st_mtime) for of_run in files if of_run]
    if not found:
        return None
    last = newest(found, "name the run in place of 'newest'")
    best = last.with_name("best.pt")
    return best if best.is_file() else find_checkpoint("newest", last.parent.parent)


def _config_of(checkpoint: Path, given: Path | str | None) -> Path:
    if given is not None:
        return Path(given)
    # An exported model may be inside the folder of another run.
    candidates = [
        checkpoint.with_suffix(".yaml"),
        checkpoint.parent / CONFIG_FILE,
        checkpoint.parent.parent / CONFIG_FILE,
    ]
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(f"checkpoint {checkpoint}: no configuration beside it ({candidates[-1]}); give it with --config")
