"""A served teacher before training: which servers and settings are refused, and why."""

from pathlib import Path
from typing import Any

import pytest

from conftest import make_model, make_tokenizer
from distil.errors import FeedbackError, RecipeError
from trainertoys import make_trainer
from vllmserver import MODEL, VllmServer, other_tokenizer, served_trainer, server, vllm_server

__all__ = ["server"]  # a fixture


def test_more_log_probabilities_than_the_server_allows(tmp_path: Path) -> None:
    with (
        vllm_server(max_logprobs=20) as server,
        pytest.raises(FeedbackError, match=r"Requested prompt logprobs of 40.*--max-logprobs 40"),
    ):
        served_trainer(tmp_path, server, objective={"top_k": 40})


def test_a_server_without_prompt_logprobs(tmp_path: Path, server: VllmServer) -> None:
    server.always = "no prompt_logprobs"
    with pytest.raises(FeedbackError, match="an answer without prompt_logprobs"):
        served_trainer(tmp_path, server)


def test_a_model_that_is_not_there_and_a_context_that_is_too_short(
    tmp_path: Path, server: VllmServer
) -> None:
    with pytest.raises(FeedbackError, match=r"isn't there.*Perhaps you meant 'toy-expert'"):
        served_trainer(tmp_path, server, served={"model": "toy-export"})
    server.max_model_len = 4096
    with pytest.raises(FeedbackError, match=r"reads 4,096 tokens.*may be 10,247.*max-model-len"):
        served_trainer(tmp_path, server)
    served_trainer(tmp_path, server, max_teacher_prompt_length=4089)


def test_an_address_without_its_path(tmp_path: Path, server: VllmServer) -> None:
    server.always = "404"  # and the list of models, by GET, is there
    with pytest.raises(FeedbackError, match="lists this very model, so that the path is probably"):
        served_trainer(tmp_path, server)


def test_nobody_there(tmp_path: Path, server: VllmServer) -> None:
    with pytest.raises(FeedbackError, match="gives no answer that can be used"):
        served_trainer(tmp_path, server, served={"base_url": "http://127.0.0.1:9/v1"})


@pytest.mark.parametrize("tokenize", [True, False])
def test_another_tokenizer_is_refused_with_the_first_token_that_differs(
    tmp_path: Path, tokenize: bool
) -> None:
    with vllm_server(tokenizer=other_tokenizer(("h", "Q"))) as server:
        server.knows_tokenize = tokenize
        said = (
            "token 1 is 20 .'h'. for the student, and 55 there" if tokenize else "token 20 is 'Q'"
        )
        with pytest.raises(FeedbackError, match=f"has another tokenizer: .*{said}"):
            served_trainer(tmp_path, server)


def test_tokens_that_no_probe_text_has_are_compared_too(tmp_path: Path) -> None:
    with (
        vllm_server(tokenizer=other_tokenizer(("Y", "<"))) as server,
        pytest.raises(FeedbackError, match=r"token 63 is '<' there, and 'Y' for the student"),
    ):
        served_trainer(tmp_path, server)


def test_a_smaller_vocabulary_is_refused(tmp_path: Path) -> None:
    tokenizer, model = make_tokenizer(), make_model()
    tokenizer.add_tokens("<extra>")
    model.resize_token_embeddings(81, mean_resizing=False)
    with (
        vllm_server() as server,
        pytest.raises(FeedbackError, match=r"doesn't take the student's token ids.*up to 80"),
    ):
        served_trainer(tmp_path, server, model=model, processing_class=tokenizer)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 0.7}, "temperature 1 whatever is asked"),
        ({"objective": {"name": "reverse_kl"}}, "objective.support is student"),
        ({"objective": {"support": "joined"}}, "objective.support is joined"),
        ({"objective": {"name": "grpo"}}, "grpo asks no teacher"),
        ({"teacher_samples": 1}, "teacher_samples is 1"),
        ({"served": {"concurrency": 0, "timeout": 0}}, "concurrency is 0"),
        ({"served": {"base_url": "localhost:8000"}}, "must be the endpoint's address"),
        ({"served": {"base_url": "http://me:word@127.0.0.1/v1"}}, "a name, a password or a query"),
        ({"served": {"model": ""}}, "teacher_served.model is empty"),
        ({"served": {"samples": -1}}, "teacher_served.samples is -1"),
        ({"served": {"samples": 2}, "objective": {"name": "forward_kl"}}, "linear.*forward_kl"),
        ({"served": {"samples": 2}, "objective": {"name": "as_released_math"}}, "linear"),
        ({"served": {"samples": 2}, "objective": {"tail": False}}, "objective.tail"),
        ({"served": {"samples": 2}, "objective": {"max_teacher_entropy": 1.0}}, "entropy"),
        ({"served": {"samples": 2}, "objective": {"first_error_margin": 1.0}}, "first_error"),
        ({"served": {"samples": 2}, "objective": {"policy_space_clip": 1.0}}, "policy_space"),
        ({"teacher": "ema"}, "teacher_served sets base_url, model"),
    ],
)
def test_what_cannot_be_asked_of_a_server_is_refused_with_the_reason(
    tmp_path: Path, server: VllmServer, options: dict[str, Any], said: str
) -> None:
    served = {"base_url": server.url, "model": MODEL, **options.pop("served", {})}
    with pytest.raises(RecipeError, match=said):
        make_trainer(tmp_path, **({"teacher": "served", "teacher_served": served} | options))
    assert not server.requests
