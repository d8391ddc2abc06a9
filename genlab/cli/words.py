"""The words of a command: sorted into verb, flags and overrides, checked, and prepared for Hydra's grammar.

This module imports neither torch nor hydra, so that an error in a word is reported at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from genlab import plugins
from genlab.cli.verbs import VERBS
from genlab.config.renamed import with_present_names
from genlab.config.schema import suggest
from genlab.errors import ConfigError
from genlab.log import log, log_to_console
from genlab.runs.folder import has_begun

_SHORT = {
    "-h": "--help", "-m": "--multirun", "-r": "--run", "-sc": "--shell-completion", "-c": "--cfg",
    "-p": "--package", "-i": "--info", "-cd": "--config-dir", "-cn": "--config-name", "-cp": "--config-path",
}  # fmt: skip
_SWITCHES = ("--help", "--version", "--multirun", "--run", "--resolve", "--hydra-help", "--shell-completion")
_WITH_VALUE = (
    "--cfg", "--package", "--info", "--config-dir", "--config-name", "--config-path", "--module",
)  # fmt: skip
_CHOICES = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}
FLAGS = (*_SWITCHES, *_WITH_VALUE)


@dataclass
class Command:
    """The words of a command, sorted.

    Attributes:
        verb: the first word that is neither a flag nor key=value; None if there is none.
        flags: Hydra's flags by their long names; True for a switch, otherwise the value.
        words: all other words, in order and as typed.
    """

    verb: str | None = None
    flags: dict[str, str | bool] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def hydra_flags(self, *but: str) -> list[str]:
        """Returns the flags for Hydra as words, without those in `but` and without `--module`."""
        kept = {name: value for name, value in self.flags.items() if name not in (*but, "--module")}
        return [name if value is True else f"{name}={value}" for name, value in kept.items()]

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
            command.flags[name] = found
        else:
            raise ConfigError(f"{word}: no such flag{suggest(name, FLAGS)}")
    ways = [name for name in ("--run", "--multirun", "--cfg", "--info") if name in command.flags]
    if len(ways) > 1:
        raise ConfigError(f"{ways[0]}: cannot be combined with {ways[1]}; leave one out")
    if "--resolve" in command.flags and "--cfg" not in command.flags:
        raise ConfigError("--resolve: works only with --cfg; add --cfg job")
    return command


def _flag_value(name: str, value: str | None, rest: list[str]) -> str:
    choices = _CHOICES.get(name)
    if value is None and name == "--info":  # the only flag whose value is optional
        value = rest.pop(0) if rest and choices and rest[0] in choices else "all"
    elif value is None:
        if not rest:
            raise ConfigError(f"{name}: needs a value{suggest('', choices or ())}")
        value = rest.pop(0)
    if choices and value not in choices:
        raise ConfigError(f"{name}={value}: not one of {', '.join(choices)}")
    if name in ("--config-dir", "--config-path"):
        if not Path(value).is_dir():
            raise ConfigError(f"{name}={value}: no such folder")
        value = str(Path(value).absolute())
    return value


def config_folders(command: Command, shipped: Path) -> list[Path]:
    """Returns the folders of configurations: the shipped ones, those of plug-ins, then the user's own.

    Raises:
        ConfigError: a file of the user's has a shipped one's name, so that Hydra would ignore it.
    """
    main = Path(str(command.flags.get("--config-path", shipped)))
    own = [Path(str(command.flags["--config-dir"]))] if "--config-dir" in command.flags else []
    folders = [main, *plugins.config_folders([main, *own]), *own]
    for folder in folders[1:]:
        for file in sorted(folder.rglob("*.yaml")):
            if folder != main and (main / file.relative_to(folder)).is_file():
                raise ConfigError(f"{file}: a shipped file of this name takes precedence; rename yours")
    return folders


def plugin_folders(command: Command, folders: list[Path]) -> list[Path]:
    """Returns those of `config_folders` that Hydra does not know from the flags."""
    return [folder for folder in folders[1:] if str(folder) != command.flags.get("--config-dir")]


def options(folders: list[Path], group: str) -> dict[str, Path]:
    """Returns the options of a group: name to file, e.g. "vae" to configs/model/vae.yaml."""
    found: dict[str, Path] = {}
    for folder in folders:
        for file in sorted((folder / group).glob("*.yaml")):
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


_OPTIONAL_GROUPS = ("recipe", "experiment", "sweep")
_WORD = re.compile(r"(?P<prefix>\+\+|\+|~)?(?P<key>[^=]*)(?P<equals>=)?(?P<value>.*)", re.DOTALL)


def for_hydra(command: Command, folders: list[Path]) -> dict[str, str]:
    """Prepares overrides for Hydra; returns a dictionary from the word for Hydra to the word as typed.

    Hydra refuses a key that the composed configuration does not have, with a message of its own. Dotted keys
    are therefore forced in (`a.b=c` becomes `++a.b=c`), so that `from_plain` reports every mistyped key.

    Raises:
        ConfigError: a word is not of the form key=value, or a bare key is unknown.
    """
    verb = command.verb or ""
    ready = {}
    for word in command.words:
        match = _WORD.fullmatch(word)
        assert match is not None
        prefix, key, equals, value = match.group("prefix", "key", "equals", "value")
        if not key or (not equals and prefix != "~"):
            known = bare_keys(verb, folders)
            hint = f"; did you mean {key}=...?" if key in known else suggest(key, known) if key else ""
            raise ConfigError(f"{word}: expected key=value, without blanks around the ={hint}")
        plain_key = re.fullmatch(r"[\w.\-]+", key) is not None and not key.startswith("hydra.")
        if prefix is None and plain_key and "." in key:
            ready[f"++{word}"] = word
            continue
        if key.startswith("hydra/launcher"):
            raise ConfigError(f"{word}: a sweep runs its jobs one after another; leave it out")
        if prefix is None and plain_key and "--config-name" not in command.flags:
            _check_bare(verb, word, key, value, folders)
        if verb == "train" and prefix is None and key in _OPTIONAL_GROUPS and value in ("null", "none"):
            # Hydra accepts no null for a group; a recipe is optional, so a name without a file does the same.
            ready["recipe=none" if key == "recipe" else f"~{key}"] = word
            continue
        if VERBS[verb].other_datasets and prefix is None and key == "dataset":
            ready[f"++dataset.name={value}"] = word
            continue
        ready[word] = word
    return ready


def _check_bare(verb: str, word: str, key: str, value: str, folders: list[Path]) -> None:
    known = bare_keys(verb, folders)
    if key not in known:
        if key in groups(folders):
            raise ConfigError(
                f"{word}: a resumed run keeps its {key}; change single settings, e.g. trainer.steps=20000"
                if verb == "resume"
                else f"{word}: genlab {verb} takes the {key} from the checkpoint; leave it out"
            )
        raise ConfigError(f"{word}: unknown key for genlab {verb}{suggest(key, known)}")
    if key not in groups(folders):
        return
    names, choices = value.split(","), list(options(folders, key))
    if key in _OPTIONAL_GROUPS:
        if len(names) > 1 and {"null", "none"} & set(names):
            raise ConfigError(f"{word}: none cannot be swept over; run the job without {key} separately")
        choices.append("none")
    for name in names:
        # Hydra's own message would be unclear, and it would ignore a mistyped recipe, which is optional.
        riddle = name == "null" or key == "recipe" or re.fullmatch(r"[\d.]+", name)
        riddle = riddle or VERBS[verb].other_datasets  # where Hydra is not asked for a file of that name
        if riddle and name not in choices and not (name == "null" and key in _OPTIONAL_GROUPS):
            raise ConfigError(f"{key}={name}: no such {key}{suggest(name, choices, f'{key}=')}")


def originals(words: list[str], ready: Mapping[str, str]) -> list[str]:
    """Returns a job's overrides as the user would type them: the last of each key, without the ++ added."""
    forced = {word.partition("=")[0] for word, typed in ready.items() if word == f"++{typed}"}
    by_key = {}
    for word in words:
        typed = ready.get(word, word)
        if typed == word and word.partition("=")[0] in forced:  # one value of several that are swept
            typed = word.removeprefix("++")
        by_key[typed.partition("=")[0]] = typed
    return list(by_key.values())


