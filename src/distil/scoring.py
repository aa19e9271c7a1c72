"""The scoring passes over one batch of rollouts: the teacher's, and the student's.

Both score the *same completion ids*, only at scored tokens, so that pads and rows without a context
cost no output layer. Shapes: B rollouts, T completion tokens, S support tokens, N scored tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distil import parts
from distil.errors import TrainingError
from distil.hidden import completion_hidden
from distil.objectives import append_tail, drop_repeats, renormalise, repeated
from distil.objectives.costs import NO_PROBABILITY
from distil.output_layer import OutputLayer, output_layer
from distil.shards import most
from distil.vocab import gather_logps, gather_logps_and_entropy, topk_and_gather_logps, topk_logps


@dataclass(frozen=True)
class TeacherScores:
    """The teacher at each token; zeros where not scored. `tokens`: how many were read.

    An id that stands twice in a support has NO_PROBABILITY the second time.
    """

    ids: Int[Tensor, "batch seq support"]
    logps: Float[Tensor, "batch seq support"]
    sampled_logps: Float[Tensor, "batch seq"]
    entropy: Float[Tensor, "batch seq"]
    tokens: int


@dataclass(frozen=True)
class StudentScores:
    """The student at each token; zeros where not scored. Cost and log-probability carry gradients.

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
    scored: Int[Tensor, "batch seq"],
    *,
    k: int,
    temperature: float,
    batch_size: int,
    pad_token_id: int,
    also: Int[Tensor, "batch seq others"] | None = None,
) -> TeacherScores:
    """The teacher's K likeliest tokens at every scored token, and the ids `also` if any are given.

    `prompt_ids[i]` is rollout i's teacher prompt, None if it has none (its row stays 0). Call it
    under no_grad, inside `teacher.scoring(model)`, `batch_size` rollouts are run at a time.
    Log-probabilities are over the whole vocabulary.
    """
    rows, length = completion_ids.shape
    k = min(k, base.get_output_embeddings().weight.shape[0])
    if also is None:
        also = completion_ids.new_zeros(rows, length, 0)
    asked = torch.cat([also, completion_ids[..., None]], -1)
    empty = torch.zeros(rows, length, k + also.shape[-1], device=completion_ids.device)
    logps, ids = empty, empty.long()
    sampled_logps, entropy = empty.new_zeros(rows, length), empty.new_zeros(rows, length)
    withs, tokens = [i for i, p in enumerate(prompt_ids) if p is not None], 0
    training = model.training
    model.eval()
    chunks = [withs[i : i + batch_size] for i in range(0, len(withs), batch_size)]
    spare = most(model, len(chunks)) - len(chunks)  # counted before the first pass waits for others
    for chunk in chunks:
        prompts = [prompt_ids[i] or [] for i in chunk]
        input_ids, attention = _left_padded(
            prompts, completion_ids[chunk], scored[chunk], pad_token_id
        )
        hidden = completion_hidden(model, base, input_ids, attention, length)
        here, wanted = scored[chunk] > 0, asked[chunk]
        layer = output_layer(base)  # after the pass: a sharded one is gathered by then
        top, top_ids, at_ids, uncertainty = topk_and_gather_logps(
            hidden[here], layer.weight, k, wanted[here], **_form(layer, temperature)
        )
        for whole, part in (
            (logps, torch.cat([top, at_ids[:, :-1]], -1)),
            (ids, torch.cat([top_ids, wanted[here][:, :-1]], -1)),
            (sampled_logps, at_ids[:, -1]),
            (entropy, uncertainty),
        ):
            whole[chunk] = _put(whole[chunk], here, part)
        tokens += int(attention.sum())
    nothing = completion_ids.new_zeros(1, 2)
    for _ in range(spare):  # others' passes need this process's shards
        completion_hidden(model, base, nothing, torch.ones_like(nothing), 1)
    model.train(training)
    if k and also.shape[-1]:
        logps = drop_repeats(logps, repeated(ids) & (scored > 0)[..., None])
    return TeacherScores(ids, logps, sampled_logps, entropy, tokens)


