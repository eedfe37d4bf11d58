"""How fast this machine multiplies dense matrices: the yardstick of a benchmark."""

import time

_SIZE = 1024
_REPEATS = 5


def dense_rate(threads: int, precision: str) -> float:
    """Measures the rate of a dense product of square matrices, FLOP/s.

    Args:
        threads: CPU threads.
        precision: `single` or `double`.
    """
    import torch

    dtype = torch.float64 if precision == "double" else torch.float32
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        a = torch.rand(_SIZE, _SIZE, dtype=dtype)
        b = torch.rand(_SIZE, _SIZE, dtype=dtype)
        torch.mm(a, b)
        times: list[float] = []
        for _ in range(_REPEATS):
            start = time.perf_counter()
            torch.mm(a, b)
            times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return 2.0 * _SIZE**3 / min(times)
