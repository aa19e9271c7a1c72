"""Wrong teachers: ends against closed forms, gates against sampling, and the claims."""

import numpy as np
import pytest

from distil.theory import following, teachers, trained, wrong_teachers
from distil.theory.divergences import reward
from distil.theory.following import ENTROPY_GATE, NO_GATE, REWARD_GATE, Gate


def small(seed: int = 5) -> teachers.World:
    return teachers.world(12, 4, seed)


def test_teachers_are_distributions_and_chances_add_up() -> None:
    world = small()
    for kind in teachers.LEVELS:
        t = teachers.corrupted(world, kind)
        assert t.q.sum(-1) == pytest.approx(np.ones(t.q.shape[:-1]))
        assert t.w.sum(-1) == pytest.approx(np.ones(t.w.shape[:-1]))
        assert t.w.min() >= 0
        assert set(np.unique(t.demonstrations)) == {0.0, 1.0}


def test_levels_mean_what_they_say() -> None:
    world = small()
    scattered = teachers.corrupted(world, "scattered")
    right = (scattered.w * (scattered.demonstrations * world.r[:, None]).sum(-1)).sum(-1)
    assert right == pytest.approx(np.tile(1 - np.array(scattered.levels)[:, None], (1, 12)))
    systematic = teachers.corrupted(world, "systematic")
    named = (systematic.w[..., None] * systematic.demonstrations).sum(-2)
    half = systematic.levels.index(0.5)
    assert (named[half] * world.r).sum() == pytest.approx(6)
    assert (world.right != world.wrong).all()
    noise = teachers.corrupted(world, "noise")
    assert noise.q[-1] == pytest.approx(np.full((12, 1, 4), 0.25))
    worse = reward(teachers.corrupted(world, "worse").q[..., 0, :], world.r)
    assert (np.diff(worse, axis=0) < 0).all()
    same = list(teachers.corrupted(world, "worse").levels).index(teachers.TRUST)
    assert worse[same] == pytest.approx(reward(world.p, world.r))


@pytest.mark.parametrize("kind", ["logits", "scattered", "systematic"])
def test_ends_are_the_arithmetic_and_the_geometric_mean(kind: teachers.Corruption) -> None:
    world = small()
    t = teachers.corrupted(world, kind)
    mean = sum(t.w[:, :, f, None] * t.q[:, :, f] for f in range(t.q.shape[2]))
    product = np.prod(t.q ** t.w[..., None], axis=2)
    ends = {
        "forward_cross_entropy": mean,
        "reverse_kl": product / product.sum(-1, keepdims=True),
    }
    for objective, end in ends.items():
        found = following.follow(world, t, objective, steps=250)  # type: ignore[arg-type]
        assert found.reward == pytest.approx((end * world.r).sum(-1), abs=1e-6)


def test_sft_learns_the_demonstrations_and_grpo_the_reward() -> None:
    world = small()
    t = teachers.corrupted(world, "scattered")
    sft = following.follow(world, t, "sft", steps=250).mean()
    assert sft == pytest.approx(1 - np.array(t.levels), abs=1e-4)
    assert following.follow(world, t, "grpo").mean().min() > 0.99


def test_the_chance_of_passing_by_sampling() -> None:
    generator = np.random.default_rng(0)
    for probes, group, teacher, student in ((2, 8, 0.6, 0.4), (4, 4, 0.3, 0.3)):
        ours = generator.binomial(probes, teacher, 100_000) / probes
        theirs = generator.binomial(group, student, 100_000) / group
        found = following.chance_of_passing(np.array(teacher), np.array(student), probes, group)
        assert float(found) == pytest.approx((ours > theirs).mean(), abs=0.006)


def test_gates_open_by_their_rules() -> None:
    p, r = np.array([[[0.5, 0.5]]]), np.array([[1.0, 0.0]])
    q = np.array([[[[0.9, 0.1], [0.5001, 0.4999], [0.01, 0.99]]]])
    w = np.array([[[0.2, 0.2, 0.6]]])  # the mean of the teachers: 0.286, below the student's
    assert following.opened(NO_GATE, q, w, p, r).tolist() == [1]
    assert following.opened(Gate("entropy", maximum=0.5), q, w, p, r).tolist() == [[[1, 0, 1]]]
    assert following.opened(REWARD_GATE, q, w, p, r).tolist() == [[[1, 1, 0]]]
    assert following.opened(Gate("reward", each=False), q, w, p, r).tolist() == [[[0]]]


def test_a_reward_gate_never_lets_the_forward_cross_entropy_fall() -> None:
    world = small(8)
    for kind in teachers.LEVELS:
        t = teachers.corrupted(world, kind)
        gated = following.follow(world, t, "forward_cross_entropy", REWARD_GATE)
        assert gated.lowest.min() > -1e-12
        assert (gated.reward > reward(world.p, world.r) - 1e-9).all()
    free = following.follow(world, t, "forward_cross_entropy")
    assert free.lowest.min() < -0.1


def test_the_findings_stand_for_another_draw_of_prompts() -> None:
    world = teachers.world(100, seed=77)
    t = teachers.corrupted(world, "scattered")
    half = t.levels.index(0.5)

    def end(objective: following.Objective, gate: Gate = NO_GATE) -> float:
        return float(following.follow(world, t, objective, gate).mean()[half])

    forward = end("forward_cross_entropy")
    assert forward == pytest.approx(0.51, abs=0.04)
    assert min(end("reverse_kl"), end("jensen_shannon")) > forward + 0.08
    assert end("forward_cross_entropy", ENTROPY_GATE) < forward + 0.08
    assert end("forward_cross_entropy", REWARD_GATE) > 0.9
    assert end("forward_cross_entropy", trained.SAMPLED_PROMPT_GATE) < forward + 0.01
    assert end("forward+grpo", trained.SAMPLED_PROMPT_GATE) > 0.95


def test_half_widths_cover_the_mean_of_other_draws() -> None:
    outcome = trained.outcome("scattered", "reverse_kl")
    other = teachers.world(100, seed=78)
    found = following.follow(other, teachers.corrupted(other, "scattered"), "reverse_kl")
    spread = np.sqrt(outcome.half_width() ** 2 + found.half_width() ** 2)
    assert (np.abs(outcome.mean() - found.mean()) < 2 * spread + 1e-9).all()


def test_break_even_is_where_the_end_meets_the_start() -> None:
    found = trained.outcome("systematic", "forward_cross_entropy")
    level = trained.break_even("systematic", found)
    teachers_mean, levels = found.mean(), trained.taught("systematic").levels
    assert np.interp(level, levels, teachers_mean) == pytest.approx(trained.start(), abs=1e-6)
    assert np.isnan(trained.break_even("systematic", trained.outcome("systematic", "grpo")))


def test_every_claim_of_the_section_comes_out_as_the_docs_say() -> None:
    verdicts = [c.holds for c in wrong_teachers.claims()]
    ends = [True, True, False, True, False, True]
    gates = [True, False, True, True, False]
    assert verdicts == [*ends, *gates, False, True, True]
