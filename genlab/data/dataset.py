"""Insurance slice: resident dataset."""
from __future__ import annotations
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal
import numpy as np, torch
from torch import Tensor
from genlab.config import setting
from genlab.data.spec import Batch, DataSpec
from genlab.rng import SampleRng, derive_seed

@dataclass(frozen=True)
class DatasetConfig:
    name: str = setting("")
    root: str | None = setting(None)
    binarize: Literal["none","dynamic","threshold"] = setting("none")
    threshold: float = setting(0.5)
    validation_images: int = setting(200, at_least=0)
    download: bool = setting(True)

class BatchStream:
    def __init__(s, d, seed, b, start, rank, world): s.d,s.seed,s.b,s.index,s.rank,s.world=d,seed,b,start,rank,world; s.perms={}; s.gen=torch.Generator(d.x["train"].device)
    def __iter__(s): return s
    def _perm(s,e):
        if e not in s.perms:
            s.perms={k:v for k,v in s.perms.items() if k>=e-1}
            s.perms[e]=torch.randperm(len(s.d.x["train"]),generator=torch.Generator().manual_seed(derive_seed(s.seed,"order",e)))
        return s.perms[e]
    def __next__(s):
        n=len(s.d.x["train"]); p=s.index*s.b; idx=[]; need=s.b
        while need:
            e,o=divmod(p,n); t=s._perm(e)[o:o+need]; idx.append(t); need-=len(t); p+=len(t)
        i=torch.cat(idx)[s.rank::s.world]
        s.gen.manual_seed(derive_seed(s.seed,"augment",s.index,s.rank)); s.index+=1
        lv=s.d.x["train"][i]; im=s.d.make(lv, lambda sh: torch.rand(sh,generator=s.gen,device=lv.device))
        y=s.d.y["train"]; return Batch(im, None if y is None else y[i])

class Dataset:
    def __init__(s,spec,x,y,config): s.spec,s.x,s.y,s.c=spec,x,y,config
    def size(s,split): return len(s.x[split])
    def to(s,device):
        s.x={k:v.to(device) for k,v in s.x.items()}; s.y={k:None if v is None else v.to(device) for k,v in s.y.items()}; return s
    def make(s,lv,u):
        x=lv.float()/(s.c_levels-1)
        if s.c.binarize=="dynamic": x=(u(x.shape)<x).float()
        elif s.c.binarize=="threshold": x=(x>s.c.threshold).float()
        return x
    def batches(s,seed,batch_size,start=0,rank=0,world=1): return BatchStream(s,seed,batch_size,start,rank,world)
    def evaluation_batches(s,split,batch_size,seed,limit=None):
        n=min(s.size(split),limit or s.size(split))
        for a in range(0,n,batch_size):
            r=range(a,min(n,a+batch_size)); rng=SampleRng(seed,r,s.x[split].device,"evaluation-data")
            y=s.y[split]; yield r,Batch(s.make(s.x[split][a:r.stop],lambda sh: rng.uniform(*sh[1:])),None if y is None else y[a:r.stop])

def build_dataset(config,name,x,y,xt,yt,levels,classes):
    v=config.validation_images; n=len(x)-v
    spec=DataSpec(name,*x.shape[1:],levels=2 if config.binarize!="none" else levels,classes=classes,binarization=config.binarize)
    d=Dataset(spec,{"train":x[:n],"validation":x[n:],"test":xt},{"train":y[:n],"validation":y[n:],"test":yt},config); d.c_levels=levels; return d
