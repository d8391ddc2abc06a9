"""Every command of the README and of docs/ is run, as written but for a small budget; their Python too."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.checkout import CHECKOUT, TEST_DATA, config_names, narrowed, read_config, sweep_values
from helpers.command_line import as_a_process, genlab
from helpers.documents import PAGES, Snippet, snippets
from helpers.pictures import write_picture
from helpers.runs import read_json
from torch import Tensor

import genlab as genlab_package
from genlab.cli import main as main_module
from genlab.cli.sweeps import sweep
from genlab.cli.verbs import VERBS
from genlab.commands import encode
from genlab.data import idx, torchvision_sets
from genlab.data.emoji import Archive
from genlab.data.torchvision_sets import MNISTConfig
from genlab.trained import latent_space

SNIPPETS = [part for page in PAGES for part in snippets(page.read_text(), str(page.relative_to(CHECKOUT)))]

SHORT = [
    "trainer.steps=3", "trainer.batch_size=8", "trainer.evaluate_images=8", "trainer.sample_images=4",
    "trainer.measure_images=16", "trainer.measure_every=2",
    "trainer.compile=false",  # compiling takes longer than the steps, and has its own tests
]  # fmt: skip
ON_DISK = {
    "binarized_mnist": TEST_DATA / "binarized_mnist.npz",
    "fashion_mnist": Path("/usr/share/datasets/fashion-mnist"),
}
DOWNLOADED = {"fashion_mnist": 1, "kmnist": 1, "emnist": 1, "binarized_mnist": 1, "cifar10": 3, "svhn": 3}
"""dataset -> channels; what is not on the disk has random images in its place."""

PICTURES = re.compile(r"(?:dataset\.path|against|images|keep|samples)=(?!\d+$|top$|left$)(.+)")
"""A word that names a file or a folder of the user's."""


def shortened(words: list[str]) -> list[str]:
    """Returns the same command with a small budget, and with small networks."""
    verb = next((word for word in words if word in VERBS), None)
    typed = {word.partition("=")[0] for word in words}
    match verb:
        case "train":
            models = [word.removeprefix("model=") for word in words if re.fullmatch(r"model=\w+", word)]
            small = [word for name in models if name in config_names("model") for word in narrowed(name)]
            small = [word for word in small if word.partition("=")[0] not in typed]
            drawn = any(
                f"dataset={name}" in words
                for name in config_names("dataset")
                if "images" in read_config("dataset", name)
            )
            fewer = ["dataset.images=500"] if drawn else []
            return [*with_data(words), *two_jobs(words), *fewer, *small, *SHORT]
        case "resume":
            return [*words, "trainer.steps=5"]
        case "complete":
            return [*words, "count=1", "n=2"]
        case "evaluate":
            return [*with_data(words), *(["n=16"] if "n" in typed else []), "images=16"]
        case "encode":
            return [*with_data(words), "count=20"]
    return words


def two_jobs(words: list[str]) -> list[str]:
    """Returns the words that leave of a shipped sweep the first and the last value of its first key."""
    name = next((word.removeprefix("sweep=") for word in words if word.startswith("sweep=")), None)
    varied = sweep_values(name) if name in config_names("sweep") else {}
    few = [
        (key, values[:1] if k else [values[0], values[-1]]) for k, (key, values) in enumerate(varied.items())
    ]
    return [
        f"{key}={','.join(values)}" for key, values in few if not any(w.startswith(f"{key}=") for w in words)
    ]


def with_data(words: list[str]) -> list[str]:
    """Returns the words with random images in place of a dataset that would have to be downloaded."""
    for word in words:
        name = word.removeprefix("dataset=")
        if name in DOWNLOADED and not ON_DISK.get(name, TEST_DATA / name).exists():
            kept = tuple(f"dataset.{key}=" for key in read_config("dataset", "npz"))
            others = [w for w in words if not w.startswith("dataset") or w.startswith(kept)]
            return [*others, "dataset=npz", f"dataset.path={name}.npz"]
    return words


