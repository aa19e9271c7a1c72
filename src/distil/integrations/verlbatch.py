"""DistIL's token losses from the tensors that verl hands to a distillation loss.

Imports neither verl nor tensordict: a batch is any mapping. verl 0.9.1 (in brackets, the files that
say so) packs each rollout's prompt and response into one row of a nested tensor, with no padding;
position i of what the model gives is about token i + 1 [workers/utils/padding.py]. Of a step:

    data          prompts, responses (nested; or padded, with attention_mask), response_mask,
                  teacher_logprobs [rollouts, tokens, K], and, where there are any, old_log_probs,
                  uid: one a rollout, the same for a prompt's      [trainer/ppo/v1/trainer_base.py]
    model_output  distillation_losses  sum_k q_k (log q_k - log p_k) over the teacher's K tokens,
                  student_mass, teacher_mass  sum_k p_k, sum_k q_k, all with gradients,
                  log_probs  of the sampled tokens           [trainer/distillation/fsdp/losses.py]

verl keeps no p_k. The cost over the support and its tail is a sum over disjoint parts of the
vocabulary, so it is had from these all the same (`cost_of`).
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from distil import objectives
from distil.errors import IntegrationError

Future = Literal["sum", "mean", "none"]

FUTURE: dict[str, Future] = {
    "distil": "sum",
    "distil_mean": "mean",
    "distil_local": "none",
}
"""verl's loss_mode -> future credit (`distil.objectives.future_credit`)."""

RATIO_CLIP = 2.0
"""As recipes have it: objective.ratio_clip."""


def token_losses(
    model_output: Mapping[str, Tensor],
    data: Mapping[str, Any],
    *,
    future: Future,
) -> tuple[Tensor, dict[str, float]]:
    """[rollouts, response] surrogate of `distil_token_loss`, 0 where masked, and metrics.

    Support: the teacher's K tokens and a tail. Baseline: `leave_one_out_of` the rollouts with the
    same uid *in this micro-batch* (0 without uid). No score term at a rollout's last token. With
    old_log_probs, times `token_ratio`, as recipes do by default.
    """
    mask = padded(data["response_mask"]).bool()
    teacher = response_part(data["teacher_logprobs"], data, mask.shape[1])
    local, student_mass, teacher_mass = (
        response_part(model_output[name], data, mask.shape[1])
        for name in ("distillation_losses", "student_mass", "teacher_mass")
    )
    cost = cost_of(local, student_mass, teacher, mask)
    credit = torch.zeros_like(cost)
    logps, ratio, baseline = torch.zeros_like(cost), torch.ones_like(cost), None
    if "log_probs" in model_output:
        logps = response_part(model_output["log_probs"], data, mask.shape[1])
        if "old_log_probs" in data:
            old = padded(data["old_log_probs"])
            ratio = objectives.token_ratio(logps, old, mask, clip=RATIO_CLIP)
    if future != "none":
        credit = objectives.future_credit(cost, mask, reduction=future)
        groups = groups_of(data["uid"], mask.device) if "uid" in data else None
        if groups is not None:
            baseline = objectives.leave_one_out_of(credit, mask, groups)
    ids = padded(data["responses"])
    per_token = ratio * objectives.distil_token_loss(
        cost, logps, mask, future=future, baseline=baseline,
        score_weight=objectives.not_an_end(ids, mask, sorted(set(ids[mask].tolist()))),
    )  # fmt: skip
    return per_token, _metrics(cost, credit, student_mass, teacher_mass, mask)


def faults(
    settings: Any, model_output: Mapping[str, Tensor], data: Mapping[str, Any], future: Future
) -> list[str]:
    """What is wrong with verl's settings, one sentence each with the way out."""
    where, found = "distillation.distillation_loss", []
    if settings.use_policy_gradient:
        found.append(
            f"{where}.use_policy_gradient is true: the loss would become a reward, its "
            "gradient lost. Set it to false."
        )
    found += [
        f"{where}.{name} is {value}: cut values have no gradient, and the future credit is then of "
        "other costs. Set it to null."
        for name in ("loss_max_clamp", "log_prob_min_clamp")
        if (value := getattr(settings, name)) is not None
    ]
    if "log_probs" not in model_output and future != "none":
        found.append(
            f"verl gives no log-probabilities of the sampled tokens where {where}.use_task_rewards "
            "is false, and future credit needs them. Set it to true, and, to train on the teacher "
            "alone, actor_rollout_ref.actor.policy_loss.loss_mode: no_reward; or take distil_local."
        )
    local, mass = model_output["distillation_losses"], model_output["student_mass"]
    if local.requires_grad and not mass.requires_grad:
        found.append(
            "The student's probability of the teacher's tokens comes without a gradient from this "
            "engine (Megatron's does), and the bucket for all other tokens needs it. Use FSDP."
        )
    if mass.element_size() < 4:
        found.append(
            f"The student's log-probabilities were computed in {mass.dtype}: what is left of the "
            "probability can't be told. Let verl run under autocast or in float32."
        )
    temperature = data.get("temperature", 1.0)
    if not _is_one(temperature):
        found.append(
            f"rollout.temperature is {temperature}, by which verl divides the student's logits and "
            "never the teacher's. Set it to 1."
        )
    return found


