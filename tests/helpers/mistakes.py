"""Mistakes that a person may type, made from the settings of every verb: each is one by construction."""

from __future__ import annotations

import random
import typing
from collections.abc import Iterator
from dataclasses import fields

from genlab import registry
from genlab.cli.verbs import VERBS
from genlab.config.run import TrainerConfig
from helpers.checkout import config_names

LETTERS = "abcdefghijklmnopqrstuvwxyz"
GROUPS = ("model", "dataset", "optimizer", "schedule", "trainer")


def mistakes(seed: int, count: int, run: str) -> Iterator[list[str]]:
    """Yields commands that must be refused, `count` in all, spread over the verbs and the kinds of mistakes.

    Args:
        run: an existing run folder of a VAE, for the verbs that need one.
    """
    rng = random.Random(seed)
    makers = [_key, _value, _group, _flag, _shape, _bare, _quotes, _place]
    verbs = [verb for verb in VERBS if verb not in ("list", "completion")]
    for number in range(count):
        verb = verbs[number % len(verbs)]
        maker = makers[(number // len(verbs)) % len(makers)]
        yield maker(rng, verb, _start(verb, run))


def _start(verb: str, run: str) -> list[str]:
    return [verb] if verb == "train" else [verb, f"{'run' if verb == 'resume' else 'ckpt'}={run}"]


def _misspelled(rng: random.Random, word: str, known: set[str]) -> str:
    """Returns a word with a letter changed, lost, doubled or swapped, that is none of the known ones."""
    while True:
        at = rng.randrange(len(word))
        found = rng.choice(
            (
                word[:at] + rng.choice(LETTERS) + word[at + 1 :],
                word[:at] + word[at + 1 :],
                word[:at] + word[at] + word[at:],
                word[:at] + word[at : at + 2][::-1] + word[at + 2 :],
                word.upper(),
            )
        )
        if found and found not in known:
            return found


def _settings(verb: str) -> dict[str, typing.Any]:
    """Returns key -> (type, bounds, optional?) of a verb; of train and resume those of the VAE's run."""
    if verb in ("train", "resume"):
        kinds = {"trainer": TrainerConfig} | ({} if verb == "resume" else {
            "model": registry.config_of(registry.FAMILIES, "vae", "model"),
            "dataset": registry.config_of(registry.DATASETS, "digits", "dataset"),
            "optimizer": registry.config_of(registry.kinds("optimizer"), "adam", "optimizer"),
        })  # fmt: skip
        groups = {f"{group}.": kind for group, kind in kinds.items()}
    else:
        config = VERBS[verb].config
        assert config is not None
        groups = {"": config}
    found = {}
    for prefix, kind in groups.items():
        hints = typing.get_type_hints(kind)
        for field in fields(kind):
            if field.name != "name":
                found[prefix + field.name] = (hints[field.name], field.metadata.get("bounds", {}))
    return found


def _key(rng: random.Random, verb: str, start: list[str]) -> list[str]:
    settings = _settings(verb)
    key = rng.choice(sorted(settings))
    group, _, last = key.rpartition(".")
    wrong = _misspelled(rng, last, {each.rpartition(".")[2] for each in settings} | set(VERBS[verb].keys))
    prefix = rng.choice(("", "", "+", "++", "~")) if group else ""
    return [*start, f"{prefix}{group}{'.' if group else ''}{wrong}=1"]


def _value(rng: random.Random, verb: str, start: list[str]) -> list[str]:
    while True:
        key, (kind, bounds) = rng.choice(sorted(_settings(verb).items(), key=lambda item: item[0]))
        options = typing.get_args(kind)
        plain = options[0] if type(None) in options else kind
        if typing.get_origin(plain) is typing.Literal:
            words = [str(each) for each in typing.get_args(plain)]
            value = _misspelled(
                rng, rng.choice(words), {*words, *(["null"] if type(None) in options else [])}
            )
        elif plain is bool:
            value = rng.choice(("2", "maybe", "0.5", "[true]", "x1"))
        elif plain in (int, float):
            value = rng.choice(_wrong_numbers(plain, bounds))
        elif typing.get_origin(plain) is tuple and typing.get_args(plain)[0] in (int, float):
            value = rng.choice(("x", "3", "[x]", "[[1]]", "{a:1}"))
        else:
            continue
        return [*[word for word in start if not word.startswith(f"{key}=")], f"{key}={value}"]


def _wrong_numbers(kind: type, bounds: dict[str, float]) -> list[str]:
    found = ["x", "[1]", "{a:1}", "true", "1..2", "one", "nan", "inf"]
    found += ["1.5", "1e-3"] if kind is int else []
    found += [f"{bounds['at_least'] - 1:.0f}"] if "at_least" in bounds else []
    found += [f"{bounds['above']:g}"] if "above" in bounds else []
    found += [f"{bounds['at_most'] * 2 + 1:.0f}"] if "at_most" in bounds else []
    return found + ([f"{bounds['below']:g}"] if "below" in bounds else [])


def _group(rng: random.Random, verb: str, start: list[str]) -> list[str]:
    group = rng.choice(GROUPS)
    names = config_names(group)
    if verb != "train":
        return [*start, f"{rng.choice(('model', 'optimizer', 'schedule', 'trainer'))}={rng.choice(names)}"]
    return [*start, f"{group}={_misspelled(rng, rng.choice(names), {*names, 'none'})}"]


def _flag(rng: random.Random, verb: str, start: list[str]) -> list[str]:
    known = {"help", "version", "multirun", "cfg", "info", "config-dir", "module"}
    wrong = rng.choice((
        [f"--{_misspelled(rng, rng.choice(sorted(known)), known)}"], ["--steps", "5"], ["--ckpt=x"], ["-x"],
        ["--"],
        ["--cfg", "jobs"], ["--config-dir", "nowhere"], ["--module", "nowhere_at_all"], ["--resolve"],
        ["-m", "--cfg", "job"], ["--package", "x", "--cfg"],
    ))  # fmt: skip
    place = rng.randrange(len(start) + 1)
    return [*start[:place], *wrong, *start[place:]] if wrong[-1] != "--cfg" else [*start, *wrong]


def _shape(rng: random.Random, verb: str, start: list[str]) -> list[str]:
    key = rng.choice(sorted(_settings(verb)))
    shapes = ("={}", "{} = 3", "{}", "{}:3", "=", "{}=[1,2", "{}={{a:1")
    return [*start, rng.choice(shapes).format(key)]


def _bare(rng: random.Random, verb: str, start: list[str]) -> list[str]:
    word = rng.choice(("vae", "mnist", "run", "outputs", "x y", "help", "3", "é", "steps", "lr", "seed"))
    return [*start, word]


def _quotes(rng: random.Random, verb: str, start: list[str]) -> list[str]:
    key = rng.choice(("trainer.steps", "optimizer.lr")) if verb in ("train", "resume") else "seed"
    value = rng.choice(("5 seed=3", "1,2", "a=b", "${nothing}", "x\ty", "(1)", "", "   "))
    return [*start, f"{key}={value}"]


def _place(rng: random.Random, verb: str, start: list[str]) -> list[str]:
    if verb == "train":
        return [*start, rng.choice(("run_dir=/dev/null/x", "run_dir=", "dataset=folder", "dataset=npz",
                                    f"run_dir={'x' * 300}", "dataset=codes", "hydra.run.dir=x"))]  # fmt: skip
    key = "run" if verb == "resume" else "ckpt"
    wrong = rng.choice(("nowhere", "", "/dev/null", "/", "x" * 5000, "a\0b", "nowhere/checkpoints/latest"))
    return [verb, f"{key}={wrong}"]
