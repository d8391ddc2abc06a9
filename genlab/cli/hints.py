"""Hints that a refused word gets: what may be meant by it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from genlab import registry
from genlab.cli.verbs import VERBS
from genlab.config.renamed import SYNONYMS
from genlab.config.run import TrainerConfig
from genlab.config.schema import suggest, typed

NAMED_GROUPS = ("model", "dataset", "optimizer", "schedule")
RUN_GROUPS = (*NAMED_GROUPS, "trainer")
_BARE = (*RUN_GROUPS, "recipe", "experiment", "sweep", "ckpt", "run", "seed", "run_dir")


def grouped(key: str) -> list[str]:
    """Returns the settings of a run that have a name: `lr` gives `optimizer.lr`."""
    found = ["trainer"] if key in {field.name for field in dataclasses.fields(TrainerConfig)} else []
    for group in NAMED_GROUPS:
        kinds = registry.kinds(group)
        shipped = kinds.keys() - registry.own_names(group)  # whose settings are known without an import
        configs = [registry.config_of(kinds, name, group) for name in shipped]
        if any(field.name == key != "name" for config in configs for field in dataclasses.fields(config)):
            found.append(group)
    return [f"{group}.{key}" for group in found]


def for_key(verb: str, key: str, value: str, known: list[str]) -> str:
    """Returns the hint for an unknown key of a verb."""
    if verb == "train" and key.lower() in _TO_RESUME:
        return _how_to_resume(value)
    last = key.rpartition(".")[2]
    for name in (last, *SYNONYMS.get(last.lower(), ())):
        if name in known:
            return f"; did you mean {name}={value}?"
        if verb in ("train", "resume") and "." not in key and (found := grouped(name)):
            return f"; did you mean {found[0]}={value}?"
    return suggest(key, known)


_TO_RESUME = ("ckpt", "ckpt_path", "checkpoint", "run", "resume", "resume_from", "resume_from_checkpoint")


def _how_to_resume(value: str) -> str:
    path = value if Path(value[:4000]).exists() and value else "PATH"
    return f"; to continue a run: genlab resume {typed('run', path)}"


def for_flag(verb: str | None, name: str, value: str, flags: tuple[str, ...]) -> str:
    """Returns the hint for an unknown flag: `--steps 5` means a key, and keys are typed without dashes."""
    key = name.lstrip("-").replace("-", "_")
    on_a_model = verb in VERBS and VERBS[verb].config is not None
    bare = VERBS[verb].keys if verb and on_a_model else [*_BARE]
    if verb == "train" and key.lower() in _TO_RESUME:
        return _how_to_resume(value)
    if key in ("config", "c", "cfg"):
        return f"; {_how_to_name_a_file(value if value.endswith(('.yaml', '.yml')) else 'PATH/NAME.yaml')}"
    names = (key, *SYNONYMS.get(key.lower(), ()))
    meant = [each for each in names if each in bare]
    meant += [] if on_a_model else [found for each in names for found in grouped(each)]
    if meant:
        return f"; keys are typed without dashes: {meant[0]}={value or '...'}"
    return suggest(name, flags)


def for_bare_word(
    verb: str, word: str, after: list[str], known: list[str], options: Mapping[str, list[str]]
) -> str:
    """Returns the hint for a word without `=`.

    Args:
        after: the words that follow it.
        known: the keys of the verb.
        options: the options of each group that the verb takes.
    """
    if word.endswith((".yaml", ".yml")):
        return f"; {_how_to_name_a_file(word)}"
    if after[:1] == ["="] and len(after) > 1:
        return f"; write {word}={after[1]}, without blanks"
    if word in known:
        return f"; did you mean {word}=...?"
    if key := next((key for key in ("ckpt", "run") if key in known and Path(word[:4000]).exists()), None):
        return f"; did you mean {key}={word}?"
    for group, names in options.items():
        for name in names:
            if name.lower() == word.lower():
                return f"; did you mean {group}={name}?"
    if "." in word or grouped(word):
        return f"; give it a value: {(grouped(word) or [word])[0]}=..."
    return suggest(word, known)


def _how_to_name_a_file(path: str) -> str:
    folder, _, file = path.rpartition("/")
    return f"a file of settings is named by --config-dir {folder or '.'} --config-name {Path(file).stem}"


def for_command(word: str) -> str:
    """Returns the hint for a first word that is no command."""
    for group in ("model", "dataset"):
        if word in registry.kinds(group):
            return f"; did you mean genlab train {group}={word}?"
    return suggest(word, VERBS)


def two_words(value: str) -> str | None:
    """Returns the second of two words that stand in one pair of quotes, if there are two."""
    found = re.search(r"\s([A-Za-z_][\w.]*=.*)$", value)
    return found[1] if found and not re.search(r"['\"\[{(]", value) else None


_HYDRA = re.compile(r"(?<![\w\-])hydra(?![\w\-])")


def names_hydra(key: str) -> bool:
    """Returns whether a key, group or package names a setting of Hydra's own."""
    return _HYDRA.search(key) is not None


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
    rest = _HYDRA.split(typed)[-1].lstrip("./").replace("/", ".")
    instead = [text for key, text in _INSTEAD_OF_HYDRA.items() if rest.startswith(key)]
    return f"{typed}: genlab takes no settings of Hydra's own; {instead[0] if instead else 'leave it out'}"
