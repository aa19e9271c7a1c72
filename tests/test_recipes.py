"""The recipes of the three domains: published settings, fair to each other, and each one runs.

A step is run on a tiny random model of the recipe's own architecture (Qwen3, Olmo-3, Llama), with
fewer and shorter rollouts and transformers as sampler; all else is the recipe's.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import Olmo3Config, Olmo3ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from conftest import CHARACTERS, make_model, make_tokenizer
from distil.cli import main
from distil.config import Recipe
from distil.recipe.checks import check_recipe
from distil.recipe.recipefile import load_recipe

ROOT = Path(__file__).parent.parent / "recipes"
DOMAINS = ("science", "coding", "math")
METHODS = ("distil", "sdpo", "opsd", "grpo")
BIG = [f"{d}/{m}" for d in DOMAINS for m in METHODS]
SMALL = [f"{name}-small" for name in BIG]

# METHOD, section 4: rate, warm-up, (prompts, rollouts), updates, top-K, cost, teacher, rate of EMA.
PUBLISHED: dict[str, tuple[Any, ...]] = {
    "science/distil": (5e-5, 10, (32, 8), 1, 100, "distil", "ema", 0.01),
    "science/sdpo": (1e-5, 10, (32, 8), 1, 100, "jensen_shannon", "ema", 0.05),
    "science/grpo": (1e-6, 10, (32, 8), 4, None, "grpo", None, None),
    "coding/distil": (1e-6, 0, (32, 8), 32, 20, "distil", "ema", 0.01),
    "coding/sdpo": (1e-6, 0, (32, 8), 32, 20, "reverse_kl", "ema", 0.01),
    "coding/grpo": (1e-6, 10, (32, 8), 4, None, "grpo", None, None),
    "math/distil": (5e-6, 0, (32, 1), 1, 100, "distil", "frozen", None),
    "math/sdpo": (5e-6, 0, (32, 1), 1, 100, "reverse_kl", "frozen", None),
    "math/opsd": (5e-6, 0, (32, 1), 1, 100, "jensen_shannon", "frozen", None),
}


def read(name: str) -> Recipe:
    return check_recipe(load_recipe(ROOT / f"{name}.yaml"))


def test_every_recipe_of_the_domains_is_known_here() -> None:
    there = {f"{d}/{f.stem}" for d in DOMAINS for f in (ROOT / d).glob("*.yaml")}
    assert there == {*BIG, *SMALL}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_settings(name: str) -> None:
    r = read(name)
    found: list[Any] = [
        r.train.learning_rate,
        r.train.warmup_steps,
        (r.rollout.prompts_per_step, r.rollout.num_generations),
        r.train.updates_per_batch,
        r.objective.top_k,
        r.objective.name,
        r.teacher.kind,
        r.teacher.ema_rate,
    ]
    for wanted, value in zip(PUBLISHED[name], found, strict=True):
        assert wanted is None or value == wanted
    science_or_coding = not name.startswith("math")
    assert r.rollout.max_completion_length == (8192 if science_or_coding else 16384)
    assert r.train.max_grad_norm == (1.0 if science_or_coding else 0.1)
    assert r.rollout.temperature == (1.0 if science_or_coding else 0.7)
    assert (r.model.lora.rank, r.model.lora.alpha) == ((0, 32) if science_or_coding else (64, 128))
    assert r.rollout.use_vllm
    assert r.train.weight_decay == 0.01


def fair(recipe: Recipe) -> dict[str, Any]:
    """What rivals must share, but where the method itself is what differs."""
    rollouts = recipe.rollout.prompts_per_step * recipe.rollout.num_generations
    return {
        "task": recipe.task,
        "model": recipe.model,
        "eval": recipe.eval,
        "steps": recipe.train.steps,
        "rollouts": rollouts,
        "length": recipe.rollout.max_completion_length,
        "temperature": recipe.rollout.temperature,
        "seed": recipe.train.seed,
    }


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("size", ["", "-small"])
def test_rivals_share_task_model_budget_and_judging(domain: str, size: str) -> None:
    first, *others = [fair(read(f"{domain}/{m}{size}")) for m in METHODS]
    assert [other for other in others if other != first] == []


@pytest.mark.parametrize("domain", DOMAINS)
def test_small_siblings_keep_the_method_and_share_one_rate(domain: str) -> None:
    for method in METHODS:
        big, small = read(f"{domain}/{method}"), read(f"{domain}/{method}-small")
        assert small.preset == big.preset
        assert small.feedback == big.feedback
        assert small.teacher == big.teacher
        changed = {
            f: getattr(small.objective, f)
            for f in vars(big.objective)
            if getattr(small.objective, f) != getattr(big.objective, f)
        }
        assert set(changed) <= {"top_k"}
    assert len({read(f"{domain}/{m}-small").train.learning_rate for m in METHODS}) == 1


def rows(domain: str, count: int = 6) -> list[dict[str, Any]]:
    """A table as `distil data prepare` writes it."""
    made = []
    for i in range(count):
        question, more = {
            "science": ("Which is it?", {"answer": "A", "choices": ["this", "that"]}),
            "coding": (
                f"Read a number and print it plus {i}.",
                {
                    "answer": f"print(int(input()) + {i})",
                    "tests": [{"stdin": "1\n", "expected": f"{1 + i}\n"}],
                },
            ),
            "math": (f"What is 1 + {i}?", {"answer": str(1 + i)}),
        }[domain]
        made.append({"id": f"{domain}-{i}", "question": f"{i}: {question}", **more})
    return made


def tiny(architecture: str, folder: Path) -> Path:
    """A random model of the architecture; for Qwen3 with a template that knows of thinking."""
    shape = {
        "vocab_size": len(CHARACTERS) + 3, "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
        "initializer_range": 0.2,
    }  # fmt: skip
    model: Any = {
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=8)),
        "olmo3": lambda: Olmo3ForCausalLM(Olmo3Config(**shape)),
        "llama": make_model,
    }[architecture]()
    tokenizer = make_tokenizer()
    if architecture == "qwen3":
        tokenizer.chat_template = THINKING_TEMPLATE
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# As Qwen3's: told not to think, it opens with an empty thought; an earlier turn's thought is cut.
THINKING_TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n"
    "{{ m['content'].split('</think>')[-1].lstrip('\n') if m['role'] == 'assistant' "
    "else m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def flags(name: str, folder: Path, architecture: str) -> list[str]:
    """What is made smaller: rollouts, updates that no longer divide them, lengths, data, model."""
    domain = name.split("/")[0]
    table = folder / f"{domain}.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows(domain)))
    generations = read(name).rollout.num_generations
    made = [
        "--task.name", str(table), "--task.train-size", "4", "--task.eval-size", "2",
        "--model.name", str(tiny(architecture, folder / "model")),
        "--rollout.prompts-per-step", "4" if generations == 1 else "2",
        "--rollout.num-generations", str(min(generations, 2)),
        "--rollout.max-completion-length", "6", "--rollout.no-use-vllm",
        "--train.updates-per-batch", "1", "--train.micro-batch", "2", "--train.steps", "1",
        "--train.output-dir", str(folder / "run"), "--eval.samples", "2",
    ]  # fmt: skip
    if read(name).task.eval_file:
        other = folder / f"{domain}-test.jsonl"
        other.write_text(table.read_text())
        made += ["--task.eval-file", str(other)]
    if architecture != "qwen3":
        made += ["--model.thinking", "template"]
    return made


FAMILY = {
    **{name: "qwen3" for name in BIG},
    "science/sdpo": "olmo3",
    **{name: "llama" for name in SMALL},
}


@pytest.mark.parametrize("name", [*BIG, *SMALL])
def test_one_step_runs_on_a_tiny_model_of_its_family(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = flags(name, tmp_path, FAMILY[name])
    assert main(["train", str(ROOT / f"{name}.yaml"), *given]) == 0
    log = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert log["step"] == 1
    assert log.get("feedback/tests_passed") == (0.0 if name.startswith("coding") else None)
    assert "avg@2" in capsys.readouterr().out
    rollouts = [
        json.loads(line) for line in (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()
    ]
    instruction = read(name).task.instruction
    assert all(instruction in r["prompt"][-1]["content"] for r in rollouts)
    system = read(name).task.system
    assert all((r["prompt"][0]["role"] == "system") == bool(system) for r in rollouts)


@pytest.mark.parametrize("name", [*BIG, *SMALL])
def test_a_dry_run_says_what_would_happen_and_makes_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = flags(name, tmp_path, FAMILY[name])
    given += ["--train.micro-batch", "1", "--dry-run", "--gpus", "4"]  # four rollouts
    assert main(["train", str(ROOT / f"{name}.yaml"), *given]) == 0
    told = capsys.readouterr().out
    assert "4 problems to train on, 0 to validate on, 2 held out" in told
    assert "one of 4 GPUs" in told
    known = read(name).task.instruction.split("`")[0].split("\\")[0]  # what the toy can spell
    assert told.count(known) == 3  # the student's prompt, and the teacher's, which it closes
    assert not (tmp_path / "run").exists()
