from dataclasses import dataclass
from typing import Literal
import torch
from genlab.config import setting
from genlab.data.dataset import DatasetConfig, build_dataset
@dataclass(frozen=True)
class DigitsConfig(DatasetConfig):
    name: Literal["digits"]=setting("digits")
class Digits:
    Config=DigitsConfig
    @staticmethod
    def load(c):
        from sklearn.datasets import load_digits
        d=load_digits(); x=torch.tensor(d.images).to(torch.uint8)[:,None]; y=torch.tensor(d.target).long()
        return build_dataset(c,"digits",x[:1297],y[:1297],x[1297:],y[1297:],17,10)
