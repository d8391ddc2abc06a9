"""The training loop, and the files it writes between two steps."""

from __future__ import annotations

import contextlib
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
from genlab.trained.draw import draw
from genlab.trained.numbers import evaluate_samples, evaluate_split
from genlab.trained.ruler import Ruler, measure_run
from genlab.training.state import TrainingState
from genlab.training.stop import Stop
from genlab.training.trackers import Trackers

_STOP_CHECK_STEPS = 8
"""Steps between two checks of a group's processes whether one of them received a signal to stop."""

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
    """
    trainer, update, clock = state.config.trainer, state.update, state.clock
    saved_step = update.step if update.step > 0 else None  # a step above 0 means a checkpoint was loaded
    logged_images, logged_seconds = state.images, clock.seconds
    troubles: dict[str, int] = {}
    with progress_bar(total=update.steps, initial=update.step, unit="step", shown=run is not None) as bar:
        while True:
            finished = update.step == update.steps
            metrics_bytes = run.metrics_bytes() if run else 0
            told_by = _told_to_stop(stop, state)
            if (
                told_by or finished or _due(update.step, trainer.checkpoint_every)
            ) and saved_step != update.step:
                _save(state, run, metrics_bytes)
                saved_step = update.step
            if told_by:
                raise Interrupted(f"stopped by {told_by}; saved at step {update.step}")
            try:
                with stop.at_once() if state.group.world == 1 else contextlib.nullcontext():
                    _evaluate_and_sample(state, run, trackers, ruler, finished)
            except Interrupted as signal_name:
                if saved_step != update.step:
                    _save(state, run, metrics_bytes)
                raise Interrupted(f"stopped by {signal_name}; saved at step {update.step}") from None
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


def _told_to_stop(stop: Stop, state: TrainingState) -> str | None:
    """Returns the signal that ends the run after this step, the same on every process of a group."""
    if state.group.world == 1:
        return stop.signal_name
    if state.update.step % _STOP_CHECK_STEPS:
        return None
    return next((name for name in state.group.gather(stop.signal_name) if name), None)


def _save(state: TrainingState, run: Run | None, metrics_bytes: int) -> None:
    content = state.to_checkpoint(metrics_bytes)
    if run is not None:
        path = checkpoint.save(run.checkpoints, content, keep=state.config.trainer.keep_checkpoints)
        log.debug("saved %s", path)


def _evaluate_and_sample(
    state: TrainingState, run: Run | None, trackers: Trackers | None, ruler: Ruler | None, finished: bool
) -> None:
    """Writes validation metrics, metrics of samples, the family's pictures and a sample grid, when due."""
    trainer, step, family = state.config.trainer, state.update.step, state.family
    if run is None:
        return
    evaluate = (finished or _due(step, trainer.evaluate_every)) and state.dataset.size("validation") > 0
    sample = finished or _due(step, trainer.sample_every)
    measure = ruler is not None and (finished or _due(step, trainer.measure_every))
    if not (evaluate or sample or measure):
        return
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
