"""Import of published TrIP checkpoints: a state dict, its keyword arguments, energy statistics.

| published | here |
|---|---|
| `graph_modules.<2i>.to_key_value.conv...` | `blocks.<i>.convolution` |
| `graph_modules.<2i>.to_query.weights.<l>` | `blocks.<i>.query.maps.<l>` |
| `graph_modules.<2i>.project.weights.<l>` | `blocks.<i>.project.maps.<l>` |
| `graph_modules.<2i + 1>.group_norm.weight` | `norms.<i>.weight` |
| `graph_modules.<2n>.conv...`, `.to_kernel_self.0` | `last_convolution`, `self_interaction` |
| `embedding.weight` row Z - 1, `mlp` | `embedding`, `readout` |
| `energy_std`, `si_tensor` entry Z - 1, Ha | `energy_scale`, `self_energies`, eV |
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from trip_mm.errors import CheckpointError, ConfigError
from trip_mm.model.so3 import n_paths
from trip_mm.model.trip import TripConfig, TripModel
from trip_mm.potential import TripPotential
from trip_mm.units import HARTREE_TO_EV

_COULOMB_ENERGY_UNIT = 0.529
_NORM_FLOOR = 2.0**-12
_TRUNK_LAYERS = (0, 1, 3, 4)
_OPTIMIZER_KEYS = ("state_dict", "kwargs")


def import_published(
    arrays: Mapping[str, ArrayLike],
    kwargs: Mapping[str, Any],
    energy_std: float | None = None,
    si_tensor: ArrayLike | None = None,
) -> TripPotential:
    """Builds a potential that computes what the published TrIP program computes.

    Args:
        arrays: the published state dict, original keys to arrays.
        kwargs: the keyword arguments of the published model.
        energy_std: unit of the standardised energies, Ha; taken from `kwargs` where None.
        si_tensor: self energies, Ha, entry Z - 1; taken from `kwargs` where None.

    Returns:
        a float64 potential with `numerics="published"`; its elements are those with a self
        energy.

    Raises:
        CheckpointError: a key is missing or left over, or a shape does not fit.
    """
    state = {key: torch.as_tensor(np.asarray(value)) for key, value in arrays.items()}
    scale = kwargs.get("energy_std") if energy_std is None else energy_std
    selves = kwargs.get("si_tensor") if si_tensor is None else si_tensor
    if scale is None or selves is None:
        raise CheckpointError("published checkpoint: kwargs lack energy_std or si_tensor")
    si = np.asarray(selves, dtype=np.float64).reshape(-1)
    n_rows = _tensor(state, "embedding.weight").shape[0]
    if si.shape[0] > n_rows:
        raise CheckpointError(f"si_tensor has {si.shape[0]} entries, the embedding {n_rows} rows")
    elements = tuple(int(z) + 1 for z in np.flatnonzero(si))
    if not elements:
        raise CheckpointError("published checkpoint: si_tensor is zero for every element")
    potential = TripPotential(TripModel(_config(state, kwargs, elements)))
    potential.to(torch.float64)
    renamed = _rename(state, potential.config)
    _load(potential.model, renamed)
    potential.set_energy_statistics(
        {z: float(si[z - 1]) * HARTREE_TO_EV for z in elements},
        dict.fromkeys(elements, 0.0),
        float(scale) * HARTREE_TO_EV,
    )
    return potential


def read_published_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads state dict and keyword arguments of a published `.pth` file, without unpickling code.

    Args:
        path: file with the entries `state_dict` and `kwargs`.

    Raises:
        CheckpointError: not such a file, or one that holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise CheckpointError(
            f"{path}: not a checkpoint of tensors and plain values ({reason}); trip-mm does not "
            "run code from a checkpoint"
        ) from error
    missing = [k for k in _OPTIMIZER_KEYS if not isinstance(content, dict) or k not in content]
    if missing:
        raise CheckpointError(f"{path}: not a published TrIP checkpoint, it lacks {missing[0]!r}")
    return dict(content["state_dict"]), dict(content["kwargs"])


def _tensor(state: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in state:
        raise CheckpointError(f"published checkpoint: no tensor {key!r}")
    return state[key]


def _config(
    state: Mapping[str, Tensor], kwargs: Mapping[str, Any], elements: tuple[int, ...]
) -> TripConfig:
    """Reads the hyper-parameters off keyword arguments and shapes."""
    for name, needed in (("norm", True), ("use_layer_norm", True)):
        if kwargs.get(name, needed) != needed:
            raise CheckpointError(f"published checkpoint: {name}={kwargs[name]} is not supported")
    unit = float(kwargs.get("coulomb_energy_unit", _COULOMB_ENERGY_UNIT))
    if unit != _COULOMB_ENERGY_UNIT:
        raise CheckpointError(f"published checkpoint: coulomb_energy_unit {unit} is not 0.529 Ha A")
    try:
        n_layers, l_max = int(kwargs["num_layers"]), int(kwargs["num_degrees"]) - 1
        per_degree = n_layers > 1 and any(
            key.startswith("graph_modules.2.to_key_value.conv_out.") for key in state
        )
        readout = _tensor(state, "mlp.0.weight")
        n_channels = int(kwargs["num_channels"])
        first = "conv.0,0" if l_max > 0 else "conv"
        hidden = f"graph_modules.0.to_key_value.{first}.radial_func.net.0.weight"
        return TripConfig(
            numerics="published",
            elements=elements,
            n_channels=n_channels,
            l_max=l_max,
            n_layers=n_layers,
            n_heads=int(kwargs["num_heads"]),
            channels_div=int(kwargs["channels_div"]),
            cutoff=float(kwargs["cutoff"]),
            radial_hidden=_tensor(state, hidden).shape[0],
            radial_networks="per-degree" if per_degree else "fused",
            edge_features="distance",
            n_scalars=readout.shape[1] - n_channels,
            readout_hidden=readout.shape[0],
            lone_atoms="trained",
            norm_floor=_NORM_FLOOR,
        )
    except (KeyError, ValueError, ConfigError) as error:
        raise CheckpointError(f"published checkpoint: keyword arguments: {error}") from error


def _rename(state: Mapping[str, Tensor], config: TripConfig) -> dict[str, Tensor]:
    """Returns the state dict of `TripModel`, without the energy statistics."""
    C, L, n = config.n_channels, config.l_max, config.n_layers
    rows = torch.tensor(config.elements) - 1
    renamed = {"embedding.weight": _tensor(state, "embedding.weight")[rows]}
    for i in range(n):
        attention = f"graph_modules.{2 * i}"
        l_in = 0 if i == 0 else L
        prefix = f"blocks.{i}.convolution"
        source = f"{attention}.to_key_value"
        if l_in == 0 and L > 0:
            _per_degree(state, renamed, f"{source}.conv.0,{{}}", prefix, L)
        elif config.radial_networks == "per-degree":
            _per_degree(state, renamed, f"{source}.conv_out.{{}}", prefix, L)
        else:
            _fused(state, renamed, f"{source}.conv", prefix, (C, L))
        for l in range(l_in + 1):
            renamed[f"blocks.{i}.query.maps.{l}.weight"] = _tensor(
                state, f"{attention}.to_query.weights.{l}"
            )
        for l in range(L + 1):
            renamed[f"blocks.{i}.project.maps.{l}.weight"] = _tensor(
                state, f"{attention}.project.weights.{l}"
            )
        norm = _tensor(state, f"graph_modules.{2 * i + 1}.group_norm.weight")
        renamed[f"norms.{i}.weight"] = norm.reshape(C, L + 1)
    last = f"graph_modules.{2 * n}"
    single = f"{last}.conv_out.{{}}" if L > 0 else f"{last}.conv"
    _per_degree(state, renamed, single, "last_convolution", 0)
    renamed["self_interaction.weight"] = _tensor(state, f"{last}.to_kernel_self.0")
    for layer in (0, 2, 4):
        for part in ("weight", "bias"):
            renamed[f"readout.{layer}.{part}"] = _tensor(state, f"mlp.{layer}.{part}")
    return renamed


def _trunk(state: Mapping[str, Tensor], target: dict[str, Tensor], source: str, name: str) -> None:
    """Copies the hidden layers of one radial network."""
    for layer in _TRUNK_LAYERS:
        for part in ("weight", "bias"):
            target[f"{name}.net.{layer}.{part}"] = _tensor(
                state, f"{source}.radial_func.net.{layer}.{part}"
            )


def _per_degree(
    state: Mapping[str, Tensor], target: dict[str, Tensor], source: str, prefix: str, l_max: int
) -> None:
    """Copies radial networks that belong to one output degree each."""
    for l in range(l_max + 1):
        _trunk(state, target, source.format(l), f"{prefix}.trunks.{l}")
        target[f"{prefix}.weights.{l}.weight"] = _tensor(
            state, f"{source.format(l)}.radial_func.net.6.weight"
        )


def _fused(
    state: Mapping[str, Tensor],
    target: dict[str, Tensor],
    source: str,
    prefix: str,
    sizes: tuple[int, int],
) -> None:
    """Splits one radial network of all degrees; output (c_out C + c_in) F + f, f by l_out first."""
    n_channels, l_max = sizes
    _trunk(state, target, source, f"{prefix}.trunks.0")
    weight = _tensor(state, f"{source}.radial_func.net.6.weight")
    counts = [sum(n_paths(lo, li) for li in range(l_max + 1)) for lo in range(l_max + 1)]
    if weight.shape[0] != n_channels**2 * sum(counts):
        raise CheckpointError(f"{source}: {weight.shape[0]} radial outputs do not fit the channels")
    parts = weight.reshape(n_channels**2, sum(counts), -1).split(counts, dim=1)
    for l, part in enumerate(parts):
        target[f"{prefix}.weights.{l}.weight"] = part.flatten(0, 1)


def _load(model: TripModel, renamed: dict[str, Tensor]) -> None:
    """Loads the renamed tensors; everything but the energy statistics must be there and fit."""
    try:
        result = model.load_state_dict(renamed, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"published checkpoint does not fit: {error}") from error
    missing = set(result.missing_keys) - {"energy_scale", "binding_energies"}
    if missing or result.unexpected_keys:
        raise CheckpointError(
            f"published checkpoint: missing {sorted(missing)}, unknown {result.unexpected_keys}"
        )
