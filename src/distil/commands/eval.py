"""`distil eval`: a model's avg@k, pass@k and maj@k on a task's held-out problems."""

from dataclasses import asdict
from pathlib import Path

from distil.config import EvalConfig, TaskConfig
from distil.errors import TaskError
from distil.evaluate import evaluate
from distil.layout import as_text
from distil.models import load_model
from distil.runs import write_json
from distil.tables import result_rows
from distil.tasks import load_task, student_prompt


def evaluate_model(
    name: str, task_config: TaskConfig, settings: EvalConfig, length: int, out: str | None
) -> int:
    """Samples, grades, prints the table; writes every attempt to `out` if that is given."""
    if task_config.eval_size == 0:
        raise TaskError("task.eval_size is 0, so there is nothing to judge on. Set it above 0.")
    if out is not None and not Path(out).resolve().parent.is_dir():
        raise TaskError(f"--out {out}: that folder doesn't exist. Make it first.")
    task = load_task(task_config)
    model, tokenizer = load_model(name)
    attempts = evaluate(
        model, tokenizer, task, task.heldout,
        lambda problem: student_prompt(task, problem),
        settings, samples=settings.samples, max_completion_length=length, title="judging",
    )  # fmt: skip
    print(as_text(result_rows({name: attempts})))
    print(
        f"{len(task.heldout)} held-out problems of {task_config.name} x {settings.samples} samples "
        f"at temperature {settings.temperature}, at most {length} tokens; 95% intervals over "
        "problems."
    )
    if out is not None:
        write_json(Path(out), {"attempts": [asdict(a) for a in attempts]})
    return 0