def cost_of(local: Tensor, student_mass: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """[rollouts, response] forward cross-entropy over the teacher's K tokens and the tail, in nats.

        H(q, p) = sum_k q_k (log q_k - log p_k)  -  sum_k q_k log q_k  -  q_tail log p_tail
                  local, verl's                     of `teacher`          of both masses

    It equals forward_cross_entropy(append_tail(log p_k), append_tail(log q_k)), gradient included.
    `teacher` [rollouts, response, K] holds log q_k. 0 where masked.
    """
    teacher = torch.where(mask[..., None], teacher.float(), torch.zeros_like(teacher).float())
    smallest = torch.finfo(student_mass.dtype).tiny
    student = student_mass.masked_fill(~mask, 1.0).clamp(min=smallest).log()
    student_tail = objectives.append_tail(student[..., None])[..., 1:]
    teacher_tail = objectives.append_tail(teacher)[..., -1:]
    own = objectives.forward_cross_entropy(teacher, teacher)
    cost = local + own + objectives.forward_cross_entropy(student_tail, teacher_tail)
    return torch.where(mask, cost, torch.zeros_like(cost))


def response_part(values: Tensor, data: Mapping[str, Any], width: int) -> Tensor:
    """[rollouts, width, ...] of a value for each token: those about the response, padded with 0.

    Equals verl's no_padding_2_padding. Raises IntegrationError if the lengths don't add up.
    """
    flat = values.values() if values.is_nested else values
    prompts, responses = _lengths(data, "prompts"), _lengths(data, "responses")
    ends = (prompts + responses).cumsum(0)
    if len(flat) != ends[-1] or int(responses.max()) > width or int(prompts.min()) < 1:
        raise IntegrationError(
            f"A value for each of {len(flat)} tokens, where prompts of {prompts.tolist()} and "
            f"responses of {responses.tolist()} tokens make {int(ends[-1])}, at most {width} in a "
            "response: verl's layout isn't the one that docs/verl.md names. Use that version."
        )
    rows = flat.new_zeros(len(ends), width, *flat.shape[1:])
    parts = [
        torch.cat([flat[end - n - 1 : end - 1], rows[0, n:]])
        for end, n in zip(ends.tolist(), responses.tolist(), strict=True)
    ]
    return torch.stack(parts)


def padded(values: Tensor) -> Tensor:
    """A nested tensor with rows filled up with 0; any other as it is."""
    return values.to_padded_tensor(0) if values.is_nested else values


def groups_of(uids: Sequence[Hashable], device: torch.device) -> Tensor:
    """[rollouts] the number of each rollout's group: rollouts with one uid share a prompt."""
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(u, len(numbers)) for u in uids], device=device)


def _lengths(data: Mapping[str, Any], name: Literal["prompts", "responses"]) -> Tensor:
    """[rollouts] the number of a prompt's or response's tokens."""
    ids = data[name]
    if ids.is_nested:
        return ids.offsets().diff()
    attention, prompt_width = data["attention_mask"], data["prompts"].shape[1]
    own = attention[:, :prompt_width] if name == "prompts" else attention[:, prompt_width:]
    return own.sum(1)


def _is_one(temperature: Any) -> bool:
    """Of a number, or of a tensor with one for each rollout."""
    if isinstance(temperature, Tensor):
        return bool((temperature == 1).all())
    return float(getattr(temperature, "data", temperature)) == 1


@torch.no_grad()
def _metrics(
    cost: Tensor, credit: Tensor, student_mass: Tensor, teacher_mass: Tensor, mask: Tensor
) -> dict[str, float]:
    """Means over the micro-batch's sampled tokens, under verl's kind of names."""
    values = {"cost": cost, "future_credit": credit}
    values |= {"student_mass": student_mass, "teacher_mass": teacher_mass}
    return {
        f"distillation/{name}": objectives.masked_mean(value.float(), mask).item()
        for name, value in values.items()
    }
