"""An agent that calls its tool now and then learns to call it always, from its own successes.

    python examples/tool_agent.py         # about four minutes on two cores

SmolLM2-135M can't multiply and was never taught to call tools. So it's made an agent first (TRL's
SFTTrainer, two minutes): asked for a product it is taught to call `multiply` as often as to
guess, and to call it whenever it is shown a transcript that led to the right answer. Then DistIL:
of each question's rollouts the successful ones are shown to the teacher of the others, as
transcripts of their calls. What the tool answers stands in the completion, neither scored nor
credited. Left out: models that come with tools (their chat template is taken as it is), several
tools, and recipes, where `rollout.tools` names them.
"""

import random

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from distil import DistILConfig, DistILTrainer, TeacherContext
from distil.feedback.tools import transcript
from distil.models import load_model
from distil.prompts.messages import teacher_prompt

HELD_OUT = 16
LESSONS = 7
STEPS = 4
ON_A_LAPTOP = {
    "save_strategy": "no",
    "bf16": False,
    "use_cpu": True,
    "report_to": "none",
    "logging_steps": 1,
    "disable_tqdm": True,
}

# How this model is told of tools, and writes calls: <call>multiply a=12 b=34</call>.
TEMPLATE = (
    "{% if tools %}<|im_start|>system\nYou can use a tool. To multiply 2 and 3, write "
    "<call>multiply a=2 b=3</call><|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] or '' }}"
    "{% for c in m['tool_calls'] or [] %}<call>{{ c['function']['name'] }}"
    "{% for k, v in c['function']['arguments'].items() %} {{ k }}={{ v }}{% endfor %}</call>"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# How transformers reads them back out of what it wrote (its response templates).
RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open_pattern": r"<call>(?P<name>\w+)",
            "close_pattern": r"</call>",
            "repeats": True,
            "content": "xml-inline",
            "content_args": {
                "tag_pattern": r"(?P<key>\w+)=(?P<value>[^ <]*)",
                "value_parser": {"name": "text"},
            },
            "transform": {
                "type": "function",
                "function": {"name": "{name}", "arguments": "{content}"},
            },
        },
        "content": {"close_pattern": r"<\|im_end\|>", "content": "text"},
    },
}


def multiply(a: str, b: str) -> str:
    """Multiplies two whole numbers.

    Args:
        a: The first one.
        b: The second one.
    """
    return str(int(a) * int(b))


def pairs(number, seed):
    draw = random.Random(seed)
    return [(draw.randrange(12, 99), draw.randrange(12, 99)) for _ in range(number)]


def question(a, b):
    return [{"role": "user", "content": f"Multiply {a} and {b}."}]


def rows(numbers):
    return Dataset.from_list(
        [{"prompt": question(a, b), "product": str(a * b)} for a, b in numbers]
    )


def reward(completions, product, **columns):
    """1 where the last turn names the product."""
    said = [turns[-1]["content"] or "" for turns in completions]
    return [float(p in words) for words, p in zip(said, product, strict=True)]


def calls(completions, **columns):
    """Only to be seen: 1 where the tool was called."""
    return [float(any(turn.get("tool_calls") for turn in turns)) for turns in completions]


def lessons(tokenizer, numbers):
    """Prompt and what to say there, as text: half of the bare questions are answered by a guess.

    Every second question is shown to it with a transcript, as a teacher sees it, so that it learns
    what a transcript is for.
    """

    def told(messages, say):
        prompt = tokenizer.apply_chat_template(
            messages, tools=[multiply], add_generation_prompt=True, tokenize=False
        )
        return {"prompt": prompt, "completion": say + "<|im_end|>"}

    found = []
    for place, (a, b) in enumerate(numbers):
        asked, product = question(a, b), multiply(a, b)
        call = {"type": "function", "function": {"name": "multiply", "arguments": {"a": a, "b": b}}}
        ran = [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "name": "multiply", "content": product},
        ]
        done = {"role": "assistant", "content": f"The product is {product}."}
        shown = teacher_prompt(
            asked, TeacherContext("sibling", demonstration=transcript([*ran, done])), closing=None
        )
        said, guess = f"<call>multiply a={a} b={b}</call>", f"The product is {a * 100 + b}."
        found.append(told(asked, guess if place % 2 else said))
        found.append(told(shown, said))
        found.append(told([*(shown if place % 2 else asked), *ran], done["content"]))
    return Dataset.from_list(found)


def make_agent(model, tokenizer):
    tokenizer.chat_template, tokenizer.response_template = TEMPLATE, RESPONSE
    args = SFTConfig(
        "runs/tool-agent-lessons",
        max_steps=LESSONS,
        per_device_train_batch_size=16,
        learning_rate=5e-5,
        lr_scheduler_type="linear",
        gradient_checkpointing=False,
        **ON_A_LAPTOP,
    )
    taught = lessons(tokenizer, pairs(80, seed=0))
    SFTTrainer(model, args, train_dataset=taught, processing_class=tokenizer).train()


def main():
    model, tokenizer = load_model("smollm2-135m-instruct")
    make_agent(model, tokenizer)
    args = DistILConfig(
        "runs/tool-agent",
        feedback_order=["sibling"],
        max_tool_calling_iterations=1,
        reward_weights=[1.0, 0.0],
        max_steps=STEPS,
        per_device_train_batch_size=16,
        num_generations=4,
        max_completion_length=48,
        temperature=0.7,
        learning_rate=1.5e-5,
        lr_scheduler_type="constant",
        objective={"future": "mean", "future_weight": 0.3, "credit_end": True, "top_k": 20},
        num_generations_eval=2,
        per_device_eval_batch_size=64,
        **ON_A_LAPTOP,
    )
    trainer = DistILTrainer(
        model,
        [reward, calls],
        args,
        rows(pairs(200, seed=1)),
        eval_dataset=rows(pairs(HELD_OUT, seed=2)),
        processing_class=tokenizer,
        tools=[multiply],
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    for name, what in ("eval_rewards/reward/mean", "right"), ("eval_rewards/calls/mean", "calls"):
        print(f"{what} on {HELD_OUT} held-out products: {before[name]:.2f}, then {after[name]:.2f}")
    print("Every token's credit: distil report runs/tool-agent")


if __name__ == "__main__":
    main()
