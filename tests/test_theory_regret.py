"""The local-only trap, learners' regret, cloning's errors: each against another computation."""

import numpy as np
import pytest

from distil.theory.claims import Claim
from distil.theory.cloning import (
    EPSILON,
    HORIZONS,
    by_formula,
    clone,
    dagger,
    errors,
    off_path,
)
from distil.theory.costs import forward_cross_entropy, forward_kl, softmax
from distil.theory.estimators import enumerate_rollouts, probability_of_tokens
from distil.theory.regret import (
    FLOOR,
    best_in_class,
    descend,
    follow_the_leader,
    loss,
    make_game,
    mirror_descent,
    rate,
)
from distil.theory.trap import (
    BOLD,
    KEYS,
    SAFE,
    gradients,
    look,
    problem,
    reward,
    student_at,
    train,
    with_future,
)
from distil.theory.trees import gradient, objective
from theoryclaims import claim

# ---------------------------------------------------------------- the trap


def mean_objective(student: np.ndarray) -> float:
    return float(np.mean([objective(t, forward_cross_entropy) for t in problem(student)]))


def test_both_gradients_vanish_where_they_should_and_only_there() -> None:
    local, whole = look(student_at(BOLD)), look(student_at(with_future()))
    assert local.local < 1e-15 < 0.1 < local.whole
    assert whole.whole < 1e-12 < 0.05 < whole.local
    assert (local.door, whole.door) == pytest.approx((0.9, 0.5581), abs=1e-4)


def test_the_stationary_point_with_future_credit_is_the_least_objective_of_all_doors() -> None:
    doors = np.linspace(0.001, 0.999, 999)
    values = [mean_objective(student_at(x)) for x in doors]
    assert doors[int(np.argmin(values))] == pytest.approx(with_future(), abs=1e-3)


def test_the_traps_gradient_is_that_of_finite_differences() -> None:
    student = np.random.default_rng(2).standard_normal((KEYS, KEYS))
    _, whole = gradients(student)
    for place in np.ndindex(student.shape):
        moved = [student.copy() for _ in range(2)]
        moved[0][place] += 1e-5
        moved[1][place] -= 1e-5
        slope = (mean_objective(moved[0]) - mean_objective(moved[1])) / 2e-5
        assert whole[place] == pytest.approx(slope, abs=1e-8)


def test_the_reward_is_the_mean_over_keys_and_rollouts() -> None:
    student = np.random.default_rng(3).standard_normal((KEYS, KEYS))
    total = 0.0
    for key, tree in enumerate(problem(student)):
        rollouts = enumerate_rollouts(tree)
        chance = probability_of_tokens(rollouts, softmax(student)).prod(-1)
        out = rollouts.mask.sum(-1) == 1
        total += chance @ np.where(out, SAFE, rollouts.tokens[:, 1] == key) / KEYS
    assert reward(student) == pytest.approx(total)


def test_local_credit_alone_ends_at_the_lower_reward() -> None:
    found = claim("trap", "stands still at a worse objective")
    assert found.holds
    assert found.numbers["reward"] == pytest.approx(0.9 / 4 + 0.1 * SAFE)
    assert found.numbers["both: reward"] - found.numbers["reward"] > 0.15
    assert claim("trap", "ends there").holds
    start = np.random.default_rng(7).standard_normal((KEYS, KEYS))
    ends = [look(train(start, future=f, steps=600)[-1]).door for f in (False, True)]
    assert ends == pytest.approx([BOLD, with_future()], abs=1e-5)


def test_with_forward_kl_the_trap_is_the_same() -> None:
    student = np.random.default_rng(4).standard_normal((KEYS, KEYS))
    for tree in problem(student):
        found = [gradient(tree, cost).whole for cost in (forward_cross_entropy, forward_kl)]
        assert np.abs(found[0] - found[1]).max() < 1e-12


def test_the_trap_can_be_turned_round() -> None:
    found = claim("trap", "never lowers the reward")
    assert not found.holds
    assert found.numbers["local: reward"] > found.numbers["both: reward"] + 0.1


# ---------------------------------------------------------------- regret


def test_nobody_in_the_class_beats_its_best() -> None:
    draw = np.random.default_rng(0)
    weights = draw.random((3, 4)) ** 4  # some are next to nothing: the floor binds
    best = best_in_class(weights)
    assert best.sum(-1) == pytest.approx(np.ones(3))
    assert best.min() == pytest.approx(FLOOR)
    for size in (0.01, 0.3, 2.0):
        for _ in range(100):
            x = softmax(np.log(best) + size * draw.standard_normal(best.shape))
            other = FLOOR + (1 - 4 * FLOOR) * x
            assert loss(weights, other) >= loss(weights, best)
    free = np.array([[1.0, 2.0, 5.0]])
    assert best_in_class(free) == pytest.approx(free / 8)
    assert best_in_class(np.zeros((1, 4))) == pytest.approx(np.full((1, 4), 0.25))


