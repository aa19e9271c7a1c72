"""The claims of `distil.theory`, computed once a session; and its trees in torch."""

from dataclasses import dataclass
from functools import cache
from importlib import import_module

import numpy as np
import torch
from torch import Tensor

from distil.theory.claims import Claim
from distil.theory.costs import Array
from distil.theory.estimators import Rollouts, enumerate_rollouts
from distil.theory.trees import Tree


@cache
def claims_of(section: str) -> list[Claim]:
    """Every claim of a module of `distil.theory`."""
    claims: list[Claim] = import_module(f"distil.theory.{section}").claims()
    return claims


def claim(section: str, words: str) -> Claim:
    """The one claim of a section that has these words in it."""
    (found,) = [c for c in claims_of(section) if words in c.words]
    return found


@dataclass(frozen=True)
class Torch:
    """A theory's tree as the objectives see it: all its rollouts as one padded batch."""

    student: Tensor  # [S, V] logits, requires grad
    teacher: Tensor  # [N, T, V] log-probabilities
    ids: Tensor  # [N, T]
    states: Tensor  # [N, T]
    mask: Tensor  # [N, T]

    def logps(self) -> Tensor:
        return self.student.log_softmax(-1)[self.states]

    def sampled(self) -> Tensor:
        return self.logps().gather(-1, self.ids[..., None])[..., 0]

    def probability(self) -> Tensor:
        return (self.sampled() * self.mask).sum(-1).exp()

    def gradient(self, value: Tensor) -> Array:
        (slopes,) = torch.autograd.grad(value, self.student, retain_graph=True)
        return np.asarray(slopes.numpy(), dtype=np.float64)


def in_torch(tree: Tree) -> tuple[Torch, Rollouts]:
    rollouts = enumerate_rollouts(tree)
    states = torch.from_numpy(rollouts.states)
    teacher = torch.from_numpy(tree.teacher).log()[states]
    student = torch.from_numpy(tree.student.copy()).requires_grad_()
    ids, mask = torch.from_numpy(rollouts.tokens), torch.from_numpy(rollouts.mask)
    return Torch(student, teacher, ids, states, mask), rollouts