_RUN_KEYS = ("model", "dataset", "optimizer", "schedule", "trainer", "seed")


def stored_config(run: str | None) -> dict[str, Any]:
    """Returns the configuration of a run folder: that of config.yaml, else of its newest checkpoint.

    Raises:
        ConfigError: there is no run folder, or it holds no configuration of a run.
    """
    if run is None:
        raise ConfigError("run: missing; add run=outputs/train/...")
    if not Path(run).is_dir():
        raise ConfigError(f"run={run}: no such folder; give a run folder, e.g. run=outputs/train/...")
    plain, problem = None, None
    try:
        text = (Path(run) / "config.yaml").read_text(encoding="utf-8")
        plain = yaml.safe_load(text)
        if not isinstance(plain, dict):
            plain, problem = None, "has no settings"
        elif not text.endswith("\n"):
            plain, problem = None, "is truncated"
        elif plain.keys() < {*_RUN_KEYS}:
            problem = "is truncated"
    except FileNotFoundError:
        problem = "is missing"
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = "cannot be read ({})".format(str(error).split("\n")[0])
    if problem:
        plain = _checkpoint_config(run, problem) or plain
    if plain is None and problem == "is missing":
        if has_begun(Path(run)):
            raise ConfigError(f"run={run}: has no config.yaml; give a run folder of genlab train")
        raise ConfigError(f"run={run}: was ended before it began; type its genlab train command again")
    if plain is None:
        raise ConfigError(f"run={run}: its config.yaml {problem}; restore it")
    for key in plain:
        if key not in _RUN_KEYS:  # a `hydra` key in a file not written by genlab could name code to run
            raise ConfigError(f"run={run}: its config.yaml has an unknown key {key}; remove it")
    return with_present_names(plain)


def _checkpoint_config(run: str, reason: str) -> dict[str, Any] | None:
    """Returns the configuration of a run's newest checkpoint, and says so; None without a checkpoint."""
    if not any(Path(run, "checkpoints").glob("step-*.pt")):
        return None
    from genlab.runs import checkpoint  # imports torch

    path, state = checkpoint.find(run)
    log_to_console()
    log.warning("run=%s: its config.yaml %s; using the configuration of %s", run, reason, path.name)
    return state["config"]
