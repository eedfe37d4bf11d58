"""Checkpoints: versioned safetensors files, the model registry, and published TrIP state dicts.

A checkpoint is one safetensors file. Its tensors are the state dict of `TripPotential`; its
header holds one JSON document under the key `trip_mm`: format version, configuration, name and
free metadata. Nothing is ever unpickled.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trip_mm.errors import CheckpointError, ConfigError
from trip_mm.files import replacing
from trip_mm.model.trip import TripConfig, TripModel
from trip_mm.potential import TripPotential, new_model
from trip_mm.published import import_published, read_published_checkpoint
from trip_mm.suggestions import closest

__all__ = [
    "ModelCard",
    "file_sha256",
    "fingerprint",
    "import_published",
    "load_potential",
    "new_potential",
    "read_checkpoint",
    "read_published_checkpoint",
    "registry",
    "save_potential",
    "suggest_model",
    "trained_level",
]

FORMAT_VERSION = 1
_HEADER_KEY = "trip_mm"
_DTYPES = {"float32": torch.float32, "float64": torch.float64}

_UPGRADES: dict[int, Callable[[dict[str, Any], dict[str, Tensor]], None]] = {}
"""Function that lifts header and tensors in place from the version of its key to the next."""


@dataclass(frozen=True)
class ModelCard:
    """An entry of the model registry.

    Attributes:
        name: what `load_potential` takes.
        version: counts the weights shipped under this name, from 1.
        path: checkpoint file.
        sha256: digest that the file must have.
        description: one line.
        level_of_theory: method of the labels.
        elements: symbols that the model knows.
        licence: licence of the weights.
        card: path of the model card in Markdown.
    """

    name: str
    version: int
    path: Path
    sha256: str
    description: str
    level_of_theory: str
    elements: tuple[str, ...]
    licence: str
    card: Path


@cache
def registry() -> dict[str, ModelCard]:
    """Returns the models that come with trip-mm, by name.

    Raises:
        CheckpointError: the registry file is damaged.
    """
    folder = Path(str(resources.files("trip_mm"))) / "models"
    listing = folder / "registry.json"
    if not listing.exists():
        return {}
    try:
        entries = json.loads(listing.read_text(encoding="utf-8"))
        return {
            name: ModelCard(
                name=name,
                version=entry["version"],
                path=folder / entry["file"],
                sha256=entry["sha256"],
                description=entry["description"],
                level_of_theory=entry["level_of_theory"],
                elements=tuple(entry["elements"]),
                licence=entry["licence"],
                card=folder / entry["card"],
            )
            for name, entry in entries.items()
        }
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{listing}: damaged model registry ({error!r}); reinstall"
        ) from error


def suggest_model(word: str, others: Sequence[str] = ()) -> str:
    """Returns what to append to an error about an unknown name: a near miss and the models.

    Args:
        word: what was written.
        others: names besides those of the models that may have been meant.
    """
    models = list(registry())
    close = closest(word.lower(), [*models, *others])
    hint = ";" if close is None else f"; did you mean {close!r}?"
    return f"{hint} models that come with trip-mm: {', '.join(models) or 'none'}"


def trained_level(name: str, metadata: Mapping[str, object]) -> str:
    """Returns the level of theory of a model's labels, empty if its file does not say.

    Args:
        name: registered name or file.
        metadata: of the checkpoint.
    """
    card = registry().get(name)
    if card is not None:
        return card.level_of_theory
    training = metadata.get("training")
    inner = training.get("level_of_theory") if isinstance(training, dict) else None
    return str(metadata.get("level_of_theory") or inner or "")


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 digest of a file as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(potential: TripPotential) -> str:
    """Returns the hexadecimal digest of the configuration and all tensors of a potential."""
    digest = hashlib.sha256(repr(potential.config).encode())
    for name, tensor in sorted(potential.state_dict().items()):
        values = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Returns float32 or float64 from its name.

    Raises:
        ConfigError: any other type.
    """
    if isinstance(dtype, torch.dtype):
        dtype = str(dtype).removeprefix("torch.")
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype: {dtype!r} is not one of {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def new_potential(
    config: str | TripConfig = "trip",
    seed: int = 0,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
) -> TripPotential:
    """Builds a potential with random weights; the same seed gives the same weights.

    Args:
        config: a preset's name or a configuration.
        seed: of the random weights.
        device: of the network.
        dtype: of the network, float32 or float64.

    Raises:
        ConfigError: no preset of that name, or an unknown dtype.
    """
    if isinstance(config, str):
        config = TripConfig.preset(config)
    potential = TripPotential(new_model(config, seed))
    return potential.to(device=device, dtype=parse_dtype(dtype))


def save_potential(
    potential: TripPotential, path: str | Path, metadata: Mapping[str, Any] | None = None
) -> Path:
    """Writes a checkpoint atomically.

    Args:
        potential: what to write; its own metadata is kept where `metadata` is None.
        path: `.safetensors` file; the suffix is added where it is missing.
        metadata: plain JSON values on data, training and accuracy.

    Returns:
        the file written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        path = path.with_name(path.name + ".safetensors")
    header = {
        "format_version": FORMAT_VERSION,
        "name": potential.name or path.stem,
        "config": potential.config.to_dict(),
        "metadata": dict(potential.metadata if metadata is None else metadata),
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in potential.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={_HEADER_KEY: json.dumps(header, sort_keys=True)})
    return path


def load_potential(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
) -> TripPotential:
    """Loads a registered model by name, or a checkpoint by path.

    Args:
        name_or_path: a name that `trip-mm models` lists, or a `.safetensors` file.
        device: of the network.
        dtype: of the network, float32 or float64.

    Raises:
        CheckpointError: no such model or file, a damaged file, or a digest that is not the
            registered one.
        ConfigError: an unknown dtype.
    """
    target = parse_dtype(dtype)
    card = registry().get(str(name_or_path))
    path = card.path if card else Path(name_or_path)
    if not path.is_file():
        raise CheckpointError(
            f"{name_or_path}: neither a registered model nor a file"
            f"{suggest_model(str(name_or_path))}"
        )
    digest = file_sha256(path)
    if card and digest != card.sha256:
        raise CheckpointError(
            f"{path}: sha256 is {digest}, registered is {card.sha256}; reinstall trip-mm"
        )
    header, tensors = read_checkpoint(path)
    potential = _build(header, tensors, path)
    potential.name = card.name if card else str(header.get("name") or path.stem)
    potential.path = str(path.resolve())
    potential.sha256 = digest
    return potential.to(device=device, dtype=target)


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads header and tensors of a checkpoint, lifted to the current format version.

    Raises:
        CheckpointError: not a trip-mm checkpoint, damaged, or of a later version.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            text = (file.metadata() or {}).get(_HEADER_KEY)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    if text is None:
        raise CheckpointError(
            f"{path}: no trip-mm header; use `trip-mm convert` for a published TrIP checkpoint"
        )
    try:
        header = json.loads(text)
        version = int(header["format_version"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged header ({error!r})") from error
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {version}, this trip-mm reads up to {FORMAT_VERSION}; upgrade"
        )
    for step in range(version, FORMAT_VERSION):
        if step not in _UPGRADES:
            raise CheckpointError(f"{path}: format version {version} is no longer read")
        _UPGRADES[step](header, tensors)
    return header, tensors


def _build(header: Mapping[str, Any], tensors: dict[str, Tensor], path: Path) -> TripPotential:
    """Builds the potential of a checkpoint in the precision that the file holds."""
    try:
        config = TripConfig.from_dict(header["config"])
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: configuration not understood: {error}") from error
    potential = TripPotential(TripModel(config))
    potential.to(_DTYPES["float64"])
    try:
        potential.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: tensors do not fit the configuration: {error}") from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise CheckpointError(f"{path}: holds numbers that are not finite")
    potential.metadata = dict(header.get("metadata") or {})
    return potential
