"""Reduced precision (`tf32`, `bf16`): the check against float32 that it must pass.

from trip_mm.precision import check_precision
check = check_precision("trip-gfn2-s", positions, atomic_numbers, "bf16", cell)
"""

from trip_mm.precision.check import CheckSettings, check_precision
from trip_mm.precision.record import PrecisionCheck

__all__ = ["CheckSettings", "PrecisionCheck", "check_precision"]
