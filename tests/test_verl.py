"""DistIL's losses in verl: verl's layout, written out here, against the plain composition.

verl isn't among the packages of a test run. What verl's engine computes is written here as naive
code (`engine`), from verl 0.9.1's trainer/distillation/fsdp/losses.py and workers/utils/padding.py.
The last tests run verl itself, wherever it can be imported (docs/verl.md).
"""

import importlib
import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from distil import objectives
from distil.errors import IntegrationError
from distil.integrations.verlbatch import FUTURE, faults, padded, response_part, token_losses

PROJECT = Path(__file__).parent.parent
VOCAB, TOP = 13, 4
PROMPTS, RESPONSES = [2, 3, 1, 2], [5, 3, 4, 5]
LENGTHS = [p + r for p, r in zip(PROMPTS, RESPONSES, strict=True)]
MASKED = (2, 1)  # a tool's token in the middle of the third response
SETTINGS = {"use_policy_gradient": False, "loss_max_clamp": None, "log_prob_min_clamp": None}
WITH_VERL = importlib.util.find_spec("verl") is not None


def jagged(rows: list[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def batch() -> tuple[list[Tensor], dict[str, Any]]:
    """Student's logits of every token (a rollout each), and what verl's batch holds beside them."""
    g = torch.Generator().manual_seed(5)
    logits = [torch.randn(n, VOCAB, generator=g, requires_grad=True) for n in LENGTHS]
    ids = [torch.randint(VOCAB, (n,), generator=g) for n in LENGTHS]
    teacher = [torch.randn(n, VOCAB, generator=g).log_softmax(-1).topk(TOP) for n in LENGTHS]
    masks = [torch.ones(n, dtype=torch.long) for n in RESPONSES]
    masks[MASKED[0]][MASKED[1]] = 0
    old = [-2 * torch.rand(n, generator=g) - 1 for n in RESPONSES]
    return logits, {
        "input_ids": jagged(ids),
        "prompts": jagged([row[:n] for row, n in zip(ids, PROMPTS, strict=True)]),
        "responses": jagged([row[n:] for row, n in zip(ids, PROMPTS, strict=True)]),
        "response_mask": jagged(masks),
        "teacher_logprobs": jagged([t.values for t in teacher]),
        "teacher_ids": jagged([t.indices for t in teacher]),
        "old_log_probs": jagged(old),
        "uid": ["one", "two", "one", "two"],
    }


def engine(logits: list[Tensor], data: dict[str, Any]) -> dict[str, Tensor]:
    """What verl's FSDP engine gives to a loss: one value a token, all rollouts in one row."""
    student = torch.cat(logits).log_softmax(-1)
    ids, teacher = data["teacher_ids"].values(), data["teacher_logprobs"].values()
    support, following = student.gather(-1, ids), data["input_ids"].values().roll(-1)
    output = {
        "distillation_losses": (teacher.exp() * (teacher - support)).sum(-1),
        "student_mass": support.exp().sum(-1),
        "teacher_mass": teacher.exp().sum(-1),
        "log_probs": student.gather(-1, following[:, None])[:, 0],
    }
    offsets = data["input_ids"].offsets()
    return {k: torch.nested.nested_tensor_from_jagged(v, offsets) for k, v in output.items()}


def plain(logits: list[Tensor], data: dict[str, Any], future: Any) -> tuple[Tensor, Tensor]:
    """The loss of a token as `distil.objectives` puts it together, and the mask; row by row."""
    shape = (len(LENGTHS), max(RESPONSES))
    mask, logps = torch.zeros(shape), torch.zeros(shape)
    student, teacher = torch.zeros(*shape, TOP) - 3, torch.zeros(*shape, TOP) - 3
    for i, (p, r) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        here = logits[i].log_softmax(-1)[p - 1 : p - 1 + r]  # position t says what t + 1 is
        ids = data["teacher_ids"][i][p - 1 : p - 1 + r]
        student[i, :r] = here.gather(-1, ids)
        teacher[i, :r] = data["teacher_logprobs"][i][p - 1 : p - 1 + r]
        logps[i, :r] = here.gather(-1, data["responses"][i][:, None])[:, 0]
        mask[i, :r] = data["response_mask"][i]
    closed = objectives.append_tail(student), objectives.append_tail(teacher)
    cost = objectives.forward_cross_entropy(*closed)
    baseline, ends = None, torch.ones(shape)
    if future != "none":
        credit = objectives.future_credit(cost, mask, reduction=future)
        baseline = objectives.leave_one_out_of(credit, mask, torch.tensor([0, 1, 0, 1]))
    for i, r in enumerate(RESPONSES):
        ends[i, r - 1] = 0
    loss = objectives.distil_token_loss(
        cost, logps, mask, future=future, baseline=baseline, score_weight=ends
    )
    old = torch.zeros(shape)
    for i, r in enumerate(RESPONSES):
        old[i, :r] = data["old_log_probs"][i]
    return loss * objectives.token_ratio(logps, old, mask), mask


def gradients(loss: Tensor, logits: list[Tensor]) -> Tensor:
    return torch.cat(torch.autograd.grad(loss, logits, retain_graph=True))


@pytest.mark.parametrize("future", FUTURE.values())
def test_from_verls_sums_comes_the_loss_of_the_plain_composition(future: Any) -> None:
    logits, data = batch()
    found, metrics = token_losses(engine(logits, data), data, future=future)
    expected, mask = plain(logits, data, future)
    torch.testing.assert_close(found, expected, atol=3e-6, rtol=1e-5)
    assert (found[mask == 0] == 0).all()
    torch.testing.assert_close(
        gradients(found.sum(), logits), gradients(expected.sum(), logits), atol=3e-6, rtol=1e-5
    )
    assert set(metrics) == {
        f"distillation/{n}" for n in ("cost", "future_credit", "student_mass", "teacher_mass")
    }
    assert (metrics["distillation/future_credit"] > 0) == (future != "none")


def test_padded_prompts_and_responses_are_the_same_batch() -> None:
    logits, data = batch()
    expected, _ = token_losses(engine(logits, data), data, future="sum")
    wide = dict(data)
    wide["attention_mask"] = torch.zeros(4, 3 + 5, dtype=torch.long)
    wide["prompts"], wide["responses"] = torch.zeros(4, 3).long(), padded(data["responses"])
    for i, (p, r) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        wide["attention_mask"][i, 3 - p : 3 + r] = 1
    for name in ("response_mask", "old_log_probs"):
        wide[name] = padded(data[name])
    found, _ = token_losses(engine(logits, data), wide, future="sum")
    assert torch.equal(found, expected)


def test_a_response_is_what_stands_one_place_before_it() -> None:
    _, data = batch()
    values = jagged([torch.arange(n) + 100 * i for i, n in enumerate(LENGTHS)])
    rows = response_part(values, data, 6)
    assert rows.tolist() == [
        [1, 2, 3, 4, 5, 0], [102, 103, 104, 0, 0, 0], [200, 201, 202, 203, 0, 0],
        [301, 302, 303, 304, 305, 0],
    ]  # fmt: skip
    with pytest.raises(IntegrationError, match=r"each of 24 tokens.*make 25"):
        response_part(values.values()[:-1], data, 6)


def test_without_a_group_or_an_old_policy_there_is_no_baseline_and_no_ratio() -> None:
    logits, data = batch()
    output = engine(logits, data)
    bare = {k: v for k, v in data.items() if k not in ("uid", "old_log_probs")}
    found, _ = token_losses(output, bare, future="sum")
    alone, _ = token_losses(output, {**bare, "uid": ["a", "b", "c", "d"]}, future="sum")
    assert torch.equal(found, alone)  # nobody else in the group: nothing is taken off
    grouped, _ = token_losses(output, {**bare, "uid": data["uid"]}, future="sum")
    assert not torch.equal(found, grouped)


@pytest.mark.parametrize(
    ("setting", "value", "fix"),
    [
        ("use_policy_gradient", True, "Set it to false"),
        ("loss_max_clamp", 10.0, "loss_max_clamp is 10.0.*Set it to null"),
        ("log_prob_min_clamp", -10.0, "log_prob_min_clamp is -10.0.*Set it to null"),
    ],
)
def test_settings_that_change_the_loss_are_refused(setting: str, value: Any, fix: str) -> None:
    logits, data = batch()
    output = engine(logits, data)
    assert faults(SimpleNamespace(**SETTINGS), output, data, "sum") == []
    found = faults(SimpleNamespace(**{**SETTINGS, setting: value}), output, data, "sum")
    assert len(found) == 1
    assert re.search(fix, found[0])


def test_batches_that_lack_something_are_refused() -> None:
    logits, data = batch()
    output, settings = engine(logits, data), SimpleNamespace(**SETTINGS)
    silent = {k: v for k, v in output.items() if k != "log_probs"}
    assert "no_reward" in faults(settings, silent, data, "sum")[0]
    assert faults(settings, silent, data, "none") == []
    constant = {**output, "student_mass": output["student_mass"].detach()}
    assert "Use FSDP" in faults(settings, constant, data, "sum")[0]
    half = {**output, "student_mass": output["student_mass"].bfloat16()}
    assert "torch.bfloat16" in faults(settings, half, data, "sum")[0]
    assert "Set it to 1" in faults(settings, output, {**data, "temperature": 0.7}, "sum")[0]
    warm = {**data, "temperature": torch.tensor([1.0, 0.7])}
    assert "Set it to 1" in faults(settings, output, warm, "sum")[0]
    assert faults(settings, output, {**data, "temperature": 1.0}, "sum") == []


def test_without_verl_the_import_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verl", None)
    monkeypatch.delitem(sys.modules, "verl.trainer.distillation.losses", raising=False)
    monkeypatch.delitem(sys.modules, "distil.integrations.verl", raising=False)
    with pytest.raises(IntegrationError, match=r"can't be imported.*docs/verl\.md"):
        importlib.import_module("distil.integrations.verl")


def test_verl_finds_the_plug_in_by_its_entry_point() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["verl.plugins"] == {"distil": "distil.integrations.verl"}
    assert importlib.util.find_spec("distil.integrations.verl") is not None
    assert not any("verl" in need for need in project["dependencies"])


def test_the_lock_file_names_the_version_that_was_read() -> None:
    lines = (PROJECT / "constraints-verl.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pins["verl"] == "0.9.1"
    assert {"torch", "tensordict", "ray", "transformers", "jaxtyping"} <= set(pins)


def through_verl(logits: list[Tensor], data: dict[str, Any], mode: str) -> tuple[Tensor, Any]:
    """verl's own two calls: on the logits, and on what came of them; the actor's whole loss."""
    from tensordict import TensorDict
    from verl.trainer.distillation.losses import distillation_ppo_loss
    from verl.utils import tensordict_utils
    from verl.workers.config import DistillationConfig, DistillationLossConfig, FSDPActorConfig

    policy = {"loss_mode": "no_reward"}
    actor = FSDPActorConfig(
        strategy="fsdp", rollout_n=2, ppo_micro_batch_size_per_gpu=4, policy_loss=policy
    )
    loss = DistillationLossConfig(loss_mode=mode, topk=TOP, use_task_rewards=True, **SETTINGS)
    settings = DistillationConfig(distillation_loss=loss)
    tensors = {k: v for k, v in data.items() if isinstance(v, Tensor)}
    advantages = jagged([torch.randn(n) for n in RESPONSES])
    td = TensorDict({**tensors, "advantages": advantages}, batch_size=[len(LENGTHS)])
    tensordict_utils.assign_non_tensor(
        td, uid=data["uid"], dp_size=1, batch_num_tokens=16, global_batch_size=4, temperature=1.0
    )
    packed = torch.cat(logits)[None]
    sums = distillation_ppo_loss(actor, settings, data=td, student_logits=packed)
    offsets = data["input_ids"].offsets()
    output = {
        k: torch.nested.nested_tensor_from_jagged(v[0], offsets)
        for k, v in sums.items()
        if torch.is_tensor(v)
    }
    output["log_probs"] = engine(logits, data)["log_probs"]
    return distillation_ppo_loss(actor, settings, output, td)


@pytest.mark.skipif(not WITH_VERL, reason="verl isn't installed (docs/verl.md says how it was run)")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", FUTURE)
def test_verl_itself_gets_the_plain_compositions_loss(mode: str) -> None:
    import verl.trainer.distillation.losses as registry

    importlib.import_module("distil.integrations.verl")
    assert registry.get_distillation_loss_settings(mode).use_topk
    logits, data = batch()
    loss, metrics = through_verl(logits, data, mode)
    per_token, mask = plain(logits, data, FUTURE[mode])
    expected = objectives.masked_mean(per_token, mask)
    assert mask.sum() == 16
    torch.testing.assert_close(loss, expected, atol=3e-6, rtol=1e-5)
    torch.testing.assert_close(
        gradients(loss, logits), gradients(expected, logits), atol=1e-6, rtol=1e-5
    )
    assert "distillation/cost" in metrics


@pytest.mark.skipif(not WITH_VERL, reason="verl isn't installed (docs/verl.md says how it was run)")
@pytest.mark.filterwarnings("ignore")
def test_verls_padding_is_ours() -> None:
    from tensordict import TensorDict
    from verl.workers.utils.padding import no_padding_2_padding

    _, data = batch()
    tensors = {k: v for k, v in data.items() if isinstance(v, Tensor)}
    td = TensorDict(tensors, batch_size=[4])
    for name in ("teacher_logprobs", "input_ids"):
        assert torch.equal(no_padding_2_padding(td[name], td), response_part(td[name], td, 5))
