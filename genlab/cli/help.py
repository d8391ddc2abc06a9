"""Help pages and `genlab list`, both read from the configuration folders."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import MISSING
from pathlib import Path

from genlab import registry
from genlab.cli.verbs import VERBS
from genlab.cli.words import groups, options
from genlab.config.run import TrainerConfig
from genlab.config.schema import Setting, settings_of, show, suggest
from genlab.config.text import read_yaml
from genlab.errors import ConfigError, one_line, printable

_LISTED = {
    "model": "models",
    "dataset": "datasets",
    "optimizer": "optimizers",
    "schedule": "schedules",
    "trainer": "trainers",
    "recipe": "recipes",
    "experiment": "experiments",
    "sweep": "sweeps",
}

GROUPS = tuple(_LISTED.values())
"""The names of the groups in `genlab list`, in the plural."""

_DEFAULTS = {
    "model": "vae", "dataset": "digits", "optimizer": "adam", "schedule": "constant", "trainer": "default",
}  # fmt: skip

_WIDTH = 110
_LONGEST_HEADER = 4_000  # characters

_OVERVIEW = """\
genlab: a laboratory bench for generative models of images.

usage: genlab VERB [key=value ...] [flags]

{verbs}

start with:
  genlab train                                   a VAE on small digits, a few minutes on a laptop
  genlab sample ckpt=outputs/train/...           draw images; training prints the run folder's name
  genlab train --help                            show all that can be changed"""

_TRAIN = """\
groups (group=option; the first of each line is the default):
{groups}
  recipe=       settings for a pair MODEL_DATASET, used automatically; recipe=none leaves them out; see
                genlab list recipes

keys used most:
  seed=0                       determines all random numbers
  run_dir=PATH                 the run folder; default outputs/train/DATE-TIME-MODEL-DATASET
  trainer.steps=4000           number of training steps
  trainer.batch_size=128       images of one update
  trainer.device=auto          auto, cpu, cuda, cuda:1, mps
  trainer.precision=fp32       fp32 or bf16
  optimizer.lr=0.001           learning rate
  dataset.root=PATH            the folder of the data; default the environment variable GENLAB_DATA
  model.latent=16              one setting of a model; genlab train model=vae --help lists them all"""

_FLAGS = """\
flags, anywhere among the words:
  -h, --help                   print this page; with model=NAME, dataset=NAME etc. also their settings
  -m, --multirun               run a sweep: one run for every combination of comma-separated values
  -c, --cfg job                print the configuration and exit
  -cd, --config-dir PATH       add a folder of your own configurations, with the shipped one's structure
  --module NAME                import a module that registers families or datasets; also GENLAB_MODULES
  -i, --info defaults          print the configuration files that are used