def write_inputs(snippet: Snippet, words: list[str]) -> None:
    """Puts what a reader has into the working folder: files that the page shows, pictures, arrays."""
    for path, content in snippet.files:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(content)
    for path in [Path(named[1]) for word in words if (named := PICTURES.fullmatch(word))]:
        if path.exists():
            continue
        rng = np.random.default_rng(0)
        if path.suffix == ".npz":
            colour = DOWNLOADED.get(path.stem) == 3
            shape = (80, 32, 32, 3) if colour else (80, 28, 28)
            kinds = {"images": rng.integers(256, size=shape, dtype=np.uint8), "labels": np.arange(80) % 10}
            arrays = {f"{split}_{kind}": kinds[kind] for split in ("train", "test") for kind in kinds}
            np.savez(path, allow_pickle=False, **arrays)
        else:
            for file in [path] if path.suffix else [path / f"{k}.png" for k in range(40)]:
                write_picture(str(file), rng.integers(256, size=(40, 48, 3)))


def makers(snippet: Snippet) -> list[Snippet]:
    """Returns what makes the folders that a snippet names.

    For each it is the last before the snippet on its page, or else the first of all pages.
    """
    text = " ".join([snippet.text, *two_jobs(snippet.text.split())])
    text = re.sub(r"""run_dir\s*=\s*["']?[^\s"']+""", "", text)
    found = []
    for path in dict.fromkeys(path for other in SNIPPETS for path in other.made):
        if path in snippet.made or not re.search(rf"(?<![\w./-]){re.escape(path)}(?![\w.-])", text):
            continue
        others = [other for other in SNIPPETS if path in other.made]
        before = [other for other in others if other.page == snippet.page and other.line < snippet.line]
        found.append(before[-1] if before else others[0])
    return found


def key(snippet: Snippet) -> str:
    """Returns what a snippet's result depends on: equal ones on several pages are run once."""
    return "\n".join([snippet.language, snippet.text, *map(str, snippet.files), *map(key, makers(snippet))])


@functools.cache
def read_archive(path: Path) -> Archive:
    """Returns every eighth picture of emoji."""
    archive = REAL_READ(path)
    kept = {field.name: getattr(archive, field.name)[::8] for field in dataclasses.fields(Archive)}
    return Archive(**kept)


REAL_READ = Archive.read


@functools.cache
def read_idx(path: Path, shape: tuple[int, ...] | None, md5: str | None) -> Tensor:
    return idx.read_idx(MNISTConfig(), path, shape, md5)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, made_once: Callable[..., Path]) -> None:
    """Few codes for probes, directions and fitted priors; two jobs of a sweep; the data that tests have."""
    if not (TEST_DATA / "MNIST").is_dir():
        pytest.skip("needs the MNIST files; set GENLAB_TEST_DATA")
    monkeypatch.setenv("GENLAB_DATA", str(TEST_DATA))
    monkeypatch.setenv("GENLAB_CACHE", str(made_once("cache", lambda folder: None)))
    monkeypatch.setattr(Archive, "read", read_archive)  # unpacking takes longer than the steps
    monkeypatch.setattr(
        torchvision_sets, "read_idx", lambda config, path, shape, md5=None: read_idx(path, shape, md5)
    )
    for module in (encode, latent_space):
        monkeypatch.setattr(module, "ENCODED_IMAGES", 200)
    monkeypatch.setattr(
        main_module, "sweep", lambda verb, jobs, perform: sweep(verb, [jobs[0], jobs[-1]], perform)
    )
    if train := getattr(genlab_package, "train", None):
        monkeypatch.setattr(
            genlab_package, "train", lambda *words, **more: train(*shortened(["train", *words])[1:], **more)
        )


@pytest.fixture
def folder_of(made_once: Callable[..., Path]) -> Callable[[Snippet], Path]:
    """Returns a function that gives the folder in which a snippet was run, once in a session."""

    def folder_of(snippet: Snippet) -> Path:
        return made_once(key(snippet), lambda folder: run(snippet, folder))

    def run(snippet: Snippet, folder: Path) -> None:
        for maker in makers(snippet):
            shutil.copytree(folder_of(maker), folder, dirs_exist_ok=True)
        with contextlib.chdir(folder), as_a_process():
            run_python(snippet) if snippet.language == "python" else run_command(snippet)

    return folder_of


