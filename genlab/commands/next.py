"""Suggestions of the next command to type, chosen by the abilities of a model's family."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from genlab.config.adversarial import Dynamics
from genlab.config.schema import typed
from genlab.families.autoencoder import DAE
from genlab.families.autoregressive import Autoregressive
from genlab.families.base import Family, LatentFamily
from genlab.families.bilinear_game import BilinearGame
from genlab.families.stacked_dae import StackedDAE
from genlab.families.vqvae import VQVAE


def after_training(family: Family, run: Path) -> list[str]:
    """Returns what to do after training, mostly commands to type, the most informative first.

    Args:
        run: the run folder.
    """
    if isinstance(family, BilinearGame):
        return _after_game(family, run)
    spec, lines = family.spec, []
    if isinstance(family, StackedDAE) and spec.classes > 1:
        hidden = ",".join(map(str, family.config.hidden))
        lines.append(
            f"genlab train model=classifier dataset={spec.name} model.hidden=[{hidden}] "
            f"model.units={family.config.units} {typed('model.start', run)}"
        )
    if isinstance(family, DAE):
        lines.append(f"genlab denoise {typed('ckpt', run)}")
    if family.generates:
        labels = " labels=[0,1]" if family.takes_labels and spec.classes > 1 else ""
        lines.append(f"genlab sample {typed('ckpt', run)}{labels}")
    if isinstance(family, Autoregressive) and spec.kind == "images":
        lines.append(f"genlab complete {typed('ckpt', run)} keep=top")
    has_latents = isinstance(family, LatentFamily)
    if has_latents and family.encodes and family.decodes and spec.kind == "images":
        lines.append(f"genlab reconstruct {typed('ckpt', run)}")
    if has_latents and family.latent_classes > 0 and spec.kind == "images":
        lines.append(f"genlab traverse {typed('ckpt', run)} around=image")
    if isinstance(family, VQVAE):
        prior = f"{run}-prior"
        lines += [f"{to_show(VQVAE, run)} {typed('run_dir', prior)}", f"genlab sample {typed('ckpt', prior)}"]
    elif has_latents and not family.generates:
        lines.append(_sample_fitted(type(family), run))
    per_image = "" if family.generates or has_latents else " per_image=true"
    return [*lines, f"genlab evaluate {typed('ckpt', run)}{per_image}"]


def to_show(family: type[Family], ckpt: str | Path) -> str:
    """Returns the command that shows the abilities of a trained model of a family."""
    if issubclass(family, VQVAE):
        return f"genlab train model=gated_pixelcnn dataset=codes {typed('dataset.ckpt', ckpt)}"
    if issubclass(family, StackedDAE):  # fitting a mixture to codes of hundreds of units is slow
        return f"genlab reconstruct {typed('ckpt', ckpt)}"
    if family.generates:
        return f"genlab sample {typed('ckpt', ckpt)}"
    if issubclass(family, LatentFamily):
        return _sample_fitted(family, ckpt)
    return f"genlab evaluate {typed('ckpt', ckpt)} per_image=true"


def _sample_fitted(family: type[Family], ckpt: str | Path) -> str:
    components = " components=1" if issubclass(family, StackedDAE) else ""
    return f"genlab sample {typed('ckpt', ckpt)} prior=fit{components}"


def _after_game(family: BilinearGame, run: Path) -> list[str]:
    """Returns the newest figure, and the command for the next dynamics: the game has no samples."""
    names = get_args(Dynamics)
    other = names[(names.index(family.config.dynamics) + 1) % len(names)]
    figure = max((run / "samples").glob("step-*.png"))
    return [f"see {figure}", f"genlab train model={family.config.name} model.dynamics={other}"]