"""

_EXIT_CODES = """\
exit codes: 0 success, 2 user error (one line explains it), 3 the loss is not finite,
75 interrupted by a signal and ready to resume. GENLAB_TRACEBACK=1 prints the traceback of an error."""


def page(verb: str | None, folders: list[Path], chosen: Sequence[tuple[str, str]] = ()) -> str:
    """Returns the help page of a verb, or the overview.

    Args:
        verb: None for the overview.
        folders: the folders of the configurations.
        chosen: pairs (group, option) whose settings are listed too, e.g. ("model", "vae").

    Raises:
        ConfigError: the option does not exist.
    """
    if verb is None:
        verbs = "\n".join(f"  {name:11} {row.summary}" for name, row in VERBS.items())
        return f"{_OVERVIEW.replace('{verbs}', verbs)}\n\n{_FLAGS}\n{_EXIT_CODES}"
    row = VERBS[verb]
    usage = "\n       ".join(f"genlab {verb} {way}" for way in row.usage)
    parts = [f"genlab {verb}: {row.summary}.", f"usage: {usage}"]
    if verb == "train":
        parts.append(_TRAIN.replace("{groups}", _group_lines(folders)))
    parts += [_settings_of_option(group, option, folders) for group, option in chosen]
    if row.config:
        parts.append("\n".join(["keys:", *_setting_lines(row.settings)]))
    if row.notes:
        parts.append(row.notes)
    if row.examples:
        parts.append("\n".join(["examples:", *(f"  genlab {verb} {text}".rstrip() for text in row.examples)]))
    return "\n\n".join([*parts, f"{_FLAGS}\n{_EXIT_CODES}"])


def _settings_of_option(group: str, option: str, folders: list[Path]) -> str:
    """Returns the settings of a model, dataset, optimizer, schedule or trainer, one per line."""
    found = options(folders, group)
    if option not in found:
        raise ConfigError(f"{group}={option}: no such {group}{suggest(option, found, f'{group}=')}")
    if group == "trainer":
        kind = TrainerConfig
    else:
        name = _name_in(found[option]) or option
        kind = registry.config_of(registry.kinds(group), name, group)
    lines = _setting_lines(settings_of(kind), f"{group}.")
    return "\n".join([f"{group}={option}: {describe(found[option])}", *(lines or ["  no settings"])])


def _name_in(file: Path, *above: Path) -> str | None:
    """Returns the registered name that a configuration file sets: that of optimizer=gan_adam is adam.

    Args:
        file: the configuration file.
        above: the files whose defaults lists led to it.
    """
    plain = read_yaml(file)
    if not isinstance(plain, dict):
        return None
    if isinstance(plain.get("name"), str):
        return plain["name"]
    defaults = plain.get("defaults")
    for base in defaults if isinstance(defaults, list) else ():
        other = file.parent / f"{base}.yaml"
        if isinstance(base, str) and re.fullmatch(r"[\w\-]+", base) and base != "_self_" and other.is_file():
            return None if other in (file, *above) else _name_in(other, file, *above)
    return None


def _setting_lines(settings: Sequence[Setting], prefix: str = "") -> list[str]:
    lines = []
    for each in settings:
        value = "PATH" if each.default in (None, MISSING) and each.path else show(each.default)
        value = "..." if each.default is MISSING and not each.path else value
        word = f"  {prefix}{each.key}={value}"
        text = each.comment + (f"; {each.bounds}" if each.bounds else "")
        first = f"{word:30} " if len(word) <= 30 else f"{word}\n{'':31}"
        wrapped = textwrap.wrap(text, _WIDTH - 31) or [""]
        lines.append((first + f"\n{'':31}".join(wrapped)).rstrip())
    return lines


def _group_lines(folders: list[Path]) -> str:
    lines = []
    for group in [*_LISTED, *(g for g in groups(folders) if g not in _LISTED)]:
        names = [] if group == "recipe" else list(options(folders, group))
        names.sort(key=lambda name, group=group: name != _DEFAULTS.get(group))
        if names:
            first = f"  {group + '=':13} "
            lines.append(
                textwrap.fill(", ".join(names), _WIDTH, initial_indent=first, subsequent_indent=" " * 16)
            )
    return "\n".join(lines)


def listing(folders: list[Path], wanted: str | None = None) -> str:
    """Returns the text of `genlab list`: each group's options with the first comment line of their files.

    Args:
        folders: the folders of the configurations.
        wanted: one group, in the singular or the plural; None for all.

    Raises:
        ConfigError: the group does not exist.
    """
    known = [*_LISTED, *(group for group in groups(folders) if group not in _LISTED)]
    plural = {_LISTED.get(group, group): group for group in known}
    if wanted is not None:
        group = plural.get(wanted, wanted)
        if group not in known:
            raise ConfigError(f"{wanted}: no such group{suggest(wanted, plural)}")
        known = [group]
    parts = []
    for group in known:
        found = options(folders, group)
        width = max(map(len, found), default=0)
        rows = [f"  {printable(name):{width}}  {describe(file)}".rstrip() for name, file in found.items()]
        if rows:
            parts.append("\n".join([f"{_LISTED.get(group, group)} ({group}=NAME)", *rows]))
    return "\n\n".join(parts)


def describe(file: Path) -> str:
    """Returns the first comment line of a YAML file that is not Hydra's `@package`."""
    with file.open(encoding="utf-8-sig", errors="replace") as opened:
        start = opened.read(_LONGEST_HEADER)
    for line in start.split("\n"):
        text = line.lstrip("# ").strip()
        if not line.startswith("#"):
            break
        if text and not text.startswith("@package"):
            return one_line(text)
    return ""


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Formats rows as a table whose columns are as wide as their longest entry."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
