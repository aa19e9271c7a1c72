"""`distil eval`'s flags: short forms, presets between recipe and flags; checks; vLLM's stand-in."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import make_model, make_tokenizer
from distil.commands.evalflags import eval_flags
from distil.config import EvalConfig, Recipe, TaskConfig
from distil.errors import ModelError, RecipeError
from distil.evaluate.samplers import SamplerConfig, open_sampler
from distil.figures.figurenames import figure_names
from distil.recipe.checks import check_recipe
from distil.recipe.evalpresets import EVAL_PRESETS
from distil.recipe.recipefile import load_recipe


def test_short_forms_are_the_long_ones() -> None:
    long = ["--task.name", "gcd", "--eval.samples", "16", "--eval.k", "1", "4", "16"]
    wanted = eval_flags(["m", *long])
    assert (wanted.task.name, wanted.eval.samples, wanted.eval.k) == ("gcd", 16, (1, 4, 16))
    for k in (["--k", "1,4,16"], ["--k=1,4,16"], ["--k", "1", "4", "16"], ["--eval.k=1,4,16"]):
        assert eval_flags(["m", "--task", "gcd", "--n", "16", *k]) == wanted
        assert eval_flags(["m", *k, "--task=gcd", "--n=16"]) == wanted


@pytest.mark.parametrize("k", ["1,x", "1.5", "0", "9"])
def test_a_wrong_k_is_refused(k: str) -> None:
    with pytest.raises(RecipeError, match=r"--eval\.k|eval\.k names"):
        eval_flags(["m", "--n", "8", "--k", k])


@pytest.mark.parametrize(
    ("name", "settings", "length"),
    [
        ("sciknoweval", (16, 0.6, 0.95, 0), 256),
        ("livecodebench", (16, 0.2, 0.95, 20), 256),
        ("math-4b", (64, 0.7, 0.95, 20), 16_384),
        ("math-8b", (64, 1.0, 1.0, 0), 38_912),
    ],
)
def test_a_preset_has_the_published_settings(
    name: str, settings: tuple[int, float, float, int], length: int
) -> None:
    flags = eval_flags(["m", "--preset", name])
    found = flags.eval
    assert (found.samples, found.temperature, found.top_p, found.top_k) == settings
    assert flags.max_completion_length == length
    assert flags.preset == name
    assert len(EVAL_PRESETS) == 4


def test_a_preset_lies_over_the_recipe_and_under_flags(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "eval: {samples: 3, temperature: 0.5, seed: 7, k: [1, 3]}\n"
        "model: {thinking: 'off'}\nrollout: {max_completion_length: 24}"
    )
    recipe = ["--recipe", str(tmp_path)]
    flags = eval_flags(["m", *recipe, "--preset", "sciknoweval", "--n", "4"])
    assert flags.eval == EvalConfig(samples=4, temperature=0.6, top_p=0.95, seed=7, k=(1, 3))
    assert (flags.max_completion_length, flags.thinking) == (24, "off")
    assert eval_flags(["m", *recipe, "--thinking", "on"]).thinking == "on"
    with pytest.raises(RecipeError, match=r"evaluations 'math-4'. Perhaps you meant 'math-4b'"):
        eval_flags(["m", "--preset", "math-4"])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--endpoint", "http://h/v1", "--vllm"], "two samplers"),
        (["--endpoint-model", "x"], "are an --endpoint's"),
        (["--endpoint", "h:8000/v1"], "--endpoint is 'h:8000/v1', and must be the endpoint's"),
        (["--endpoint", "http://h:99999/v1"], "must be the endpoint's address"),
        (["--endpoint", "http://me:word@h:99999/v1?key=x"], "is 'http://...@h:99999/v1?...', and"),
        (["--endpoint", "http://[::1/v1"], "must be the endpoint's address"),
        (["--endpoint", "http://me:word@h/v1"], "a name, a password or a query"),
        (["--endpoint", "http://h/v1?key=x"], "environment variable: --api-key-env."),
        (["--concurrency", "0"], "--concurrency is 0"),
        (["--timeout", "nan"], "--timeout nan"),
        (["--regrade"], "name their .json as MODEL"),
        (["--endpont", "x"], "--endpoint"),
    ],
)
def test_a_wrong_flag_is_refused(flags: list[str], expected: str) -> None:
    with pytest.raises(RecipeError) as refused:
        eval_flags(["m", *flags])
    assert expected in str(refused.value)


# ---------------------------------------------------------------- keep_best and k in a recipe


def chosen(**changes: Any) -> Recipe:
    settings = EvalConfig(every=1, keep_best="avg@8")
    recipe = Recipe(task=TaskConfig(validation_size=5), eval=settings)
    task = replace(recipe.task, validation_size=changes.pop("validation_size", 5))
    return replace(recipe, task=task, eval=replace(settings, **changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"validation_size": 0}, "never by the held-out ones. Set task.validation_size."),
        ({"every": 0}, "Set eval.every."),
        (
            {"keep_best": "avg@4"},
            "Perhaps you meant 'avg@8'. Known: avg@8, pass@2, pass@4, pass@8,",
        ),
        ({"keep_best": "tokens"}, "there is no such figure"),
        ({"keep_best": "pass@2", "k": (1, 8)}, "Known: avg@8, pass@1, pass@8, maj@8."),
        ({"k": (9,)}, "eval.k names 9, and must lie between 1 and eval.samples (8)."),
    ],
)
def test_a_best_that_cannot_be_kept_is_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(RecipeError) as refused:
        check_recipe(chosen(**changes))
    assert expected in str(refused.value)


@pytest.mark.parametrize("figure", figure_names(8))
def test_every_figure_may_choose(figure: str) -> None:
    assert check_recipe(chosen(keep_best=figure)).eval.keep_best == figure


@pytest.mark.parametrize(("text", "k"), [("[1, 4]", (1, 4)), ("4", (4,)), ("[]", ())])
def test_k_is_read_from_a_recipe(tmp_path: Path, text: str, k: tuple[int, ...]) -> None:
    (tmp_path / "recipe.yaml").write_text(f"eval: {{k: {text}}}")
    assert load_recipe(tmp_path).eval.k == k


@pytest.mark.parametrize("text", ["[a]", "x", "[1.5]", "[true]", "{a: 1}", ""])
def test_a_k_that_is_no_number_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(f"eval: {{k: {text}}}")
    with pytest.raises(RecipeError, match=r"'eval\.k' is .* must be a list of whole numbers"):
        load_recipe(tmp_path)


# ---------------------------------------------------------------- vLLM (a stand-in for it)


class SamplingParams:
    def __init__(
        self, *, temperature: float, top_p: float, top_k: int, max_tokens: int, seed: int
    ) -> None:
        self.said = (temperature, top_p, top_k, max_tokens)
        self.seed = seed


class LLM:
    """With the names and the outputs' form of vllm.LLM; it says what it was asked."""

    made: dict[str, Any]

    def __init__(self, *, model: str, dtype: str, tensor_parallel_size: int) -> None:
        type(self).made = {"model": model, "dtype": dtype, "gpus": tensor_parallel_size}

    def get_tokenizer(self) -> Any:
        return make_tokenizer()

    def chat(
        self,
        messages: list[list[dict[str, str]]],
        sampling_params: Sequence[SamplingParams],
        use_tqdm: bool,
        chat_template_kwargs: dict[str, Any] | None,
    ) -> list[Any]:
        self.options = chat_template_kwargs
        self.parameters = sampling_params
        reasons = ["stop", "length"]
        return [
            SimpleNamespace(
                outputs=[
                    SimpleNamespace(
                        text=m[-1]["content"][::-1],
                        token_ids=[7] * (i + 1),
                        finish_reason=reasons[i],
                    )
                ]
            )
            for i, m in enumerate(messages)
        ]


