"""A small server on loopback around a real model, which answers as vLLM's does, or fails as told.

Serves POST /v1/completions with `prompt_logprobs` or sampled tokens, GET /v1/models, and POST
/tokenize; checks key, model, token ids, lengths and --max-logprobs as vLLM does, with its messages.
Its answers are those of examples/vllm_stand_in.py: the model's own logits, one plain pass a prompt.
Left out: generating more than one token, text prompts in lists, streaming. `server` is a fixture,
`served_trainer` a trainer whose teacher it is.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import make_model, make_tokenizer
from distil import DistILTrainer
from distil.teacher.served import asking
from loopback import LoopbackHandler, LoopbackServer, serving
from trainertoys import make_trainer
from vllm_stand_in import completions, prompts_of

MODEL = "toy-expert"


class VllmServer(LoopbackServer):
    """`requests`: (Authorization header, body) of each completion request, in the order they came.

    faults: taken one a request, in order; `always`: for every request that has none; `broken`:
    a function of the body that says which fault it gets, if any.
    """

    def __init__(self, model: Any, tokenizer: Any, key: str | None, max_logprobs: int) -> None:
        super().__init__(_Handler, key)
        self.model, self.tokenizer = model.eval(), tokenizer
        self.max_logprobs, self.max_model_len = max_logprobs, 20_000
        self.knows_tokenize = True
        self.broken: Any = lambda body: None
        self.draws = torch.Generator().manual_seed(0)


class _Handler(LoopbackHandler):
    server: VllmServer

    def do_GET(self) -> None:
        card = {"id": MODEL, "object": "model", "max_model_len": self.server.max_model_len}
        self.send(200, {"object": "list", "data": [card]})

    def do_POST(self) -> None:
        body = self.read_body()
        server = self.server
        if self.path == "/tokenize" and server.knows_tokenize:
            tokens = server.tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]
            return self.send(200, {"count": len(tokens), "tokens": tokens})
        if self.path != "/v1/completions":
            return self.send(404, {"detail": "Not Found"})
        with server.lock:
            server.requests.append((self.headers["Authorization"], body))
            fault = server.broken(body) or (server.faults.pop(0) if server.faults else None)
            fault = fault or server.always
        if fault in ("400", "404", "429", "500", "503"):
            return self._error(int(fault), "no")
        if self.silent(fault):
            return None
        if complaint := self._complaint(body):
            return self._error(*complaint)
        with server.lock:
            answer = completions(server.model, server.tokenizer, body, server.draws)
        return self.send(200, spoiled(answer, fault) if fault else answer)

    def _complaint(self, body: dict[str, Any]) -> tuple[int, str] | None:
        """What vLLM's server would refuse."""
        server = self.server
        if server.key and self.headers["Authorization"] != f"Bearer {server.key}":
            return 401, f"Unauthorized: {self.headers['Authorization']}"
        if body["model"] != MODEL:
            return 404, f"The model `{body['model']}` does not exist."
        k = body.get("prompt_logprobs") or 0
        if k > server.max_logprobs:
            return 400, (
                f"Requested prompt logprobs of {k}, which is greater than max allowed: "
                f"{server.max_logprobs}"
            )
        for ids in prompts_of(server.tokenizer, body):
            if max(ids) >= server.model.config.vocab_size:
                return 400, f"Token id {max(ids)} is out of vocabulary"
            if len(ids) + body["max_tokens"] > server.max_model_len:
                return 400, f"maximum context length is {server.max_model_len} tokens"
        return None

    def _error(self, status: int, message: str) -> None:
        kind = "BadRequestError" if status == 400 else "Error"
        self.send(status, {"error": {"message": message, "type": kind, "code": status}})


def spoiled(answer: dict[str, Any], fault: str) -> Any:
    """An answer that isn't one."""
    choice = answer["choices"][0]
    entries = choice["prompt_logprobs"] or []
    if fault == "truncated":
        return json.dumps(answer).encode()[:-40]
    if fault == "no choices":
        return answer | {"choices": []}
    if fault == "short":
        choice["prompt_logprobs"] = entries[:-1]
    if fault == "no prompt_logprobs":
        choice["prompt_logprobs"] = None
    if fault == "other tokens":  # shifted by one: the prompt's own token isn't in its entry
        choice["prompt_logprobs"] = [None, *({"0": e.get("0", {"logprob": -1.0})}
                                             for e in entries[1:])]  # fmt: skip
    if fault == "few":
        choice["prompt_logprobs"] = [e and dict(list(e.items())[:1]) for e in entries]
    if fault in ("logits", "nan", "text", "huge"):
        value = {"logits": 3.5, "nan": float("nan"), "text": "low", "huge": -(10**400)}[fault]
        for entry in entries[1:]:
            next(iter(entry.values()))["logprob"] = value
    if fault == "too much":
        for entry in entries[1:]:
            for said in entry.values():
                said["logprob"] = -0.1
    if fault in ("huge id", "twice"):
        for entry in entries[1:]:  # instead of the likeliest; beside it
            first = max(entry, key=lambda id: entry[id]["logprob"])
            entry[str(2**63) if fault == "huge id" else f"0{first}"] = {"logprob": -0.01}
            entry[first]["logprob"] = -9.0
        choice["token_ids"] = [2**63]
    if fault == "no ids":
        choice["token_ids"] = None
    if fault == "two ids":
        choice["token_ids"] = [3, 4]
    if fault == "same index":
        choice["index"] = 1
    return answer


@contextmanager
def vllm_server(
    model: Any = None, tokenizer: Any = None, key: str | None = None, max_logprobs: int = 20
) -> Iterator[VllmServer]:
    """Around the toy model, unless another is given."""
    server = VllmServer(
        make_model() if model is None else model, tokenizer or make_tokenizer(), key, max_logprobs
    )
    with serving(server):
        yield server


SECONDS = {"timeout": 20.0, "deadline": 30.0}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[VllmServer]:
    """The student's start model, served; no pauses between tries."""
    monkeypatch.setattr(asking, "BACK_OFF", 0.001)
    with vllm_server(max_logprobs=100) as running:
        yield running


def served_trainer(folder: Path, server: VllmServer, **options: Any) -> DistILTrainer:
    """`make_trainer` with the served teacher; `served` are further fields of it."""
    served = {"base_url": server.url, "model": MODEL, **SECONDS, **options.pop("served", {})}
    return make_trainer(folder, teacher="served", teacher_served=served, **options)


def other_tokenizer(swap: tuple[str, str]) -> Any:
    """The toy's, with two tokens' ids exchanged."""
    tokenizer = make_tokenizer()
    plain = json.loads(tokenizer.backend_tokenizer.to_str())
    vocab, (a, b) = plain["model"]["vocab"], swap
    vocab[a], vocab[b] = vocab[b], vocab[a]
    tokenizer._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(plain))
    return tokenizer
