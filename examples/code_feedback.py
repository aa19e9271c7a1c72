"""Programs that are run, and whose failures teach: the sandbox's report is the feedback.

    python examples/code_feedback.py      # about four minutes on two cores

SmolLM2-135M writes small functions. Each is run against its tests in the sandbox, without network,
files or time to spare. A teacher that reads the failed test's report, or a sibling's program that
passed, scores the student's tokens. Prints the share of programs that pass, and of tests passed.
Left out: tables of problems and recipes (docs/cookbook/traces.md).
"""

from datasets import Dataset

from distil import DistILConfig, DistILTrainer
from distil.feedback.execution import check_programs
from distil.models import load_model
from distil.sandbox import CallTest, SandboxPool

STEPS = 5
FUNCTIONS = {
    "double(x), which returns twice x": ("double", [((2,), 4), ((0,), 0), ((-3,), -6)]),
    "square(x), which returns x times x": ("square", [((3,), 9), ((0,), 0), ((-2,), 4)]),
    "add(a, b), which returns their sum": ("add", [((2, 3), 5), ((0, 0), 0), ((-1, 1), 0)]),
    "first(xs), which returns the first item of a list": (
        "first", [(([1, 2],), 1), ((["a"],), "a"), (([3, 1, 2],), 3)],
    ),
    "last(xs), which returns the last item of a list": (
        "last", [(([1, 2],), 2), ((["a"],), "a"), (([3, 1, 4],), 4)],
    ),
    "is_even(n), which says whether n is even": (
        "is_even", [((2,), True), ((3,), False), ((0,), True)],
    ),
    "longer(a, b), which returns the longer string": (
        "longer", [(("ab", "c"), "ab"), (("a", "bcd"), "bcd"), (("", "x"), "x")],
    ),
    "total(xs), which returns the sum of a list": (
        "total", [(([1, 2, 3],), 6), (([],), 0), (([-1, 1],), 0)],
    ),
}  # fmt: skip
QUESTION = "Write the Python function {}. Reply with only a ```python block."


def main():
    names = {name: [CallTest(function, *case) for case in cases]
             for name, (function, cases) in FUNCTIONS.items()}  # fmt: skip
    rows = Dataset.from_list(
        [{"prompt": [{"role": "user", "content": QUESTION.format(n)}], "name": n} for n in names]
    )
    verdicts = {}  # reward functions come first; the feedback function reads what they found

    def passed(completions, name, **columns):
        programs = [c[0]["content"] for c in completions]
        verdicts["last"] = check_programs(pool, programs, [names[n] for n in name])
        return [v.reward for v in verdicts["last"]]

    def tests(completions, **columns):
        return [v.progress for v in verdicts["last"]]

    def reports(completions, **columns):
        return verdicts["last"]

    model, tokenizer = load_model("smollm2-135m-instruct")
    args = DistILConfig(
        "runs/code-feedback",
        feedback_order=["sibling", "report"],
        reward_weights=[1.0, 0.0],  # the share of tests is logged, and not trained on
        max_steps=STEPS,
        per_device_train_batch_size=16,
        num_generations=4,
        max_completion_length=64,
        temperature=0.7,
        learning_rate=2e-5,
        objective={"future": "mean", "future_weight": 0.3, "credit_end": True, "top_k": 20},
        num_generations_eval=4,
        per_device_eval_batch_size=32,
        save_strategy="no",
        bf16=False,
        use_cpu=True,
        report_to="none",
        logging_steps=1,
        disable_tqdm=True,
    )
    with SandboxPool(2) as pool:
        trainer = DistILTrainer(
            model,
            [passed, tests],
            args,
            rows,
            eval_dataset=rows,
            feedback_funcs=reports,
            processing_class=tokenizer,
        )
        before = trainer.evaluate()
        trainer.train()
        after = trainer.evaluate()
    for figure in ("passed", "tests"):
        name = f"eval_rewards/{figure}/mean"
        print(f"{figure}: {before[name]:.2f} before, {after[name]:.2f} after")
    print("Programs, reports and credit: distil report runs/code-feedback")


if __name__ == "__main__":
    main()
