"""A served teacher: its scores are those of the same weights here; what its faults cost; a run.

Against a server on loopback around the real toy model (`vllmserver`), through the trainer.
"""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import make_model, toy_recipe, train
from distil import DistILTrainer
from distil.config import ServedConfig
from distil.errors import FeedbackError
from distil.objectives.costs import NO_PROBABILITY
from distil.teacher.served import asking
from distil.teacher.served.answers import read_samples, read_scores
from distil.teacher.served.teacher import ServedTeacher
from trainertoys import generation_batch, gradient, lines, make_trainer
from vllmserver import MODEL, SECONDS, VllmServer, served_trainer, server, vllm_server

__all__ = ["server"]  # a fixture

KEY = "sk-secret-of-the-test"


def weights(trainer: DistILTrainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


# ---------------------------------------------------------------- the same numbers


@pytest.mark.parametrize(
    ("name", "top_k"), [("distil", 80), ("distil+grpo", 5), ("jensen_shannon", 5)]
)
def test_scores_and_gradient_are_those_of_the_same_weights_here(
    tmp_path: Path, server: VllmServer, name: str, top_k: int
) -> None:
    objective = {"name": name, "top_k": top_k, "support": "teacher"}
    here = make_trainer(tmp_path / "a", teacher="frozen", objective=objective)
    there = served_trainer(tmp_path / "b", server, objective=objective)
    expected, got = generation_batch(here), generation_batch(there)
    assert torch.equal(got["completion_ids"], expected["completion_ids"])
    for key in ("active", "scored", "support_ids", "active_count", "sampled_count"):
        assert torch.equal(got[key], expected[key]), key
    for key in ("teacher_logps", "teacher_sampled_logps"):
        torch.testing.assert_close(got[key], expected[key], rtol=0, atol=1e-4)
    active = expected["active"] > 0
    if top_k == 80:  # the whole vocabulary: no tail is left to be one bucket
        torch.testing.assert_close(
            got["teacher_entropy"], expected["teacher_entropy"], rtol=0, atol=1e-4
        )
    assert (got["teacher_entropy"][active] <= expected["teacher_entropy"][active] + 1e-4).all()
    wanted = gradient(here, [expected]).clone()
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(gradient(there, [got]), wanted, rtol=1e-3, atol=1e-5)


def test_a_run_ends_in_the_weights_of_a_run_with_the_frozen_teacher(
    tmp_path: Path, server: VllmServer
) -> None:
    here = make_trainer(tmp_path / "a", teacher="frozen", learning_rate=1e-3, max_steps=3)
    start = weights(here).clone()
    here.train()
    there = served_trainer(tmp_path / "b", server, learning_rate=1e-3, max_steps=3)
    there.train()
    assert (weights(here) - start).abs().max() > 1e-3
    torch.testing.assert_close(weights(there), weights(here), rtol=0, atol=1e-4)
    metrics = lines(tmp_path / "b" / "metrics.jsonl")[0]
    assert metrics["teacher/failed"] == 0
    expected = lines(tmp_path / "a" / "metrics.jsonl")[0]
    assert metrics["distil/cost"] == pytest.approx(expected["distil/cost"], abs=1e-4)


def test_only_ids_are_sent_and_no_more_than_the_last_scored_token(
    tmp_path: Path, server: VllmServer
) -> None:
    trainer = served_trainer(tmp_path, server)
    server.requests.clear()
    batch = generation_batch(trainer)
    assert len(server.requests) == len(batch["completion_ids"])  # one a rollout
    ends = (batch["active"] * torch.arange(1, batch["active"].shape[1] + 1)).amax(1).tolist()
    sent = [body for _, body in server.requests]
    tails = {tuple(ids[:end]) for ids, end in zip(batch["completion_ids"].tolist(), ends)}  # noqa: B905
    assert {k for body in sent for k in body} == {
        "model", "prompt", "max_tokens", "temperature", "prompt_logprobs",
    }  # fmt: skip
    assert all(any(tuple(b["prompt"][-len(t) :]) == t for t in tails) for b in sent)
    assert {b["prompt_logprobs"] for b in sent} == {5}


def test_ids_that_the_student_lacks_are_left_to_the_tail() -> None:
    """A larger model of the family, whose vocabulary is padded further or has added tokens."""
    torch.manual_seed(0)
    larger = make_model(1, tied=False)
    larger.resize_token_embeddings(90, mean_resizing=False)
    with torch.no_grad():
        larger.lm_head.weight[85] = 3 * larger.lm_head.weight[40]
    student = make_model(tied=False)
    student.lm_head.weight.data = torch.empty(0)  # as ZeRO-3 leaves it between passes
    prompts, completions = [[1, 20, 30], [1, 40]], torch.tensor([[15, 16, 17], [18, 19, 2]])
    scored = torch.tensor([[1, 0, 1], [1, 1, 0]])
    with vllm_server(larger) as server:
        teacher = ServedTeacher(ServedConfig(base_url=server.url, model=MODEL, **SECONDS))
        scores = teacher.score(
            None, student, prompts, completions, scored, k=10, temperature=1.0, batch_size=2
        )
        sent = sorted(body["prompt"] for _, body in server.requests)
    assert sent == [[1, 20, 30, 15, 16, 17], [1, 40, 18, 19]]  # up to the last scored token
    seen = 0
    for row, token in scored.nonzero().tolist():
        ids = [*prompts[row], *completions[row, :token].tolist()]
        with torch.no_grad():
            logps = larger(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        top = logps.topk(10)
        lacking = top.indices >= 80
        seen += int(lacking.sum())
        expected = top.values.masked_fill(lacking, NO_PROBABILITY)
        torch.testing.assert_close(scores.logps[row, token], expected, rtol=0, atol=1e-4)
        assert torch.equal(scores.ids[row, token], top.indices.masked_fill(lacking, 0))
    assert seen > 0
    assert not scores.logps[scored == 0].any()
    assert not scores.entropy[scored == 0].any()


# ---------------------------------------------------------------- what goes wrong

FAULTS = ["429", "500", "503", "drop", "truncated", "no choices", "short", "no prompt_logprobs"]
FAULTS += ["other tokens", "few", "logits", "nan", "text", "too much"]
FAULTS += ["huge", "huge id", "twice"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_mended_by_another_try(tmp_path: Path, server: VllmServer, fault: str) -> None:
    trainer = served_trainer(tmp_path, server)
    expected = generation_batch(trainer)
    server.requests.clear()
    server.faults = [fault] * 3
    batch = generation_batch(trainer)
    assert len(server.requests) == len(batch["completion_ids"]) + 3
    torch.testing.assert_close(batch["teacher_logps"], expected["teacher_logps"])


def break_rows(server: VllmServer, endings: list[list[int]], fault: str) -> None:
    """These completions' requests always fail."""
    wanted = [e for e in endings if e]
    server.broken = lambda body: (
        fault if any(body["prompt"][-len(e) :] == e for e in wanted) else None
    )


@pytest.mark.parametrize("fault", ["500", "400", "nan"])
def test_a_row_without_an_answer_is_masked_and_counted(
    tmp_path: Path, server: VllmServer, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = served_trainer(tmp_path, server)
    expected = generation_batch(trainer)
    trainer._sums["train"].reduce(trainer.accelerator)
    masks = expected["completion_mask"].sum(1).tolist()
    endings = [ids[:n] for ids, n in zip(expected["completion_ids"].tolist(), masks, strict=True)]
    lost = [row for row, ending in enumerate(endings) if ending in endings[2:4]]
    break_rows(server, endings[2:4], fault)
    with caplog.at_level(logging.WARNING):
        batch = generation_batch(trainer)
    kept = [row for row in range(8) if row not in lost]
    assert 0 < len(kept) < 8
    assert not batch["active"][lost].any()
    assert not batch["teacher_logps"][lost].any()
    assert torch.equal(batch["active"][kept], expected["active"][kept])
    torch.testing.assert_close(batch["teacher_logps"][kept], expected["teacher_logps"][kept])
    assert int(batch["active_count"]) == int(expected["active"][kept].sum())
    (warning,) = [r.getMessage() for r in caplog.records if "served teacher" in r.getMessage()]
    assert f"gave no answer for {len(lost)} of 8 rollouts" in warning
    sums = trainer._sums["train"].reduce(trainer.accelerator)
    assert sums["teacher/failed"] == pytest.approx(len(lost) / 8)
    assert sums["distil/active_rollouts"] == pytest.approx(len(kept) / 8)
    assert torch.isfinite(gradient(trainer, [batch])).all()


def test_a_dead_server_ends_the_run_at_once_and_is_named(
    tmp_path: Path, server: VllmServer
) -> None:
    trainer = served_trainer(tmp_path, server, served={"concurrency": 2})
    server.requests.clear()
    server.always = "503"
    with pytest.raises(FeedbackError, match="answered for not one of this step's") as error:
        trainer.train()
    assert server.url in str(error.value)
    assert MODEL in str(error.value)
    assert "503" in str(error.value)
    assert len(server.requests) <= 5 * asking.TRIES  # not all eight rollouts, four times each


def test_rows_that_are_refused_for_good_do_not_make_a_server_dead(
    tmp_path: Path, server: VllmServer
) -> None:
    """The first five of eight are too long for it, say."""
    trainer = served_trainer(tmp_path, server, served={"concurrency": 1})
    server.faults = ["400"] * 5
    batch = generation_batch(trainer)
    assert batch["active"].any(1).sum() == 3


def test_the_deadline_keeps_what_is_there(tmp_path: Path, server: VllmServer) -> None:
    trainer = served_trainer(tmp_path, server, served={"deadline": 2.0})
    expected = generation_batch(trainer)
    length = int(expected["completion_mask"][0].sum())
    ending = expected["completion_ids"][0, :length].tolist()
    break_rows(server, [ending], "hang")
    batch = generation_batch(trainer)
    assert not batch["active"][0].any()
    assert batch["active"].any()


def test_a_request_that_hangs_is_given_up_and_made_again(
    tmp_path: Path, server: VllmServer
) -> None:
    trainer = served_trainer(tmp_path, server, served={"timeout": 0.5})
    server.faults = ["hang"]
    assert generation_batch(trainer)["active"].any(1).all()


# ---------------------------------------------------------------- a run, and its secret


def test_a_recipe_with_a_served_teacher_runs_and_the_key_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EXPERT_KEY", KEY)
    monkeypatch.setattr(asking, "BACK_OFF", 0.001)
    with vllm_server(key=KEY) as server:
        served = {
            "base_url": server.url, "model": MODEL, "api_key_env": "EXPERT_KEY", **SECONDS,
        }  # fmt: skip
        file = toy_recipe(
            tmp_path,
            teacher={"kind": "served", "served": served},
            objective={"top_k": 5},
            feedback={"order": ["expert"]},
            train={"steps": 2, "micro_batch": 4, "save_every": 1},
            eval={"samples": 1, "teacher_samples": 0},
        )
        assert train(file, tmp_path / "run") == 0
        assert {header for header, _ in server.requests} == {f"Bearer {KEY}"}
        monkeypatch.setenv("EXPERT_KEY", "sk-of-somebody-else")
        assert train(file, tmp_path / "again") == 2
    said = capsys.readouterr()
    assert "refused this run, which came with the key in $EXPERT_KEY" in said.err
    metrics = lines(tmp_path / "run" / "metrics.jsonl")
    assert metrics[0]["teacher/failed"] == 0
    written = [f for f in (tmp_path / "run").rglob("*") if f.is_file()]
    assert any("checkpoint" in str(f) for f in written)
    for file in written:
        assert KEY.encode() not in file.read_bytes(), file
    assert KEY not in said.out + said.err
    assert "sk-of-somebody-else" not in said.out + said.err


# ---------------------------------------------------------------- reading what came


def test_the_prompt_s_own_token_takes_no_place_among_the_likeliest() -> None:
    def entry(**logps: float) -> dict[str, Any]:
        return {name[1:]: {"logprob": value} for name, value in logps.items()}

    said = [None, entry(_7=-5.0, _1=-0.2, _2=-2.0), entry(_2=-2.0, _1=-0.2)]
    said.append(entry(_9=-2.0, _1=-0.2, _2=-2.0))  # as likely as the second
    answer = {"choices": [{"prompt_logprobs": said}]}
    found = read_scores(answer, [4, 7, 2, 9], [1, 2, 3], 2)
    assert isinstance(found, list)
    assert [f.ids for f in found] == [[1, 2]] * 3
    assert [f.own for f in found] == [-5.0, -2.0, -2.0]


@pytest.mark.parametrize("answer", [None, 3, "words", [], {}, {"choices": 3}, {"choices": [3]}])
def test_an_answer_of_any_form_is_a_failure_and_no_crash(answer: Any) -> None:
    assert "prompt_logprobs" in str(read_scores(answer, [1, 2], [1], 1))
    assert "completion" in str(read_samples(answer, 1, 1))
    for entries in ([None], [None, None], [None, {}], [None, {"2": {}}], [None, {"2": 1}]):
        said = {"choices": [{"prompt_logprobs": entries}]}
        assert not isinstance(read_scores(said, [1, 2], [1], 1), list)
