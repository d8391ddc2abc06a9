"""Overrides, checked and prepared for Hydra's grammar; and the configuration of a run to resume.

This module imports neither torch nor hydra, so that an error in a word is reported at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genlab.cli import hints
from genlab.cli.verbs import VERBS
from genlab.cli.words import Command, bare_keys, groups, options, path_keys
from genlab.config.renamed import with_present_names
from genlab.config.schema import quoted, show, suggest
from genlab.config.schema import typed as typed_word
from genlab.config.text import read_yaml
from genlab.errors import ConfigError
from genlab.log import log, log_to_console
from genlab.runs.folder import has_begun

_OPTIONAL_GROUPS = ("recipe", "experiment", "sweep")
_WORD = re.compile(r"(?P<prefix>\+\+|\+|~)?(?P<key>[^=]*)(?P<equals>=)?(?P<value>.*)", re.DOTALL)


def for_hydra(command: Command, folders: list[Path]) -> dict[str, str]:
    """Prepares overrides for Hydra; returns a dictionary from the word for Hydra to the word as typed.

    Hydra refuses a key that the composed configuration does not have, with a message of its own. Dotted keys
    are therefore forced in (`a.b=c` becomes `++a.b=c`), so that `from_plain` reports every mistyped key.

    Raises:
        ConfigError: a word is not of the form key=value, or a bare key is unknown.
    """
    ready = {}
    for number, typed in enumerate(command.words):
        match = _WORD.fullmatch(typed)
        assert match is not None
        prefix, key, equals, value = match.group("prefix", "key", "equals", "value")
        if not key or (not equals and prefix != "~"):
            raise ConfigError(f"{typed}: expected key=value{_missing_value(command, number, key, folders)}")
        _check_form(command.verb or "", typed, prefix, key, value)
        _check_meaning(command, typed, prefix, key, value, folders)
        ready[_ready(command, typed, prefix, key, value)] = typed
    return ready


def _missing_value(command: Command, number: int, key: str, folders: list[Path]) -> str:
    """Returns the hint for a word without `=`."""
    if not key:
        return ""
    verb, word = command.verb or "", command.words[number]
    known = bare_keys(verb, folders)
    choices = {group: list(options(folders, group)) for group in groups(folders) if group in known}
    return hints.for_bare_word(verb, word, command.words[number + 1 :], known, choices)


def _check_form(verb: str, typed: str, prefix: str | None, key: str, value: str) -> None:
    """Refuses a word that Hydra's grammar would misunderstand, or that is Hydra's own."""
    if key != key.strip():
        raise ConfigError(f"{typed}: write {prefix or ''}{key.strip()}={value.strip()}, without blanks")
    if hints.names_hydra(key):
        raise ConfigError(hints.hydra_answer(typed))
    _check_extent(typed)
    if key in path_keys(verb):
        _check_path(key, value)
    if second := hints.two_words(value):
        raise ConfigError(f"{typed}: two words in one pair of quotes; close them before {second}")


def _check_meaning(
    command: Command, typed: str, prefix: str | None, key: str, value: str, folders: list[Path]
) -> None:
    """Refuses a key that the verb does not have, and a group or name that does not exist."""
    verb, group = command.verb or "", key.partition(".")[0]
    if key.startswith("sweep."):
        raise ConfigError(f"{typed}: type {typed.removeprefix('sweep.')} and -m instead")
    if verb == "train" and prefix is None and key in {f"{each}.name" for each in hints.NAMED_GROUPS}:
        raise ConfigError(f"{typed}: did you mean {group}={value}?")
    if verb == "train" and prefix == "~" and key in hints.RUN_GROUPS:
        article = "an" if key == "optimizer" else "a"
        raise ConfigError(f"{typed}: a run needs {article} {key}; choose one, {key}=NAME")
    if not _is_plain(prefix, key) or "--config-name" in command.flags:
        return
    if "." not in key:
        _check_bare(verb, typed, key, value, folders)
    elif verb not in ("train", "resume") and group != "dataset":
        known = bare_keys(verb, folders)
        if key.rpartition(".")[2] not in known and group in groups(folders):
            raise ConfigError(f"{typed}: genlab {verb} takes the {group} from the checkpoint; leave it out")
        raise ConfigError(f"{typed}: unknown key for genlab {verb}{hints.for_key(verb, key, value, known)}")


def _is_plain(prefix: str | None, key: str) -> bool:
    return prefix is None and re.fullmatch(r"[\w.\-]+", key) is not None


def _ready(command: Command, typed: str, prefix: str | None, key: str, value: str) -> str:
    """Returns the word for Hydra."""
    verb, word = command.verb or "", typed
    if key in path_keys(verb) and "--multirun" not in command.flags:  # with it, a comma separates paths
        word = f"{prefix or ''}{key}={_path_for_hydra(value)}"
    if _is_plain(prefix, key) and "." in key:
        return f"++{word}"
    if verb == "train" and prefix is None and key in _OPTIONAL_GROUPS and value in ("null", "none"):
        # Hydra accepts no null for a group; a recipe is optional, so a name without a file does the same.
        return "recipe=none" if key == "recipe" else f"~{key}"
    if VERBS[verb].other_datasets and prefix is None and key == "dataset":
        return f"++dataset.name={value}"
    return word


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
            path = typed_word("dataset.path", name)
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


_RUN_KEYS = (*hints.RUN_GROUPS, "seed")


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
