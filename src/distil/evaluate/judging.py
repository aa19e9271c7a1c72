"""Sampling and grading a model on problems; the figures are `distil.figures.estimates`'.

Left out: training, where the problems come from, and where the samples do
(`distil.evaluate.samplers`).
"""

from collections.abc import Callable, Sequence
from typing import Any

from tqdm.auto import tqdm

from distil.config import EvalConfig, Thinking
from distil.distributed.processes import is_main
from distil.evaluate.samplers import Sampler
from distil.evaluate.samplers.local import LocalSampler
from distil.figures.estimates import Attempt
from distil.tasks import Task
from distil.types import Problem, Prompt


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
    thinking: Thinking = "template",
) -> list[Attempt]:
    """`sample_and_grade` of a model that is loaded. Leaves its mode and random streams as found."""
    sampler = LocalSampler(model, tokenizer, settings, max_completion_length, thinking)
    return sample_and_grade(
        sampler, task, problems, make_prompt,
        samples=samples, batch_size=settings.batch_size, title=title,
    )  # fmt: skip


def sample_and_grade(
    sampler: Sampler,
    task: Task,
    problems: Sequence[Problem],
    make_prompt: Callable[[Problem], Prompt],
    *,
    samples: int,
    batch_size: int,
    title: str,
    done: Sequence[Attempt] = (),
    keep: Callable[[Sequence[Attempt]], None] | None = None,
) -> list[Attempt]:
    """`samples` attempts at each problem, graded by the task, problem after problem.

    done: the first ones, from an evaluation that was stopped; keep: called with each new batch.
    """
    jobs = [p for p in problems for _ in range(samples)]
    attempts = list(done)
    hidden = not is_main()  # of several processes, one shows how far it is
    bar = tqdm(total=len(jobs), initial=len(done), desc=title, leave=False, disable=hidden)
    with sampler.session(len(done)), bar:
        for first in range(len(done), len(jobs), batch_size):
            asked = jobs[first : first + batch_size]
            once = {p.id: p for p in asked}
            prompts = {name: make_prompt(p) for name, p in once.items()}
            drawn = sampler.sample([prompts[p.id] for p in asked], first)
            verdicts = task.check_all(asked, [s.text for s in drawn])
            known = [
                Attempt(p.id, s.text, task.read(s.text), v.reward, s.tokens, s.truncated)
                for p, s, v in zip(asked, drawn, verdicts, strict=True)
            ]
            attempts += known
            if keep is not None:
                keep(known)
            bar.update(len(known))
    return attempts
