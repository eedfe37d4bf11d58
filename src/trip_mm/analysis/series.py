"""Means of correlated time series: autocorrelation time, standard error, start of equilibrium."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from trip_mm.errors import ConfigError

_WINDOW_TIMES = 5.0
"""Correlations are summed up to this many autocorrelation times (Sokal's window)."""

_STARTS = np.linspace(0.0, 0.75, 31)
"""Shares of a series that may be discarded as equilibration."""

_WORTH_A_LATER_START = 2.0
"""Factor by which the independent samples must become more."""


@dataclass(frozen=True)
class SeriesMean:
    """Mean of a correlated series.

    Attributes:
        mean: of the samples used.
        standard_error: of the mean.
        standard_deviation: of the samples.
        inefficiency: number of samples that carry the information of one independent sample.
        n_samples: samples used.
        n_discarded: samples before them.
    """

    mean: float
    standard_error: float
    standard_deviation: float
    inefficiency: float
    n_samples: int
    n_discarded: int = 0

    @property
    def n_effective(self) -> float:
        """Number of independent samples."""
        return self.n_samples / self.inefficiency


def check_positive(name: str, value: float, unit: str) -> None:
    """Refuses what is not a positive number.

    Raises:
        ConfigError: it is zero, negative, infinite or no number.
    """
    if not (np.isfinite(value) and value > 0.0):
        raise ConfigError(f"{name}: {value:g} {unit} must be positive and finite")


def check_skip(skip_ps: float) -> None:
    """Refuses a time to leave out that is no time.

    Raises:
        ConfigError: it is negative, infinite or no number.
    """
    if not (np.isfinite(skip_ps) and skip_ps >= 0.0):
        raise ConfigError(f"time to skip: {skip_ps:g} ps must be finite and not negative")


def autocorrelation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the normalised autocorrelation function, `[n_samples]`; 1 at lag 0.

    A constant series has none beyond lag 0.
    """
    centred = values - values.mean()
    n = len(values)
    variance = float(np.square(centred).mean())
    if variance <= np.square(np.finfo(np.float64).eps * max(1.0, float(np.abs(values).max()))):
        return np.concatenate([[1.0], np.zeros(n - 1)])
    sums = signal.correlate(centred, centred, mode="full", method="fft")[n - 1 :]
    return np.asarray(sums / (variance * n), dtype=np.float64)


def statistical_inefficiency(values: NDArray[np.float64]) -> float:
    """Returns g = 1 + 2 sum of the autocorrelation over the lags of a self-consistent window.

    The window is the smallest M with M >= 5 g(M) / 2 (Sokal, Monte Carlo Methods in Statistical
    Mechanics, 1996): beyond it the sum gathers noise only. At least 1.
    """
    inefficiency: NDArray[np.float64] = 2.0 * np.cumsum(autocorrelation(values)) - 1.0
    lags = np.arange(len(values))
    closed = np.flatnonzero(lags >= 0.5 * _WINDOW_TIMES * inefficiency)
    last = int(closed[0]) if len(closed) else len(values) - 1
    return max(1.0, float(inefficiency[last]))


def series_mean(values: NDArray[np.float64]) -> SeriesMean:
    """Returns the mean of a stationary series with its standard error.

    Args:
        values: at equal distances in time, `[n_samples]`, at least one.
    """
    inefficiency = statistical_inefficiency(values)
    spread = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    error = spread * float(np.sqrt(inefficiency / len(values)))
    return SeriesMean(float(values.mean()), error, spread, inefficiency, len(values))


def equilibrated_mean(values: NDArray[np.float64]) -> SeriesMean:
    """Returns the mean of what follows equilibration.

    The start is one that leaves many independent samples (Chodera, JCTC 12, 1799, 2016), at most
    three quarters into the series. A later start must leave twice as many as the one before: the
    start that leaves most prefers windows whose correlation time came out too small by chance, and
    the error of a short series with it.
    """
    found: SeriesMean | None = None
    for start in sorted({int(share * len(values)) for share in _STARTS}):
        own = series_mean(values[start:])
        if found is None or own.n_effective >= _WORTH_A_LATER_START * found.n_effective:
            found = SeriesMean(
                own.mean,
                own.standard_error,
                own.standard_deviation,
                own.inefficiency,
                own.n_samples,
                start,
            )
    assert found is not None
    return found
