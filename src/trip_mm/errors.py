"""Errors that trip-mm raises on purpose: each message says what, where and what to do.

The command line prints such an error as one line and exits with status 2; anything else is a
defect of trip-mm and shows its traceback.
"""


class TripError(Exception):
    """Base class of every error that trip-mm raises on purpose."""


class ConfigError(TripError):
    """A configuration file, an option or an argument does not mean anything sensible."""


class UnsupportedElementError(TripError):
    """An element that the potential has never seen."""


class UnsupportedSystemError(TripError):
    """A system that the chosen potential cannot describe (net charge, overlapping atoms, ...)."""


class CellTooSmallError(TripError):
    """A periodic cell whose shortest height is less than twice the cutoff."""


class CheckpointError(TripError):
    """A model checkpoint that cannot be read, or is not what it claims to be."""


class BackendError(TripError):
    """A force backend or an OpenMM platform that is not available here."""


class UnstableSimulationError(TripError):
    """Dynamics that left the physically sensible range: NaN, torn bond, runaway temperature."""


class DisagreementError(TripError):
    """A committee of models that disagrees by more than the run allows; nothing is broken."""


class RunDirectoryError(TripError):
    """A run directory that exists already, is locked, or lacks what is needed to continue."""


class DataError(TripError):
    """A data set, label or structure file that is malformed or inconsistent."""


class TrainingError(TripError):
    """Training that cannot go on: a loss that is not finite, a checkpoint of another run."""


class PrecisionError(TripError):
    """A reduced precision whose forces or energy conservation are not those of float32."""


class MissingDependencyError(TripError):
    """An optional package that the requested feature needs is not installed."""


class ExportError(TripError):
    """An exported form of a potential that does not compute what the potential computes."""


class EvaluationError(TripError):
    """A potential that gives no energy at a geometry: SCF not converged, a result not finite."""


class RelaxationError(TripError):
    """A relaxation that does not converge, or that changes which atoms are bonded."""
