"""Every command of the README and of docs/ is run, as written but for a budget of a few steps."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TEST_DATA
from torchvision.utils import save_image

from genlab.cli.main import main
from genlab.commands import encode
from genlab.trained import latent_space

CHECKOUT = Path(__file__).parents[1]
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
README = PAGES[0]
SHORT = ["trainer.steps=3", "trainer.batch_size=8", "trainer.evaluate_images=8", "trainer.sample_images=4"]
MEASURED = ["trainer.measure_images=16", "trainer.measure_every=2"]

FEWER_JOBS = {
    "sweep=vae_latent": ["seed=0"],
    "sweep=unrolled_ring": ["seed=0"],
    "sweep=unrolled_ring_rates": ["model.unrolled_steps=1", "model.inner_lr=null"],
    "sweep=pretraining": ["optimizer.lr=1e-3", "seed=0"],
}


def commands(page: Path) -> list[str]:
    """What the ```bash blocks hold: a command a line, without the remarks; and the commands in tables.

    A block under `<!-- not run: reason -->` is left out, and so is a command in a table that has no key, or a
    name in capitals, which stands for something else.
    """
    text = re.sub(r"<!-- not run: \S.*-->\n```bash\n.*?```", "", page.read_text(), flags=re.DOTALL)
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    in_tables = [
        c for line in text.splitlines() if line.startswith("|") for c in re.findall(r"`(genlab .*?)`", line)
    ]
    whole = [c for c in in_tables if c == "genlab train" or len(c.split()) > 2]
    in_tables = [c for c in whole if not re.search(r"\b[A-Z]{2,}\b", c)]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in [*parts, *in_tables] if part and not part.startswith("#")]


def shown_files(page: Path) -> dict[str, str]:
    """The files that a page shows, in blocks with `title="PATH"`: path to content."""
    return dict(re.findall(r'```\w+ title="([^"\s]+)"\n(.*?)```', page.read_text(), re.DOTALL))


def shortened(words: list[str]) -> list[str]:
    """The same command with a small budget."""
    verb, rest = words[0], words[1:]
    if verb == "train":  # compiling takes longer than the steps, and has its own tests
        eager = [word for word in rest if not word.startswith("trainer.compile=")]
        fewer = next((FEWER_JOBS[word] for word in rest if word in FEWER_JOBS), [])
        return [verb, *eager, *fewer, *SHORT, *MEASURED, "trainer.compile=false"]
    if verb == "resume":
        return [verb, *rest[:1], "trainer.steps=5"]
    if verb == "complete":
        return [verb, *rest, "count=1", "n=2"]
    if verb == "evaluate":
        fewer = ["n=16"] if any(word.startswith("n=") for word in rest) else []
        return [verb, *rest, *fewer, "images=16"]
    if verb == "encode":
        return [verb, *rest, "count=20"]
    return [verb, *rest]


def test_the_readme_has_commands() -> None:
    assert sum(command.startswith("genlab train") for command in commands(README)) >= 4
    for verb in ("sample", "evaluate", "resume", "list"):
        assert any(command.startswith(f"genlab {verb}") for command in commands(README)), verb


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_commands_of_a_page(
    page: Path, own_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (TEST_DATA / "MNIST").is_dir():
        pytest.skip("needs the MNIST files; set GENLAB_TEST_DATA")
    monkeypatch.setenv("GENLAB_DATA", str(TEST_DATA))
    monkeypatch.setenv("GENLAB_CACHE", str(own_folder / "cache"))
    for module in (encode, latent_space):  # a probe of few images, and directions and priors of few codes
        monkeypatch.setattr(module, "ENCODED_IMAGES", 200)
    pictures = own_folder / "my_pictures"
    pictures.mkdir()
    for k in range(40):
        save_image(torch.rand(3, 40, 48), pictures / f"{k}.png")
    np.savez("my_arrays.npz", images=torch.randint(256, (80, 28, 28), dtype=torch.uint8).numpy())
    for name, content in shown_files(page).items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)
    for command in commands(page):
        words = shlex.split(command)
        if "dataset=fashion_mnist" in words and not Path("/usr/share/datasets/fashion-mnist").is_dir():
            continue  # Debian's package, which CI installs
        if "--module" in words:
            continue  # modules of the user's own have tests of their own
        match words[0]:
            case "genlab":
                assert main(shortened(words[1:])) == 0, f"{command}\n{capsys.readouterr().err[-2000:]}"
            case "eval":  # the shell's completion
                assert main(shlex.split(words[1].strip('"$()'))[1:]) == 0, command
            case "pip" | "pytest" | "ruff" | "pyright" | "bash":
                ci = (CHECKOUT / ".ci" / "run").read_text()
                assert words[0] != "pip" or "install" in words
                assert 'pip install --quiet -e ".[test]"' in ci
                assert "pytest" in ci
            case "tail":
                assert Path(words[-1]).is_file(), command
            case "git" | "cd":
                assert "genlab" in command
            case "python":
                assert (CHECKOUT / words[1]).is_file(), command
            case "torchrun":
                assert shutil.which("torchrun") or words[words.index("-m") + 1] == "genlab", command
            case _:
                pytest.fail(f"no way to test: {command}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_files_that_a_page_shows_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
