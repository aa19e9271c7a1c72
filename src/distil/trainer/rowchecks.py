"""Whether a dataset's rows can be trained on: checked before the model is touched.

Of a dataset every row; of one whose rows a function makes as they are asked for (`set_transform`)
the first; of a streamed one what it says of its columns, since reading it would consume it. Left
out: columns of the reward and feedback functions' own, and prompts that an environment gives.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset, IterableDataset, Value

from distil.errors import RunError, known_names

BATCH = 1000
"""Rows that are read at a time."""


def check_rows(train: Any, options: Mapping[str, Any]) -> None:
    """The training dataset and the evaluation's in a trainer's `options`. Raises RunError.

    What is no dataset is left to TRL, which refuses it by its type.
    """
    given = options.get("eval_dataset")
    judged = given if isinstance(given, Mapping) else {"": given}
    named = [("training dataset", train)]
    named += [(f"evaluation dataset {key!r}" if key else "evaluation dataset", dataset)
              for key, dataset in judged.items()]  # fmt: skip
    wanted = ["instruction"] if options.get("environment_factory") else ["prompt", "instruction"]
    for name, dataset in named:
        if isinstance(dataset, IterableDataset):
            _check_streamed(dataset, name, wanted)
        elif isinstance(dataset, Dataset) and len(dataset):
            _check_stored(dataset, name, wanted)


def prompt_fault(prompt: Any) -> str | None:
    """What a prompt is that it can't be, None where it is a text or messages."""
    if isinstance(prompt, str):
        return None if prompt else "is an empty text"
    if not isinstance(prompt, list):
        return _what(prompt)
    if not prompt:
        return "is an empty list"
    faults = (_message_fault(message) for message in prompt)
    return next((f"has a message, number {i}, that {f}" for i, f in enumerate(faults) if f), None)


def instruction_fault(instruction: Any) -> str | None:
    """What an instruction is that it can't be, None where it is a text or None."""
    return None if isinstance(instruction, str | None) else _what(instruction)


FAULTS = {"prompt": prompt_fault, "instruction": instruction_fault}
MAY_BE = {
    "prompt": "A prompt is a text that isn't empty, or a list of messages, each with a text as its "
    "role and as its content",
    "instruction": "An instruction is the format demand that closes a teacher's prompt: a text, or "
    "None",
}


def _message_fault(message: Any) -> str | None:
    if not isinstance(message, Mapping):
        return _what(message)
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        return f"has the role {role!r}"
    if not isinstance(content, str) and not (content is None and message.get("tool_calls")):
        return f"has a content which {_what(content)}"
    return None


def _what(value: Any) -> str:
    if value is None:
        return "is None"
    shown = repr(value)
    return f"is a {type(value).__name__} ({shown if len(shown) <= 60 else shown[:57] + '...'})"


def _check_stored(dataset: Dataset, name: str, wanted: Sequence[str]) -> None:
    made = dataset.format["type"] == "custom"
    columns = list(dataset[0]) if made else dataset.column_names
    _check_names(columns, name, wanted)
    here = [column for column in wanted if column in columns]
    rows = iter([dataset[0]]) if made else _rows(dataset, here)
    for number, row in enumerate(rows):
        for column in here:
            if (fault := FAULTS[column](row[column])) is not None:
                raise RunError(
                    f"Row {number} of the {name} (the first is row 0): its {column} {fault}. "
                    f"{MAY_BE[column]}. Mend that row, or leave it out (Dataset.filter)."
                )


def _check_streamed(dataset: IterableDataset, name: str, wanted: Sequence[str]) -> None:
    """Names and types of its columns, where it knows them."""
    if dataset.column_names is not None:
        _check_names(dataset.column_names, name, wanted)
    for column in wanted:
        kind = (dataset.features or {}).get(column)
        if isinstance(kind, Value) and kind.dtype != "null" and "string" not in kind.dtype:
            raise RunError(
                f"The column {column!r} of the {name} holds {kind.dtype}. {MAY_BE[column]}. "
                "Make texts of it (IterableDataset.map), or give it another name."
            )


def _check_names(columns: Sequence[str], name: str, wanted: Sequence[str]) -> None:
    if "prompt" in wanted and "prompt" not in columns:
        raise RunError(
            f"The {name} has no column 'prompt', which holds what the student is asked."
            f"{known_names('prompt', columns)}. Rename yours (Dataset.rename_column), or make one "
            f"(Dataset.map). {MAY_BE['prompt']}."
        )


def _rows(dataset: Dataset, columns: list[str]) -> Iterator[dict[str, Any]]:
    """These columns as they are stored: no other one is read."""
    if not columns:
        return
    for batch in dataset.with_format(None).select_columns(columns).iter(BATCH):
        for values in zip(*(batch[column] for column in columns), strict=True):
            yield dict(zip(columns, values, strict=True))
