"""How good is a model on held-out problems: avg@k, pass@k, maj@k, intervals, paired comparison.

Samples come from transformers' `generate`, under a random stream of its own, so that evaluating
changes nothing in a training run. Intervals are 95% bootstrap intervals over *problems* (samples of
one problem aren't independent); before and after are compared problem by problem.
Left out: training, and anything about where the problems come from.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from distil.config import EvalConfig
from distil.processes import is_main
from distil.shards import gathered
from distil.tasks import Task
from distil.types import SUCCESS_REWARD, Problem, Prompt

BOOTSTRAP_DRAWS = 10_000


@dataclass(frozen=True)
class Attempt:
    """One sampled completion and its verdict; `tokens` counts the end-of-text token too."""

    problem: str
    completion: str
    answer: str | None
    reward: float | None
    tokens: int


@dataclass(frozen=True)
class Estimate:
    """A mean over problems and its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k): the chance that k of n samples hold a correct one, unbiased.

    Raises ValueError unless 1 <= k <= n and 0 <= c <= n. Source: Chen et al. 2021, section 2.1.
    """
    if not (1 <= k <= samples and 0 <= correct <= samples):
        raise ValueError(
            f"pass@{k} of {samples} samples with {correct} correct: k must lie in 1..n, and the "
            "correct ones in 0..n."
        )
    return 1.0 - comb(samples - correct, k) / comb(samples, k)


def maj_at_n(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Chance that the commonest answer is correct; ties are shared. None is no answer.

    0 if no sample has an answer.
    """
    verdict = {a: c for a, c in zip(answers, correct, strict=True) if a is not None}
    counts = Counter(a for a in answers if a is not None)
    if not counts:
        return 0.0
    most = max(counts.values())
    winners = [answer for answer, count in counts.items() if count == most]
    return sum(verdict[w] for w in winners) / len(winners)


def mean_interval(values: Sequence[float], draws: int = BOOTSTRAP_DRAWS) -> Estimate:
    """Mean of per-problem values with its 95% percentile bootstrap interval (fixed seed)."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("No problems to average over: the interval of nothing isn't defined.")
    picks = np.random.default_rng(0).integers(0, array.size, (draws, array.size))
    low, high = np.percentile(array[picks].mean(1), [2.5, 97.5])
    return Estimate(float(array.mean()), float(low), float(high))


def summarise(attempts: Sequence[Attempt]) -> dict[str, list[float]]:
    """Per-problem values of each figure, problems in order of appearance: avg@n, pass@k, maj@n.

    Ungraded attempts count as failures here, and are counted apart by `count_ungraded`. k runs over
    the powers of two up to n, and n.
    """
    grouped: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        grouped.setdefault(attempt.problem, []).append(attempt)
    n = min(len(g) for g in grouped.values())
    figures: dict[str, list[float]] = {f"avg@{n}": []}
    ks = sorted({2**i for i in range(1, n.bit_length()) if 2**i <= n} | ({n} if n > 1 else set()))
    for group in grouped.values():
        correct = [a.reward is not None and a.reward >= SUCCESS_REWARD for a in group]
        figures[f"avg@{n}"].append(sum(correct) / len(correct))
        for k in ks:
            figures.setdefault(f"pass@{k}", []).append(pass_at_k(len(group), sum(correct), k))
        if n > 1:
            majority = maj_at_n([a.answer for a in group], correct)
            figures.setdefault(f"maj@{n}", []).append(majority)
    return figures


def count_ungraded(attempts: Sequence[Attempt]) -> int:
    """Attempts that the task couldn't judge."""
    return sum(a.reward is None for a in attempts)


def paired_difference(before: Sequence[float], after: Sequence[float]) -> Estimate:
    """Mean of after - before over the same problems, in the same order, with its interval."""
    if len(before) != len(after):
        raise ValueError(
            f"{len(before)} problems before and {len(after)} after: a paired comparison needs the "
            "same problems on both sides."
        )
    return mean_interval([b - a for a, b in zip(before, after, strict=True)])


def evaluate(
    model: Any,
    tokenizer: Any,
    task: Task,
    problems: Sequence[Problem],
    make_prompt: Callable[[Problem], Prompt],
    settings: EvalConfig,
    *,
    samples: int,
    max_completion_length: int,
    title: str,
) -> list[Attempt]:
    """`samples` attempts at each problem, graded by the task. Leaves the model's mode as it was."""
    jobs = [(p, make_prompt(p)) for p in problems for _ in range(samples)]
    texts = [_render(tokenizer, prompt) for _, prompt in jobs]
    attempts: list[Attempt] = []
    training = model.training
    model.eval()
    hidden = not is_main()  # of several processes, one shows how far it is
    with (
        gathered(model),
        torch.random.fork_rng(),
        tqdm(total=len(jobs), desc=title, leave=False, disable=hidden) as bar,
    ):
        torch.manual_seed(settings.seed)
        for start in range(0, len(jobs), settings.batch_size):
            part = slice(start, start + settings.batch_size)
            completions = _generate(model, tokenizer, texts[part], settings, max_completion_length)
            asked = [problem for problem, _ in jobs[part]]
            verdicts = task.check_all(asked, [text for text, _ in completions])
            rows = zip(asked, completions, verdicts, strict=True)
            for problem, (text, tokens), verdict in rows:
                attempts.append(Attempt(problem.id, text, task.read(text), verdict.reward, tokens))
            bar.update(len(completions))
    model.train(training)
    return attempts


@torch.no_grad()
def _generate(
    model: Any, tokenizer: Any, texts: Sequence[str], settings: EvalConfig, max_new_tokens: int
) -> list[tuple[str, int]]:
    """(text, number of tokens) of one completion for each prompt text."""
    encoded = tokenizer(
        list(texts),
        return_tensors="pt",
        padding=True,
        padding_side="left",
        add_special_tokens=False,
    ).to(model.device)
    output = model.generate(
        **encoded,
        do_sample=True,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
    )[:, encoded["input_ids"].shape[1] :]
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    ends = torch.tensor(ends, dtype=torch.long, device=output.device)
    finished = torch.isin(output, ends)
    # Up to and with the first end token: what follows is padding (pad may equal the end token).
    lengths = torch.where(finished.any(1), finished.int().argmax(1) + 1, output.shape[1])
    return [
        (tokenizer.decode(ids[:length], skip_special_tokens=True), int(length))
        for ids, length in zip(output, lengths.tolist(), strict=True)
    ]


def _render(tokenizer: Any, prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return str(tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))
