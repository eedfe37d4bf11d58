"""Entry point of openmm-ml: `MLPotential("trip-gfn2-s")`, `MLPotential("trip", modelPath=...)`.

openmm-ml creates the factory of every installed plugin when it is imported, so this module imports
neither torch nor openmm-ml (whose import may be the one under way); `openmm_ml_impl` does.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trip_mm.backends.openmm_ml_impl import TripPotentialImpl

GENERIC_NAME = "trip"


class TripPotentialImplFactory:
    """Makes the openmm-ml implementation of TrIP potentials.

    It follows the protocol of `openmmml.mlpotential.MLPotentialImplFactory` without deriving from
    it, for the reason given above.
    """

    def createImpl(  # noqa: N802
        self,
        name: str,
        modelPath: str | None = None,
    ) -> "TripPotentialImpl":
        """Makes the implementation of a registered model, or of a checkpoint.

        Args:
            name: name of a registered model, or "trip" with `modelPath`.
            modelPath: path of a checkpoint, with the name "trip" only.

        Raises:
            ConfigError: "trip" without `modelPath`, or another name with it.
        """
        from trip_mm.backends.openmm_ml_impl import TripPotentialImpl
        from trip_mm.errors import ConfigError

        if (name == GENERIC_NAME) != (modelPath is not None):
            raise ConfigError(
                f"MLPotential({name!r}): give modelPath=... with the name {GENERIC_NAME!r}, and "
                "the name of a registered model without it"
            )
        return TripPotentialImpl(name if modelPath is None else str(modelPath))
