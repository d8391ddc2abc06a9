"""What must be refused: hostile configurations, bombs and mistakes, and how each is answered.

    python benchmarks/refusals.py                     # everything; about two minutes
    python benchmarks/refusals.py --mistakes 10000    # more mistakes, made by a seeded generator

Each case is a command and perhaps a folder of somebody else's configurations. It is answered well if it ends
with exit code 2 and one line of under 300 characters, within a second of processor time, and if nothing was
written: a hostile configuration names commands that would leave a file.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import random
import shutil
import tempfile
import time
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from genlab import registry
from genlab.cli.composing import configs_folder
from genlab.cli.main import main
from genlab.cli.verbs import VERBS
from genlab.config.run import TrainerConfig

LONGEST_LINE = 300
MOST_SECONDS = 1.0


@dataclass(frozen=True)
class Case:
    """A command that must be refused.

    Attributes:
        words: as typed after `genlab`.
        files: a folder `mine` of configurations: name to text.
    """

    words: list[str]
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """How a command ended.

    Attributes:
        code: its exit code.
        out, err: what it printed.
        seconds: of the processor.
        traces: files that it wrote, removed or changed.
    """

    code: int
    out: str
    err: str
    seconds: float
    traces: list[str]

    @property
    def fault(self) -> str | None:
        """Returns what is wrong with the answer; None if nothing is."""
        if self.traces:
            return f"wrote {self.traces[0]}"
        if self.code != 2:
            return f"exit code {self.code}"
        if self.out or self.err.count("\n") != 1 or not self.err.startswith("genlab: "):
            return "not one line"
        if len(self.err) > LONGEST_LINE:
            return f"{len(self.err)} characters"
        return f"{self.seconds:.1f} s" if self.seconds > MOST_SECONDS else None


def answer(case: Case) -> Answer:
    """Types a command in the working folder."""
    if case.files:
        write(Path("mine"), case.files)
    before = _files()
    out, err, start = io.StringIO(), io.StringIO(), time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(case.words))
    seconds, after = time.process_time() - start, _files()
    traces = sorted(str(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return Answer(code, out.getvalue(), err.getvalue(), seconds, traces)


def _files() -> dict[Path, tuple[int, int]]:
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns) for path in Path().rglob("*") if path.is_file()
    }


def write(folder: Path, files: dict[str, str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


TOUCH = {
    "call": {"_target_": "subprocess.call", "args": ["touch", "PWNED"], "_args_": [["touch", "PWNED"]]},
    "system": {"_target_": "os.system", "_args_": ["touch PWNED"]},
    "path": {"_target_": "pathlib.Path.touch", "_args_": [{"_target_": "pathlib.Path", "_args_": ["PWNED"]}]},
    "library": {"_target_": "torch.utils.collect_env.run", "command": "touch PWNED"},
}
HANDLER = {
    "version": 1,
    "handlers": {"x": {"()": "logging.FileHandler", "filename": "PWNED"}},
    "root": {"handlers": ["x"]},
}
NODES = {
    **{f"callbacks-{name}": {"callbacks": {"x": node}} for name, node in TOUCH.items()},
    "job_logging": {"job_logging": HANDLER},
    "hydra_logging": {"hydra_logging": HANDLER},
    "launcher": {"launcher": TOUCH["call"]},
    "sweeper": {"sweeper": TOUCH["call"], "mode": "MULTIRUN"},
    "searchpath": {"searchpath": ["/tmp"]},
    "run": {"run": {"dir": "PWNED"}, "output_subdir": "PWNED"},
}
"""What a file sets under `hydra`, and what would leave a trace if it were instantiated."""


def file(header: str, content: dict) -> str:
    return f"# @package {header}\n{yaml.safe_dump(content)}" if header else yaml.safe_dump(content)


VAE = yaml.safe_load((configs_folder() / "model" / "vae.yaml").read_text())


def places(node: dict) -> dict[str, tuple[dict[str, str], list[str]]]:
    """Where a file may set `hydra`: the files of the folder, and the words that make use of them."""
    under = {"hydra": node}
    group = {"thing/x.yaml": file("", node)}
    inner = {f"thing/{k}.yaml": file("", v) for k, v in node.items() if isinstance(v, dict)}
    first = next(iter(node))

    def defaults(*entries: object, header: str = "_global_") -> str:
        return file(header, {"defaults": list(entries)})

    return {
        "experiment": ({"experiment/e.yaml": file("_global_", under)}, ["experiment=e"]),
        "experiment below": ({"experiment/e.yaml": file("_global_.hydra", node)}, ["experiment=e"]),
        "experiment at": ({"experiment/e.yaml": file("hydra", node)}, ["experiment=e"]),
        "recipe": ({"recipe/vae_mnist.yaml": file("_global_", under)}, ["dataset=mnist"]),
        "recipe of its own": ({"recipe/vae_kmnist.yaml": file("_global_", under)}, ["dataset=kmnist"]),
        "sweep": ({"sweep/s.yaml": file("_global_", under)}, ["sweep=s"]),
        "model": ({"model/vae.yaml": file("_global_", {"model": VAE, **under})}, []),
        "model at hydra": ({"model/mine.yaml": file("hydra", node)}, ["model=mine"]),
        "model's part": ({"model/mine.yaml": file("hydra.callbacks", node)}, ["model=mine"]),
        "trainer": ({"trainer/t.yaml": file("_global_", under)}, ["trainer=t"]),
        "defaults at": (group | {"experiment/e.yaml": defaults({"/thing@hydra": "x"})}, ["experiment=e"]),
        "defaults global": (
            group | {"experiment/e.yaml": defaults({"/thing@_global_.hydra": "x"})},
            ["experiment=e"],
        ),
        "defaults here": (
            group | {"experiment/e.yaml": defaults({"/thing@_here_.hydra": "x"})},
            ["experiment=e"],
        ),
        "defaults group": (
            {f"hydra/{first}/x.yaml": file("", node[first] if isinstance(node[first], dict) else node)}
            | {"experiment/e.yaml": defaults({f"override /hydra/{first}": "x"})},
            ["experiment=e"],
        ),
        "defaults file": (
            {"hydra/own.yaml": file("hydra", node), "experiment/e.yaml": defaults("/hydra/own")},
            ["experiment=e"],
        ),
        "defaults part": (
            inner | {"experiment/e.yaml": defaults(*({f"/thing@hydra.{k}": k} for k in node))},
            ["experiment=e"],
        ),
        "group of a key": ({"thing/x.yaml": file("hydra", node)}, ["+thing=x"]),
        "word at": (group, ["+thing@hydra=x"]),
        "word below": (group, ["+thing@_global_.hydra=x"]),
        "hydra's group": ({f"hydra/{first}/x.yaml": file("", node)}, [f"hydra/{first}=x"]),
        "primary": (
            {"own.yaml": file("", {"defaults": ["train", "_self_"], **under})},
            ["--config-name", "own"],
        ),
        "primary's defaults": (
            {"own.yaml": file("", {"defaults": ["train", {"override hydra/launcher": "x"}]})},
            ["--config-name", "own"],
        ),
        "shipped primary": ({"train.yaml": file("", {"defaults": ["_self_"], **under})}, []),
        "key in two": (
            {"experiment/e.yaml": file("_global_", {"hydra": node["callbacks"]})},
            ["experiment=e"],
        )
        if "callbacks" in node
        else ({"experiment/e.yaml": file("_global_", under)}, ["experiment=e"]),
    }


KEYS = ("hydra.callbacks.x._target_", "hydra/launcher", "hydra.job_logging.root", "hydra", "hydra.run.dir")
VALUES = ("os.abort", "{_target_:os.abort}", "a,b", "{x:{_target_:os.system,_args_:['touch PWNED']}}")


def nested(levels: int) -> str:
    return "seed: " + "[" * levels + "]" * levels


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, levels)]
    return "\n".join(lines)


BOMBS = {
    "deep": nested(5_000),
    "deep in blocks": "\n".join(" " * k + "a:" for k in range(3_000)),
    "deeper than settings": nested(60),
    "dashes": "- " * 100_000,
    "aliases": laughs(30),
    "aliases of groups": "b0: &b0 {x: 1}\n"
    + "\n".join(f"b{k}: &b{k} {{p: *b{k - 1}, q: *b{k - 1}}}" for k in range(1, 40)),
    "itself": "seed: &a [*a]",
    "merged": "a: &a {x: 1}\nb: &b {<<: *a, y: *a}\nseed: &c {<<: *b, z: *c}",
    "large": "seed: " + "9" * 2_000_000,
    "digits": "seed: " + "9" * 10_000,
    "references": "a0: xxxxxxxxxx\n" + "\n".join(f"a{k}: ${{a{k - 1}}}${{a{k - 1}}}" for k in range(1, 40)),
    "references to lists": "a0: [x, x]\n"
    + "\n".join(f"a{k}: ['${{a{k - 1}}}', '${{a{k - 1}}}']" for k in range(1, 40)),
    "reference to itself": "a: ${b}\nb: ${a}",
    "references that are built": "d: '$'\na0: xxxxxxxxxx\n"
    + "\n".join(
        f"s{k}: '${{d}}{{a{k - 1}}}${{d}}{{a{k - 1}}}'\na{k}: \"${{oc.decode:'[{{}}, ${{s{k}}}]'}}\""
        for k in range(1, 40)
    ),
    "values that are created": "seed: \"${oc.decode:'[" + "1," * 100_000 + "1]'}\"",
    "references by the thousand": "seed: '" + "${a}" * 50_000 + "'\na: 1",
    "a long reference": "seed: ${" + "a." * 300_000 + "b}",
    "hexadecimal": "seed: 0x" + "f" * 100_000,
    "sexagesimal": "seed: " + ":".join(["59"] * 100_000),
    "values": "seed: [" + "1, " * 50_000 + "1]",
    "defaults": "defaults:\n" + "".join(f"- optional w{k}\n" for k in range(4_000)),
    "paths": "seed: !!python/object/apply:pathlib.PosixPath [a]",
    "a list": "- seed",
    "references inside": "a: ${${b}}\nb: a",
    "tags": "seed: !!python/object/apply:os.system ['touch PWNED']",
    "names": "seed: !!python/name:os.system",
    "nothing": "\0",
}  # fmt: skip


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


def _names(group: str) -> list[str]:
    return sorted(path.stem for path in (configs_folder() / group).glob("*.yaml"))


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
        for each in fields(kind):
            if each.name != "name":
                found[prefix + each.name] = (hints[each.name], each.metadata.get("bounds", {}))
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
    names = _names(group)
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


def hostile_files() -> Iterator[Case]:
    """Yields commands that use a file which sets something of Hydra's own."""
    for node in NODES.values():
        for files, typed in places(node).values():
            for way in ([], ["-m"], ["--cfg", "job"], ["--info"]):
                yield Case(["train", "--config-dir", "mine", *typed, *way], files)
        for verb in ("sample", "evaluate", "encode"):
            for name, way in ((verb, []), ("x", ["--config-name", "x"])):
                yield Case(
                    [verb, "--config-dir", "mine", "ckpt=run", *way],
                    {f"{name}.yaml": file("", {"hydra": node})},
                )


