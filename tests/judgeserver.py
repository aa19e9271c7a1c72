"""A small OpenAI-compatible server on loopback around the toy model, which can be made to fail.

Serves POST /v1/chat/completions and GET /v1/models, with the API's own errors for a wrong key and
an unknown model. An answer is a text, or the whole response. `faults` are taken one a request, in
order; then it is well again.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from conftest import make_model, make_tokenizer
from distil.trainer.probe import sample
from loopback import LoopbackHandler, LoopbackServer, serving

MODEL = "toy-judge"
KEY = "sk-secret-of-the-test"
ONE_AT_A_TIME = threading.Lock()


def toy_answer(body: dict[str, Any]) -> str:
    """What the toy model writes to these messages, at their temperature and length."""
    model, tokenizer = make_model(5), make_tokenizer()
    model.generation_config.eos_token_id = [2]
    ids = tokenizer.apply_chat_template(
        body["messages"], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    with ONE_AT_A_TIME, torch.random.fork_rng():
        torch.manual_seed(0)
        (written,) = sample(
            model, [ids], max_new_tokens=body["max_tokens"],
            temperature=max(body["temperature"], 1e-3), pad_token_id=2,
        )  # fmt: skip
    return str(tokenizer.decode(written, skip_special_tokens=True))


class JudgeServer(LoopbackServer):
    """`answer`: what it says to a body."""

    def __init__(self, answer: Callable[[dict[str, Any]], Any], key: str | None) -> None:
        super().__init__(_Handler, key)
        self.answer = answer


class _Handler(LoopbackHandler):
    server: JudgeServer

    def do_GET(self) -> None:
        self.send(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        body = self.read_body()
        server = self.server
        with server.lock:
            server.requests.append((self.headers["Authorization"], body))
            fault = server.faults.pop(0) if server.faults else server.always
        if fault is None:
            self._answer(body)
        else:
            self._fail(fault)

    def _answer(self, body: dict[str, Any]) -> None:
        if self.server.key and self.headers["Authorization"] != f"Bearer {self.server.key}":
            given = self.headers["Authorization"]
            return self.send(401, {"error": {"message": f"Incorrect API key provided: {given}"}})
        if body["model"] != MODEL:
            return self.send(404, {"error": {"message": f"The model {body['model']} isn't here"}})
        said = self.server.answer(body)
        return self.send(200, said if isinstance(said, dict) else completion(said))

    def _fail(self, fault: str) -> None:
        if fault in ("400", "404", "429", "500", "503"):
            self.send(int(fault), {"error": {"message": "no"}})
        elif self.silent(fault):
            pass
        elif fault == "dribble":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "1000")
            self.end_headers()
            while not self.server.closing.wait(0.05):
                self.wfile.write(b" ")
        else:
            self.send(200, BODIES[fault])


def completion(text: Any) -> dict[str, Any]:
    """The API's form of an answer."""
    return {
        "id": "1",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        ],
    }


BODIES: dict[str, Any] = {
    "no json": b"{'choices': [",
    "html": b"<html>Bad gateway</html>",
    "nested": b"[" * 100_000,
    "binary": bytes(range(128, 256)),
    "no choices": {"choices": []},
    "null choices": {"choices": None},
    "a list": [1, 2],
    "a number": 3,
    "a string": "well done",
    "no message": {"choices": [{"index": 0}]},
    "null content": completion(None),
    "blank content": completion("  \n"),
    "content of another type": completion(["a"]),
    "number as message": {"choices": [{"message": 3}]},
}


@contextmanager
def judge_server(
    answer: Callable[[dict[str, Any]], Any] = toy_answer, key: str | None = None
) -> Iterator[JudgeServer]:
    with serving(JudgeServer(answer, key)) as server:
        yield server
