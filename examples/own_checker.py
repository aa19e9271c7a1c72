"""Your own task: a question, a checker in Python, and what the checker says about wrong answers.

    python examples/own_checker.py        # about four minutes on two cores

SmolLM2-135M is asked which number comes after 41. The checker grades each answer and says what is
wrong with it; a teacher that reads this (or a sibling's right answer) scores the student's tokens.
Judged before and after on numbers that it isn't trained on. Left out: recipes (`distil train`),
which have such tasks as a file of problems.
"""

import random
import re

from datasets import Dataset

from distil import DistILConfig, DistILTrainer, Feedback
from distil.models import load_model

HELD_OUT = 16
STEPS = 8
DEMAND = "Reply with only the final answer."


def rows(numbers):
    """`instruction` closes the teacher's prompt, so that it answers in the form that is graded."""
    question = "Which number comes after {}? " + DEMAND
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": question.format(n)}],
                "instruction": DEMAND,
                "next": n + 1,
            }
            for n in numbers
        ]
    )


def check(answer, right):
    """(right or not, what is wrong)."""
    said = re.findall(r"\d+", answer)
    if said and int(said[-1]) == right:
        return True, None
    what = f"{said[-1]} is wrong." if said else "There is no number in it."
    return False, f"{what} The final answer is {right}."


def reward(completions, next, **columns):
    return [float(check(c[0]["content"], n)[0]) for c, n in zip(completions, next, strict=True)]


def reports(completions, next, **columns):
    verdicts = [check(c[0]["content"], n) for c, n in zip(completions, next, strict=True)]
    return [None if right else Feedback(text=why, source="checker") for right, why in verdicts]


def main():
    model, tokenizer = load_model("smollm2-135m-instruct")
    args = DistILConfig(
        "runs/own-checker",
        feedback_order=["sibling", "report"],
        max_steps=STEPS,
        per_device_train_batch_size=16,
        gradient_accumulation_steps=2,
        num_generations=4,
        max_completion_length=24,
        temperature=0.7,
        learning_rate=2e-5,
        lr_scheduler_type="constant",
        objective={"future": "mean", "future_weight": 0.3, "credit_end": True, "top_k": 20},
        num_generations_eval=4,
        per_device_eval_batch_size=64,
        save_strategy="no",
        bf16=False,
        use_cpu=True,
        report_to="none",
        logging_steps=1,
        disable_tqdm=True,
    )
    numbers = list(range(1, 99))
    random.Random(0).shuffle(numbers)
    trainer = DistILTrainer(
        model,
        reward,
        args,
        rows(numbers[:-HELD_OUT]),
        eval_dataset=rows(numbers[-HELD_OUT:]),
        feedback_funcs=reports,
        processing_class=tokenizer,
    )
    before = trainer.evaluate()["eval_reward"]
    trainer.train()
    after = trainer.evaluate()["eval_reward"]
    print(f"right after {HELD_OUT} held-out numbers: {before:.2f} before, {after:.2f} after")
    print("Every token's credit: distil report runs/own-checker")


if __name__ == "__main__":
    main()