@parts.part("output layer")
def score_student(
    model: Any,
    base: Any,
    batch: dict[str, Tensor],
    *,
    cost: Callable[[Tensor, Tensor], Tensor],
    tail: bool,
    temperature: float,
) -> StudentScores:
    """The student's cost and log-probabilities at every scored token of a batch.

    `batch` has TRL's prompt_ids, prompt_mask, completion_ids, completion_mask, and ours: scored,
    support_ids, teacher_logps. The gradient reaches the model through `cost` and `sampled_logps`,
    also if no token is scored (it's zero then).
    """
    scored = batch["scored"] > 0
    hidden = _student_hidden(model, base, batch)
    layer = output_layer(base)
    wanted = torch.cat([batch["support_ids"], batch["completion_ids"][..., None]], -1)[scored]
    logps, entropy = gather_logps_and_entropy(
        hidden[scored], layer.weight, wanted, **_form(layer, temperature)
    )
    parts.count(scored, "output layer")
    parts.at_gradient(logps, "output layer")
    parts.at_gradient(hidden, "backward")
    known = batch["teacher_logps"][scored]
    close = append_tail if tail else renormalise
    teacher = close(known[None])
    student = close(drop_repeats(logps[:, :-1], known <= NO_PROBABILITY)[None])
    overlap = torch.minimum(student.detach().exp(), teacher.exp()).sum(-1)

    def spread(values: Tensor) -> Tensor:
        """[N] -> [B, T], zeros elsewhere; keeps a path to the weights even where N is 0."""
        empty = torch.zeros(scored.shape, dtype=values.dtype, device=values.device)
        return empty.masked_scatter(scored, values) + 0.0 * hidden.sum().to(values.dtype)

    return StudentScores(
        cost=spread(cost(student, teacher)[0]),
        sampled_logps=spread(logps[:, -1]),
        entropy=spread(entropy).detach(),
        agreement=spread(overlap[0]).detach(),
    )


def student_topk(
    model: Any, base: Any, batch: dict[str, Tensor], *, k: int, temperature: float
) -> Int[Tensor, "batch seq support"]:
    """Ids of the student's own K likeliest tokens at every scored token; zeros elsewhere."""
    scored = batch["scored"] > 0
    layer = output_layer(base)
    k = min(k, layer.weight.shape[0])
    hidden = _student_hidden(model, base, batch)
    found = topk_logps(hidden[scored], layer.weight, k, **_form(layer, temperature))[1]
    return _put(found.new_zeros(*scored.shape, k), scored, found)


@parts.part("output layer")
def sequence_logps(
    model: Any, base: Any, batch: dict[str, Tensor], *, temperature: float
) -> Float[Tensor, "batch seq"]:
    """Log-probabilities of a batch's completion ids at its `scored` tokens; zeros elsewhere."""
    scored = batch["scored"] > 0
    hidden = _student_hidden(model, base, batch)
    layer = output_layer(base)
    wanted = batch["completion_ids"][scored][:, None]
    logps = gather_logps(hidden[scored], layer.weight, wanted, **_form(layer, temperature))
    parts.count(scored, "output layer")
    parts.at_gradient(logps, "output layer")
    parts.at_gradient(hidden, "backward")
    empty = torch.zeros(scored.shape, dtype=logps.dtype, device=logps.device)
    return empty.masked_scatter(scored, logps) + 0.0 * hidden.sum().to(logps.dtype)


@parts.part("student forward")
def _student_hidden(model: Any, base: Any, batch: dict[str, Tensor]) -> Tensor:
    """[B, T, H] at the positions that predict the completion's tokens."""
    input_ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    parts.count(attention)
    return completion_hidden(model, base, input_ids, attention, batch["completion_ids"].shape[1])


def _form(layer: OutputLayer, temperature: float) -> dict[str, Any]:
    return {
        "bias": layer.bias,
        "temperature": temperature,
        "logit_scale": layer.logit_scale,
        "softcap": layer.softcap,
    }


def _put(whole: Tensor, where: Tensor, part: Tensor) -> Tensor:
    """`whole` with `part`'s rows at the positions where `where` is True."""
    mask = where.view(*where.shape, *[1] * (whole.dim() - 2))
    return whole.masked_scatter(mask, part.to(whole.dtype))


def _left_padded(
    prompts: Sequence[list[int]], completion_ids: Tensor, scored: Tensor, pad_token_id: int
) -> tuple[Tensor, Tensor]:
    """[prompt, left-padded | completion] and its attention mask.

    The completion part is attended up to the last scored token (tool output within it too, which
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
    attention[:, longest:] = scored.flip(-1).cummax(-1).values.flip(-1)
    return input_ids, attention
