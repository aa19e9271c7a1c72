"""Token trees: exact gradients against differences, estimators against plain loops, and claims."""

from dataclasses import replace

import numpy as np
import pytest

from distil.theory import treebias
from distil.theory.costs import COSTS, entropy, forward_cross_entropy, softmax
from distil.theory.entropy import at_teacher, length_gradient, optimum, pulls, tilted
from distil.theory.estimators import (
    enumerate_rollouts,
    from_the_other,
    later_mean,
    later_sum,
    moments,
    probability_of_tokens,
)
from distil.theory.stock import on_policy, stale, stock
from distil.theory.treebias import Row, overtaken
from distil.theory.trees import (
    Tree,
    expected_length,
    finite_differences,
    gradient,
    make_tree,
    objective,
    reach,
)
from theoryclaims import claim, claims_of

SMALL = [(3, 3, False), (3, 3, True), (2, 5, True), (4, 2, False)]


def trees() -> list[Tree]:
    return [make_tree(v, n, early_stop=e, seed=i) for i, (v, n, e) in enumerate(SMALL)]


# ---------------------------------------------------------------- the tree itself


@pytest.mark.parametrize(("early", "states", "rows"), [(False, 13, 27), (True, 7, 15)])
def test_a_tree_has_its_states_and_sequences(early: bool, states: int, rows: int) -> None:
    tree = make_tree(3, 3, early_stop=early)
    rollouts = enumerate_rollouts(tree)
    assert tree.child.shape == (states, 3)
    assert len(rollouts.tokens) == rows
    assert len({tuple(r) for r in np.where(rollouts.mask > 0, rollouts.tokens, -1)}) == rows
    assert rollouts.ends.any() == early


def test_rollouts_have_probabilities_that_sum_to_one_and_visit_states_as_often_as_reach_says() -> (
    None
):
    for tree in trees():
        rollouts = enumerate_rollouts(tree)
        chance = probability_of_tokens(rollouts, tree.p()).prod(-1)
        assert chance.sum() == pytest.approx(1, abs=1e-12)
        visits = np.zeros(len(tree.child))
        np.add.at(visits, rollouts.states.ravel(), (chance[:, None] * rollouts.mask).ravel())
        assert np.abs(visits - reach(tree)).max() < 1e-12
        assert expected_length(tree) == pytest.approx(chance @ rollouts.mask.sum(-1))


@pytest.mark.parametrize("name", COSTS)
def test_the_objective_is_the_mean_cost_of_rollouts(name: str) -> None:
    for tree in trees():
        rollouts = enumerate_rollouts(tree)
        chance = probability_of_tokens(rollouts, tree.p()).prod(-1)
        costs = rollouts.at(COSTS[name](tree.p(), tree.teacher)[0]).sum(-1)
        assert objective(tree, COSTS[name]) == pytest.approx(chance @ costs, abs=1e-12)


@pytest.mark.parametrize("name", COSTS)
def test_the_gradient_is_that_of_finite_differences(name: str) -> None:
    for tree in trees():
        exact = gradient(tree, COSTS[name])
        assert np.abs(exact.whole - finite_differences(tree, COSTS[name])).max() < 1e-9
        assert min(np.abs(part).max() for part in (exact.local, exact.future)) > 1e-3


def test_the_gradient_of_the_length_is_that_of_finite_differences() -> None:
    tree = make_tree(3, 3, early_stop=True)
    slopes = length_gradient(tree)
    for place in np.ndindex(slopes.shape):
        moved = [tree.student.copy() for _ in range(2)]
        moved[0][place] += 1e-5
        moved[1][place] -= 1e-5
        up, down = (expected_length(replace(tree, student=m)) for m in moved)
        assert slopes[place] == pytest.approx((up - down) / 2e-5, abs=1e-9)


# ---------------------------------------------------------------- estimators


def test_later_sums_and_means_by_hand() -> None:
    costs = np.array([[1.0, 2.0, 4.0, 0.0]])
    mask = np.array([[1.0, 1.0, 1.0, 0.0]])
    assert later_sum(costs).tolist() == [[6, 4, 0, 0]]
    assert later_sum(costs, 0.5).tolist() == [[4, 4, 0, 0]]
    assert later_mean(costs, mask).tolist() == [[3, 4, 0, 0]]


def test_the_other_rollout_tells_nothing_where_either_has_ended() -> None:
    credit = np.array([[5.0, 3.0], [7.0, 0.0]])
    mask = np.array([[1.0, 1.0], [1.0, 0.0]])
    of_first, of_second = from_the_other(credit, mask)
    assert of_first.tolist() == [[5, 3], [7, 0]]
    assert of_second.tolist() == [[5, 0], [7, 0]]


