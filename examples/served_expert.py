"""A teacher behind a server: another process, on another machine if you like, scores the tokens.

    pip install 'distil[judge]'             # the package openai
    python examples/served_expert.py        # about four minutes on two cores

Starts examples/vllm_stand_in.py with the start model as the expert, and trains the student on
one-digit sums: at each step the expert reads the right answer beside the question and says how
likely it finds every token of the student's own answers. With a GPU, `vllm serve` a larger model of
the same tokenizer instead, and give address and name: served_expert.py http://expert:8000/v1 NAME
"""

import random
import re
import subprocess
import sys
from pathlib import Path

from datasets import Dataset

from distil import DistILConfig, DistILTrainer, Feedback
from distil.models import load_model

MODEL = "smollm2-135m-instruct"
STEPS = 10
HELD_OUT = 12


def rows(pairs):
    question = "What is {} + {}? Reply with only the final answer."
    return Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": question.format(a, b)}], "sum": a + b}
            for a, b in pairs
        ]
    )


def reward(completions, sum, **columns):
    read = [re.findall(r"\d+", c[0]["content"]) for c in completions]
    return [float(bool(r) and int(r[-1]) == s) for r, s in zip(read, sum, strict=True)]


def answers(completions, sum, **columns):
    return [Feedback(demonstration=f"The final answer is {s}.", source="book") for s in sum]


def train(address, name):
    model, tokenizer = load_model(MODEL)
    pairs = [(a, b) for a in range(1, 10) for b in range(1, 10)]
    random.Random(0).shuffle(pairs)
    args = DistILConfig(
        "runs/served-expert",
        teacher="served",
        teacher_served={"base_url": address, "model": name, "concurrency": 4},
        feedback_order=["expert"],
        demonstration_header="",
        max_steps=STEPS,
        per_device_train_batch_size=16,
        num_generations=4,
        max_completion_length=16,
        max_teacher_prompt_length=256,
        learning_rate=4e-5,
        lr_scheduler_type="constant",
        objective={"future": "mean", "future_weight": 0.3, "credit_end": True, "top_k": 20},
        num_generations_eval=4,
        per_device_eval_batch_size=48,
        save_strategy="no",
        bf16=False,
        use_cpu=True,
        report_to="none",
        logging_steps=1,
        disable_tqdm=True,
    )
    trainer = DistILTrainer(
        model,
        reward,
        args,
        rows(pairs[HELD_OUT:]),
        eval_dataset=rows(pairs[:HELD_OUT]),
        feedback_funcs=answers,
        processing_class=tokenizer,
    )
    before = trainer.evaluate()["eval_reward"]
    trainer.train()
    after = trainer.evaluate()["eval_reward"]
    failed = sum(log.get("teacher/failed", 0.0) for log in trainer.state.log_history)
    print(f"right on {HELD_OUT} held-out sums: {before:.2f} before, {after:.2f} after")
    print(f"requests that the expert didn't answer: {failed:.0f}")


def main():
    if len(sys.argv) == 3:
        return train(sys.argv[1], sys.argv[2])
    stand_in = Path(__file__).with_name("vllm_stand_in.py")
    command = [sys.executable, str(stand_in), MODEL, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().split()[-1]  # printed once it answers
            train(address, MODEL)
        finally:
            server.kill()


if __name__ == "__main__":
    main()
