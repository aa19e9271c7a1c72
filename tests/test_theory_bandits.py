"""Bandits: slopes against differences, the worked example to its digits, and the sweep's shares."""

import numpy as np
import pytest

from distil.theory import bandits, sweep
from distil.theory.divergences import (
    GEOMETRIES,
    SLOPES,
    alpha_divergence,
    change,
    direction,
    forward_cross_entropy,
    move,
    reward,
    value,
)

P, Q, R = np.array([0.1, 0.6, 0.3]), np.array([0.6, 0.1, 0.3]), np.array([1.0, 0.8, 0.0])


def pairs(count: int, arms: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    p, q = (generator.dirichlet(np.full(arms, 3.0), count) for _ in range(2))
    return p, q, generator.random((count, arms))


@pytest.mark.parametrize("name", SLOPES)
def test_slopes_are_the_derivatives_of_the_values_but_for_a_constant(name: str) -> None:
    (p,), (q,), _ = pairs(1, 5, 0)
    h = 1e-6
    found = [(value(name, q, p + h * e) - value(name, q, p - h * e)) / (2 * h) for e in np.eye(5)]
    difference = np.array(found) - SLOPES[name](q, p)
    assert np.ptp(difference) < 1e-7


@pytest.mark.parametrize("name", SLOPES)
def test_the_logit_geometry_is_plain_descent_on_the_softmax(name: str) -> None:
    (p,), (q,), _ = pairs(1, 4, 1)
    h = 1e-6
    slope = [
        (value(name, q, move(p, e, h)) - value(name, q, move(p, e, -h))) / (2 * h)
        for e in np.eye(4)
    ]
    assert direction(p, SLOPES[name](q, p), "logit") == pytest.approx(-np.array(slope), abs=1e-7)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("name", SLOPES)
def test_first_order_changes_are_those_of_tiny_full_steps(name: str, geometry: str) -> None:
    p, q, r = pairs(50, 4, 2)
    step = direction(p, SLOPES[name](q, p), geometry)  # type: ignore[arg-type]
    h = 1e-6
    moved = (reward(move(p, step, h), r) - reward(move(p, step, -h), r)) / (2 * h)
    assert change(SLOPES[name], q, p, r, geometry) == pytest.approx(moved, abs=1e-6)  # type: ignore[arg-type]


def test_the_three_arms_by_hand() -> None:
    changes = bandits.example_changes()
    assert (reward(P, R), reward(Q, R)) == (pytest.approx(0.58), pytest.approx(0.68))
    # Covariances written out: sum_a p_a (r_a - .58) x_a, with r - .58 = (.42, .22, -.58).
    assert changes["forward, policy"] == pytest.approx(0.042 * 6 + 0.132 / 6 - 0.174)
    ratio, middle = np.log(6), np.log(3.5)
    assert changes["reverse, policy"] == pytest.approx(0.042 * ratio - 0.132 * ratio)
    js = -0.5 * (0.042 * -middle + 0.132 * np.log(1.2 / 0.7))
    assert changes["js, policy"] == pytest.approx(js)
    assert changes["forward, logit"] == pytest.approx(0.042 * 0.5 - 0.132 * 0.5)
    printed = {"reverse, policy": -0.161, "js, policy": -0.0093, "forward, policy": 0.10}
    printed |= {"reverse, logit": -0.106, "js, logit": -0.0156, "forward, logit": -0.045}
    assert {k: changes[k] for k in printed} == pytest.approx(printed, abs=5e-4)


def test_the_three_trajectories_of_the_method() -> None:
    printed = {
        "reverse_kl": [0.580, 0.551, 0.656, 0.680, 0.680],
        "jensen_shannon": [0.580, 0.577, 0.593, 0.663, 0.680],
        "forward_cross_entropy": [0.580, 0.624, 0.673, 0.680, 0.680],
    }
    for name, values in printed.items():
        curve = bandits.example_trajectory(name, "policy")[list(bandits.MOMENTS)]
        assert curve == pytest.approx(values, abs=5.1e-4)


def test_with_policy_space_steps_forward_cross_entropy_gains_the_teachers_lead() -> None:
    p, q, r = pairs(2000, 7, 3)  # the teacher is worse in half of them
    lead = (q * r).sum(-1) - (p * r).sum(-1)
    assert 0.4 < (lead < 0).mean() < 0.6
    assert change(forward_cross_entropy, q, p, r, "policy") == pytest.approx(lead, abs=1e-12)
    assert bandits.lead_error(40) < 1e-12


def test_natural_steps_in_full_are_mixtures() -> None:
    assert max(bandits.mixture_error(rate) for rate in (0.1, 1.0)) < 1e-12


def test_wilson_by_its_defining_equation() -> None:
    found = sweep.wilson(7, 50)
    for end in (found.low, found.high):
        assert abs(0.14 - end) == pytest.approx(1.96 * np.sqrt(end * (1 - end) / 50), rel=1e-4)
    none = sweep.wilson(0, 100)
    assert none.low == pytest.approx(0, abs=1e-12)
    assert none.high == pytest.approx(1.96**2 / (100 + 1.96**2), rel=1e-4)


def test_the_sweeps_shares_near_the_methods() -> None:
    policy, logit = bandits.shares("policy"), bandits.shares("logit")
    # METHOD: 9.4, 5.0, 0 and 14.8, 12.5, 10.1 per cent. Ours agree within half a point.
    printed = {"reverse": 0.094, "js": 0.050, "forward": 0.0}
    assert {k: policy[k] for k in printed} == pytest.approx(printed, abs=0.005)
    printed = {"reverse": 0.148, "js": 0.125, "forward": 0.101}
    assert {k: logit[k] for k in printed} == pytest.approx(printed, abs=0.005)
    assert policy["js, low"] < policy["js"] < policy["js, high"]
    # Another seed falls within four standard errors (two independent samples).
    again = sweep.decreases(sweep.draw(20_000, seed=9), SLOPES["reverse_kl"], "policy").share
    assert abs(again - policy["reverse"]) < 4 * np.sqrt(0.1 * 0.9 * (1 / 20_000 + 1 / 100_000))


def test_every_drawn_teacher_is_better_and_every_student_a_distribution() -> None:
    b = sweep.draw(500, 4, seed=1)
    assert len(b.p) == 500
    assert (reward(b.q, b.r) > reward(b.p, b.r)).all()
    assert b.p.sum(-1) == pytest.approx(np.ones(500))


def test_alpha_divergences_meet_the_named_ones() -> None:
    p, q, _ = pairs(20, 3, 4)
    for alpha, name, factor in (
        (0, "reverse_kl", 1), (0.5, "squared_hellinger", 2), (2, "pearson_chi2", 0.5),
        (1, "forward_cross_entropy", 1),
    ):  # fmt: skip
        offset = alpha_divergence(alpha)(q, p) - factor * SLOPES[name](q, p)
        assert np.ptp(offset) < 1e-9
    found = bandits.alpha_shares("policy")
    assert [a for a, share in found.items() if share == 0] == [1.0]


def test_worst_rewards_solve_the_linear_programme() -> None:
    generator = np.random.default_rng(5)
    p, q = (generator.dirichlet(np.ones(3), 20) for _ in range(2))
    gap = q - p
    effect = generator.standard_normal((20, 3))
    values, at = sweep.worst_rewards(effect, gap, 0.05)
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 41)] * 3), -1).reshape(-1, 3)
    for i in range(20):
        allowed = grid[grid @ gap[i] >= 0.05]
        if not len(allowed):
            continue
        assert values[i] <= (allowed @ effect[i]).min() + 1e-12
        assert values[i] > (allowed @ effect[i]).min() - 0.2
        assert at[i] @ gap[i] >= 0.05 - 1e-9
        assert at[i] @ effect[i] == pytest.approx(values[i])
    impossible, _ = sweep.worst_rewards(effect, 0 * gap, 0.05)
    assert np.isinf(impossible).all()


