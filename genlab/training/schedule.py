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
    """What the learning rate is multiplied by.

    Args:
        schedule: which curve, with its settings.
        progress: share of the run that is done, in [0, 1]: steps done / steps of the run.
        after: the same when the coming step is done too. Warm-up goes by this, so that the first step has a
            rate: step k of W, counted from 1, has k / W of the whole one.

    Returns:
        a number in [0, 1].
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
