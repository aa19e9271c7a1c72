"""Published settings: the recipe each preset makes, and each one's loss by hand, token by token."""

from math import exp, log
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distil.cli import main
from distil.config import Recipe
from distil.errors import RecipeError
from distil.recipe.checks import check_recipe
from distil.recipe.presets import PRESETS, merged
from distil.recipe.recipefile import load_recipe, recipe_from
from trainertoys import generation_batch, make_trainer, teacher_texts

TOP = 4
Row = list[list[float]]


def recipe(name: str) -> Recipe:
    return check_recipe(recipe_from({"preset": name}))


# METHOD's table: learning rate, warm-up, updates a batch, rollouts, top-K, teacher, feedback.
TABLE = {
    "distil-science": (5e-5, 10, 1, (32, 8), 100, ("ema", 0.01), ("sibling",)),
    "sdpo-science": (1e-5, 10, 1, (32, 8), 100, ("ema", 0.05), ("sibling",)),
    "distil-coding": (1e-6, 0, 32, (32, 8), 20, ("ema", 0.01), ("sibling", "report")),
    "sdpo-coding": (1e-6, 0, 32, (32, 8), 20, ("ema", 0.01), ("sibling", "report")),
    "as-released-science": (5e-5, 10, 1, (32, 8), 100, ("ema", 0.01), ("sibling",)),
    "distil-math": (5e-6, 0, 1, (32, 1), 100, ("frozen", 0.01), ("expert",)),
    "opsd-math": (5e-6, 0, 1, (32, 1), 100, ("frozen", 0.01), ("expert",)),
    "as-released-math": (5e-6, 0, 1, (32, 1), 100, ("frozen", 0.01), ("expert",)),
}


@pytest.mark.parametrize("name", TABLE)
def test_settings_are_those_of_the_published_table(name: str) -> None:
    r = recipe(name)
    assert (
        r.train.learning_rate,
        r.train.warmup_steps,
        r.train.updates_per_batch,
        (r.rollout.prompts_per_step, r.rollout.num_generations),
        r.objective.top_k,
        (r.teacher.kind, r.teacher.ema_rate),
        r.feedback.order,
    ) == TABLE[name]


def test_grpo_presets_have_no_std_normalisation_and_their_updates() -> None:
    off, on = recipe("grpo-off-policy"), recipe("grpo-on-policy")
    assert (off.train.learning_rate, off.train.updates_per_batch) == (1e-6, 4)
    assert (on.train.learning_rate, on.train.updates_per_batch) == (1e-5, 1)
    for r in (off, on):
        assert (r.objective.name, r.objective.scale_rewards) == ("grpo", "none")
        assert (r.train.warmup_steps, r.rollout.prompts_per_step) == (10, 32)


def test_mathematics_presets_train_a_large_adapter_with_little_clipping() -> None:
    for name in ("distil-math", "opsd-math", "as-released-math"):
        r = recipe(name)
        assert (r.model.lora.rank, r.model.lora.alpha) == (64, 128)
        assert (r.train.max_grad_norm, r.train.steps, r.rollout.temperature) == (0.1, 100, 0.7)
        assert r.rollout.max_completion_length == 16_384
    # Future credit needs whole samples; the others keep the published cut.
    assert (recipe("distil-math").rollout.top_p, recipe("distil-math").rollout.top_k) == (1.0, 0)
    assert (recipe("opsd-math").rollout.top_p, recipe("opsd-math").rollout.top_k) == (0.95, 20)


def test_a_file_overrides_its_preset_and_the_flag_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("preset: sdpo-science\ntrain: {learning_rate: 0.25}\n")
    assert load_recipe(file).train.learning_rate == 0.25
    assert load_recipe(file).objective.name == "jensen_shannon"
    other = load_recipe(file, "grpo-on-policy")
    assert (other.train.learning_rate, other.objective.name) == (1e-5, "grpo")


def test_an_unknown_preset_lists_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RecipeError, match=r"Perhaps you meant 'sdpo-science'.* Known: distil-sci"):
        recipe("sdpo-scince")
    (tmp_path / "r.yaml").write_text("preset: nothing\n")
    assert main(["train", str(tmp_path / "r.yaml")]) == 2
    assert "There is no preset 'nothing'" in capsys.readouterr().err


def test_merging_keeps_what_is_not_overridden_and_changes_neither_side() -> None:
    below = {"a": {"b": 1, "c": 2}, "d": [1]}
    assert merged(below, {"a": {"c": 3}, "d": [2]}) == {"a": {"b": 1, "c": 3}, "d": [2]}
    assert below == {"a": {"b": 1, "c": 2}, "d": [1]}


# ---------------------------------------------------------------- losses by hand


