"""The words of a command: sorted into verb, flags and overrides, checked, and prepared for Hydra's grammar.

This module imports neither torch nor hydra, so that an error in a word is reported at once.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genlab import plugins
from genlab.cli import hints
from genlab.cli.verbs import VERBS
from genlab.config.renamed import with_present_names
from genlab.config.schema import quoted, show, suggest, typed
from genlab.config.text import read_yaml
from genlab.errors import ConfigError
from genlab.log import log, log_to_console
from genlab.runs.folder import has_begun

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


def names_hydra(key: str) -> bool:
    """Returns whether a key, group or package names a setting of Hydra's own."""
    return re.search(r"(?<![\w\-])hydra(?![\w\-])", key) is not None


_INSTEAD_OF_HYDRA = {
    "run.dir": "run_dir=PATH chooses the folder",
    "sweep.dir": "run_dir=PATH chooses the folder",
    "sweep.subdir": "run_dir=PATH chooses the folder",
    "mode": "add -m for a sweep, or write sweep: {seed: [0, 1]} in its file",
    "sweeper": "write sweep: {seed: [0, 1]} in its file",
    "searchpath": "--config-dir PATH adds a folder",
    "launcher": "a sweep runs its jobs one after another; leave it out",
}


def hydra_answer(typed: str) -> str:
    """Returns the line that answers a setting of Hydra's own."""
    rest = re.split(r"(?<![\w\-])hydra(?![\w\-])[./]?", typed)[-1].replace("/", ".")
    instead = [text for key, text in _INSTEAD_OF_HYDRA.items() if rest.startswith(key)]
    return f"{typed}: genlab takes no settings of Hydra's own; {instead[0] if instead else 'leave it out'}"


