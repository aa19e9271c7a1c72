"""Rollouts as compressed blocks that a page unpacks one at a time, within a number of bytes.

They are ordered by problem and step, so that the attempts at one problem over training lie beside
each other; a block holds each text once. Where they don't all fit, token values go first (the least
striking ones), then whole rollouts, evenly over the steps. Both are counted for the page to say.
"""

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distil.report.scan import Entry

BLOCK = 64
"""Rollouts in a block: unpacking one takes milliseconds."""

SAMPLE = 200
"""So many of them tell how well a run's rollouts compress."""

TIGHTEN = 0.85
"""What is left of the room for another try, when a guess was too large."""


@dataclass(frozen=True)
class Packed:
    """index: a list a field, equally long. blocks: BLOCK rollouts each, in the index's order."""

    index: dict[str, list[Any]]
    blocks: list[str]
    found: int
    detailed: int

    @property
    def size(self) -> int:
        """Bytes of the blocks."""
        return sum(map(len, self.blocks))


def packed(value: Any) -> str:
    """JSON, gzipped, in base64: the same bytes for the same value."""
    plain = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.b64encode(gzip.compress(plain, 6, mtime=0)).decode("ascii")


def pack(entries: Sequence[Entry], room: int) -> Packed:
    """As many rollouts as fit into `room` bytes, and as many of their token values."""
    detailed = sum(e.striking is not None for e in entries)
    target, ratio = float(room), max(_ratio(entries), 1e-9)
    while True:
        kept, with_tokens = choose(entries, target / ratio)
        found = _pack(kept, with_tokens, len(entries), detailed)
        if found.size <= room or not kept:
            return found
        target *= TIGHTEN * room / found.size


def choose(entries: Sequence[Entry], room: float) -> tuple[list[Entry], set[int]]:
    """(the rollouts that fit, in order; which of them keep token values: their places).

    room: bytes, uncompressed.
    """
    kept = list(entries)
    bare = sum(e.bare for e in kept)
    if bare > room:
        kept = _evenly(kept, int(len(kept) * room / bare))
        bare = sum(e.bare for e in kept)
    kept.sort(key=lambda e: (e.problem, e.step, e.row))
    with_tokens: set[int] = set()
    left = room - bare
    for place in _most_striking(kept):
        left -= kept[place].size - kept[place].bare
        if left < 0:
            break
        with_tokens.add(place)
    return kept, with_tokens


def _most_striking(entries: Sequence[Entry]) -> list[int]:
    """Places of those with token values: the first of each ranking, then the second of each ..."""
    places = [i for i, e in enumerate(entries) if e.striking is not None]
    said = {i: s for i in places if (s := entries[i].striking) is not None}
    rankings = [
        sorted(places, key=lambda i: -said[i].peak),
        sorted(places, key=lambda i: -abs(said[i].credit)),
        sorted(places, key=lambda i: -(said[i].doubt or 0.0)),
        sorted(places, key=lambda i: (-entries[i].step, entries[i].row)),  # the newest
    ]
    return list(dict.fromkeys(i for some in zip(*rankings, strict=True) for i in some))


def _evenly(entries: Sequence[Entry], number: int) -> list[Entry]:
    """So many of them, spread over the whole."""
    return [entries[i * len(entries) // number] for i in range(number)] if number else []


def _ratio(entries: Sequence[Entry]) -> float:
    """Packed bytes a byte, of a sample."""
    sample = _evenly(entries, min(SAMPLE, len(entries)))
    if not sample:
        return 1.0
    sample = sorted(sample, key=lambda e: (e.problem, e.step, e.row))
    every = set(range(len(sample)))
    return _pack(sample, every, 0, 0).size / sum(e.size for e in sample)


def _pack(entries: Sequence[Entry], with_tokens: set[int], found: int, detailed: int) -> Packed:
    blocks = []
    for start in range(0, len(entries), BLOCK):
        texts = _Texts()
        rows = [
            _row(entry, texts, with_tokens=start + i in with_tokens)
            for i, entry in enumerate(entries[start : start + BLOCK])
        ]
        blocks.append(packed({"texts": texts.all, "rows": rows}))
    return Packed(_index(entries, with_tokens), blocks, found, detailed)


def _index(entries: Sequence[Entry], with_tokens: set[int]) -> dict[str, list[Any]]:
    """What the table shows and filters by."""
    index: dict[str, list[Any]] = {
        "step": [e.step for e in entries],
        "row": [e.row for e in entries],
        "problem": [e.problem for e in entries],
        "reward": [e.reward for e in entries],
        "context": [e.context for e in entries],
        "preview": [e.preview for e in entries],
        "tokens": [int(i in with_tokens) for i in range(len(entries))],
    }
    for name in ("cost", "peak", "peak_at", "credit", "credit_at", "doubt", "doubt_at"):
        index[name] = [getattr(e.striking, name, None) for e in entries]
    return index


class _Texts:
    """Numbers texts, each once."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._places: dict[str, int] = {}

    def place(self, text: str | None) -> int | None:
        """Its number; None for none."""
        if text is None:
            return None
        if text not in self._places:
            self._places[text] = len(self.all)
            self.all.append(text)
        return self._places[text]


def _row(entry: Entry, texts: _Texts, *, with_tokens: bool) -> dict[str, Any]:
    record = entry.record()

    def messages(prompt: Any) -> Any:
        if prompt is None:
            return None
        if isinstance(prompt, str):
            return [["", texts.place(prompt)]]
        return [[m["role"], texts.place(_content(m))] for m in prompt]

    return {
        "prompt": messages(record["prompt"]),
        "completion": record["completion"],
        "feedback": [
            [f["source"], texts.place(f["text"]), texts.place(f["demonstration"])]
            for f in record["feedback"]
        ],
        "teacher": messages(record["teacher_prompt"]),
        "tokens": record.get("tokens") if with_tokens else None,
    }


def _content(message: dict[str, Any]) -> str:
    """A message's words; a tool call as JSON."""
    said = message.get("content")
    calls = message.get("tool_calls")
    text = said if isinstance(said, str) else "" if said is None else json.dumps(said)
    return text + ("\n" + json.dumps(calls, ensure_ascii=False, indent=1) if calls else "")