def full_logps(trainer: Any, prompt: Tensor, completion: Tensor) -> Row:
    """Log-probabilities of the whole vocabulary at each completion token, as plain floats."""
    ids = torch.cat([prompt, completion])[None]
    with torch.no_grad():
        logits = trainer.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double()
    return (logits / trainer.temperature).log_softmax(-1).tolist()


def largest(logps: list[float]) -> list[int]:
    return sorted(range(len(logps)), key=lambda a: -logps[a])[:TOP]


def with_tail(logps: list[float], support: list[int]) -> list[float]:
    chosen = [logps[a] for a in support]
    return [*chosen, log(1 - sum(map(exp, chosen)))]


def cross_entropy(p: list[float], q: list[float]) -> float:
    return -sum(exp(b) * a for a, b in zip(p, q, strict=True))


def kl(p: list[float], q: list[float]) -> float:
    return sum(exp(a) * (a - b) for a, b in zip(p, q, strict=True))


def jensen_shannon(p: list[float], q: list[float]) -> float:
    middle = [log((exp(a) + exp(b)) / 2) for a, b in zip(p, q, strict=True)]
    return (kl(p, middle) + kl(q, middle)) / 2


class Case:
    """One generation batch of the toy model under a preset's objective, as plain numbers."""

    def __init__(self, name: str, folder: Path, *, stale: bool = False) -> None:
        objective = PRESETS[name]["objective"] | {"top_k": TOP}
        expert_only_first = name == "as-released-science"
        self.trainer = make_trainer(
            folder, objective=objective, feedback_order=["expert"],
            feedback_funcs=first_prompt_only if expert_only_first else every_prompt,
        )  # fmt: skip
        self.batch = generation_batch(self.trainer)
        if stale:  # as if the rollouts were an older policy's
            shift = torch.tensor([1.5, -1.5, 0.2, 1.0, -0.4, 0.0])
            shift = shift.expand_as(self.batch["completion_ids"])
            scores = self.trainer.builder.score_student(self.trainer.model, self.batch)
            self.batch["old_logps"] = scores.sampled_logps.detach() - shift
            self.shift = shift.tolist()
        self.ids = [
            ids[: int(mask.sum())].tolist()
            for ids, mask in zip(
                self.batch["completion_ids"], self.batch["completion_mask"], strict=True
            )
        ]
        self.student, self.teacher = self.both_sides()
        self.loss = self.trainer._compute_loss(self.trainer.model, self.batch).item()

    def both_sides(self) -> tuple[list[Row], list[Row | None]]:
        students, teachers = [], []
        records = self.trainer.rollout_log._records
        texts = teacher_texts(self.trainer) if all(r["teacher_prompt"] for r in records) else None
        for row, ids in enumerate(self.ids):
            completion = torch.tensor(ids)
            prompt = self.batch["prompt_ids"][row][self.batch["prompt_mask"][row] > 0]
            students.append(full_logps(self.trainer, prompt, completion))
            if records[row]["teacher_prompt"] is None:
                teachers.append(None)
                continue
            text = (
                texts[row]
                if texts
                else self.trainer.processing_class.apply_chat_template(
                    records[row]["teacher_prompt"], tokenize=False, add_generation_prompt=True
                )
            )
            encoded = torch.tensor(self.trainer.processing_class(text)["input_ids"])
            teachers.append(full_logps(self.trainer, encoded, completion))
        return students, teachers

    def costs(self, cost: Any, support: Any) -> list[list[float]]:
        """Each active row's costs over supports with a tail."""
        found = []
        for ps, qs in zip(self.student, self.teacher, strict=True):
            if qs is None:
                found.append([])
                continue
            tokens = [(p, q, support(p, q)) for p, q in zip(ps, qs, strict=True)]
            found.append([cost(with_tail(p, s), with_tail(q, s)) for p, q, s in tokens])
        return found

    def logp(self, row: int, t: int) -> float:
        return self.student[row][t][self.ids[row][t]]


def first_prompt_only(answer: list[str], **columns: Any) -> list[Any]:
    from distil import Feedback

    return [Feedback(demonstration="one") if a == "1" else None for a in answer]


def every_prompt(answer: list[str], **columns: Any) -> list[Any]:
    from distil import Feedback

    return [Feedback(demonstration=f"the answer is {a}") for a in answer]


def mean_later(costs: list[float], t: int) -> float:
    later = costs[t + 1 :]
    return sum(later) / max(len(later), 1)


