"""Your own task: a question, a checker in Python, and what the checker says about wrong answers.

    python examples/own_checker.py        # about three minutes on two cores

SmolLM2-135M is asked to write a word in capital letters. The checker grades each answer and writes
a report on the failed ones; a teacher that reads the report (or a sibling's right answer) scores
the student's tokens. Judged before and after on words that it isn't trained on.
Left out: recipes (`distil train`), which have such tasks as a file of problems.
"""

from datasets import Dataset

from distil import DistILConfig, DistILTrainer, Feedback
from distil.models import load_model

TEXT = """apple river stone cloud tiger bread chair music paper light green seven table horse
money water plant night smile train queen house candle garden window silver winter summer doctor
market bridge forest island orange pencil rocket spider turtle violet yellow"""
HELD_OUT = 8
STEPS = 8


def rows(words):
    question = "Write the word {} in capital letters. Reply with that word only."
    return Dataset.from_list(
        [{"prompt": [{"role": "user", "content": question.format(w)}], "word": w} for w in words]
    )


def check(answer, word):
    """(right or not, what is wrong)."""
    said = answer.strip().strip(".\"'*")
    if said == word.upper():
        return True, None
    if said.upper() == word.upper():
        small = ", ".join(dict.fromkeys(c for c in said if c != c.upper()))
        return False, f"The word is right, but {small} must be a capital letter."
    if word.upper() in answer:
        return False, f"{word.upper()} is in it, but something else is, too. Write nothing else."
    return False, f"That isn't the word. In capital letters {word} is {word.upper()}."


def reward(completions, word, **columns):
    return [float(check(c[0]["content"], w)[0]) for c, w in zip(completions, word, strict=True)]


def reports(completions, word, **columns):
    verdicts = [check(c[0]["content"], w) for c, w in zip(completions, word, strict=True)]
    return [None if right else Feedback(text=why, source="checker") for right, why in verdicts]


def main():
    words = TEXT.split()
    model, tokenizer = load_model("smollm2-135m-instruct")
    args = DistILConfig(
        "runs/own-checker",
        feedback_order=["sibling", "report"],
        max_steps=STEPS,
        per_device_train_batch_size=16,
        gradient_accumulation_steps=2,
        num_generations=4,
        max_completion_length=12,
        temperature=0.7,
        learning_rate=2e-5,
        objective={"future": "mean", "future_weight": 0.3, "credit_end": True, "top_k": 20},
        num_generations_eval=8,
        per_device_eval_batch_size=64,
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
        rows(words[:-HELD_OUT]),
        eval_dataset=rows(words[-HELD_OUT:]),
        feedback_funcs=reports,
        processing_class=tokenizer,
    )
    before = trainer.evaluate()["eval_reward"]
    trainer.train()
    after = trainer.evaluate()["eval_reward"]
    print(f"right on {HELD_OUT} held-out words: {before:.2f} before, {after:.2f} after")
    print("Every token's credit: distil report runs/own-checker")


if __name__ == "__main__":
    main()