def test_vllm_is_asked_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(LLM=LLM, SamplingParams=SamplingParams)
    monkeypatch.setitem(sys.modules, "vllm", fake)
    make_model().save_pretrained(tmp_path)
    settings = EvalConfig(temperature=0.5, top_p=0.9)
    wanted = SamplerConfig(vllm=True, tensor_parallel_size=2)
    sampler: Any = open_sampler(wanted, str(tmp_path), settings, 17, "template")
    assert LLM.made == {"model": str(tmp_path), "dtype": "auto", "gpus": 2}
    with sampler.session(0):
        found = sampler.sample([[{"role": "user", "content": "ab"}], "cd"], 4)
    assert [(s.text, s.tokens, s.truncated) for s in found] == [("ba", 1, False), ("dc", 2, True)]
    engine = sampler._engine
    assert [p.said for p in engine.parameters] == [(0.5, 0.9, -1, 17)] * 2
    assert len({p.seed for p in engine.parameters}) == 2
    assert engine.options is None
    again = [p.seed for p in engine.parameters]
    sampler.sample(["ab"], 5)  # the second attempt of those, by itself
    assert [p.seed for p in engine.parameters] == again[1:]
    with pytest.raises(ModelError, match="has no such switch"):
        open_sampler(wanted, str(tmp_path), settings, 17, "off")


def test_without_vllm_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(RecipeError, match=r"pip install 'distil\[vllm\]'"):
        open_sampler(SamplerConfig(vllm=True), "any", EvalConfig(), 17, "template")
