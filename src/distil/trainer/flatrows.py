"""A micro-batch as one row of real tokens: the distinct prompts, then the completions, no padding.

Where each token of that row belongs, for an attention that takes it apart again
(`distil.trainer.paddingfree`). Left out: running it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the tokens of P prompts and R completions lie in one row of N tokens.

    Padding, where one is shorter than the longest, has any place: nothing reads it.
    owned: how many of the completions, in their order, each prompt has.
    seen: whether a completion's token sees each of its prompt's and then of its own; one for all
        completions where prompts are of one length.
    back: where each of the N tokens is once prompts and completions are padded and joined.
    """

    prompts: Int[Tensor, "prompts longest"]
    completions: Int[Tensor, "rows most"]
    owned: tuple[int, ...]
    seen: Bool[Tensor, "rows_or_1 1 most longest_and_most"]
    back: Int[Tensor, " tokens"]


@dataclass(frozen=True, eq=False)
class FlatRow:
    """One micro-batch as a row; positions count from each prompt's beginning.

    predicts: the place that predicts each completion token, any place where none is scored.
    """

    ids: Int[Tensor, "1 tokens"]
    positions: Int[Tensor, "1 tokens"]
    layout: Layout
    predicts: Int[Tensor, "batch seq"]


def lay_out(batch: dict[str, Tensor]) -> FlatRow | None:
    """A micro-batch as one row, from TRL's prompts and completions, their masks, and `scored`.

    Of a completion that is read which its last scored token is predicted from; rows without a
    scored token aren't read. If no row has one, a single token is left, so that a pass reaches
    every weight. None where a masked token is scored (the published mathematics loss does so):
    padding's own hidden states count there.
    """
    scored, device = batch["scored"] > 0, batch["scored"].device
    if (scored & (batch["completion_mask"] == 0)).any():
        return None
    ends = (scored * torch.arange(1, scored.shape[1] + 1, device=device)).amax(1).tolist()
    masks, completions = batch["prompt_mask"].tolist(), batch["completion_ids"].cpu()
    prompts = [
        tuple(token for token, real in zip(ids, mask, strict=True) if real)
        for ids, mask in zip(batch["prompt_ids"].tolist(), masks, strict=True)
    ]
    members: dict[tuple[int, ...], list[int]] = {}
    for row, end in enumerate(ends):
        if end:
            members.setdefault(prompts[row], []).append(row)
    if not members:
        members[prompts[0][:1]] = []
    rows = [row for of in members.values() for row in of]
    owned = [len(of) for of in members.values()]
    read = [completions[row, : ends[row] - 1] for row in rows]
    ids = torch.cat([*map(torch.tensor, members), *read])
    lengths = [len(completion) for completion in read]
    starts, positions, layout = _places([len(prompt) for prompt in members], owned, lengths, device)
    # Spread where nothing is scored: gradients that meet in one place are added one by one.
    predicts = torch.arange(scored.numel()).remainder(len(ids)).view(scored.shape)
    lasts = [start + len(prompt) - 1 for start, prompt in zip(starts, members, strict=False)]
    owners = [last for last, count in zip(lasts, owned, strict=True) for _ in range(count)]
    for row, last, first in zip(rows, owners, starts[len(members) :], strict=True):
        predicts[row, 0] = last
        predicts[row, 1 : ends[row]] = torch.arange(first, first + ends[row] - 1)
    return FlatRow(ids[None].to(device), positions[None], layout, predicts.to(device))


def _places(
    before: Sequence[int], owned: Sequence[int], read: Sequence[int], device: torch.device
) -> tuple[list[int], Tensor, Layout]:
    """(where each prompt and then each completion starts, positions, layout) of one row.

    before, read: the prompts' lengths and those of completions. The mask is made on the device: it
    is as large as a completion's length squared.
    """
    lengths = [*before, *read]
    starts = [0, *accumulate(lengths)][:-1]
    of = [count for count, times in zip(before, owned, strict=True) for _ in range(times)]
    offsets = [0] * len(before) + of
    positions = [torch.arange(o, o + n) for o, n in zip(offsets, lengths, strict=True)]
    prompts, prompt_real = _padded(starts[: len(before)], before)
    completions, real = _padded(starts[len(before) :], read)
    most = completions.shape[1]
    ends = torch.tensor(of[:1] if len(set(of)) == 1 else of, dtype=torch.long, device=device)
    seen_before = torch.arange(prompts.shape[1], device=device) < ends[:, None]
    earlier = torch.ones(most, most, dtype=torch.bool, device=device).tril()
    seen = torch.cat(
        [
            seen_before[:, None, None].expand(-1, 1, most, -1),
            earlier.expand(len(ends), 1, -1, -1),
        ],
        -1,
    )
    back = torch.cat([prompt_real.flatten(), real.flatten()]).nonzero()[:, 0]
    layout = Layout(prompts.to(device), completions.to(device), tuple(owned), seen, back.to(device))
    return starts, torch.cat(positions).to(device), layout


def _padded(starts: Sequence[int], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """[rows, longest] places from each start on, and whether they are real; padding has 0."""
    places = torch.arange(max(counts, default=0)).expand(len(counts), -1)
    real = places < torch.tensor(counts, dtype=torch.long)[:, None]
    return (places + torch.tensor(starts, dtype=torch.long)[:, None]) * real, real
