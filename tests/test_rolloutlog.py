"""rollouts.jsonl and metrics.jsonl as the trainer writes them: bounds, means, a token's choices."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import make_model
from trainertoys import generation_batch, lines, make_trainer, rows_of, teacher_texts


def test_metrics_and_rollouts_are_written(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, log_rollouts=3)
    trainer.train()
    metrics = lines(tmp_path / "metrics.jsonl")
    first = metrics[0]
    for name in (
        "distil/cost", "distil/future_credit", "distil/future_credit_max", "distil/future_share",
        "distil/agreement", "feedback/sibling", "feedback/report", "feedback/expert",
        "feedback/none", "feedback/cut", "feedback/ungraded", "teacher/entropy", "student/entropy",
        "speed/sampling_tokens_per_second", "speed/teacher_tokens_per_second",
        "speed/teacher_padding", "speed/teacher_shared",
        "speed/student_tokens_per_second", "completions/mean_length", "completions/clipped_ratio",
        "grad_norm", "reward",
    ):  # fmt: skip
        assert isinstance(first[name], float | int), name
    assert 0 <= first["distil/agreement"] <= 1
    assert 0 <= first["speed/teacher_padding"] <= 0.05
    shares = [first[f"feedback/{kind}"] for kind in ("sibling", "report", "expert", "none")]
    assert sum(shares) == pytest.approx(1)
    rollouts = lines(tmp_path / "rollouts.jsonl")
    assert [r["step"] for r in rollouts] == [1] * 8 + [2] * 8
    detailed = [r for r in rollouts if "tokens" in r]
    assert len(detailed) == 6
    tokens = detailed[0]["tokens"]
    assert len({len(values) for values in tokens.values()}) == 1
    text = "".join(t for t in tokens["text"] if t not in ("<|end|>", "<unk>", "<|start|>"))
    assert text == detailed[0]["completion"]
    assert tokens["mask"] == [1] * len(tokens["mask"])


def test_the_teacher_is_asked_once_a_batch_whatever_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = {"support": "joined", "first_error_margin": 1.0, "max_teacher_entropy": 3.0}
    trainer = make_trainer(tmp_path, log_rollouts=8, objective=objective, teacher="frozen")
    entered, scoring = [], trainer.teacher.scoring
    monkeypatch.setattr(trainer.teacher, "scoring", lambda m: entered.append(1) or scoring(m))
    trainer.train()
    assert len(entered) == trainer.state.global_step == 2


def test_logged_cost_is_the_mean_over_all_active_tokens(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=1, log_rollouts=8)
    trainer.train()
    metrics = lines(tmp_path / "metrics.jsonl")[0]
    records = [r["tokens"] for r in lines(tmp_path / "rollouts.jsonl")]
    costs = [c for r in records for c in r["cost"]]
    assert metrics["distil/cost"] == pytest.approx(sum(costs) / len(costs), abs=1e-4)


def test_the_files_of_rollouts_stay_within_their_bound(tmp_path: Path) -> None:
    """The newest steps are there, each once; the oldest are gone."""
    one = make_trainer(tmp_path / "one", max_steps=1)
    one.train()
    step = (tmp_path / "one" / "rollouts.jsonl").stat().st_size
    most = 6.5 * step
    trainer = make_trainer(tmp_path / "b", max_steps=12, rollouts_mb=most / 1e6)
    trainer.train()
    files = [tmp_path / "b" / name for name in ("rollouts-old.jsonl", "rollouts.jsonl")]
    assert sum(file.stat().st_size for file in files) <= most + 2 * step
    steps = [record["step"] for file in files for record in lines(file)]
    assert steps == sorted(steps)
    assert steps.count(12) == 8
    assert min(steps) > 3
    assert set(steps) == set(range(min(steps), 13))


@pytest.mark.parametrize(("onepass", "support"), [(True, "teacher"), (False, "student")])
def test_a_logged_token_shows_both_sides_likeliest_choices(
    tmp_path: Path, onepass: bool, support: str
) -> None:
    objective = {"support": support} | ({} if onepass else {"name": "as_released_math"})
    trainer = make_trainer(
        tmp_path, model=make_model(), feedback_order=["expert"], log_rollouts=8,
        temperature=0.8, objective=objective, teacher="live",
    )  # fmt: skip
    batch = generation_batch(trainer)
    trainer._compute_loss(trainer.model, rows_of(batch, [5, 1, 2, 7]))
    records = trainer.rollout_log._records
    assert [i for i, r in enumerate(records) if "tokens" in r] == [1, 2, 5, 7]
    decode, row = trainer.processing_class.decode, 5
    length = int(batch["completion_mask"][row].sum())
    completion = batch["completion_ids"][row, :length]

    def logps(prompt: Tensor) -> Tensor:
        logits = trainer.model(input_ids=torch.cat([prompt, completion])[None]).logits[0]
        return (logits[len(prompt) - 1 : -1] / 0.8).log_softmax(-1)

    student = logps(batch["prompt_ids"][row][batch["prompt_mask"][row] > 0])
    text = teacher_texts(trainer)[row]
    teacher = logps(torch.tensor(trainer.processing_class(text)["input_ids"]))
    assert records[row]["tokens"]["teacher_logp"] == pytest.approx(
        teacher.gather(-1, completion[:, None])[:, 0].tolist(), abs=2e-5
    )
    if support == "student":  # it says no more about the teacher than what is compared
        outside = torch.ones_like(teacher).scatter(-1, student.topk(5).indices, 0) > 0
        teacher = teacher.masked_fill(outside, -torch.inf)
    tokens = records[row]["tokens"]
    for side, expected in (("student_top", student), ("teacher_top", teacher)):
        for said, there in zip(tokens[side], expected, strict=True):
            top = there.topk(5)
            assert [text for text, _ in said] == [decode([i]) for i in top.indices]
            assert [p for _, p in said] == pytest.approx(top.values.exp().tolist(), abs=2e-5)
