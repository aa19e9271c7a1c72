"""For the tests of evaluations: a file of problems, and the toy model behind a server."""

import json
from pathlib import Path
from typing import Any

import torch

from conftest import make_model, make_tokenizer
from distil.trainer.probe import sample
from judgeserver import MODEL, ONE_AT_A_TIME

QUESTIONS = ["1 + 1 =", "2 + 2 =", "3 + 3 ="]


def problems_file(folder: Path, questions: list[str] = QUESTIONS) -> Path:
    """Right is an answer that is a digit alone; all rows but one may be held out."""
    file = folder / "problems.jsonl"
    rows = [{"question": q, "answer": str(i)} for i, q in enumerate([*questions, "to train on"])]
    splits = ["test"] * len(questions) + ["train"]
    lines = [json.dumps({**r, "split": s}) for r, s in zip(rows, splits, strict=True)]
    file.write_text("\n".join(lines))
    return file


def task_flags(file: Path, held: int = len(QUESTIONS)) -> list[str]:
    flags = ["--task", str(file), "--task.check", "exact", "--task.extract", "last_number"]
    return [*flags, "--task.train-size", "1", "--task.eval-size", str(held)]


def toy_completion(body: dict[str, Any]) -> dict[str, Any]:
    """The toy model's answer to a request under its seed, with all that the API says of it."""
    with ONE_AT_A_TIME, torch.random.fork_rng():  # making a model seeds the global stream too
        model, tokenizer = make_model(5), make_tokenizer()
        ids = tokenizer.apply_chat_template(
            body["messages"], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        torch.manual_seed(body["seed"])
        (written,) = sample(
            model, [ids], max_new_tokens=body["max_tokens"], temperature=body["temperature"],
            pad_token_id=2,
        )  # fmt: skip
    ended = written[-1] in model.generation_config.eos_token_id
    text = tokenizer.decode(written, skip_special_tokens=True)
    choice = {
        "index": 0, "finish_reason": "stop" if ended else "length",
        "message": {"role": "assistant", "content": text},
    }  # fmt: skip
    usage = {"prompt_tokens": len(ids), "completion_tokens": len(written), "total_tokens": 0}
    said = {"id": "1", "object": "chat.completion", "created": 0, "model": MODEL}
    return {**said, "choices": [choice], "usage": usage}
