"""The teacher's own answers: sampled, graded, compared with the student's, and made a gate."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import make_model
from distil import Feedback
from distil.errors import RecipeError
from distil.objectives import better_teacher
from distil.trainer.probe import chosen_rows, group_rates, sample, stream_of_its_own
from trainertoys import make_trainer

NAN = float("nan")


def test_rates_are_shares_of_graded_rows() -> None:
    rewards = torch.tensor([1.0, 0.0, NAN, 0.6, NAN, NAN, NAN, NAN])
    rates = group_rates(rewards, 0.5, 4)
    assert rates[:4].tolist() == pytest.approx([2 / 3] * 4)
    assert rates[4:].isnan().all()


def test_a_teacher_counts_where_it_is_better_or_unknown() -> None:
    teacher = torch.tensor([0.5, 0.5, 0.5, NAN, 1.0])
    student = torch.tensor([0.4, 0.5, 0.6, 0.9, 1.0])
    assert better_teacher(teacher, student).tolist() == [1, 0, 0, 1, 0]


def test_samples_are_what_generate_writes_up_to_their_end_and_padding_changes_nothing() -> None:
    model = make_model()
    short, long = [1, 20, 30], [1, 20, 30, 40, 50, 60]

    def greedy(prompt: list[int]) -> list[int]:
        out = model.generate(
            input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)).long(),
            do_sample=False, max_new_tokens=8, pad_token_id=2,
        )  # fmt: skip
        ids = out[0, len(prompt) :].tolist()
        ends = [i for i, t in enumerate(ids) if t in model.generation_config.eos_token_id]
        return ids[: ends[0] + 1] if ends else ids

    cold = {"max_new_tokens": 8, "temperature": 1e-4, "pad_token_id": 2}
    assert sample(model, [short, long], **cold) == [greedy(short), greedy(long)]


def test_teacher_samples_are_graded_and_logged(tmp_path: Path) -> None:
    """A reward that every answer gets: the teacher always succeeds, as the student does."""

    def everything(completions: list[Any], **columns: Any) -> list[float]:
        return [1.0] * len(completions)

    graded: list[int] = []

    def counted(completions: list[Any], **columns: Any) -> list[float]:
        graded.append(len(completions))
        return everything(completions)

    trainer = make_trainer(tmp_path, teacher_samples=3, reward_funcs=counted)
    trainer.train()
    assert graded[:2] == [8, 6]  # three for each of two prompts
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert log["teacher/success"] == 1.0
    assert 1 <= log["teacher/mean_length"] <= 6
    assert log["teacher/better"] == 0.0
    assert log["distil/weight"] == 1.0  # without the gate it's only a metric


def test_the_gate_leaves_out_prompts_where_the_teacher_is_no_better(tmp_path: Path) -> None:
    """Teachers' completions are told apart by who asks: only the first prompt's teacher wins."""
    calls: list[int] = []

    def reward(completions: list[Any], answer: list[str], **columns: Any) -> list[float]:
        calls.append(len(completions))
        if len(completions) == 8:  # the student's rollouts
            return [0.0] * 8
        return [float(a == answer[0]) for a in answer]

    def solution(answer: list[str], **columns: Any) -> list[Feedback]:
        return [Feedback(demonstration=a) for a in answer]

    trainer = make_trainer(
        tmp_path, teacher_samples=2, teacher_gate=True, reward_funcs=reward,
        feedback_funcs=solution, max_steps=1, objective={"name": "forward_kl"},
    )  # fmt: skip
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert calls == [8, 4]
    assert log["teacher/success"] == 0.5
    assert log["teacher/better"] == 0.5
    assert 0 < log["distil/weight"] < 1


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_rows_are_chosen_among_those_that_have_a_teacher(samples: int) -> None:
    every = chosen_rows([True] * 8, samples, 4)
    assert every == {1: [0, 4], 2: [0, 2, 4, 6], 3: [0, 2, 3, 4, 6, 7], 4: [*range(8)]}[samples]
    some = [False, True, False, True, True, False, False, False]
    assert len(chosen_rows(some, samples, 4)) == 2 * samples
    first, second = chosen_rows(some, 1, 4)
    assert (first, second) == (1, 4)
    assert {1, 3} <= set(chosen_rows(some, max(samples, 2), 4))
    assert len(chosen_rows([False] * 4, samples, 4)) == samples
    # A group over two processes: its halves are as many as they were.
    assert len(chosen_rows([False, True], samples, 4)) == len(chosen_rows([True] * 2, samples, 4))


def test_impossible_numbers_of_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="teacher_gate needs teacher_samples"):
        make_trainer(tmp_path, teacher_gate=True)
    with pytest.raises(RecipeError, match="more than num_generations"):
        make_trainer(tmp_path, teacher_samples=5)


def test_a_stream_of_its_own_begins_with_its_seed_and_changes_no_other() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with stream_of_its_own(torch.device("cpu"), 7):
        inside = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), inside)


def test_on_a_machine_of_many_gpus_it_begins_work_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    @contextmanager
    def fork(devices: Any, device_type: str) -> Iterator[None]:
        asked.append((list(devices), device_type))
        yield

    monkeypatch.setattr(torch.random, "fork_rng", fork)
    for device in ("cuda:3", "cpu"):
        with stream_of_its_own(torch.device(device), 7):
            pass
    assert asked == [([torch.device("cuda:3")], "cuda"), ([], "cuda")]