def test_a_rounds_loss_is_the_methods_objective() -> None:
    game = make_game(seed=3)
    policy = softmax(np.random.default_rng(1).standard_normal(game.shape))
    expected = objective(game.play(policy), forward_cross_entropy)
    assert loss(game.weights(policy), policy) == pytest.approx(expected)
    assert sorted(set(game.seen.tolist())) == list(range(game.shape[0]))


@pytest.mark.parametrize("learn", [follow_the_leader, mirror_descent])
def test_regret_is_what_was_paid_beyond_the_best_in_hindsight(learn: object) -> None:
    game = make_game(seed=1)
    found = learn(game, 30)  # type: ignore[operator]
    weights = [game.weights(r.policy) for r in found]
    paid = sum(loss(w, r.policy) for w, r in zip(weights, found, strict=True))
    best = best_in_class(sum(weights))
    hindsight = sum(loss(w, best) for w in weights)
    assert found[-1].regret == pytest.approx((paid - hindsight) / 30)
    assert all((r.policy > FLOOR - 1e-12).all() for r in found)


def test_a_fitted_rate_is_the_slope_of_a_power() -> None:
    found = follow_the_leader(make_game(), 400)
    n = np.arange(1, 401)
    regrets = np.array([r.regret for r in found])
    ends = np.log(regrets[399] / regrets[19]) / np.log(n[399] / n[19])
    assert rate(found) == pytest.approx(ends, abs=0.02)


def test_average_regret_goes_to_zero_at_the_claimed_rates() -> None:
    leader = claim("regret", "Follow the leader")
    assert leader.holds
    assert leader.numbers["rate"] == pytest.approx(-1, abs=0.1)
    mirror = claim("regret", "mirror descent")
    assert mirror.holds
    assert -1.1 < mirror.numbers["rate"] < -0.5
    assert mirror.numbers["largest regret / bound"] < 1


def test_no_regret_is_not_the_least_objective() -> None:
    found = claim("regret", "least objective")
    assert not found.holds
    assert found.numbers["smallest gap"] > 0.1
    game = make_game()
    end = objective(game.play(follow_the_leader(game)[-1].policy), forward_cross_entropy)
    assert objective(game.play(descend(game)), forward_cross_entropy) < end - 0.1


# ---------------------------------------------------------------- cloning


@pytest.mark.parametrize("way_back", [True, False])
def test_steps_off_the_path_are_those_of_the_formula(way_back: bool) -> None:
    for horizon in HORIZONS:
        for policy in (clone(horizon), dagger(horizon)):
            back = policy[1, 1] if way_back else 0.0
            expected = by_formula(policy[0, 1], back, horizon)
            assert off_path(policy, horizon, way_back=way_back) == pytest.approx(expected)


def test_steps_off_the_path_are_those_of_simulated_walks() -> None:
    policy, horizon, walks = clone(256), 256, 20000
    draw = np.random.default_rng(0)
    off, steps = np.zeros(walks, dtype=bool), np.zeros(walks)
    for _ in range(horizon):
        steps += off
        off ^= draw.random(walks) < np.where(off, policy[1, 1], policy[0, 1])
    error = steps.std() / np.sqrt(walks)
    assert abs(steps.mean() - off_path(policy, horizon)) < 4 * error


def test_cloning_and_dagger_are_alike_where_the_teacher_goes_and_only_there() -> None:
    cloned, corrected = clone(64), dagger(64)
    assert cloned[0] == pytest.approx(corrected[0])
    assert cloned[0] == pytest.approx([1 - EPSILON, EPSILON])
    assert cloned[1, 1] == EPSILON
    assert corrected[1, 1] == pytest.approx(1 - EPSILON)


def exponents(found: Claim) -> list[float]:
    return [v for k, v in found.numbers.items() if "exponent" in k]


def test_cloning_is_quadratic_and_dagger_linear_where_mistakes_can_be_mended() -> None:
    found = claim("cloning", "square of the horizon")
    assert found.holds
    assert exponents(found) == pytest.approx([2, 1], abs=0.06)
    assert errors(cloned=True).steps[-1] > 100 * errors(cloned=False).steps[-1]
    lost = claim("cloning", "whatever the problem")
    assert not lost.holds
    assert exponents(lost) == pytest.approx([2], abs=0.06)
