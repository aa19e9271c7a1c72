"""A stand-in for `vllm serve` on a laptop: the same answers about one model, without the speed.

    python examples/vllm_stand_in.py smollm2-135m-instruct --port 8000

Serves what a served teacher asks for (docs/served.md): POST /v1/completions with `prompt_logprobs`
or sampled next tokens, POST /tokenize, GET /v1/models. One plain pass a prompt, one at a time, at
temperature 1, one new token. Left out: chats, streaming, texts in lists, keys.
"""

import argparse
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from torch import Tensor


def prompts_of(tokenizer: Any, body: dict[str, Any]) -> list[list[int]]:
    """The prompts as ids: one text, one list of ids, or a list of such lists."""
    prompt = body["prompt"]
    if isinstance(prompt, str):
        return [tokenizer(prompt)["input_ids"]]
    return prompt if isinstance(prompt[0], list) else [prompt]


@torch.no_grad()
def completions(
    model: Any, tokenizer: Any, body: dict[str, Any], draws: torch.Generator
) -> dict[str, Any]:
    """The API's answer: a choice for each sample of each prompt, prompt-major."""
    choices: list[dict[str, Any]] = []
    for ids in prompts_of(tokenizer, body):
        logits = model(input_ids=torch.tensor([ids])).logits[0].float()
        drawn = torch.multinomial(
            (logits[-1] / body["temperature"]).softmax(-1), body.get("n", 1),
            replacement=True, generator=draws,
        ).tolist()  # fmt: skip
        for token in drawn:
            choice = {
                "index": len(choices), "text": tokenizer.decode([token]),
                "logprobs": None, "finish_reason": "length", "stop_reason": None,
                "token_ids": [token] if body.get("return_token_ids") else None,
                "prompt_logprobs": None,
            }  # fmt: skip
            if (k := body.get("prompt_logprobs")) is not None:
                choice["prompt_logprobs"] = prompt_logprobs(tokenizer, ids, logits, k)
            choices.append(choice)
    return {"id": "cmpl-1", "object": "text_completion", "model": body["model"], "choices": choices}


def prompt_logprobs(tokenizer: Any, ids: list[int], logits: Tensor, k: int) -> list[Any]:
    """None, then for each later token {id: logprob, rank, decoded_token}, its own token first."""
    logps = logits.log_softmax(-1)
    found: list[Any] = [None]
    for before, own in zip(logps[:-1], ids[1:], strict=True):
        top = before.topk(k)
        ranks = {own: int((before > before[own]).sum()) + 1}
        ranks |= {int(i): rank for rank, i in enumerate(top.indices, 1)}
        found.append(
            {
                str(i): {
                    "logprob": max(float(before[i]), -9999.0),
                    "rank": rank,
                    "decoded_token": tokenizer.decode([i]),
                }
                for i, rank in ranks.items()
            }
        )
    return found


class Handler(BaseHTTPRequestHandler):
    """One request; the server holds `name`, `model`, `tokenizer`, `draws` and a `lock`."""

    server: Any

    def do_GET(self) -> None:
        """Which models there are."""
        self._send({"object": "list", "data": [{"id": self.server.name, "object": "model"}]})

    def do_POST(self) -> None:
        """Ids of a text, or a completion."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            ids = self.server.tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]
            return self._send({"count": len(ids), "tokens": ids})
        if self.path != "/v1/completions":
            return self._send({"detail": "Not Found"}, 404)
        with self.server.lock:
            said = completions(self.server.model, self.server.tokenizer, body, self.server.draws)
        return self._send(said)

    def log_message(self, *args: Any) -> None:
        """A line a request would drown everything else."""

    def _send(self, body: Any, status: int = 200) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def serve(name: str, port: int) -> None:
    """Until it is killed; loopback only."""
    from distil.models import load_model

    server: Any = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.name, server.lock = name, threading.Lock()
    server.model, server.tokenizer = load_model(name)
    server.model.eval()
    server.draws = torch.Generator().manual_seed(0)
    print(f"serving {name} at http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=8000)
    settings = parser.parse_args()
    serve(settings.model, settings.port)