@pytest.mark.parametrize("name", ["distil-science", "distil-coding", "distil-math"])
def test_distil_presets_by_hand(name: str, tmp_path: Path) -> None:
    case = Case(name, tmp_path)
    costs = case.costs(cross_entropy, lambda p, q: largest(q))
    credits = [[mean_later(row, t) for t in range(len(row))] for row in costs]
    total = 0.0
    for row, own in enumerate(costs):
        group = range(4 * (row // 4), 4 * (row // 4) + 4)
        for t, c in enumerate(own):
            others = [credits[i][t] for i in group if i != row and t < len(credits[i])]
            baseline = sum(others) / len(others) if others else 0.0
            total += c + case.logp(row, t) * (credits[row][t] - baseline)
    assert case.loss == pytest.approx(total / sum(map(len, costs)), rel=1e-4)


@pytest.mark.parametrize(("name", "cost"), [("sdpo-science", jensen_shannon), ("sdpo-coding", kl)])
def test_sdpo_presets_by_hand(name: str, cost: Any, tmp_path: Path) -> None:
    case = Case(name, tmp_path)
    costs = case.costs(cost, lambda p, q: largest(p))
    assert case.loss == pytest.approx(
        sum(map(sum, costs)) / sum(map(len, costs)), rel=1e-3, abs=1e-6
    )


def test_opsd_preset_by_hand(tmp_path: Path) -> None:
    case = Case("opsd-math", tmp_path)
    costs = case.costs(jensen_shannon, lambda p, q: sorted({*largest(p), *largest(q)}))
    assert case.loss == pytest.approx(
        sum(map(sum, costs)) / sum(map(len, costs)), rel=1e-3, abs=1e-6
    )


def test_as_released_science_by_hand(tmp_path: Path) -> None:
    """Student's support, mean scaling, no baseline, whole-token ratio cut at 2, mean of means."""
    case = Case("as-released-science", tmp_path, stale=True)
    costs = case.costs(cross_entropy, lambda p, q: largest(p))
    assert [bool(c) for c in costs] == [True] * 4 + [False] * 4  # masked rows count as 0
    ratios = [[min(exp(s), 2.0) for s in row] for row in case.shift]
    assert any(len(own) > 1 for own in costs)  # a cut ratio (e^1.5) and one below 1 are in it
    total = 0.0
    for row, own in enumerate(costs):
        values = [
            ratios[row][t] * (c + case.logp(row, t) * mean_later(own, t)) for t, c in enumerate(own)
        ]
        total += sum(values) / max(len(values), 1)
    # The loss is this micro-batch's share of one update, which is the whole batch here.
    assert case.loss == pytest.approx(total / len(costs), rel=1e-4)


def test_as_released_mathematics_by_hand(tmp_path: Path) -> None:
    """Teacher's top-K rescaled, clamp at .05, padding in the sums, no score function."""
    case = Case("as-released-math", tmp_path)
    batch, clamp = case.batch, 0.05
    scores = case.trainer.builder.score_student(case.trainer.model, batch)
    for row, (ps, qs) in enumerate(zip(case.student, case.teacher, strict=True)):
        for t, (p, q) in enumerate(zip(ps, qs, strict=True)):
            support = largest(q)
            zp, zq = (log(sum(exp(x[a]) for a in support)) for x in (p, q))
            by_hand = -sum(exp(q[a] - zq) * (p[a] - zp) for a in support)
            assert scores.cost[row, t].item() == pytest.approx(by_hand, rel=1e-4)
    # What padding costs is read off the scores: it is there, and it is what the code's sums hold.
    costs = [[min(c, clamp) for c in row] for row in scores.cost.tolist()]
    total = 0.0
    for row, own in enumerate(costs):
        length = len(case.ids[row])
        for t in range(length):
            total += own[t] * (1 + sum(own[t + 1 :]) / max(length - 1 - t, 1))
    assert case.loss == pytest.approx(total / sum(map(len, case.ids)), rel=1e-4)
    shortest = min(range(8), key=lambda r: len(case.ids[r]))
    assert len(costs[shortest]) > len(case.ids[shortest])  # there is padding to enter the sum
    assert sum(costs[shortest][len(case.ids[shortest]) :]) > 0


@pytest.mark.parametrize("name", ["grpo-off-policy", "grpo-on-policy"])
def test_grpo_presets_by_hand(name: str, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, objective=PRESETS[name]["objective"])
    batch = generation_batch(trainer)
    rewards = [r["reward"] for r in trainer.rollout_log._records]
    lengths = batch["completion_mask"].sum(1).tolist()
    loss = trainer._compute_loss(trainer.model, batch).item()
    means = [sum(rewards[g : g + 4]) / 4 for g in (0, 4)]
    advantages = [r - means[i // 4] for i, r in enumerate(rewards)]  # no division by their spread
    assert any(advantages)
    by_hand = -sum(a * n for a, n in zip(advantages, lengths, strict=True)) / sum(lengths)
    assert loss == pytest.approx(by_hand, rel=1e-4, abs=1e-7)
