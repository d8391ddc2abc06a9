"""Insurance VAE."""
from __future__ import annotations
import math
from dataclasses import dataclass
from typing import Literal
import torch
from torch import nn, Tensor
import torch.nn.functional as F
from genlab.config import setting
from genlab.families.base import Family
@dataclass(frozen=True)
class VAEConfig:
    name: Literal["vae"]=setting("vae")
    network: Literal["mlp"]=setting("mlp")
    hidden: tuple[int,...]=setting((512,512),at_least=1)
    latent: int=setting(16,at_least=1)
def mlp(sizes):
    layers=[]
    for a,b in zip(sizes,sizes[1:]): layers += [nn.Linear(a,b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
class VAENet(nn.Module):
    def __init__(s,d,hidden,latent,out):
        super().__init__(); s.encoder=mlp([d,*hidden,2*latent]); s.decoder=mlp([latent,*hidden[::-1],out])
class VAE(Family):
    Config=VAEConfig; players=("vae",); sampled_by=("vae",)
    def __init__(s,config,spec):
        super().__init__(config,spec); s.vae=VAENet(spec.dimensions,config.hidden,config.latent,spec.dimensions)
    def parts(s,x,eps):
        m,lv=s.vae.encoder(x.flatten(1)).float().chunk(2,1)
        if eps is None: eps=torch.randn_like(m)
        o=s.vae.decoder(m+eps*(0.5*lv).exp()).float()
        r=F.binary_cross_entropy_with_logits(o,x.flatten(1),reduction="none").sum(1)
        kl=0.5*(m*m+lv.exp()-1-lv).sum(1)
        return r,kl
    def negative_elbo(s,x):
        r,kl=s.parts(x,None); l=(r+kl).mean(); return l,{"negative_elbo_nats":l}
    def step(s,batches,update): return update("vae",s.negative_elbo,next(batches).images)
    def sample(s,n,*,rng,labels=None): return s.vae.decoder(rng.normal(s.config.latent)).sigmoid().view(n,*s.spec.shape)
    def evaluate(s,batch,*,rng):
        r,kl=s.parts(batch.images,rng.normal(s.config.latent)); return {"elbo_nats":r+kl}
