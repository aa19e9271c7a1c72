"""What the organisms can do before training, on 64 held-out problems each.

    .venv/bin/python benchmarks/organisms.py [organism-sums organism-cipher@3 ...]

For each: parameters, seconds of pre-training; pass@1 and pass@64 of the start model, pass@1 of its
likeliest answer; pass@1 of the teacher shown each kind of feedback: the expert's answer, or the
report on a random failed attempt. Every figure that the docs give of the start models is from here.
"""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import torch

from distil.config import EvalConfig, TaskConfig
from distil.evaluate.judging import evaluate
from distil.figures.estimates import Attempt, summarise
from distil.models import load_model, resolve_model
from distil.organisms import NOTE, ORGANISMS
from distil.prompts.messages import student_messages, teacher_prompt
from distil.tasks import load_task
from distil.types import Problem, Prompt, TeacherContext

PROBLEMS = 64
SAMPLES = 64
MAX_NEW_TOKENS = 24


def measure(name: str) -> dict[str, float]:
    """The figures of one organism."""
    note = json.loads((Path(resolve_model(name)) / NOTE).read_text(encoding="utf-8"))
    model, tokenizer = load_model(name, "float32")
    kind = name.partition("@")[0].replace("-", "_")
    task = load_task(
        TaskConfig(kind, instruction="", extract="whole", train_size=1, eval_size=PROBLEMS)
    )

    def judge(
        make_prompt: Callable[[Problem], Prompt], samples: int, temperature: float = 1.0
    ) -> list[Attempt]:
        settings = EvalConfig(batch_size=512, temperature=temperature)
        return evaluate(
            model, tokenizer, task, task.heldout, make_prompt, settings, samples=samples,
            max_completion_length=MAX_NEW_TOKENS, title=name,
        )  # fmt: skip

    def student(problem: Problem) -> Prompt:
        return student_messages(problem.question, "")

    def expert(problem: Problem) -> Prompt:
        assert problem.answer is not None
        context = TeacherContext("expert", demonstration=problem.answer)
        return teacher_prompt(student(problem), context, "")

    attempts = judge(student, SAMPLES)
    failed: dict[str, list[str]] = {}
    for attempt in attempts:
        if not attempt.reward:
            failed.setdefault(attempt.problem, []).append(attempt.completion)
    rng = random.Random(0)

    def report(problem: Problem) -> Prompt:
        text = task.check(problem, rng.choice(failed.get(problem.id, [""]))).text
        assert text is not None
        return teacher_prompt(student(problem), TeacherContext("report", report=text), "")

    figures = {name: mean(values) for name, values in summarise(attempts).items()}
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": note["seconds"],
        "student": figures[f"avg@{SAMPLES}"],
        f"pass@{SAMPLES}": figures[f"pass@{SAMPLES}"],
        "greedy": mean(a.reward or 0.0 for a in judge(student, 1, temperature=1e-3)),
        "shown expert": mean(a.reward or 0.0 for a in judge(expert, 8)),
        "shown report": mean(a.reward or 0.0 for a in judge(report, 8)),
    }


def main(names: list[str]) -> None:
    """Prints one line for each organism."""
    torch.set_num_threads(1)
    for name in names or ORGANISMS:
        figures = measure(name)
        print(name, *(f"{key} {value:.4g}" for key, value in figures.items()), sep="  ", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