def swept_values(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields the keys of a file's `sweep` and their values, as typed: `model.latent` and `2,4,8`.

    Args:
        plain: keys with lists of values, or with values separated by commas; groups may be nested.
        prefix: the groups outside.

    Raises:
        ConfigError: a key without values, or whose values are groups of settings; or a sweep in a sweep.
    """
    for key, value in plain.items():
        if key == "sweep":
            raise ConfigError(
                f"sweep: {prefix}sweep: a sweep cannot contain sweeps; write their keys into one"
            )
        if isinstance(value, Mapping):
            yield from swept_values(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            if not value or any(isinstance(each, Mapping) for each in value):
                wrong = "groups of settings cannot be varied; vary single keys" if value else "has no values"
                raise ConfigError(f"sweep: {prefix}{key}: {wrong}, e.g. sweep: {{seed: [0, 1]}}")
            yield f"{prefix}{key}", ",".join(map(_quoted, value))
        else:
            yield f"{prefix}{key}", show(value)


def _quoted(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[\w.\-/]+", value) is None:
        return quoted(value)
    return f"[{','.join(map(_quoted, value))}]" if isinstance(value, list | tuple) else show(value)


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
    for number, word in enumerate(command.words):
        match = _WORD.fullmatch(word)
        assert match is not None
        prefix, key, equals, value = match.group("prefix", "key", "equals", "value")
        if not key or (not equals and prefix != "~"):
            known = bare_keys(verb, folders)
            choices = {group: list(options(folders, group)) for group in groups(folders) if group in known}
            hint = hints.for_bare_word(verb, word, command.words[number + 1 :], known, choices) if key else ""
            raise ConfigError(f"{word}: expected key=value{hint}")
        if equals and key != key.strip():
            raise ConfigError(f"{word}: write {prefix or ''}{key.strip()}={value.strip()}, without blanks")
        if names_hydra(key):
            raise ConfigError(hydra_answer(word))
        _check_extent(word)
        typed = word
        if key in path_keys(verb):
            _check_path(key, value)
            if "--multirun" not in command.flags:  # with it, a comma separates the paths of several jobs
                word = f"{prefix or ''}{key}={_path_for_hydra(value)}"
        if second := hints.two_words(value):
            raise ConfigError(f"{word}: two words in one pair of quotes; close them before {second}")
        if (
            verb == "train"
            and prefix is None
            and re.fullmatch("(model|dataset|optimizer|schedule).name", key)
        ):
            raise ConfigError(f"{word}: did you mean {key.removesuffix('.name')}={value}?")
        if key.startswith("sweep."):
            raise ConfigError(f"{word}: type {word.removeprefix('sweep.')} and -m instead")
        plain_key = re.fullmatch(r"[\w.\-]+", key) is not None
        if prefix is None and plain_key and "." in key:
            group = key.partition(".")[0]
            if (
                verb not in ("train", "resume")
                and group != "dataset"
                and "--config-name" not in command.flags
            ):
                known = bare_keys(verb, folders)
                if key.rpartition(".")[2] not in known and group in groups(folders):
                    raise ConfigError(
                        f"{word}: genlab {verb} takes the {group} from the checkpoint; leave it out"
                    )
                hint = hints.for_key(verb, key, value, known)
                raise ConfigError(f"{word}: unknown key for genlab {verb}{hint}")
            ready[f"++{word}"] = typed
            continue
        if (
            prefix == "~"
            and verb == "train"
            and key in ("model", "dataset", "optimizer", "schedule", "trainer")
        ):
            raise ConfigError(f"{word}: a run needs a {key}; choose one, {key}=NAME".replace("a o", "an o"))
        if prefix is None and plain_key and "--config-name" not in command.flags:
            _check_bare(verb, word, key, value, folders)
        if verb == "train" and prefix is None and key in _OPTIONAL_GROUPS and value in ("null", "none"):
            # Hydra accepts no null for a group; a recipe is optional, so a name without a file does the same.
            ready["recipe=none" if key == "recipe" else f"~{key}"] = word
            continue
        if VERBS[verb].other_datasets and prefix is None and key == "dataset":
            ready[f"++dataset.name={value}"] = word
            continue
        ready[word] = typed
    return ready


_LONGEST_WORD = 100_000
_MOST_VALUES = 2_000
_DEEPEST_BRACKETS = 50


def _check_extent(word: str) -> None:
    """Refuses a word whose length or nesting Hydra's grammar, which is recursive and slow, could not bear."""
    if len(word) > _LONGEST_WORD:
        raise ConfigError(f"{word[:40]}...: {len(word)} characters; give at most {_LONGEST_WORD}")
    if word.count(",") >= _MOST_VALUES:
        raise ConfigError(f"{word[:40]}...: over {_MOST_VALUES} values; give fewer, or range(0,5000)")
    depth = 0
    for character in word:
        depth += (character in "[{(") - (character in "]})")
        if depth > _DEEPEST_BRACKETS:
            raise ConfigError(f"{word[:40]}...: nested too deeply; settings have few levels")


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


def path_keys(verb: str) -> set[str]:
    """Returns the keys of a verb whose value is a path."""
    settings = VERBS[verb].settings if verb in VERBS else []
    return {"run", "run_dir", "dataset.root", "dataset.path", "dataset.ckpt"} | {
        each.key for each in settings if each.path
    }


def _check_path(key: str, value: str) -> None:
    """Refuses a path that no file can have."""
    path = value.strip("'\"")
    if not path:
        raise ConfigError(f"{key}={value}: empty; give a path")
    if (
        "\0" in path
        or len(os.fsencode(path)) > 4_000
        or any(len(os.fsencode(part)) > 255 for part in path.split("/"))
    ):
        raise ConfigError(f"{key}={value}: no file can have this name; give a shorter path")


def _path_for_hydra(value: str) -> str:
    """Returns a path in quotes if Hydra's grammar would not take it as it is: it may have any characters."""
    has_meaning = value == "null" or value[:1] in tuple("'\"[{") or "${" in value
    return value if has_meaning or re.fullmatch(r"[\w./~-]*", value, re.ASCII) else quoted(value)


def _check_bare(verb: str, word: str, key: str, value: str, folders: list[Path]) -> None:
    known = bare_keys(verb, folders)
    if key not in known:
        if key in groups(folders):
            raise ConfigError(
                f"{word}: a resumed run keeps its {key}; change single settings, e.g. trainer.steps=20000"
                if verb == "resume"
                else f"{word}: genlab {verb} takes the {key} from the checkpoint; leave it out"
            )
        raise ConfigError(f"{word}: unknown key for genlab {verb}{hints.for_key(verb, key, value, known)}")
    if key not in groups(folders):
        return
    if value[:1] in ("[", "{") or "${" in value:
        raise ConfigError(f"{word}: expected a name; for several, add -m and separate them by commas")
    names, choices = value.split(","), list(options(folders, key))
    if key in _OPTIONAL_GROUPS:
        if len(names) > 1 and {"null", "none"} & set(names):
            raise ConfigError(f"{word}: none cannot be swept over; run the job without {key} separately")
        choices.append("none")
    for name in names:
        is_a_path = re.search(r"[/\\]", name) or Path(name[:200]).is_dir()
        if key == "dataset" and name not in choices and is_a_path:
            path = typed("dataset.path", name)
            raise ConfigError(f"{word}: no such dataset; for a folder of pictures: dataset=folder {path}")
        files = [folder / key / f"{name}.yaml" for folder in folders if ".." not in Path(name).parts]
        if "/" in name and not any(file.is_file() for file in files):
            stem = Path(name).stem
            there = f"; did you mean {key}={stem}?" if stem in choices else ""
            raise ConfigError(
                f"{word}: expected the name of a {key}, no path{there or '; --config-dir PATH adds a folder'}"
            )
        # Hydra's own message would be unclear, and it would ignore a mistyped recipe, which is optional.
        riddle = name == "null" or key == "recipe" or re.fullmatch(r"[\d.]+", name)
        riddle = riddle or VERBS[verb].other_datasets  # where Hydra is not asked for a file of that name
        if riddle and name not in choices and not (name == "null" and key in _OPTIONAL_GROUPS):
            hint = suggest(name, choices, f"{key}=")
            if key == "recipe" and "mean" not in hint:
                hint = f"; there are {len(choices)} recipes; see genlab list recipes"
            raise ConfigError(f"{key}={name}: no such {key}{hint}")


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
        path, named = Path(run) / "config.yaml", f"run={run}: its config.yaml"
        plain = read_yaml(path, named)
        if not isinstance(plain, dict):
            plain, problem = None, f"{named} has no settings; restore it"
        elif not path.read_bytes().endswith(b"\n"):
            plain, problem = None, f"{named} is truncated; restore it"
        elif plain.keys() < {*_RUN_KEYS}:
            problem = f"{named} is truncated; restore it"
    except FileNotFoundError:
        problem = f"run={run}: has no config.yaml; give a run folder of genlab train"
        if not has_begun(Path(run)):
            problem = f"run={run}: was ended before it began; type its genlab train command again"
        elif jobs := sorted(Path(run).glob("*/config.yaml"), key=lambda each: len(each.parent.name)):
            problem = f"run={run}: holds {len(jobs)} runs; give one of them, e.g. run={jobs[0].parent}"
    except ConfigError as error:
        problem = str(error)
    if problem is not None:
        plain = _checkpoint_config(run, problem) or plain
    if plain is None:
        raise ConfigError(problem)
    for key in plain:
        if key not in _RUN_KEYS:
            raise ConfigError(f"run={run}: its config.yaml has an unknown key {key}; remove it")
    return with_present_names(plain)


def _checkpoint_config(run: str, problem: str) -> dict[str, Any] | None:
    """Returns the configuration of a run's newest checkpoint, and says so; None without a checkpoint."""
    if not any(Path(run, "checkpoints").glob("step-*.pt")):
        return None
    from genlab.runs import checkpoint, content  # import torch

    path, found = checkpoint.find(run, content.read)
    log_to_console()
    log.warning("%s; using the configuration of %s", problem.partition(";")[0], path.name)
    return found.state["config"]
