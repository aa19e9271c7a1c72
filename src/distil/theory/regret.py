"""DAgger's reduction on token trees: no-regret learners against the best policy in the class.

The class: a student that sees the last token only (O observations, whatever the prefix), and gives
every token at least `FLOOR`. Round n rolls out policy n and charges it the teacher's cross-entropy
on the states it comes to, which is the method's objective at policy n:

    l_n(p) = E_{s ~ d(p_n)} [ H(q(s), p(o(s))) ] = - sum_{o,a} W_n(o,a) log p(a|o)

convex in p, W_n(o,a) = sum_{s: o(s) = o} d_n(s) q(a|s). Average regret against the class:

    R_n / n = ( sum_{m<=n} l_m(p_m) - min_p sum_{m<=n} l_m(p) ) / n

    follow the leader    p_{n+1} = argmin_p sum_{m<=n} l_m(p): DAgger with all data kept
    mirror descent       p_{n+1} = FLOOR + (1 - V FLOOR) x, x(a|o) ~ exp(- eta_n sum of slopes):
                         exponentiated gradients, lazily (dual averaging)

Left out: sampling (each round's expectation is exact) and behaviour cloning (`cloning`). Source of
the reduction: Ross, Gordon and Bagnell, arXiv 1011.0686.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from distil.theory.claims import Claim
from distil.theory.costs import Array, forward_cross_entropy, softmax
from distil.theory.trees import IntArray, Tree, gradient, make_tree, objective, reach

SECTION = "regret"
FLOOR, ROUNDS = 0.01, 1000


@dataclass(frozen=True)
class Game:
    """A tree, and the observation that the student makes in each of its states."""

    tree: Tree
    seen: IntArray  # [S] 0 at the root, the last token elsewhere

    @property
    def shape(self) -> tuple[int, int]:
        """(observations, tokens)."""
        return int(self.seen.max()) + 1, self.tree.child.shape[1]

    def play(self, policy: Array) -> Tree:
        """The tree with this policy, [O, V], as its student."""
        return replace(self.tree, student=np.log(policy)[self.seen])

    def weights(self, policy: Array) -> Array:
        """[O, V] W: how often each observation comes, times what the teacher wants there."""
        wanted = reach(self.play(policy))[:, None] * self.tree.teacher
        total = np.zeros(self.shape)
        np.add.at(total, self.seen, wanted)
        return total


@dataclass(frozen=True)
class Round:
    """One round's policy, its loss under its own W, and the average regret so far, in nats.

    bound: the regret that theory allows; nan for a learner without one here.
    """

    policy: Array
    loss: float
    regret: float
    bound: float


def make_game(vocabulary: int = 3, length: int = 6, seed: int = 0) -> Game:
    """A random tree with early ends, seen through its last token."""
    tree = make_tree(vocabulary, length, early_stop=True, seed=seed)
    seen = np.zeros(len(tree.child), dtype=np.int64)
    states, tokens = np.nonzero(tree.child >= 0)
    seen[tree.child[states, tokens]] = tokens  # never 0, which has ended the sequence
    return Game(tree, seen)


def loss(weights: Array, policy: Array) -> float:
    """- sum W log p."""
    return -float((weights * np.log(policy)).sum())


def best_in_class(weights: Array, floor: float = FLOOR) -> Array:
    """[O, V] argmin_p - sum W log p with p >= floor: p = max(floor, W / lambda), row by row.

    Rows without any weight: uniform.
    """
    rows = np.full(weights.shape, 1 / weights.shape[1])
    for o, w in enumerate(weights):
        if w.sum() == 0:
            continue
        free = np.ones(len(w), dtype=bool)
        while True:  # tokens below the floor are put on it, and the others share the rest
            p = np.full(len(w), floor)
            p[free] = w[free] * (1 - floor * (~free).sum()) / w[free].sum()
            if (p[free] >= floor).all():
                break
            free &= p >= floor
        rows[o] = p
    return rows


def follow_the_leader(game: Game, rounds: int = ROUNDS) -> list[Round]:
    """The best policy for all states that came so far, each round."""
    total = np.zeros(game.shape)

    def step(w: Array, policy: Array, n: int) -> tuple[Array, float]:
        del policy, n
        nonlocal total
        total = total + w
        return best_in_class(total), np.nan

    return _rounds(game, step, rounds)


def mirror_descent(game: Game, rounds: int = ROUNDS) -> list[Round]:
    """Exponentiated gradients with eta_n = eta / sqrt(n), and the regret that theory allows them.

    bound: sum over observations of log V / eta_n + sum_m eta_{m-1} max_a |slope_m|^2 / 2, over n.
    """
    width = 1 - game.shape[1] * FLOOR
    slopes, allowed = np.zeros(game.shape), 0.0
    eta = 0.5

    def step(w: Array, policy: Array, n: int) -> tuple[Array, float]:
        nonlocal slopes, allowed
        slope = -width * w / policy
        allowed += eta / np.sqrt(max(n - 1, 1)) * float((np.abs(slope).max(-1) ** 2).sum()) / 2
        slopes = slopes + slope
        rate = eta / np.sqrt(n)
        bound = game.shape[0] * np.log(game.shape[1]) / rate + allowed
        return FLOOR + width * softmax(-rate * slopes), bound / n

    return _rounds(game, step, rounds)


def _rounds(
    game: Game, step: Callable[[Array, Array, int], tuple[Array, float]], rounds: int
) -> list[Round]:
    """Plays, charges, and lets `step` say the next policy (and the bound)."""
    policy = np.full(game.shape, 1 / game.shape[1])
    total, paid, found = np.zeros(game.shape), 0.0, []
    for n in range(1, rounds + 1):
        w = game.weights(policy)
        now = loss(w, policy)
        total, paid = total + w, paid + now
        regret = (paid - loss(total, best_in_class(total))) / n
        new, bound = step(w, policy, n)
        found.append(Round(policy, now, regret, bound))
        policy = new
    return found


def rate(found: list[Round], first: int = 20) -> float:
    """Slope of log regret against log rounds from round `first` on: -1 is 1/n."""
    n = np.arange(first, len(found) + 1)
    regrets = np.array([r.regret for r in found[first - 1 :]])
    return float(np.polyfit(np.log(n), np.log(regrets), 1)[0])


def descend(game: Game, steps: int = 1500, size: float = 0.5) -> Array:
    """[O, V] the class's least objective: descent on local and future credit, shared by rows."""
    logits = np.zeros(game.shape)
    width = 1 - game.shape[1] * FLOOR
    for _ in range(steps):
        x = softmax(logits)
        policy = FLOOR + width * x
        by_state = gradient(game.play(policy), forward_cross_entropy).whole
        total = np.zeros(game.shape)
        np.add.at(total, game.seen, by_state)
        # Slopes in log p(a|o), up to a constant a row, carried on to the logits of x.
        ratio = width * x / policy
        logits = logits - size * (ratio * total - x * (ratio * total).sum(-1, keepdims=True))
    return FLOOR + width * softmax(logits)


