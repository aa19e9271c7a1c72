"""`distil eval` against a real server on loopback around the toy model, faults included."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distil.cli import main
from distil.evaluate.samplers import remote
from evaltoys import QUESTIONS, problems_file, task_flags, toy_completion
from judgeserver import KEY, MODEL, JudgeServer, judge_server

N = 4
LENGTH = 6


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.setattr(remote, "BACK_OFF", 0.01)
    with judge_server(toy_completion) as running:
        yield running


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler, whatever a run that was killed in this process left behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def command(server: JudgeServer, folder: Path, *flags: str, model: str = MODEL) -> list[str]:
    task = task_flags(problems_file(folder))
    length = ["--max-completion-length", str(LENGTH)]
    return ["eval", model, "--endpoint", server.url, *task, "--n", str(N), *length, *flags]


def attempts(file: Path) -> list[dict[str, Any]]:
    return list(json.loads(file.read_text())["attempts"])


def bodies(server: JudgeServer) -> list[dict[str, Any]]:
    """Of every request but the greeting."""
    return [body for _, body in server.requests[1:]]


def test_an_endpoints_model_is_sampled_and_graded(
    server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.json"
    flags = ["--out", str(out), "--eval.temperature", "0.75", "--eval.top-p", "0.9"]
    flags += ["--eval.top-k", "20", "--thinking", "off", "--concurrency", "1"]
    assert main(command(server, tmp_path, *flags)) == 0
    assert "3 problems x 4 samples" in capsys.readouterr().out
    asked = bodies(server)
    for body in asked:
        said = {k: v for k, v in body.items() if k not in ("messages", "seed")}
        assert said == {
            "model": MODEL, "max_tokens": LENGTH, "temperature": 0.75, "top_p": 0.9, "top_k": 20,
            "chat_template_kwargs": {"enable_thinking": False},
        }  # fmt: skip
    assert len({b["seed"] for b in asked}) == len(asked)
    found = attempts(out)
    assert len(found) == 3 * N
    for attempt, body in zip(found, asked, strict=True):
        question = QUESTIONS[int(attempt["problem"]) - 1]  # ids are the file's lines
        assert body["messages"][-1]["content"].startswith(question)
        drawn = toy_completion(body)
        assert attempt["completion"] == drawn["choices"][0]["message"]["content"]
        assert attempt["tokens"] == drawn["usage"]["completion_tokens"]
        assert attempt["truncated"] == (drawn["choices"][0]["finish_reason"] == "length")
    assert {a["truncated"] for a in found} == {True, False}
    assert json.loads(out.read_text())["settings"]["sampler"]["endpoint"] == server.url


def test_nothing_beyond_the_api_is_sent_unless_it_is_asked_for(
    server: JudgeServer, tmp_path: Path
) -> None:
    assert main(command(server, tmp_path)) == 0
    assert {tuple(sorted(b)) for b in bodies(server)} == {
        ("max_tokens", "messages", "model", "seed", "temperature", "top_p")
    }


@pytest.mark.parametrize("fault", ["500", "503", "429", "drop", "no json", "no choices"])
def test_a_request_that_fails_is_made_again_and_changes_nothing(
    server: JudgeServer, tmp_path: Path, fault: str
) -> None:
    assert main(command(server, tmp_path, "--out", str(tmp_path / "well.json"))) == 0
    server.requests.clear()

    def greeted(body: dict[str, Any]) -> dict[str, Any]:
        server.faults, server.answer = [fault] * 3, toy_completion
        return toy_completion(body)

    server.answer = greeted
    assert main(command(server, tmp_path, "--out", str(tmp_path / "ill.json"))) == 0
    assert attempts(tmp_path / "ill.json") == attempts(tmp_path / "well.json")
    assert len(server.requests) == 1 + 3 * N + 3


def test_half_of_a_character_is_kept_written_out(server: JudgeServer, tmp_path: Path) -> None:
    """No file in UTF-8 takes it, and the batch would be lost."""

    def cut(body: dict[str, Any]) -> dict[str, Any]:
        answer = toy_completion(body)
        answer["choices"][0]["message"]["content"] = "so \ud83d"
        return answer

    server.answer = cut
    assert main(command(server, tmp_path, "--out", str(tmp_path / "x.json"))) == 0
    assert {a["completion"] for a in attempts(tmp_path / "x.json")} == {"so \\ud83d"}


def test_a_request_that_hangs_is_given_up_and_made_again(
    server: JudgeServer, tmp_path: Path
) -> None:
    out = tmp_path / "x.json"

    def greeted(body: dict[str, Any]) -> dict[str, Any]:
        server.faults, server.answer = ["hang"], toy_completion
        return toy_completion(body)

    server.answer = greeted
    assert main(command(server, tmp_path, "--timeout", "2", "--out", str(out))) == 0
    assert len(attempts(out)) == 3 * N
    assert len(server.requests) == 1 + 3 * N + 1


def test_a_request_that_fails_for_good_is_named_and_the_same_command_goes_on(
    server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, partial = tmp_path / "x.json", tmp_path / "x.json.partial.jsonl"
    flags = ["--out", str(out), "--eval.batch-size", "4", "--concurrency", "1"]
    calm = toy_completion

    def breaks(body: dict[str, Any]) -> dict[str, Any]:
        if len(bodies(server)) >= 6:  # in the second batch
            server.always = "400"
        return calm(body)

    server.answer = breaks
    assert main(command(server, tmp_path, *flags)) == 2
    said = capsys.readouterr().err
    assert "gave attempt 7 no completion" in said
    assert "BadRequestError 400" in said
    assert bodies(server)[6]["messages"][-1]["content"] in said
    assert str(partial) in said
    assert not out.exists()
    assert len(partial.read_text().splitlines()) == 2  # settings and one batch
    kept = json.loads(partial.read_text().splitlines()[1])["attempts"]
    server.always, server.answer = None, calm
    server.requests.clear()
    assert main(command(server, tmp_path, *flags)) == 0
    assert "Going on after the 4 attempts" in capsys.readouterr().out
    assert len(bodies(server)) == 2 * N  # the first problem's aren't asked for again
    assert attempts(out)[:4] == kept
    assert not partial.exists()
    whole = tmp_path / "whole.json"
    assert main(command(server, tmp_path, "--out", str(whole))) == 0
    assert attempts(whole) == attempts(out)


def test_ctrl_c_does_not_wait_for_the_requests_under_way(
    server: JudgeServer, tmp_path: Path, ctrl_c: None
) -> None:
    def greeted(body: dict[str, Any]) -> dict[str, Any]:
        server.always = "hang"  # for 30 seconds
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        return toy_completion(body)

    server.answer = greeted
    began = time.monotonic()
    assert main(command(server, tmp_path)) == 130
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("flags", "model", "expected"),
    [
        ([], "toy-juge", "no such model (--endpoint-model), or the address lacks its /v1. Perhaps"),
        (["--endpoint-model", "other"], MODEL, "The model 'other' at "),
        (["--api-key-env", "WRONG"], MODEL, "came with the key in $WRONG"),
        ([], MODEL, "came with no key"),
        (["--api-key-env", "ACCENT"], MODEL, "--api-key-env names 'ACCENT', and that environment"),
        (["--api-key-env", "BROKEN"], MODEL, "names 'BROKEN', and that environment variable holds"),
        (["--api-key-env", "UNSET"], MODEL, "--api-key-env names 'UNSET', and no such"),
    ],
)
def test_what_cannot_work_is_refused_before_sampling(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    model: str,
    expected: str,
) -> None:
    monkeypatch.setattr(remote, "BACK_OFF", 0.01)
    monkeypatch.setenv("WRONG", "sk-wrong")
    monkeypatch.setenv("ACCENT", "sk-wrong-é")
    monkeypatch.setenv("BROKEN", "sk-wrong\nsk-wrong")
    monkeypatch.delenv("UNSET", raising=False)
    with judge_server(toy_completion, None if "model" in expected else KEY) as server:
        assert main(command(server, tmp_path, *flags, model=model)) == 2
        assert bodies(server) == []
    said = capsys.readouterr().err
    assert expected in said
    assert "sk-wrong" not in said


def test_an_address_without_its_path_is_told_from_a_model_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with judge_server(toy_completion) as server:
        server.always = "404"  # and the list of models, by GET, is there
        assert main(command(server, tmp_path)) == 2
    said = capsys.readouterr().err
    assert "it lists this very model, so that the path is probably wrong" in said
    assert "Perhaps" not in said


def test_a_right_key_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", KEY)
    with judge_server(toy_completion, KEY) as server:
        assert main(command(server, tmp_path, "--api-key-env", "MINE")) == 0
        assert {header for header, _ in server.requests} == {f"Bearer {KEY}"}


def test_an_endpoint_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(remote, "BACK_OFF", 0.01)
    with judge_server(toy_completion) as gone:
        pass
    assert main(command(gone, tmp_path)) == 2
    assert "gives no completions (APIConnectionError" in capsys.readouterr().err


def test_answers_without_usage_are_refused_as_their_lengths_would_be_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(remote, "BACK_OFF", 0.01)
    with judge_server(lambda body: "5") as server:
        assert main(command(server, tmp_path)) == 2
    assert "an answer without text, finish_reason or usage" in capsys.readouterr().err