def test_groups_of_two_have_the_moments_that_a_plain_loop_finds() -> None:
    tree = make_tree(2, 3, early_stop=True, seed=5)
    rollouts = enumerate_rollouts(tree)
    p, q = tree.p(), tree.teacher
    n = len(rollouts.tokens)
    cost = [[-float(q[s] @ np.log(p[s])) for s in row] for row in rollouts.states]
    lengths = rollouts.mask.sum(-1).astype(int).tolist()
    mean, square = np.zeros(p.shape), 0.0
    for i in range(n):
        for j in range(n):
            both = np.zeros(p.shape)
            chance = 1.0
            for me, other in ((i, j), (j, i)):
                for t in range(lengths[me]):
                    s, a = rollouts.states[me, t], rollouts.tokens[me, t]
                    chance *= p[s, a]
                    credit = sum(cost[me][t + 1 : lengths[me]])
                    if t < lengths[other]:
                        credit -= sum(cost[other][t + 1 : lengths[other]])
                    both[s] += (p[s] - q[s]) / 2 + credit * (np.eye(2)[a] - p[s]) / 2
            mean += chance * both
            square += chance * float((both**2).sum())
    got = moments(tree, rollouts, on_policy(tree, rollouts)["sum, baseline"])
    assert np.abs(got.mean - mean).max() < 1e-12
    assert got.variance == pytest.approx(2 * (square - float((mean**2).sum())))


def test_simulated_rollouts_have_the_variance_that_enumeration_finds() -> None:
    tree = make_tree(3, 3, early_stop=True, seed=1)
    rollouts = enumerate_rollouts(tree)
    estimator = on_policy(tree, rollouts)["sum (exact)"]
    got = moments(tree, rollouts, estimator)
    draw = np.random.default_rng(0)
    p, cost = tree.p(), forward_cross_entropy(tree.p(), tree.teacher)[0]
    found = []
    for _ in range(20000):
        g, state, path = np.zeros(p.shape), 0, []
        while state >= 0:
            token = int(draw.choice(3, p=p[state]))
            path.append((state, token))
            state = int(tree.child[state, token])
        for t, (s, a) in enumerate(path):
            later = sum(cost[later] for later, _ in path[t + 1 :])
            g[s] += p[s] - tree.teacher[s] + later * (np.eye(3)[a] - p[s])
        found.append(g)
    sample = np.stack(found)
    assert sample.var(0).sum() == pytest.approx(got.variance, rel=0.03)
    error = np.linalg.norm(sample.mean(0) - got.mean)
    assert error < 3 * np.sqrt(got.variance / len(found))


def test_an_estimator_is_overtaken_where_both_err_alike() -> None:
    biased, exact = Row(0.5, 0.9, 0.2, 2.0), Row(0.0, 1.0, 1.0, 10.0)
    n = overtaken({"a": biased, "b": exact}, "a", "b")
    assert n == 32
    assert biased.bias**2 + biased.noise / n == exact.noise / n


def test_every_estimator_of_the_table_is_there_once() -> None:
    tree = make_tree(5, 2, early_stop=True)
    rollouts = enumerate_rollouts(tree)
    names = list(stock(tree, rollouts, 2, stale(tree, 0.5, 0)))
    assert names == list(treebias.rows_of(tree, 0))
    assert len(names) == 19


# ---------------------------------------------------------------- claims: bias and variance


def test_sum_baseline_and_prefix_ratios_have_no_bias() -> None:
    assert claim("treeclaims", "are the gradient").numbers["largest error"] < 1e-9
    found = claim("treeclaims", "have no bias")
    assert found.holds
    assert found.numbers["largest relative bias"] < 1e-12


def test_the_baseline_halves_the_variance() -> None:
    found = claim("treeclaims", "lowers the variance")
    assert found.holds
    assert 0.4 < found.numbers["variance / sum's"] < 0.65


def test_endings_without_a_score_matter_only_with_a_baseline() -> None:
    assert claim("treeclaims", "Without a baseline, leaving").numbers["relative bias"] < 1e-12
    found = claim("treeclaims", "With a baseline it does").numbers
    assert 0.2 < found["relative bias"] < 0.5
    assert (
        found["variance / sum's"]
        < claim("treeclaims", "lowers the variance").numbers["variance / sum's"]
    )


def test_discounts_and_ratios_bend_the_gradient_as_much_as_the_table_says() -> None:
    discount = claim("treeclaims", "A discount below 1").numbers
    assert 0.01 < discount["bias at .9"] < 0.05 < discount["bias at .5"] < 0.25
    ratio = claim("treeclaims", "Token ratios leave").numbers
    assert ratio["no ratio"] > 3 * ratio["token"] > 0.1
    assert ratio["token <= 2"] > ratio["token"]