def claims() -> list[Claim]:
    """Average regret goes to 0, at which rate, and what it doesn't promise."""
    games = [make_game(seed=seed) for seed in range(5)]
    leader = [follow_the_leader(game) for game in games]
    mirror = [mirror_descent(game) for game in games]
    slack = max(r.regret / r.bound for found in mirror for r in found)
    least = [objective(g.play(descend(g)), forward_cross_entropy) for g in games]
    end = [found[-1].loss for found in leader]
    gaps = [a - b for a, b in zip(end, least, strict=True)]
    return [
        Claim(
            SECTION,
            "Follow the leader (DAgger) has no regret: its average goes to 0, about as 1/n.",
            "R_n / n",
            {
                "after 20 rounds": _middle(leader, 20),
                f"after {ROUNDS}": _middle(leader, ROUNDS),
                "rate": float(np.median([rate(x) for x in leader])),
            },
            all(rate(x) < -0.8 for x in leader),
        ),
        Claim(
            SECTION,
            "So does that of mirror descent (exponentiated gradients), within its bound.",
            "R_n <= sum_o log V / eta_n + sum eta ||slope||^2 / 2",
            {
                "after 20 rounds": _middle(mirror, 20),
                f"after {ROUNDS}": _middle(mirror, ROUNDS),
                "rate": float(np.median([rate(x) for x in mirror])),
                "largest regret / bound": slack,
            },
            slack <= 1 and all(rate(x) < -0.5 for x in mirror),
        ),
        Claim(
            SECTION,
            "No regret means the class's least objective.",
            "L(p_n) - min_p L(p), n last",
            {
                "smallest gap": min(gaps),
                "largest gap": max(gaps),
                "least objective": float(np.mean(least)),
            },
            max(gaps) < 1e-3,
        ),
    ]


def _middle(found: list[list[Round]], n: int) -> float:
    return float(np.median([x[n - 1].regret for x in found]))
