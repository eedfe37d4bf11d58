"""What a training asks for and its budget ends before."""

from trip_mm.training.config import TrainingConfig


def describe_unreached(config: TrainingConfig, n_steps: int | None) -> list[str]:
    """Names the settings that cannot act within the steps of a training, a line for each.

    A validation counts if a step follows that it can act on.

    Args:
        config: of the run.
        n_steps: of the whole run, None where only its time is limited.
    """
    if n_steps is None:
        return []
    schedule, validation = config.schedule, config.validation
    lines = []
    if schedule.warmup_steps >= n_steps:
        lines.append(
            f"schedule.warmup_steps: {schedule.warmup_steps} fill the budget of {n_steps} steps, "
            "and the learning rate only rises; lower warmup_steps, or raise the budget"
        )
    if schedule.kind == "plateau":
        setting = f"schedule.patience: {schedule.patience} lowers the learning rate"
        lines += _too_late(setting, schedule.patience + 2, validation.every_steps, n_steps)
    if validation.early_stopping is not None:
        setting = f"validation.early_stopping: {validation.early_stopping} stops"
        needed = validation.early_stopping + 1
        lines += _too_late(setting, needed, validation.every_steps, n_steps)
    return lines


def _too_late(setting: str, n_needed: int, every_steps: int, n_steps: int) -> list[str]:
    found, most = (n_steps - 1) // every_steps, (n_steps - 1) // n_needed
    if found >= n_needed:
        return []
    advice = "raise the budget, or lower it"
    if most > 0:
        advice = f"set validation.every_steps to {most} or less, or raise the budget"
    return [
        f"{setting} after validation {n_needed} at the earliest, and there are {found} before the "
        f"last of {n_steps} steps; {advice}"
    ]