def hostile_words(run: str) -> Iterator[Case]:
    """Yields commands with a word that sets something of Hydra's own."""
    for verb in ("train", "resume", "sample", "evaluate", "interpolate"):
        for prefix, key, value in itertools.product(("", "+", "++", "~"), KEYS, VALUES):
            yield Case([*_start(verb, run), f"{prefix}{key}={value}"])
        for key in ("model@hydra", "model@hydra.callbacks", "model@_global_.hydra", "+thing@hydra.x"):
            yield Case([*_start(verb, run), f"{key}=vae"])


def bombs() -> Iterator[Case]:
    """Yields commands that use a file without end."""
    used = {
        "experiment/e.yaml": ["experiment=e"],
        "recipe/vae_mnist.yaml": ["dataset=mnist"],
        "train.yaml": [],
    }
    for text in BOMBS.values():
        for path, typed in used.items():
            for way in ([], ["--cfg", "job"], ["-m", "seed=0,1"]):
                yield Case(
                    ["train", "--config-dir", "mine", *typed, *way], {path: f"# @package _global_\n{text}"}
                )


def measure() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mistakes", type=int, default=1600, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the mistakes")
    given = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert main(["train", "trainer=smoke", "trainer.steps=2", "model.hidden=[4]", "run_dir=run"]) == 0
        print("| cases | commands | refused well | longest line, characters | slowest, s of the processor |")
        print("|---|---|---|---|---|")
        for name, cases in {
            "files that set something of Hydra's own": hostile_files(),
            "words that do": hostile_words("run"),
            "files without end": bombs(),
            "mistakes": (Case(words) for words in mistakes(given.seed, given.mistakes, "run")),
        }.items():
            answers = [(case, answer(case)) for case in cases]
            wrong = [(case, each) for case, each in answers if each.fault]
            longest = max(len(each.err) for _, each in answers)
            slowest = max(each.seconds for _, each in answers)
            good = len(answers) - len(wrong)
            print(f"| {name} | {len(answers):,} | {good:,} | {longest} | {slowest:.2f} |", flush=True)
            for case, each in wrong[:20]:
                print(f"  {' '.join(case.words)[:200]}: {each.fault}: {each.err.strip()[-300:]}")
            faults += len(wrong)
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    measure()