def run_python(snippet: Snippet) -> None:
    write_inputs(snippet, re.findall(r"""["']([^"']+)["']""", snippet.text))
    Path("script.py").write_text(snippet.text)
    sys.path.insert(0, str(Path.cwd()))
    runpy.run_path("script.py", run_name="__main__")


def run_command(snippet: Snippet) -> None:
    words = shlex.split(snippet.text)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # a variable for this command alone
        del words[0]
    ci = (CHECKOUT / ".ci" / "run").read_text()
    match words:
        case ["genlab", *rest] | ["torchrun", _, "-m", "genlab", *rest] | ["python", "-m", "genlab", *rest]:
            end = next((k for k, word in enumerate(rest) if word in ("|", ">", ">>")), len(rest))
            rest = shortened(rest[:end])
            write_inputs(snippet, rest)
            genlab(*rest)
        case ["eval", completion]:
            genlab(*shlex.split(completion.strip("$()"))[1:])
        case ["python", file, *_] if file.startswith("benchmarks/"):  # CI runs them with --quick
            assert (CHECKOUT / file).is_file()
        case ["pip", *rest]:
            assert "install" in rest
            assert 'pip install --quiet -e ".[test]"' in ci
        case [("pytest" | "ruff" | "pyright" | "mkdocs") as tool, *_]:
            assert tool in ci
        case ["bash", file]:
            assert (CHECKOUT / file).is_file()
        case [("git" | "cd"), *rest]:
            assert "genlab" in " ".join(rest)
        case [("ls" | "cat" | "head" | "tail" | "mkdir" | "cp" | "python"), *_]:
            write_inputs(snippet, words)
            result = subprocess.run(["bash", "-c", snippet.text], capture_output=True, text=True)
            assert result.returncode == 0, result.stderr
        case _:
            pytest.fail("no way to test it; say why in the line before its block: <!-- not run: reason -->")


PAGE = """
```yaml title="mine/sweep/few.yaml"
seed: 0,1
```
```bash
genlab list   # what there is
genlab train \\
  model=vae run_dir=runs/a && genlab sample ckpt=runs/a
```
<!-- not run: it never ends -->
```bash
genlab forever
```
  ```python
  a = 3
  ```
| command | of |
|---|---|
| `genlab evaluate ckpt=runs/a`, `genlab list` | `genlab sample ckpt=RUN` |

<!-- not run: a download -->
| `genlab train dataset=svhn` |
```python
print(a)
```
"""


def test_what_is_found_on_a_page() -> None:
    found = snippets(PAGE, "a.md")
    assert [(part.line, part.text) for part in found] == [
        (6, "genlab list"),
        (7, "genlab train model=vae run_dir=runs/a"),
        (7, "genlab sample ckpt=runs/a"),
        (15, "a = 3\n"),
        (19, "genlab evaluate ckpt=runs/a"),
        (24, "a = 3\n\nprint(a)\n"),
    ]
    assert found[0].files == (("mine/sweep/few.yaml", "seed: 0,1\n"),)
    assert [part.made for part in found[1:3]] == [["runs/a"], []]


def test_the_readme_has_commands() -> None:
    of_readme = [part.text for part in SNIPPETS if part.page == "README.md"]
    assert sum(text.startswith("genlab train") for text in of_readme) >= 4
    for verb in ("sample", "evaluate", "resume", "list"):
        assert any(text.startswith(f"genlab {verb}") for text in of_readme), verb


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.id)
def test_what_a_page_says_runs(snippet: Snippet, folder_of: Callable[[Snippet], Path]) -> None:
    folder_of(snippet)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_files_that_a_page_shows_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)[)#\s]", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_notebook_runs_from_its_first_cell_to_its_last(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = read_json(CHECKOUT / "docs" / "python.ipynb")
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    with as_a_process():
        for cell in cells:
            exec(compile(cell, "cell", "exec"), names)
    assert len(cells) > 4
    assert names["images"].shape == (64, 1, 8, 8)
    assert names["codes"].shape[0] == 64
    assert names["numbers"]["elbo_nats"] > 0
    assert not any(cell.get("outputs") for cell in notebook["cells"])
