"""Measures memory and speed of the data loader on the data of a training configuration.

    python recipes/thesis/loader_speed.py recipes/thesis/train.yaml --out runs/loader

The first run copies the data beside the run; a second one finds the copy.
"""

import argparse
import resource
import time
from pathlib import Path

import torch

from trip_mm.training.config import load_training_config
from trip_mm.training.loader import BatchStream
from trip_mm.training.preparation import prepare, resolve_model_config
from trip_mm.training.processes import Processes
from trip_mm.training.record import Place


def private_gib() -> tuple[float, float]:
    """Returns what this process holds itself, and what it shares with the page cache, in GiB."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    anonymous, mapped = (int(fields[name].split()[0]) / 2**20 for name in ("RssAnon", "RssFile"))
    return anonymous, mapped


def main() -> None:
    """Prepares the data and draws minibatches."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minibatches", type=int, default=2000)
    arguments = parser.parse_args()
    config = load_training_config(arguments.config)
    arguments.out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    place = Place(arguments.out, False, Processes(), print)
    prepared = prepare(config, resolve_model_config(config), place)
    print(f"prepared {len(prepared.data.train)} conformations: {time.monotonic() - start:.1f} s")
    stream = iter(
        BatchStream(
            prepared.data.train, config.batch, 0, arguments.minibatches + 1, torch.float32, None
        )
    )
    start = time.monotonic()
    next(stream)
    print(f"first minibatch (the order of the epoch is drawn): {time.monotonic() - start:.2f} s")
    start = time.monotonic()
    n_conformations = sum(len(batch.n_atoms) for batch in stream)
    elapsed = time.monotonic() - start
    print(f"loader: {n_conformations / elapsed:.0f} conformations/s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    anonymous, mapped = private_gib()
    print(
        f"memory: peak {peak:.2f} GiB; now {anonymous:.2f} GiB own, {mapped:.2f} GiB mapped files"
    )


if __name__ == "__main__":
    main()
