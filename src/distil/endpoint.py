"""Asking an OpenAI-compatible endpoint: one request, and what can go wrong with it as data.

Who asks decides what a failure costs: critiques (`distil.feedback.judge`), an evaluation
(`distil.evaluate.samplers.remote`), or a teacher's scores (`distil.teacher.served`). Needs the
package openai, which isn't imported before it's used.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from distil.errors import RecipeError, perhaps

T = TypeVar("T")

AGAIN = (408, 409, 425, 429)
"""Statuses below 500 that may be others the next time; every one from 500 on may."""


@dataclass(frozen=True)
class Failure:
    """Why a request gave no answer: an error's name, its status if it has one, never the key.

    `said` is the endpoint's own complaint about the request, for people, not for logs.
    """

    what: str
    status: int = 0
    said: str = ""

    def __str__(self) -> str:
        return f"{self.what} {self.status}" if self.status else self.what

    @property
    def final(self) -> bool:
        """Whether the same request would fail again."""
        return 400 <= self.status < 500 and self.status not in AGAIN


def open_client(base_url: str, key_name: str, *, who: str, field: str) -> Any:
    """openai's async client, which tries nothing twice; `key_name` is an environment variable.

    Raises RecipeError, which names `who` is asked and the `field` that names the key, without the
    package or the key.
    """
    try:
        import openai
    except ImportError as error:
        raise RecipeError(
            f"{who} is asked through the package openai, which isn't installed. Install the "
            "extra: pip install 'distil[judge]'."
        ) from error
    key = "none"  # not openai's own default, which would send $OPENAI_API_KEY to any endpoint
    if key_name:
        key = os.environ.get(key_name, "").strip()
        if not key:
            raise RecipeError(
                f"{field} names {key_name!r}, and no such environment variable is set. Export it, "
                "or leave the field out where no key is needed."
            )
        if not (key.isascii() and key.isprintable()):
            raise RecipeError(
                f"{field} names {key_name!r}, and that environment variable holds a line break or "
                "another character that no key has, so that it can't be sent. Export the key alone."
            )
    return openai.AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0)


async def request(client: Any, timeout: float, **body: Any) -> Any:
    """openai's answer to a chat request, whatever its form; a Failure where there is none."""
    return await _answer(client, timeout, client.chat.completions.create(**body))


async def post(client: Any, path: str, timeout: float, body: dict[str, Any]) -> Any:
    """The JSON that answers a POST, whatever its form; a Failure where there is none.

    path: below the client's base_url, or a whole address.
    """
    return await _answer(client, timeout, client.post(path, cast_to=object, body=body))


async def get(client: Any, path: str, timeout: float) -> Any:
    """As `post`, of a GET."""
    return await _answer(client, timeout, client.get(path, cast_to=object))


async def _answer(client: Any, timeout: float, call: Awaitable[Any]) -> Any:
    import openai

    try:
        async with asyncio.timeout(timeout):  # of the whole request, drop by drop too
            return await call
    except openai.APIStatusError as error:
        said = str(error).replace(client.api_key, "***")[:300]
        return Failure(type(error).__name__, error.status_code, f": {said}")
    except (openai.APIError, TimeoutError) as error:
        return Failure(type(error).__name__)
    except (ValueError, RecursionError):
        return Failure("no JSON in the answer")


async def tried(
    attempt: Callable[[], Awaitable[T | Failure]], tries: int, back_off: float
) -> T | Failure:
    """The first answer that is none of the failures that may be others the next time.

    Before the second try it waits `back_off` seconds, doubled for each later one, and up to as
    many again at random, so that a crowd doesn't return as one.
    """
    answer: T | Failure = Failure("never asked")
    for again in range(tries):
        if again:
            await asyncio.sleep(back_off * 2 ** (again - 1) * (1 + random.random()))
        answer = await attempt()
        if not isinstance(answer, Failure) or answer.final:
            break
    return answer


async def all_within(
    client: Any,
    calls: Sequence[Callable[[], Coroutine[Any, Any, T | Failure]]],
    *,
    concurrency: int,
    deadline: float,
) -> list[T | Failure]:
    """What every call came to, so many at a time; a Failure for those still under way after
    `deadline` seconds. The client is closed then. What a call raises is raised here, too.
    """
    gate = asyncio.Semaphore(concurrency)

    async def one(call: Callable[[], Coroutine[Any, Any, T | Failure]]) -> T | Failure:
        async with gate:
            return await call()

    async with client:
        tasks = [asyncio.create_task(one(call)) for call in calls]
        _, late = await asyncio.wait(tasks, timeout=deadline)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)  # until each has let its request go
    return [Failure("deadline passed") if task in late else task.result() for task in tasks]


async def model_names(client: Any, timeout: float) -> list[str]:
    """The models that the endpoint lists; not every one does."""
    import openai

    try:
        async with asyncio.timeout(timeout):
            return [str(model.id) for model in (await client.models.list()).data]
    except (openai.APIError, TimeoutError, ValueError, AttributeError, TypeError):
        return []  # only a hint is lost


def why_not_found(
    model: str,
    names: Sequence[str],
    otherwise: str = "it has no such model, or base_url lacks its /v1.",
) -> str:
    """What a 404 comes from, by the models that the endpoint lists, as the end of a sentence."""
    if model in names:
        return "it lists this very model, so that the path is probably wrong: most end in /v1."
    return f"{otherwise}{perhaps(model, names) if names else ''}"


def run_to_end(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine to its end, also under a loop that is running already (a notebook's).

    Ctrl-C lets its requests go, instead of waiting for them.
    """
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def watched() -> Any:
        task = asyncio.current_task()
        assert task is not None
        running.append((asyncio.get_running_loop(), task))
        return await work

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(asyncio.run, watched())
        try:
            return future.result()
        except KeyboardInterrupt:
            for loop, task in running:
                loop.call_soon_threadsafe(task.cancel)
            raise
