"""What happens at which step of a stage: a function of the step, so that resuming is exact."""

from dataclasses import dataclass

from trip_mm.simulation.stage import ResolvedStage

RAMP_INCREMENTS = 100
"""A temperature ramp is this many equal steps up or down (fewer in a stage with fewer steps)."""
CHECK_INTERVAL = 20
"""Steps between two checks of stability."""


@dataclass(frozen=True)
class TemperatureSchedule:
    """The thermostat's temperature at every step of a stage.

    A ramp holds the start temperature in its first increment and the end temperature in its last.

    Attributes:
        start_k: temperature at the first step, K.
        end_k: temperature at the last step, K.
        n_steps: steps of the stage.
    """

    start_k: float
    end_k: float
    n_steps: int

    @property
    def n_increments(self) -> int:
        """Number of different temperatures."""
        return 1 if self.start_k == self.end_k else min(RAMP_INCREMENTS, self.n_steps)

    def at(self, step: int) -> float:
        """Returns the temperature in K that acts on the step after `step` steps are done."""
        if self.n_increments == 1:
            return self.end_k
        increment = min(step * self.n_increments // self.n_steps, self.n_increments - 1)
        share = increment / (self.n_increments - 1)
        return self.start_k + share * (self.end_k - self.start_k)

    def next_change(self, step: int) -> int:
        """Returns the first step after `step` at which the temperature changes, or the end."""
        increment = step * self.n_increments // self.n_steps + 1
        return min(-(-increment * self.n_steps // self.n_increments), self.n_steps)


def temperature_schedule(stage: ResolvedStage) -> TemperatureSchedule | None:
    """Returns the temperatures of a stage with a thermostat, None for other stages."""
    if stage.kind not in ("nvt", "npt"):
        return None
    assert stage.temperature_start_k is not None
    assert stage.temperature_end_k is not None
    return TemperatureSchedule(stage.temperature_start_k, stage.temperature_end_k, stage.n_steps)


def next_stop(step: int, stage: ResolvedStage, seconds_per_step: float | None) -> int:
    """Returns the step at which the integrator must hand back control next.

    That may depend on the speed; what is done there must not (`is_check_due`).

    Args:
        step: steps done.
        stage: the stage.
        seconds_per_step: measured so far; slow potentials hand back more often, so that a signal
            is answered within about two seconds.
    """
    stops = [stage.n_steps, _next_multiple(step, CHECK_INTERVAL)]
    if seconds_per_step is not None:
        stops.append(step + max(1, int(2.0 / max(seconds_per_step, 1e-9))))
    stops.append(_next_multiple(step, stage.checkpoint_interval_steps))
    if stage.committee is not None:
        stops.append(_next_multiple(step, stage.committee.interval_steps))
    temperatures = temperature_schedule(stage)
    if temperatures is not None:
        stops.append(temperatures.next_change(step))
    return min(stops)


def is_check_due(step: int, stage: ResolvedStage) -> bool:
    """Returns whether stability is checked at a step, however fast the run is."""
    return (
        step % CHECK_INTERVAL == 0
        or step % stage.checkpoint_interval_steps == 0
        or step == stage.n_steps
    )


def _next_multiple(step: int, interval: int) -> int:
    return (step // interval + 1) * interval