def test_noise_grows_with_length_for_the_sum_and_hardly_for_the_mean() -> None:
    found = claim("treeclaims", "noisier than local credit")
    assert found.holds
    assert found.numbers["sum, 8 tokens"] > 20 > found.numbers["sum, baseline, 8 tokens"]
    corrected = claim("treeclaims", "Correcting old rollouts")
    assert corrected.holds
    assert 1.1 < corrected.numbers["3 tokens"] < 1.5 < corrected.numbers["8 tokens"] < 2


def test_the_teachers_support_with_a_tail_is_the_least_biased_on_every_tree() -> None:
    found = claim("treeclaims", "teacher's top K").numbers
    assert found["share of trees"] == 1
    assert found["student's top 2, tail"] > 3 * found["teacher's top 2, tail"]
    assert claim("treeclaims", "misses what the teacher wants").holds


def test_mean_is_the_better_estimator_at_small_batches() -> None:
    found = claim("treeclaims", "errs less than `mean`")
    assert not found.holds
    assert found.numbers["sum beats mean"] > 32
    assert 16 < found.numbers["the same with baselines"] < 64


def test_published_cosines_are_ordinary_and_no_lower_limit() -> None:
    ordinary = claim("treeclaims", "are ordinary")
    assert ordinary.holds
    medians = [v for k, v in ordinary.numbers.items() if k.endswith("median")]
    assert medians == sorted(medians, reverse=True)
    limit = claim("treeclaims", "about the lowest")
    assert not limit.holds
    assert limit.numbers["5% of trees below"] < 0.6


# ---------------------------------------------------------------- claims: entropy


def test_cross_entropy_and_kl_differ_by_the_teachers_entropies_alone() -> None:
    found = claim("entropy", "one local credit")
    assert found.holds
    assert max(found.numbers.values()) < 1e-12
    assert 0.3 < claim("entropy", "no small part").numbers["share"] < 0.8


def test_the_teacher_is_not_stationary_for_the_cross_entropy_and_is_for_the_rest() -> None:
    found = claim("entropy", "equals its teacher")
    assert not found.holds
    assert found.numbers["cross-entropy"] > 0.1
    assert found.numbers["KL, reverse KL, JSD"] < 1e-12


def test_tilted_rows_solve_the_states_problem() -> None:
    draw = np.random.default_rng(0)
    q, later = softmax(draw.standard_normal((4, 5))), 3 * draw.random((4, 5))
    p = tilted(q, later)
    assert p.sum(-1) == pytest.approx(np.ones(4))
    assert (q / p - later).std(-1).max() < 1e-9  # lambda is one number a row
    value = -(q * np.log(p)).sum(-1) + (p * later).sum(-1)
    for _ in range(50):
        other = softmax(np.log(p) + 0.1 * draw.standard_normal(p.shape))
        assert (-(q * np.log(other)).sum(-1) + (other * later).sum(-1) > value).all()
    assert tilted(q, np.zeros_like(q)) == pytest.approx(q)


def test_the_optimum_is_below_every_student_near_it_and_below_the_teacher() -> None:
    tree = make_tree(3, 4, early_stop=True, seed=3)
    best = optimum(tree)
    least = objective(best, forward_cross_entropy)
    draw = np.random.default_rng(1)
    for size in (0.01, 0.1, 1.0):
        for _ in range(20):
            student = best.student + size * draw.standard_normal(best.student.shape)
            assert objective(replace(best, student=student), forward_cross_entropy) > least
    same = at_teacher(tree)
    assert objective(same, forward_cross_entropy) > least + 0.05
    assert objective(same, forward_cross_entropy) == pytest.approx(
        reach(same) @ entropy(tree.teacher)
    )


def test_the_optimum_is_shorter_and_the_less_so_the_surer_the_teacher() -> None:
    found = claim("entropy", "tilted against later cost")
    assert found.holds
    assert found.numbers["optimum's tokens"] < 0.7 * found.numbers["teacher's tokens"]
    shares = list(claim("entropy", "fades").numbers.values())
    assert shares == sorted(shares)
    assert shares[-1] > 0.95


def test_the_pull_on_length_is_that_of_a_small_step() -> None:
    tree = at_teacher(make_tree(3, 4, early_stop=True, seed=2))
    step = gradient(tree, forward_cross_entropy).whole
    after = expected_length(replace(tree, student=tree.student - 1e-6 * step))
    change = (after - expected_length(tree)) / 1e-6
    assert pulls(tree)["sum (exact)"] == pytest.approx(change, rel=1e-4)
    assert pulls(tree)["local credit only"] == pytest.approx(0, abs=1e-12)


def test_every_future_credit_shortens_where_nothing_is_left_to_learn() -> None:
    found = claim("entropy", "still shortens")
    assert found.holds
    assert max(found.numbers.values()) < 0
    assert min(found.numbers, key=lambda k: found.numbers[k]) == "sum (exact)"


def test_nothing_is_left_unsaid() -> None:
    assert [len(claims_of(s)) for s in ("treeclaims", "entropy")] == [14, 6]
