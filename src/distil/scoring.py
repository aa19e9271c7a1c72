"""The two scoring passes over one batch of rollouts: the teacher's, and the student's.

Both score the *same completion ids*, only at active tokens (sampled, with a teacher context), so
that pads and rows without a context cost no output layer. Shapes: B rollouts, T completion tokens,
K support tokens, N active tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil.errors import TrainingError
from distil.hidden import completion_hidden
from distil.objectives import append_tail, renormalise
from distil.output_layer import output_layer
from distil.vocab import gather_logps_and_entropy, topk_logps_and_entropy


@dataclass(frozen=True)
class TeacherScores:
    """The teacher's top-K at each token; zeros where not active. `tokens`: how many were read."""

    ids: Int[Tensor, "batch seq support"]
    logps: Float[Tensor, "batch seq support"]
    entropy: Float[Tensor, "batch seq"]
    tokens: int


@dataclass(frozen=True)
class StudentScores:
    """The student at each token; zeros where not active. Cost and log-probability carry gradients.

    agreement is 1 - total variation between teacher and student over the support and the tail.
    """

    cost: Float[Tensor, "batch seq"]
    sampled_logps: Float[Tensor, "batch seq"]
    entropy: Float[Tensor, "batch seq"]
    agreement: Float[Tensor, "batch seq"]


def score_teacher(
    model: Any,
    base: Any,
    prompt_ids: Sequence[list[int] | None],
    completion_ids: Int[Tensor, "batch seq"],
    active: Int[Tensor, "batch seq"],
    *,
    k: int,
    temperature: float,
    batch_size: int,
    pad_token_id: int,
) -> TeacherScores:
    """The teacher's K likeliest tokens at every active token, `batch_size` rollouts at a time.

    `prompt_ids[i]` is rollout i's teacher prompt, None if it has none (its row stays 0). Call it
    under no_grad, inside `teacher.scoring(model)`. Log-probabilities are over the whole vocabulary.
    """
    rows, length = completion_ids.shape
    device = completion_ids.device
    layer = output_layer(base)
    k = min(k, layer.weight.shape[0])
    ids = torch.zeros(rows, length, k, dtype=torch.long, device=device)
    logps = torch.zeros(rows, length, k, dtype=torch.float32, device=device)
    entropy = torch.zeros(rows, length, dtype=torch.float32, device=device)
    scored, tokens = [i for i, p in enumerate(prompt_ids) if p is not None], 0
    training = model.training
    model.eval()
    for start in range(0, len(scored), batch_size):
        chunk = scored[start : start + batch_size]
        prompts = [prompt_ids[i] or [] for i in chunk]
        input_ids, attention = _left_padded(
            prompts, completion_ids[chunk], active[chunk], pad_token_id
        )
        hidden = completion_hidden(model, base, input_ids, attention, length)
        here = active[chunk] > 0
        found = topk_logps_and_entropy(
            hidden[here], layer.weight, k, bias=layer.bias, temperature=temperature,
            logit_scale=layer.logit_scale, softcap=layer.softcap,
        )  # fmt: skip
        for whole, part in zip((logps, ids, entropy), found, strict=True):
            whole[chunk] = whole[chunk].masked_scatter(
                here.view(*here.shape, *[1] * (whole.dim() - 2)), part.to(whole.dtype)
            )
        tokens += int(attention.sum())
    model.train(training)
    return TeacherScores(ids, logps, entropy, tokens)


def score_student(
    model: Any,
    base: Any,
    batch: dict[str, Tensor],
    *,
    cost: Callable[[Tensor, Tensor], Tensor],
    tail: bool,
    temperature: float,
) -> StudentScores:
    """The student's cost and log-probabilities at every active token of a batch.

    `batch` has TRL's prompt_ids, prompt_mask, completion_ids, completion_mask, and ours: active,
    support_ids, teacher_logps. The gradient reaches the model through `cost` and `sampled_logps`,
    also if no token is active (it's zero then).
    """
    active = batch["active"] > 0
    input_ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    hidden = completion_hidden(model, base, input_ids, attention, active.shape[1])
    layer = output_layer(base)
    wanted = torch.cat([batch["support_ids"], batch["completion_ids"][..., None]], -1)[active]
    logps, entropy = gather_logps_and_entropy(
        hidden[active], layer.weight, wanted, bias=layer.bias, temperature=temperature,
        logit_scale=layer.logit_scale, softcap=layer.softcap,
    )  # fmt: skip
    close = append_tail if tail else renormalise
    student, teacher = close(logps[None, :, :-1]), close(batch["teacher_logps"][active][None])
    overlap = torch.minimum(student.detach().exp(), teacher.exp()).sum(-1)

    def spread(values: Tensor) -> Tensor:
        """[N] -> [B, T], zeros elsewhere; keeps a path to the weights even where N is 0."""
        empty = torch.zeros(active.shape, dtype=values.dtype, device=values.device)
        return empty.masked_scatter(active, values) + 0.0 * hidden.sum().to(values.dtype)

    return StudentScores(
        cost=spread(cost(student, teacher)[0]),
        sampled_logps=spread(logps[:, -1]),
        entropy=spread(entropy).detach(),
        agreement=spread(overlap[0]).detach(),
    )


def _left_padded(
    prompts: Sequence[list[int]], completion_ids: Tensor, active: Tensor, pad_token_id: int
) -> tuple[Tensor, Tensor]:
    """[prompt, left-padded | completion] and its attention mask.

    The completion part is attended up to the last active token (tool output within it too, which
    the teacher must read); what follows is padding.
    """
    rows, length = completion_ids.shape
    if len(prompts) != rows:
        raise TrainingError(f"{len(prompts)} teacher prompts for {rows} completions.")
    longest = max(len(p) for p in prompts)
    input_ids = completion_ids.new_full((rows, longest + length), pad_token_id)
    attention = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        start = longest - len(prompt)
        input_ids[row, start:longest] = torch.tensor(prompt, device=input_ids.device)
        attention[row, start:longest] = 1
    input_ids[:, longest:] = completion_ids
    attention[:, longest:] = active.flip(-1).cummax(-1).values.flip(-1)
    return input_ids, attention
