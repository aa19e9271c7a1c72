"""A judge on loopback: what it is asked, what its faults cost, and what is refused before a run."""

import asyncio
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from distil.config import CritiqueConfig
from distil.errors import FeedbackError, RecipeError
from distil.feedback import judge
from distil.feedback.judge import ask_judge, check_judge
from judgeserver import BODIES, KEY, MODEL, JudgeServer, judge_server, toy_answer


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    """A judge that repeats the question, backwards."""
    monkeypatch.setattr(judge, "BACK_OFF", 0.01)
    with judge_server(lambda body: body["messages"][-1]["content"][::-1]) as running:
        yield running


def settings(server: JudgeServer, **options: Any) -> CritiqueConfig:
    return CritiqueConfig(**{"by": "judge", "model": MODEL, "base_url": server.url} | options)


def test_answers_come_in_the_order_of_the_questions(server: JudgeServer) -> None:
    questions = [f"question {i}" for i in range(20)]
    answers = ask_judge([asked(q) for q in questions], settings(server))
    assert answers == [q[::-1] for q in questions]
    assert ask_judge([], settings(server)) == []


def test_the_request_has_the_settings_and_the_key(
    server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    ask_judge(
        [asked("why")], settings(server, api_key_env="MY_KEY", max_tokens=17, temperature=0.25)
    )
    (header, body) = server.requests[0]
    assert header == f"Bearer {KEY}"
    assert body == {
        "model": MODEL, "messages": asked("why"), "max_tokens": 17, "temperature": 0.25,
    }  # fmt: skip


def test_no_key_of_somebody_else_is_sent(
    server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert ask_judge([asked("ab")], settings(server)) == ["ba"]
    assert KEY not in str(server.requests)


def test_a_real_model_judges_through_the_same_door() -> None:
    with judge_server(toy_answer) as running:
        chosen = settings(running, max_tokens=12)
        check_judge(chosen)
        answers = ask_judge([asked("what is wrong?"), asked("and here?")], chosen)
    assert all(isinstance(a, str) and 0 < len(a) <= 12 for a in answers)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_at_once_than_allowed(server: JudgeServer, concurrency: int) -> None:
    lock, now, peak = threading.Lock(), [0], [0]

    def slowly(body: dict[str, Any]) -> str:
        with lock:
            now[0] += 1
            peak[0] = max(peak[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return "so"

    server.answer = slowly
    ask_judge([asked("a")] * 9, settings(server, concurrency=concurrency))
    assert peak[0] == concurrency


def test_half_of_a_character_is_written_out(server: JudgeServer) -> None:
    """As a server sends it that was cut inside an emoji."""
    server.answer = lambda body: "wrong \ud83d"
    assert ask_judge([asked("a")], settings(server)) == ["wrong \\ud83d"]


@pytest.mark.parametrize("fault", ["429", "500", "503", "drop", *BODIES])
def test_a_fault_is_mended_by_one_more_try_and_two_cost_the_critique(
    server: JudgeServer, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    server.faults = [fault]
    assert ask_judge([asked("ab")], settings(server)) == ["ba"]
    assert len(server.requests) == 2
    assert not caplog.records
    server.faults = [fault, fault]
    assert ask_judge([asked("ab")], settings(server)) == [None]
    assert len(server.requests) == 4
    (record,) = caplog.records
    assert "The judge gave no critique of 1 of 1 attempts: 1 x " in record.getMessage()


def test_a_refused_request_is_not_repeated(server: JudgeServer) -> None:
    server.faults = ["400"]
    assert ask_judge([asked("ab")], settings(server)) == [None]
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", ["hang", "dribble"])
def test_slow_answers_are_given_up_and_the_others_kept(server: JudgeServer, fault: str) -> None:
    server.faults = [fault, fault]
    started = time.perf_counter()
    answers = ask_judge(
        [asked("ab"), asked("cd"), asked("ef")], settings(server, timeout=0.3, concurrency=3)
    )
    assert time.perf_counter() - started < 3
    assert answers == ["ba", "dc", "fe"]  # the two were asked again, and answered


def test_the_deadline_ends_it_all_and_keeps_what_is_there(
    server: JudgeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults = ["hang", "hang"]
    started = time.perf_counter()
    answers = ask_judge(
        [asked(t) for t in ("ab", "cd", "ef", "gh")],
        settings(server, timeout=60, deadline=0.7, concurrency=4),
    )
    assert time.perf_counter() - started < 3
    assert sorted(a is None for a in answers) == [False, False, True, True]
    assert "2 x deadline passed" in caplog.text


def test_a_judge_that_went_away_costs_the_critiques_only(server: JudgeServer) -> None:
    gone = settings(server)
    server.server_close()
    server.shutdown()
    assert ask_judge([asked("ab")], gone) == [None]


def test_a_running_loop_such_as_a_notebooks_is_no_hindrance(server: JudgeServer) -> None:
    async def notebook() -> list[str | None]:
        return ask_judge([asked("ab")], settings(server))

    assert asyncio.run(notebook()) == ["ba"]


def test_the_key_is_in_no_message(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    wrong = "sk-not-the-one"
    monkeypatch.setenv("MY_KEY", wrong)
    with judge_server(key=KEY) as running:
        chosen = settings(running, api_key_env="MY_KEY")
        assert ask_judge([asked("a")], chosen) == [None]
        with pytest.raises(FeedbackError) as refused:
            check_judge(chosen)
    assert "AuthenticationError 401" in caplog.text
    assert "$MY_KEY" in str(refused.value)
    assert wrong not in caplog.text + str(refused.value)


# ---------------------------------------------------------------- before a run


def test_a_judge_that_answers_passes(server: JudgeServer) -> None:
    check_judge(settings(server))
    assert len(server.requests) == 1


def test_a_missing_key_is_refused_with_its_variables_name(server: JudgeServer) -> None:
    with pytest.raises(RecipeError, match="names 'NO_SUCH_KEY', and no such environment variable"):
        check_judge(settings(server, api_key_env="NO_SUCH_KEY"))
    assert not server.requests


def test_a_missing_package_is_refused_with_the_extra_that_brings_it(
    server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(RecipeError, match=r"pip install 'distil\[judge\]'"):
        check_judge(settings(server))


def test_an_unknown_model_is_refused_with_the_nearest(server: JudgeServer) -> None:
    with pytest.raises(FeedbackError, match="Perhaps you meant 'toy-judge'"):
        check_judge(settings(server, model="toy-juge"))


def test_an_endpoint_that_is_not_there_is_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    chosen = CritiqueConfig(by="judge", model="m", base_url=f"http://127.0.0.1:{port}/v1")
    with pytest.raises(FeedbackError, match=r"gives no answer \(APIConnectionError\).*Start it"):
        check_judge(chosen)


def test_what_the_endpoint_complains_of_is_passed_on(server: JudgeServer) -> None:
    server.faults = ["400"]  # its message is "no"
    with pytest.raises(FeedbackError, match="BadRequestError 400: Error code: 400 - no"):
        check_judge(settings(server))


def test_an_empty_answer_is_refused(server: JudgeServer) -> None:
    server.always = "blank content"
    with pytest.raises(FeedbackError, match=r"an empty answer.*more max_tokens"):
        check_judge(settings(server))
