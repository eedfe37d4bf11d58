"""All random numbers of a run come from its one seed."""

import hashlib

_LARGEST_SEED = 2**31 - 1


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Returns a seed for one purpose: the same for the same arguments, on every machine.

    Args:
        seed: the run's or the stage's seed.
        purpose: what the numbers are for, for example a stage index and `velocities`.

    Returns:
        A number from 1 to 2^31 - 1; OpenMM reads 0 as "choose one".
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") % _LARGEST_SEED + 1
