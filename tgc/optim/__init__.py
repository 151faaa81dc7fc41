"""Optimisers, in the manner of PyTorch."""

from tgc.nn.utils import clip_grad_norm_
from tgc.optim.adam import Adam, AdamW
from tgc.optim.optimizer import Optimizer
from tgc.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "clip_grad_norm_"]
