"""Learning-rate schedules: pure functions from progress to a multiplier of the learning rate."""

import math

from genlab.config.run import (
    CosineConfig,
    ExponentialConfig,
    LinearConfig,
    ScheduleConfig,
    StepConfig,
    WarmupCosineConfig,
)


def multiplier(schedule: ScheduleConfig, progress: float, after: float) -> float:
    """Returns the factor of the learning rate.

    Args:
        schedule: the kind of schedule, with its settings.
        progress: completed share of the run, in [0, 1]: steps done / steps of the run.
        after: the same after the coming step. Warm-up depends on this, so that the first step has a rate
            above 0: step k of W, counted from 1, has k / W of the full rate.

    Returns:
        a factor in [0, 1].
    """
    match schedule:
        case LinearConfig():
            return 1 + (schedule.final - 1) * progress
        case CosineConfig():
            return _cosine(progress, schedule.final)
        case WarmupCosineConfig():
            if progress < schedule.warmup:
                return min(1.0, after / schedule.warmup)
            return _cosine((progress - schedule.warmup) / (1 - schedule.warmup), schedule.final)
        case StepConfig():
            return schedule.factor ** sum(progress >= milestone for milestone in schedule.milestones)
        case ExponentialConfig():
            return schedule.final**progress
        case _:
            return 1.0


def _cosine(progress: float, final: float) -> float:
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
