"""Token trees small enough to enumerate: the oracle that the objectives' gradients must equal.

A tree has one row of student logits and one of teacher logits for each prefix. Token 0 may end a
sequence early. Everything is float64. `credit_by_loops` needs no tree: future credit as defined.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distil.objectives import forward_cross_entropy, jensen_shannon, reverse_kl

Cost = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Tree:
    """All sequences of a vocabulary, as a padded batch. N sequences, T tokens, V words."""

    student: Tensor  # [prefixes, V] logits, requires grad
    teacher: Tensor  # [prefixes, V] log-probabilities
    tokens: Tensor  # [N, T], 0 after the end
    states: Tensor  # [N, T] row of the prefix before each token, 0 after the end
    mask: Tensor  # [N, T]

    def logps(self) -> Tensor:
        """[N, T, V] the student's log-probabilities at each visited prefix."""
        return self.student.log_softmax(-1)[self.states]

    def sampled(self) -> Tensor:
        """[N, T] log-probability of each token of each sequence."""
        return self.logps().gather(-1, self.tokens[..., None])[..., 0]

    def probability(self) -> Tensor:
        """[N] probability of each whole sequence; carries the gradient."""
        return (self.sampled() * self.mask).sum(-1).exp()

    def cost(self, cost: Cost) -> Tensor:
        """[N, T] cost between teacher and student at each visited prefix."""
        return cost(self.logps(), self.teacher[self.states])

    def exact_gradient(self, cost: Cost) -> Tensor:
        """d/dstudent of sum_y pi(y) sum_t c_t, by plain differentiation of the enumerated sum."""
        objective = (self.probability() * (self.cost(cost) * self.mask).sum(-1)).sum()
        return torch.autograd.grad(objective, self.student)[0]


def make_tree(vocabulary: int, length: int, *, early_stop: bool = False, seed: int = 0) -> Tree:
    """A random tree; with `early_stop`, token 0 ends the sequence."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[tuple[int, ...]] = []
    for sequence in itertools.product(range(vocabulary), repeat=length):
        end = sequence.index(0) + 1 if early_stop and 0 in sequence else length
        rows.append(sequence[:end])
    sequences = sorted(set(rows))
    prefixes = sorted({s[:t] for s in sequences for t in range(len(s))})
    number = {prefix: i for i, prefix in enumerate(prefixes)}
    shape = (len(sequences), length)
    tokens, states = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.float64)
    for i, sequence in enumerate(sequences):
        for t, token in enumerate(sequence):
            tokens[i, t], states[i, t], mask[i, t] = token, number[sequence[:t]], 1

    def table() -> Tensor:
        size = (len(prefixes), vocabulary)
        return torch.randn(size, generator=generator, dtype=torch.float64)

    student = table().requires_grad_()
    return Tree(student, (1.5 * table()).log_softmax(-1), tokens, states, mask)


def other_policy(tree: Tree, seed: int) -> Tree:
    """The same tree under another random student: the policy that old rollouts came from."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(tree.student.shape, generator=generator, dtype=torch.float64)
    return replace(tree, student=logits.requires_grad_())


COSTS = [forward_cross_entropy, reverse_kl, jensen_shannon]


def averaged(tree: Tree, token_loss: Tensor, behaviour: Tree | None = None) -> Tensor:
    """Gradient of the token losses' sum, averaged over sequences of the (behaviour) policy."""
    probability = (behaviour or tree).probability().detach()
    expected = (probability * token_loss.sum(-1)).sum()
    return torch.autograd.grad(expected, tree.student, retain_graph=True)[0]


def credit_by_loops(cost: Tensor, mask: Tensor, discount: float, *, mean: bool) -> Tensor:
    """The definition in `future_credit`'s docstring, term by term."""
    credit = torch.zeros_like(cost)
    for row in range(len(cost)):
        sampled = [t for t in range(cost.shape[1]) if mask[row, t]]
        for place, t in enumerate(sampled):
            later = sampled[place + 1 :]
            total = sum(discount**n * float(cost[row, i]) for n, i in enumerate(later))
            credit[row, t] = total / max(len(later), 1) if mean else total
    return credit
