"""The tools of a run: loaded from a recipe, kept from writing chat tokens, checked in advance.

TRL runs them (`tools`, `environment_factory`) and puts what they return into the conversation. A
tool's text with "<|im_end|>" in it would close its own message there, so outputs are escaped first,
as all feedback is. Left out: running and limiting tools; a tool that runs code must bring its own
sandbox.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from transformers.utils import get_json_schema

from distil.errors import RecipeError
from distil.prompts.markers import REFUSALS
from distil.recipe.ownfunctions import own_function
from distil.trainer.training_args import DistILConfig

Escape = Callable[[str], str]


def load_tools(names: Sequence[str]) -> list[Callable[..., Any]]:
    """The functions that names of the form path/to/file.py:function stand for; runs the files.

    Raises RecipeError where there is no such file or function, or where its type hints and its
    Google-style docstring don't describe it to a model.
    """
    return [_load(name) for name in names]


def _load(name: str) -> Callable[..., Any]:
    found = own_function(name, "rollout.tools names", "A tool is a function.")
    if not inspect.isfunction(found):
        raise RecipeError(f"rollout.tools names {name!r}, which is no function. A tool is one.")
    try:
        get_json_schema(found)
    except Exception as error:  # transformers has a class of its own for each complaint
        raise RecipeError(
            f"The tool {name!r} can't be described to a model: {error} Give every argument a type "
            "hint and a line in a Google-style docstring (Args:)."
        ) from error
    return found


def check_model_calls_tools(tokenizer: Any, name: str) -> None:
    """Raises RecipeError if the chat template of the model `name` can't show calls and answers."""
    call = {"type": "function", "function": {"name": "qxfind", "arguments": {"qxword": "qxcat"}}}
    conversation = [
        {"role": "user", "content": "qxask"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "qxfind", "content": "qxpage"},
    ]
    shown = ""
    if tokenizer.chat_template is not None:
        try:
            shown = tokenizer.apply_chat_template(conversation, tokenize=False)
        except REFUSALS:  # whatever a template raises at a conversation that it doesn't know
            shown = ""
    if missing := [w for w in ("qxfind", "qxword", "qxcat", "qxpage") if w not in shown]:
        raise RecipeError(
            f"rollout.tools names tools, and the chat template of {name!r} doesn't show a call and "
            f"its answer ({len(missing)} of 4 parts are missing): the model was never taught to "
            "call tools. Use one that was, or take the tools out."
        )


def check_tools(args: DistILConfig, options: dict[str, Any]) -> None:
    """Raises RecipeError for what tools, or their absence, don't go with.

    options: the trainer's keyword arguments.
    """
    factory, found = options.get("environment_factory"), []
    if not options.get("tools") and factory is None:
        if "tools" in args.feedback_order:
            found.append(
                "feedback_order names tools, and this run has none. Give tools or an "
                "environment_factory, or take tools out of the order."
            )
    elif args.teacher_samples:
        found.append(
            f"teacher_samples is {args.teacher_samples}, and the teacher's own samples are drawn "
            "without tools, so that their success says nothing here. Set it to 0."
        )
    elif args.objective["name"] == "sft":
        found.append(
            "sft imitates a demonstration as one message; a transcript with tools isn't one. Use "
            "another objective."
        )
    if isinstance(factory, dict):
        found.append(
            "environment_factory is a dict: each prompt would list other tools, and the teacher's "
            "prompts list one set. Give one factory whose environments choose by themselves."
        )
    if found:
        raise RecipeError("These arguments don't go together:\n" + "\n".join(found))


def guarded(options: dict[str, Any], escape: Escape) -> dict[str, Any]:
    """The trainer's keyword arguments, with every tool's and environment's text escaped."""
    options = dict(options)
    if options.get("tools"):
        options["tools"] = [escaping(tool, escape) for tool in options["tools"]]
    factory = options.get("environment_factory")
    if callable(factory):
        options["environment_factory"] = lambda: _guarded_environment(factory(), escape)
    return options


def escaping(tool: Callable[..., Any], escape: Escape) -> Callable[..., Any]:
    """The same tool (name, hints, docstring), whose results and errors are escaped text."""
    if inspect.iscoroutinefunction(tool):

        @functools.wraps(tool)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            try:
                return _escaped(await tool(*args, **kwargs), escape)
            except Exception as error:
                raise RuntimeError(escape(str(error))) from error  # TRL shows the model its text
    else:

        @functools.wraps(tool)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            try:
                return _escaped(tool(*args, **kwargs), escape)
            except Exception as error:
                raise RuntimeError(escape(str(error))) from error

    return wrapped


def _guarded_environment(environment: Any, escape: Escape) -> Any:
    """The environment, its public methods but for get_reward replaced on this instance."""
    for name, _ in inspect.getmembers(type(environment), inspect.isfunction):
        if not name.startswith("_") and name not in ("get_reward", "reset"):
            setattr(environment, name, escaping(getattr(environment, name), escape))
    if callable(reset := getattr(environment, "reset", None)):
        environment.reset = lambda **row: _escaped(reset(**row), escape)
    return environment


def _escaped(result: Any, escape: Escape) -> Any:
    """As the text that TRL makes of it; the text parts of a list of content; None stays None."""
    if result is None:
        return None
    if isinstance(result, list):
        return [
            {**part, "text": escape(part["text"])} if isinstance(part, dict) and "text" in part
            else part
            for part in result
        ]  # fmt: skip
    return escape(str(result))
