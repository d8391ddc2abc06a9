"""The training loop, and the files it writes between two steps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import torch

from genlab.device import any_shapes
from genlab.errors import Interrupted, storage_errors
from genlab.families.base import AdversarialFamily, Family, row_labels
from genlab.log import log, progress_bar
from genlab.report.pictures import save_grid, write_pictures, write_samples
from genlab.rng import SampleRng
from genlab.runs import checkpoint
from genlab.runs.folder import Run
from genlab.stop import Stop
from genlab.trained.draw import draw
from genlab.trained.numbers import evaluate_samples, evaluate_split
from genlab.trained.ruler import Ruler, measure_run
from genlab.training.state import TrainingState
from genlab.training.trackers import Trackers

_ASK_SECONDS = 1.0
"""Seconds between two questions of a group's processes whether one of them received a signal to stop."""

_PATIENCE = 2
"""Number of successive log intervals with the same problem after which a warning is printed."""

DRAWN_POINTS = _COVERAGE_SAMPLES = 2500
"""Number of samples of a scatter plot, and of those whose modes are counted during training."""


def train(
    state: TrainingState, run: Run | None, trackers: Trackers | None, ruler: Ruler | None, stop: Stop
) -> None:
    """Trains until the last step; between two steps it saves, evaluates and samples, in this order, when due.

    A resumed run repeats what follows the saving of its checkpoint, with the same result; so its files end up
    the same wherever it was interrupted.

    Raises:
        Interrupted: a signal was received; the run is saved.
        DivergedError: a loss was not finite.
    """
    trainer, update, clock = state.config.trainer, state.update, state.clock
    saved_step = update.step if update.step > 0 else None  # a step above 0 means a checkpoint was loaded
    logged_images, logged_seconds = state.images, clock.seconds
    troubles: dict[str, int] = {}
    agreement = _Agreement(stop, state)
    with progress_bar(total=update.steps, initial=update.step, unit="step", shown=run is not None) as bar:
        while True:
            finished = update.step == update.steps
            metrics_bytes = run.metrics_bytes() if run else 0
            told_by = agreement.told()
            if (
                told_by or finished or _due(update.step, trainer.checkpoint_every)
            ) and saved_step != update.step:
                _save(state, run, metrics_bytes)
                saved_step = update.step
            if not told_by and any(_work_due(state, finished)):
                try:
                    with stop.at_once():
                        _evaluate_and_sample(state, run, trackers, ruler, finished)
                    complete = True
                except Interrupted:
                    complete = False
                told_by = agreement.told_after_work(complete)  # the others wait here for the first process
                if told_by and saved_step != update.step:
                    _save(state, run, metrics_bytes)
            if told_by:
                state.group.gather(None)  # nobody leaves before the first process has saved
                raise Interrupted(f"stopped by {told_by}; saved at step {update.step}")
            if finished:
                return

            clock.start()
            metrics = state.family.step(state.batches, update)
            due = _due(update.step + 1, trainer.log_every) or update.step + 1 == update.steps
            rates = _learning_rates(state) if due else {}  # those of this step, not of the next one
            update.end_step()
            state.record(metrics)
            means = state.read_window() if due else {}
            clock.stop()
            bar.update()

            if due:
                rate = (state.images - logged_images) / max(clock.seconds - logged_seconds, 1e-9)
                logged_images, logged_seconds = state.images, clock.seconds
                _log_line(state, run, trackers, means | rates, rate)
                if run:
                    found = state.family.warnings(means)
                    troubles = _warn_of(found, troubles, update.step, _patience(state.family))
                bar.set_postfix({k: f"{v:.4g}" for k, v in means.items()} | {"images/s": f"{rate:.0f}"})


def _patience(family: Family) -> Mapping[str, int]:
    return family.patience if isinstance(family, AdversarialFamily) else {}


