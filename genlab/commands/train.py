"""`genlab train` and `genlab resume`: open a run folder, train, and print the next commands."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genlab import device, registry
from genlab.commands.base import finish
from genlab.commands.next import after_training
from genlab.config.datasets import check_files, with_absolute_paths
from genlab.config.run import TrainConfig
from genlab.config.schema import to_plain, typed
from genlab.errors import CheckpointError, ConfigError, DivergedError, Interrupted, storage_errors
from genlab.log import courteous_console, log, log_to_console
from genlab.memory import limited_memory, memory_errors, smaller_batch
from genlab.report.pictures import save_grid, write_samples
from genlab.runs import checkpoint, content
from genlab.runs.folder import BEFORE_TRAINING, Run, create_folder, read_state
from genlab.stop import Stop
from genlab.trained.ruler import Ruler, ruler_of_run
from genlab.training import loop
from genlab.training.state import TrainingState
from genlab.training.trackers import Trackers, check_installed

_FREE_ON_RESUME = {
    "dataset.root", "dataset.path", "dataset.ckpt", "dataset.download", "dataset.memory_limit_gib",
    "optimizer.lr",
}  # fmt: skip
_FIXED_ON_RESUME = {"trainer.batch_size"}


@courteous_console()
def start(
    plain: Mapping[str, Any], overrides: list[str], run_dir: str | None, recipe: str | None = None
) -> Path:
    """Runs `genlab train`: trains a new run.

    Args:
        plain: the composed configuration: model, dataset, optimizer, schedule, trainer, seed.
        overrides: the words the user typed, for the record.
        run_dir: the run folder, or None for a new one under outputs/train.
        recipe: the name of the recipe that is part of the configuration, for the log.

    Returns:
        the run folder.

    Raises:
        UserError: the configuration, the dataset or the folder is not valid; nothing was written.
        DivergedError: a loss is not finite.
        Interrupted: a signal arrived; the run is saved.
    """
    log_to_console()
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Stop())
        with stop.at_once(BEFORE_TRAINING["train"]):
            config = _located(registry.train_config(plain))
            check_installed(config)
            stack.enter_context(_one_line(config))
            group = stack.enter_context(device.processes(config.trainer.device))
            state = TrainingState(config, group)
            ruler = _ruler(state)
        label = f"{config.model.name}-{config.dataset.name}"
        run = None
        if group.first:
            run = stack.enter_context(Run(create_folder("train", run_dir, label)))
        path = group.gather(run.path if run else None)[0]
        if run is not None:
            run.begin("train", to_plain(config), overrides, state.dataset.fingerprint())
            _announce(state, run)
            if recipe is not None:
                log.info("recipe %s; recipe=none leaves it out", recipe)
        _train_in(run, state, ruler, stop)
    _say_what_is_next(path, state)
    return path


@courteous_console()
def resume(run: str, plain: Mapping[str, Any] | None, overrides: list[str]) -> Path:
    """Runs `genlab resume`: continues from the newest valid checkpoint, or from the beginning without one.

    Args:
        run: the run folder.
        plain: its configuration with the user's changes; None for no change.
        overrides: the words the user typed, for the record.

    Raises:
        as `start`; also ConfigError for a change that would make it a different experiment.
    """
    log_to_console()
    path = Path(run)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Stop())
        with stop.at_once(BEFORE_TRAINING["resume"]):
            if not path.is_dir():
                raise CheckpointError(f"run={path}: no such run folder; see ls outputs/train")
            opened = None
            if device.is_first():  # locked before anything is read, which another process may change
                opened = stack.enter_context(Run(path))
            found, saved, config = _read_to_resume(path, plain, overrides)
            if saved is not None and _has_finished(path, saved["step"], config):
                return path
            stack.enter_context(_one_line(config))
            group = stack.enter_context(device.processes(config.trainer.device))
            of_first = group.gather(found)[0]
            if of_first != found:  # read before the first process had the lock
                found, saved = of_first, content.read_to_resume(of_first).state if of_first else None
            state = TrainingState(config, group, new=saved is None)
            if saved is not None:
                state.restore(saved)
            ruler = _ruler(state)
        if opened is not None:
            data = state.dataset.fingerprint()
            opened.begin("resume", to_plain(config), overrides, data)
            opened.rewind_metrics(saved["metrics_bytes"] if saved is not None else 0)
            if saved is None or found is None:
                _announce(state, opened)
            else:
                checkpoint.keep_newest(found, config.trainer.keep_checkpoints)
                log.info("resuming from %s", found)
                _say_how_the_rate_goes_on(state, saved)
        _train_in(opened, state, ruler, stop)
    _say_what_is_next(path, state)
    return path


def _read_to_resume(
    path: Path, plain: Mapping[str, Any] | None, overrides: list[str]
) -> tuple[Path | None, Mapping[str, Any] | None, TrainConfig]:
    """Returns the checkpoint to go on from and its content, None without one, and the configuration.

    Raises:
        UserError: see `resume`.
    """
    found, saved = None, None
    if checkpoint.list_checkpoints(path / "checkpoints"):
        found, whole = checkpoint.find(path, content.read_to_resume)
        saved = whole.state
        plain = plain or saved["config"]
    if plain is None:
        raise CheckpointError(f"run={path}: no checkpoint and no config.yaml in it; start with genlab train")
    config = _located(registry.train_config(plain))
    moved = any(word.startswith("dataset.path=") for word in overrides)
    check_files(config.dataset, None if moved else f"run={path}")
    check_installed(config)
    if saved is not None:
        refuse_another_run(registry.train_config(saved["config"]), config)
        if config.trainer.steps < saved["step"]:
            raise ConfigError(
                f"trainer.steps={config.trainer.steps}: the run is at step {saved['step']} already; give more"
            )
    return found, saved, config


def _has_finished(path: Path, step: int, config: TrainConfig) -> bool:
    """Returns whether a run has nothing left to do, and says so."""
    if config.trainer.steps > step or read_state(path).get("state") != "finished":
        return False
    log.info(
        "run=%s: has finished at step %d, and nothing is changed; to train for longer: "
        "genlab resume run=%s trainer.steps=%d",
        path, step, path, 2 * step,
    )  # fmt: skip
    return True


@contextlib.contextmanager
def _one_line(config: TrainConfig) -> Iterator[None]:
    """Turns a lack of memory into one line that names the number of images at a time to try."""
    trainer = config.trainer
    key = "batch_size" if trainer.micro_batch_size is None else "micro_batch_size"
    size = min(trainer.micro_batch_size or trainer.batch_size, trainer.batch_size)
    with limited_memory(), memory_errors(*smaller_batch(f"trainer.{key}", size, "trainer.micro_batch_size")):
        yield


def _located(config: TrainConfig) -> TrainConfig:
    """Returns the configuration with absolute paths of the data, so that any folder can resume the run."""
    return dataclasses.replace(config, dataset=with_absolute_paths(config.dataset))


def _train_in(run: Run | None, state: TrainingState, ruler: Ruler | None, stop: Stop) -> None:
    """Trains in a run folder; only the first process of a group has one, writes and prints."""
    if run is None:
        loop.train(state, None, None, None, stop)
        return
    _warn_of_micro_batches(state)
    trackers = Trackers(state.config, run.path)
    try:
        loop.train(state, run, trackers, ruler, stop)
    except Interrupted as error:
        raise Interrupted(f"{error}; go on with: genlab resume {typed('run', run.path)}") from None
    except DivergedError as error:
        good = checkpoint.newest(run.checkpoints) or "none"
        remedy = "lower optimizer.lr or set optimizer.clip_grad_norm"
        raise DivergedError(f"{error}; last good checkpoint: {good}; {remedy}") from None
    finally:
        run.step = state.update.step
        trackers.close()


def _say_what_is_next(path: Path, state: TrainingState) -> None:
    if state.group.first:
        written = "checkpoints/ samples/ metrics.jsonl train.log config.yaml"
        finish(path, written, *after_training(state.family, path))


def _say_how_the_rate_goes_on(state: TrainingState, saved: Mapping[str, Any]) -> None:
    """Says what a longer schedule does to the learning rate: it jumps, if the schedule had reduced it."""
    steps, before = state.config.trainer.steps, saved["config"]["trainer"]["steps"]
    player = state.family.players[0]
    last = float(saved["optimizers"][player]["param_groups"][0]["lr"])
    rate = state.update.learning_rate(player)
    if steps <= before or state.update.step == steps or abs(rate - last) <= 0.1 * max(rate, last):
        return
    log.warning(
        "trainer.steps=%d: schedule %s now spreads over %d steps instead of %d, so that the learning rate of "
        "%s goes from %.3g to %.3g; for a smaller one add optimizer.lr=..., and for the result of a run of "
        "%d steps start a new one with genlab train",
        steps, state.config.schedule.name, steps, before, player, last, rate, steps,
    )  # fmt: skip


def _ruler(state: TrainingState) -> Ruler | None:
    """Returns the object that measures samples; None on all processes but the first."""
    if not state.group.first:
        return None
    return ruler_of_run(state.config, state.family, state.dataset, state.group.device)


def _warn_of_micro_batches(state: TrainingState) -> None:
    """Warns that what the model computes over a batch is computed over each micro-batch."""
    trainer = state.config.trainer
    parts, names = trainer.micro_batch_size, state.family.batch_statistics()
    if parts is None or parts >= trainer.batch_size or not names:
        return
    log.warning(
        "trainer.micro_batch_size=%d: %s see %d images at a time instead of %d, so that training differs "
        "from training with whole batches; leave it out, or use a larger one",
        parts, " and ".join(names), parts, trainer.batch_size,
    )  # fmt: skip


def _announce(state: TrainingState, run: Run) -> None:
    """Logs what is going to be trained, and writes samples/real.png if there are images."""
    config, spec = state.config, state.dataset.spec
    weights = sum(p.numel() for p in state.family.parameters())
    if spec.kind == "none":
        log.info(
            "%s with %d weights, %d steps on %s; run folder %s",
            config.model.name, weights, config.trainer.steps, state.group.device, run.path,
        )  # fmt: skip
        return
    log.info(
        "%s with %s weights on %s (%d images of %dx%dx%d), %d steps of %d images on %s; run folder %s",
        config.model.name, f"{weights:,}", spec.name, state.dataset.size("train"), *spec.shape,
        config.trainer.steps, config.trainer.batch_size, state.group.device, run.path,
    )  # fmt: skip
    if state.dataset.remark:
        log.info("%s", state.dataset.remark)
    limit = config.trainer.sample_images if spec.pictured else loop.DRAWN_POINTS
    _, batch = state.dataset.examples("train", limit, config.seed)
    with storage_errors(run.path):
        if spec.pictured:
            save_grid(state.dataset.pictures(batch.images), run.samples / "real.png")
        else:
            write_samples(state.family, config, batch.images, run.samples / "real.png", "data")


def refuse_another_run(before: TrainConfig, after: TrainConfig) -> None:
    """Refuses changes that make a resumed run a different experiment; length, device and rate may change.

    Raises:
        ConfigError: names the first setting that may not change.
    """
    old, new = _flatten(to_plain(before)), _flatten(to_plain(after))
    for key in sorted(old.keys() | new.keys()):
        free = key in _FREE_ON_RESUME or (key.startswith("trainer.") and key not in _FIXED_ON_RESUME)
        if old.get(key) != new.get(key) and not free:
            raise ConfigError(
                f"{key}={new.get(key)}: the run has {old.get(key)}, which resuming cannot change; "
                "leave it out, or start a new run with genlab train"
            )


def _flatten(plain: Any, key: str = "") -> dict[str, Any]:
    if isinstance(plain, Mapping) and plain:
        return {
            k: v
            for name, part in plain.items()
            for k, v in _flatten(part, f"{key}.{name}".lstrip(".")).items()
        }
    return {key: plain}