@pytest.mark.parametrize("name", SLOPES)
def test_the_search_finds_a_fall_for_all_but_forward(name: str) -> None:
    worst = sweep.search(SLOPES[name], "policy")
    step = direction(worst.p, SLOPES[name](worst.q, worst.p), "policy")
    length = np.sqrt(worst.p @ step**2)
    moved = reward(move(worst.p, step, 1e-6), worst.r) - reward(worst.p, worst.r)
    assert moved / 1e-6 / length == pytest.approx(worst.change, abs=1e-4)
    assert reward(worst.q, worst.r) - reward(worst.p, worst.r) == pytest.approx(worst.better_by)
    assert worst.better_by >= 0.1 - 1e-9
    assert (worst.change > 0) == (name == "forward_cross_entropy")


def test_with_one_right_arm_only_chi_squared_falls_and_with_two_it_does_not() -> None:
    for arms in (3, 10):
        one = bandits.graded_shares(arms, 1, 20_000)
        assert [name for name, share in one.items() if share > 0] == ["chi2"]
    b = sweep.draw(100, 4, right=2)
    assert (b.r == [1, 1, 0, 0]).all()
    pair = bandits.graded_shares(3, 2, 20_000)
    assert pair["forward"] == pair["chi2"] == 0 < min(pair["reverse"], pair["js"])


def test_a_class_with_all_parameters_is_the_policy_space() -> None:
    b = sweep.draw(2000, 4)
    assert sweep.decreases_in_a_class(b, 3).share == 0
    assert sweep.decreases_in_a_class(b, 1).low > 0.2


def test_overshooting_and_clipping_break_it_and_small_steps_mend_only_the_first() -> None:
    b = bandits.bandits()
    full = [sweep.decreases_in_full(b, rate).share for rate in (2.0, 0.05, 0.01)]
    assert full[0] > full[1] > full[2] > 0
    scaled = [sweep.decreases_when_scaled(b, cap).share for cap in (0.5, 0.05, 0.001)]
    assert scaled[0] > 10 * scaled[1] > 0 < 1e-4 > scaled[2]
    assert sweep.decreases_when_clipped(b, 1.0).low > 0.05  # to first order: at any rate
    assert sweep.decreases_when_clipped(b, 1e9).share == 0


def test_two_arms_never_fall() -> None:
    found = bandits.two_arms(5_000)
    assert found["to first order"] == found["in full, rate 0.5"] == 0


def test_every_claim_of_the_section_comes_out_as_the_docs_say() -> None:
    verdicts = [c.holds for c in bandits.claims()]
    assert verdicts == [True] * 9 + [False] * 5
