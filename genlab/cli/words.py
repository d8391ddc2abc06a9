"""The words of a command, sorted into verb, flags and overrides; and the names that configurations offer.

This module imports neither torch nor hydra, so that an error in a word is reported at once.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from genlab import plugins
from genlab.cli import hints
from genlab.cli.verbs import VERBS
from genlab.config.schema import suggest
from genlab.errors import ConfigError

_SHORT = {
    "-h": "--help", "-m": "--multirun", "-sc": "--shell-completion", "-c": "--cfg",
    "-p": "--package", "-i": "--info", "-cd": "--config-dir", "-cn": "--config-name", "-cp": "--config-path",
}  # fmt: skip
_SWITCHES = ("--help", "--version", "--multirun", "--resolve", "--shell-completion")
_WITH_VALUE = (
    "--cfg", "--package", "--info", "--config-dir", "--config-name", "--config-path", "--module",
)  # fmt: skip
_CHOICES = {
    "--cfg": ("job",),
    "--info": ("defaults",),
}
FLAGS = (*_SWITCHES, *_WITH_VALUE)


@dataclass
class Command:
    """The words of a command, sorted.

    Attributes:
        verb: the first word that is neither a flag nor key=value; None if there is none.
        flags: the flags by their long names; True for a switch, otherwise the value.
        words: all other words, in order and as typed.
    """

    verb: str | None = None
    flags: dict[str, str | bool] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    @property
    def modules(self) -> str | None:
        """Returns the value of `--module`: names separated by commas."""
        names = self.flags.get("--module")
        return None if names is None else str(names)

    def value(self, key: str) -> str | None:
        """Returns the last value typed for a bare key, without quotes around it."""
        values = [word.partition("=")[2] for word in self.words if word.partition("=")[0] == key]
        return values[-1].strip("'\"") if values else None


def sort(argv: list[str]) -> Command:
    """Sorts words into verb, flags and overrides. Flags may stand anywhere.

    Raises:
        ConfigError: an unknown flag, or one without its value.
    """
    command, rest = Command(), list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            if command.verb is None and "=" not in word and not word.startswith(("+", "~")):
                command.verb = word
            else:
                command.words.append(word)
            continue
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name)
        if name in _SWITCHES and not equals:
            command.flags[name] = True
        elif name in _WITH_VALUE:
            found = _flag_value(name, value if equals else None, rest)
            if name == "--module" and name in command.flags:
                found = f"{command.flags[name]},{found}"
            elif name in command.flags and command.flags[name] != found:
                raise ConfigError(f"{name}={value or found}: given twice; leave one out")
            command.flags[name] = found
        else:
            hint = hints.for_flag(command.verb, name, value or next(iter(rest), ""), FLAGS)
            raise ConfigError(f"{word}: no such flag{hint}")
    ways = [name for name in ("--multirun", "--cfg", "--info") if name in command.flags]
    if len(ways) > 1:
        raise ConfigError(f"{ways[0]}: cannot be combined with {ways[1]}; leave one out")
    if "--resolve" in command.flags and "--cfg" not in command.flags:
        raise ConfigError("--resolve: works only with --cfg; add --cfg job")
    return command


def _flag_value(name: str, value: str | None, rest: list[str]) -> str:
    choices = _CHOICES.get(name)
    if value is None and name == "--info":  # the only flag whose value is optional
        value = rest.pop(0) if rest and choices and rest[0] in choices else "defaults"
    elif value is None:
        if not rest:
            raise ConfigError(f"{name}: needs a value{suggest('', choices or ())}")
        value = rest.pop(0)
    if choices and value not in choices:
        raise ConfigError(f"{name}={value}: not one of {', '.join(choices)}")
    if name in ("--config-dir", "--config-path"):
        try:
            there = bool(value) and Path(value).is_dir()
        except OSError:  # its name is too long
            there = False
        if not there:
            raise ConfigError(f"{name}={value}: no such folder")
        value = str(Path(value).absolute())
    if name == "--config-name" and ("/" in value or not value):
        folder, _, file = value.rpartition("/")
        raise ConfigError(
            f"{name}={value}: expected the name of a file in the folder, no path; type --config-dir "
            f"{folder or 'PATH'} --config-name {file.removesuffix('.yaml') or 'NAME'}"
        )
    return value


def config_folders(command: Command, shipped: Path) -> list[Path]:
    """Returns the folders of configurations: the user's own, those of plug-ins, and the shipped one last.

    A file of an earlier folder is used in place of one of the same name in a later folder.
    """
    main = Path(str(command.flags.get("--config-path", shipped)))
    own = [Path(str(command.flags["--config-dir"]))] if "--config-dir" in command.flags else []
    return [*own, *plugins.config_folders([*own, main]), main]


def options(folders: Sequence[Path], group: str) -> dict[str, Path]:
    """Returns the options of a group: name to file, e.g. "vae" to configs/model/vae.yaml."""
    found: dict[str, Path] = {}
    for folder in folders:
        for file in sorted((folder / group).glob("*.yaml")):
            if file.is_file() and not re.search(r"[\x00-\x1f\x7f-\x9f]", file.stem):
                found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def groups(folders: list[Path]) -> list[str]:
    """Returns the names of the config groups."""
    return sorted(
        {p.name for folder in folders for p in folder.iterdir() if p.is_dir() and any(p.glob("*.yaml"))}
    )


def bare_keys(verb: str, folders: list[Path]) -> list[str]:
    """Returns the keys without a dot that a verb accepts."""
    if verb == "train":
        return [*groups(folders), "seed", "run_dir"]
    if verb == "resume":
        return ["run"]
    return VERBS[verb].keys


def path_keys(verb: str) -> set[str]:
    """Returns the keys of a verb whose value is a path."""
    settings = VERBS[verb].settings if verb in VERBS else []
    return {"run", "run_dir", "dataset.root", "dataset.path", "dataset.ckpt"} | {
        each.key for each in settings if each.path
    }


def with_known_names(command: Command) -> Command:
    """Returns a command in which `run=` and `ckpt=`, each other's usual mistake, have the verb's own name.

    `genlab resume` gets the run folder of a path inside it.

    Raises:
        ConfigError: `genlab resume` of one checkpoint file, which need not be the newest.
    """
    known = "run" if command.verb == "resume" else "ckpt"
    if command.verb not in VERBS or command.verb == "train":
        return command
    words = [
        f"{known}={word.partition('=')[2]}" if re.match("(run|ckpt)=", word) else word
        for word in command.words
    ]
    command = dataclasses.replace(command, words=words)
    path = Path(command.value("run") or ".")
    if path.suffix == ".pt":
        raise ConfigError(
            f"run={path}: resume goes on from the newest checkpoint; give run={path.parent.parent}"
        )
    folder = path.parent if path.name == "latest" else path
    folder = folder.parent if folder.name == "checkpoints" else folder
    if folder != path:
        words = [f"run={folder}" if word.startswith("run=") else word for word in words]
    return dataclasses.replace(command, words=words)