def _warn_of(
    found: Mapping[str, str], before: Mapping[str, int], step: int, patience: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Warns of each problem found in successive intervals, in one line and once until it is over.

    Args:
        patience: for some problems, another number of successive intervals than the default 2.

    Returns:
        for how many successive intervals each problem has been found.
    """
    counts = {name: before.get(name, 0) + 1 for name in found}
    for name, line in found.items():
        if counts[name] == (patience or {}).get(name, _PATIENCE):
            log.warning("step %d: %s", step, line)
    return counts


def _warn_of_validation(state: TrainingState, numbers: Mapping[str, float], finished: bool) -> None:
    """Warns of a problem in two successive validations, or in the last one; the first may be too early."""
    found, before = state.family.validation_warnings(numbers), state.troubles
    if finished:  # the last chance to warn
        before = {name: max(before.get(name, 0), _PATIENCE - 1) for name in found}
    state.troubles = _warn_of(found, before, state.update.step)


def _due(step: int, every: int) -> bool:
    return every > 0 and step > 0 and step % every == 0


class _Agreement:
    """The agreement of a group's processes on whether to stop, and after which step.

    They ask each other about once a second, whether steps take a millisecond or a minute. How many steps
    there are between two questions follows from the answers alone, and so is the same on every process.
    """

    def __init__(self, stop: Stop, state: TrainingState) -> None:
        self._stop, self._state = stop, state
        self._steps = 1
        self._asked_at_step = state.update.step
        self._asked = time.monotonic()

    def told(self) -> str | None:
        """Returns the signal that ends the run after this step, the same on every process."""
        if self._state.group.world == 1:
            return self._stop.signal_name
        if self._state.update.step < self._asked_at_step + self._steps:
            return None
        now, step = time.monotonic(), self._state.update.step
        answers = self._state.group.gather((self._stop.signal_name, now - self._asked))
        taken = max(seconds for _, seconds in answers)
        affordable = int((step - self._asked_at_step) * _ASK_SECONDS / max(taken, 1e-9))
        self._steps = max(1, min(affordable, 2 * self._steps))
        self._asked_at_step, self._asked = step, now
        return next((name for name, _ in answers if name), None)

    def told_after_work(self, complete: bool) -> str | None:
        """Returns the signal that ends the run after the work at this step, the same on every process.

        Args:
            complete: whether no signal interrupted the work of this process. If the work is complete
                everywhere and this was the last step, a signal comes too late to end anything.
        """
        answers = self._state.group.gather((self._stop.signal_name, complete))
        finished = self._state.update.step == self._state.update.steps
        if finished and all(complete for _, complete in answers):
            return None
        return next((name for name, _ in answers if name), None)


def _save(state: TrainingState, run: Run | None, metrics_bytes: int) -> None:
    content = state.to_checkpoint(metrics_bytes)
    if run is not None:
        run.flush_metrics()
        path = checkpoint.save(run.checkpoints, content, keep=state.config.trainer.keep_checkpoints)
        log.debug("saved %s", path)


def _work_due(state: TrainingState, finished: bool) -> tuple[bool, bool, bool]:
    """Returns whether to evaluate, sample and measure after this step; the same on every process."""
    trainer, step = state.config.trainer, state.update.step
    evaluate = (finished or _due(step, trainer.evaluate_every)) and state.dataset.size("validation") > 0
    sample = finished or _due(step, trainer.sample_every)
    measure = bool(trainer.measure) and (finished or _due(step, trainer.measure_every))
    return evaluate, sample, measure


def _evaluate_and_sample(
    state: TrainingState, run: Run | None, trackers: Trackers | None, ruler: Ruler | None, finished: bool
) -> None:
    """Writes validation metrics, metrics of samples, the family's pictures and a sample grid, when due."""
    trainer, step, family = state.config.trainer, state.update.step, state.family
    if run is None:
        return
    evaluate, sample, measure = _work_due(state, finished)
    seed, torch_device = state.config.seed, state.group.device
    with any_shapes(), state.update.averaged_weights(family) as weights:
        if evaluate:
            numbers = evaluate_split(
                family,
                state.dataset,
                "validation",
                batch_size=trainer.evaluated_at_once,
                seed=seed,
                torch_device=torch_device,
                limit=trainer.evaluate_images,
            )
            named = {f"validation/{name}": number for name, number in numbers.items()}
            sampled = evaluate_samples(
                family, state.config, state.dataset, "validation",
                seed=seed, torch_device=torch_device, n=_COVERAGE_SAMPLES,
                batch_size=min(500, trainer.micro_batch_size or 500),
            )  # fmt: skip
            named |= {f"samples/{name}": number for name, number in sampled.items()}
            numbers |= sampled
            _log_line(state, run, trackers, named)
            shown = ", ".join(f"{k} {v:.4g}" for k, v in numbers.items() if not k.endswith("_standard_error"))
            log.info("step %d, validation, %s weights: %s", step, weights, shown)
            _warn_of_validation(state, numbers, finished)
        if ruler is not None and measure:
            numbers = measure_run(ruler, family, state.dataset, trainer, seed, torch_device)
            _log_line(state, run, trackers, {f"samples/{name}": number for name, number in numbers.items()})
            shown = ", ".join(f"{k} {v:.4g}" for k, v in numbers.items() if not k.endswith("_standard_error"))
            log.info("step %d, samples, %s weights: %s", step, weights, shown)
        if sample:
            family.eval()
            with storage_errors(run.path):
                path = _draw_samples(state, run, finished)
                log.info(
                    "step %d: %s shows %s", step, path.relative_to(run.path), state.update.shown_weights()
                )
                if finished and state.dataset.size("validation") > 0:
                    write_pictures(family, state.dataset, "validation", run.samples, seed, torch_device)
            family.train()


def _draw_samples(state: TrainingState, run: Run, finished: bool) -> Path:
    """Writes the pictures of a step, and returns their path."""
    family, step = state.family, state.update.step
    path = run.samples / f"step-{step:08d}.png"
    if not family.generates:
        _draw_pictures(state, path)
        return path
    n = state.config.trainer.sample_images if family.spec.pictured else DRAWN_POINTS
    labels = row_labels(family, n)
    if labels is not None:  # complete rows only
        labels = labels[: n // family.spec.classes * family.spec.classes]
        n = len(labels)
    samples = draw(family, range(n), state.config.seed, state.group.device, labels)
    write_samples(family, state.config, state.dataset.pictures(samples), path, f"step {step}")
    if finished and family.spec.kind == "points":
        from genlab.report import figures

        figures.over_time(sorted(run.samples.glob("step-*.png")), run.samples / "over_time.png")
    return path


def _draw_pictures(state: TrainingState, path: Path) -> None:
    """Writes reconstructions of validation images, for a family without samples."""
    seed, n = state.config.seed, state.config.trainer.sample_images
    split = "validation" if state.dataset.size("validation") > 0 else "train"
    indices, batch = state.dataset.examples(split, n, seed)
    rng = SampleRng(seed, indices, state.group.device, purpose="pictures")
    with torch.no_grad():
        sheet = next(iter(state.family.pictures(batch, rng=rng).values()))
    save_grid(sheet.flatten(0, 1), path, columns=sheet.shape[1])


def _log_line(
    state: TrainingState,
    run: Run | None,
    trackers: Trackers | None,
    values: Mapping[str, float],
    images_per_second: float | None = None,
) -> None:
    if run is None or trackers is None:
        return
    line: dict[str, float] = {"step": state.update.step, "images": state.images}
    line["seconds"] = round(state.clock.seconds, 3)
    if images_per_second is not None:
        line["images_per_second"] = round(images_per_second, 1)
    line |= values
    run.write_metrics(line)
    trackers.write(line)


def _learning_rates(state: TrainingState) -> dict[str, float]:
    """Returns the learning rates of the last step, which is not counted yet."""
    players = state.family.players
    rates = {player: state.update.learning_rate(player) for player in players}
    if len(players) == 1:
        return {"learning_rate": rates[players[0]]}
    return {f"{player}_learning_rate": rate for player, rate in rates.items()}
