"""Likelihood of success: the bound and EM against other optimisers, weights by sampling, pass@N."""

import itertools

import numpy as np
import pytest

from distil.theory import em, em_trees, passing, success, weights


def some_prompts(seed: int = 0) -> em.Prompts:
    return em.random_prompts(3, 5, 2, seed)


def test_log_success_and_the_posterior_by_plain_sums() -> None:
    pi, s = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.6, 0.9])
    total = 0.05 + 0.18 + 0.18
    assert np.exp(em.log_success(np.log(pi), s)) == pytest.approx(total)
    expected = np.array([0.05, 0.18, 0.18]) / total
    assert np.exp(em.log_posterior(np.log(pi), s)) == pytest.approx(expected)


def test_bound_and_gap_add_up_for_any_teacher_and_the_gap_is_a_kl() -> None:
    generator = np.random.default_rng(1)
    pi, q = (generator.dirichlet(np.ones(6), 50) for _ in range(2))
    s = generator.random((50, 6))
    bound, gap = (f(np.log(pi), np.log(q), s) for f in (em.bound, em.gap))
    assert bound + gap == pytest.approx(np.log((pi * s).sum(-1)))
    assert (gap > 0).all()
    own = em.log_posterior(np.log(pi), s)
    assert em.gap(np.log(pi), own, s) == pytest.approx(np.zeros(50), abs=1e-12)


def test_the_cross_entropys_gradient_at_the_posterior_is_that_of_log_success() -> None:
    prompts, theta, h = some_prompts(), np.array([0.3, -0.7]), 1e-6
    q = np.exp(em.log_posterior(prompts.log_policy(theta), prompts.s))
    for e in np.eye(2):
        entropy, log = (
            (f(theta + h * e) - f(theta - h * e)) / (2 * h)
            for f in (lambda t: prompts.cross_entropy(t, q), prompts.log_success)
        )
        assert entropy == pytest.approx(-log, abs=1e-7)


def test_an_em_step_minimises_the_cross_entropy_over_the_class() -> None:
    prompts, theta = some_prompts(2), np.array([0.2, 0.1])
    q = np.exp(em.log_posterior(prompts.log_policy(theta), prompts.s))
    found = prompts.em_step(theta)
    best = prompts.cross_entropy(found, q)
    for offset in itertools.product((-0.1, 0.0, 0.1), repeat=2):
        assert prompts.cross_entropy(found + np.array(offset), q) >= best - 1e-12
    assert best < prompts.cross_entropy(theta, q)


def test_log_success_never_falls_and_the_mean_reward_sometimes_does() -> None:
    runs = success.runs()
    assert min(np.diff(r.log_success).min() for r in runs) > -1e-9
    fallen = [r for r in runs if (np.diff(r.mean_success) < -1e-6).any()]
    assert 0.05 < len(fallen) / len(runs) < 0.6
    assert min(np.diff(r.mean_success).min() for r in fallen) < -0.005


def enumerated(trees: em_trees.Trees, logits: list[np.ndarray]) -> tuple[float, float, float]:
    """(log P(success), local cost, whole cost) of the first tree, by plain loops.

    The teacher and, for the local cost, the states' probabilities are those of `trees.p`.
    """
    vocabulary, depth = trees.p[0].shape[-1], len(trees.p)
    p = [np.exp(x - np.logaddexp.reduce(x, -1, keepdims=True)) for x in logits]

    def value(row: int, t: int) -> float:
        if t == depth:
            return float(trees.leaves[0, row])
        return sum(
            float(trees.p[t][0, row, a]) * value(row * vocabulary + a, t + 1)
            for a in range(vocabulary)
        )

    log_success = local = whole = 0.0
    for answer in itertools.product(range(vocabulary), repeat=depth):
        held = now = 1.0
        row, costs = 0, 0.0
        for t, token in enumerate(answer):
            children = [value(row * vocabulary + a, t + 1) for a in range(vocabulary)]
            q = trees.p[t][0, row] * children / value(row, t)
            cost = -float(q @ np.log(p[t][row]))
            costs += cost
            local += held * cost * _share(answer, t, trees, row)
            held *= float(trees.p[t][0, row, token])
            now *= float(p[t][row, token])
            row = row * vocabulary + token
        log_success += now * float(trees.leaves[0, row])
        whole += now * costs
    return float(np.log(log_success)), local, whole


def _share(answer: tuple[int, ...], t: int, trees: em_trees.Trees, row: int) -> float:
    """P(the rest of the answer | its first t tokens), so that a state's cost counts once."""
    chance, vocabulary = 1.0, trees.p[0].shape[-1]
    for later in range(t, len(trees.p)):
        chance *= float(trees.p[later][0, row, answer[later]])
        row = row * vocabulary + answer[later]
    return chance


