"""How far a training run is: what it tells between two validations, and a bar on a terminal."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import lightning
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from trip_mm.training.conformations import Batch
from trip_mm.training.module import TrainingModule

_INTERVAL_S = 0.5


@dataclass(frozen=True)
class Advance:
    """Where a run stands.

    Attributes:
        step: steps done.
        share: of the budget that is spent, 0 to 1.
        conformations_per_s: trained on by this process since the last such message.
        loss: mean over the same minibatches.
    """

    step: int
    share: float
    conformations_per_s: float
    loss: float


Tell = Callable[[Advance], None]


def tell_nobody(advance: Advance) -> None:
    """Ignores the message."""


class ProgressCallback(lightning.Callback):
    """Tells twice a second where the run stands.

    Args:
        tell: receives the message.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._clock = time.monotonic()
        self._seen = 0
        self._sums = (0.0, 0.0)

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Starts counting."""
        assert isinstance(pl_module, TrainingModule)
        self._mark(pl_module)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Tells if it is time to."""
        assert isinstance(pl_module, TrainingModule)
        elapsed = time.monotonic() - self._clock
        if elapsed < _INTERVAL_S and pl_module.progress() < 1.0:
            return
        sums, before = _sums(pl_module), self._sums
        if sums[1] <= before[1]:  # a validation has set them to zero
            before = (0.0, 0.0)
        loss, n_batches = sums[0] - before[0], sums[1] - before[1]
        if n_batches > 0 and elapsed > 0:
            rate = (pl_module.n_conformations_seen - self._seen) / elapsed
            share = min(pl_module.progress(), 1.0)
            self._tell(Advance(pl_module.steps_done, share, rate, loss / n_batches))
        self._mark(pl_module)

    def _mark(self, module: TrainingModule) -> None:
        self._clock, self._seen = time.monotonic(), module.n_conformations_seen
        self._sums = _sums(module)


def _sums(module: TrainingModule) -> tuple[float, float]:
    """Returns the summed loss and the number of minibatches since the last validation."""
    return float(module.loss_sums[0]), float(module.loss_sums[3])


class TrainingBar:
    """A bar with step, conformations per second, loss and time left; a context manager.

    Args:
        console: where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("training"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}% {task.fields[detail]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bars.add_task("training", total=1.0, detail="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def report(self, line: str) -> None:
        """Prints a line above the bar."""
        self._console.print(line, markup=False, soft_wrap=True)

    def tell(self, advance: Advance) -> None:
        """Moves the bar."""
        detail = (
            f"step {advance.step}  {advance.conformations_per_s:.1f} conf/s  "
            f"loss {advance.loss:.3g}"
        )
        self._bars.update(self._task, completed=advance.share, detail=detail)
