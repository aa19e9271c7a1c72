"""Is a DistIL step an EM step? Success posteriors along token trees, on the student's own states.

EM minimises the whole answer's cross-entropy to the posterior, E_{y ~ q} sum_t H(q_t, p_t): the
*teacher's* states. DistIL's expectation is over the student's. Tabular trees: one row of logits
for each prefix s, V(s) = P(success | s), teacher q_a = p_a V(sa) / V(s). Rows of the gradients:

    grad log P      pi(s) p_a (V(sa) - V(s)) / V(root)   =  pi(s) (q - p) V(s) / V(root)
    - grad, local   pi(s) (q - p)
    - grad, future  pi(s) (q - p) - pi(s) p_a (C(sa) - E_p C),   C(s): the expected cost from s on

Local credit lacks the factor V(s)/V(root): hopeless prefixes count as much as promising ones.
"""

from dataclasses import dataclass

import numpy as np

from distil.theory.costs import Array


@dataclass(frozen=True)
class Trees:
    """N random trees, V tokens, depth D: of each depth t the conditionals, [N, V^t, V]."""

    p: list[Array]
    leaves: Array  # [N, V^D] P(success | the whole answer)


@dataclass(frozen=True)
class Steps:
    """Directions that raise an objective, one row a prefix, all depths joined: [N, prefixes, V]."""

    log_success: Array
    local: Array
    future: Array


def random_trees(count: int, vocabulary: int = 3, depth: int = 3, seed: int = 0) -> Trees:
    """Conditionals from Dirichlet(1); success of a leaf uniform in [0, 1], cubed."""
    generator = np.random.default_rng([seed, vocabulary, depth])
    p = [generator.dirichlet(np.ones(vocabulary), (count, vocabulary**t)) for t in range(depth)]
    return Trees(p, generator.random((count, vocabulary**depth)) ** 3)


def steps(trees: Trees) -> Steps:
    """The exact directions of the module's first lines; the teacher is held constant."""
    count, depth = len(trees.leaves), len(trees.p)
    reach = [np.ones((count, 1))]
    for p in trees.p[:-1]:
        reach.append((reach[-1][..., None] * p).reshape(count, -1))
    value, cost = trees.leaves, np.zeros_like(trees.leaves)
    rows: list[tuple[Array, Array, Array]] = []
    for t in reversed(range(depth)):
        p, at = trees.p[t], reach[t][..., None]
        children, later = value.reshape(p.shape), cost.reshape(p.shape)
        value = (p * children).sum(-1)
        q = p * children / value[..., None]
        expected = (p * later).sum(-1)
        cost = expected - (q * np.log(p)).sum(-1)
        local = at * (q - p)
        goal = at * p * (children - value[..., None])
        rows.insert(0, (goal, local, local - at * p * (later - expected[..., None])))
    goal, local, future = (np.concatenate(parts, axis=1) for parts in zip(*rows, strict=True))
    return Steps(goal / value[..., None], local, future)


def cosine(a: Array, b: Array) -> Array:
    """[N] between whole gradients."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