def test_steps_on_trees_are_the_gradients_of_the_enumerated_objectives() -> None:
    trees = em_trees.random_trees(1, 2, 3, seed=4)
    steps = em_trees.steps(trees)
    base, h = [np.log(p[0]) for p in trees.p], 1e-5
    row = 0
    for t, table in enumerate(base):
        for place in itertools.product(*map(range, table.shape)):
            ends = []
            for sign in (1, -1):
                moved = [x.copy() for x in base]
                moved[t][place] += sign * h
                ends.append(enumerated(trees, moved))
            slopes = [(a - b) / (2 * h) for a, b in zip(*ends, strict=True)]
            at = (0, row + place[0], place[1])
            found = (steps.log_success[at], -steps.local[at], -steps.future[at])
            assert found == pytest.approx(tuple(slopes), abs=1e-8)
        row += len(table)


def test_local_credit_is_ems_with_each_states_own_normaliser() -> None:
    steps = em_trees.steps(em_trees.random_trees(300))
    rows = (steps.local * steps.log_success).sum(-1)
    assert (rows >= 0).all()  # parallel row by row, so log P rises under it
    assert em_trees.cosine(steps.local, steps.log_success).max() < 1


@pytest.mark.parametrize("method", weights.METHODS)
def test_weights_agree_with_sampled_groups(method: weights.Method) -> None:
    for p, group in ((0.1, 4), (0.5, 8)):
        found = weights.simulated_weight(method, p, group, 100_000)
        exact = float(weights.weight(method, np.array([p]), group)[0])
        assert found == pytest.approx(exact, rel=0.03)


def test_siblings_cap_the_weight_at_the_others_in_the_group() -> None:
    tiny = np.array([1e-9])
    assert weights.weight("sibling", tiny, 8)[0] == pytest.approx(7, rel=1e-6)
    assert weights.weight("grpo, std", tiny, 8)[0] == pytest.approx(np.sqrt(7), rel=1e-6)
    assert weights.fitted_power("expert", 0.01, 0.5) == pytest.approx(-1)


def test_optima_meet_their_conditions() -> None:
    b = passing.start()
    logit = np.log(b / (1 - b))
    found = passing.matched("reward", b, 0.4)
    shift = np.log(found.p / (1 - found.p)) - logit
    assert np.ptp(shift) < 0.021  # one shift for all: two steps of the grid
    found = passing.landscape("log-success (EM)", b).best(2.0)
    moved = np.log(found.p / (1 - found.p)) - logit
    assert moved == pytest.approx(1 / (2.0 * found.p), abs=0.2, rel=0.03)
    with pytest.raises(ValueError, match=r"nearest to 0\.99"):
        passing.matched("reverse KL", b, 0.99)


def test_passing_at_n_by_sampling() -> None:
    optimum = passing.Optimum(np.array([0.1, 0.6]), 0.35, 0.0)
    draws = np.random.default_rng(0).random((100_000, 2, 4)) < optimum.p[:, None]
    assert optimum.pass_at(4) == pytest.approx(draws.any(-1).mean(), abs=0.005)
    assert optimum.pass_at(1) == pytest.approx(0.35)


def test_reverse_kl_to_the_posterior_is_the_reward_and_log_success_passes_more() -> None:
    equal, budget = success.optima(), success.optima("kl")
    assert equal["reverse KL"].p == pytest.approx(equal["reward"].p)
    assert all(abs(o.mean - 0.4) < 0.005 for o in equal.values())
    for n in (4, 16):
        order = ["log-success (EM)", "forward cross-entropy", "Jensen-Shannon", "reverse KL"]
        values = [equal[name].pass_at(n) for name in order]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[1] + 0.03
    assert budget["log-success (EM)"].mean < budget["reward"].mean - 0.02
    assert equal["log-success (EM)"].kl > equal["reward"].kl


def test_matching_is_the_optimum_of_its_objective() -> None:
    w = success.SHARES
    generator = np.random.default_rng(3)
    others = generator.dirichlet(np.ones(3), 2000)
    assert (w @ np.log(w) >= np.log(others) @ w).all()
    assert passing.matching(w, 1, "reward")["pass@1"] == pytest.approx(0.4)
    assert passing.matching(w, 1, "log-success")["pass@1"] == pytest.approx(w @ w)


def test_every_claim_of_the_section_comes_out_as_the_docs_say() -> None:
    verdicts = [c.holds for c in success.claims()]
    assert verdicts == [True, True, False, False, True, False, True, False, True, True]
