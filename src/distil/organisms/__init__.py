"""Model organisms: three networks of a million weights that can use feedback in their context.

model name          task name           the start model              feedback it can use
organism-sums       organism_sums       unsure, mostly right         a successful sibling
organism-programs   organism_programs   right one time in ten        the interpreter's report
organism-cipher     organism_cipher     never right                  the expert's answer

Each is pre-trained from scratch on the machine it is used on, in minutes, and kept in the cache
folder; `organism-sums@3` is the one of pre-training seed 3. They exist to compare objectives over
many seeds on a laptop: DistIL's teacher is the same network shown feedback, which needs a network
that reads its context, and these are the smallest that do. They know nothing else.

Prompts must be those of `distil.prompts.messages` with the default headers and `task.instruction:
""`.

documents               what is read in pre-training, and said; sums, programs, cipher: each world's
tokenizer, pretraining  a word a token; a small Llama from scratch
kept                    folders of models made here: whole, or not there
"""

import hashlib
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distil.errors import ModelError, perhaps
from distil.organisms import cipher, programs, sums
from distil.organisms.documents import Document
from distil.organisms.kept import is_sound, keep
from distil.organisms.pretraining import Settings, pretrain
from distil.organisms.tokenizer import make_tokenizer
from distil.tasks.organisms.cipher import CipherTask
from distil.tasks.organisms.programs import ProgramsTask
from distil.tasks.organisms.sums import SumsTask

NOTE = "organism.json"
"""Says in the folder: the organism's name, seed and settings, and the weights' digest."""

# Raise it when pretraining.py changes the result: the digest sees settings, words and documents.
_FORMAT = 1
_DIGEST_DOCUMENTS = 256


@dataclass(frozen=True)
class Organism:
    """One organism: its world's words, its documents, its settings."""

    name: str
    words: tuple[str, ...]
    draw: Callable[[random.Random], Document]
    settings: Settings


ORGANISMS: dict[str, Organism] = {
    o.name: o
    for o in (
        Organism("organism-sums", SumsTask.words, sums.document, Settings(steps=600)),
        Organism("organism-programs", ProgramsTask.words, programs.document, Settings(steps=500)),
        Organism("organism-cipher", CipherTask.words, cipher.document, Settings(steps=400)),
    )
}


def find_organism(name: str) -> tuple[Organism, int]:
    """The organism and the seed that a name means. Raises ModelError if there is none."""
    kind, at, seed = name.partition("@")
    if kind not in ORGANISMS:
        raise ModelError(f"There is no organism {kind!r}.{perhaps(kind, ORGANISMS)}")
    if at and not (seed.isascii() and seed.isdigit()):
        raise ModelError(
            f"The seed of {name!r} is {seed!r}, and must be a whole number: {kind}@3, for one."
        )
    return ORGANISMS[kind], int(seed or 0)


def organism_folder(name: str, cache: Path, settings: Settings | None = None) -> Path:
    """A Hugging Face folder with the organism; pre-trained on first use, then found in `cache`.

    `settings` replace the organism's own. Raises ModelError for an unknown organism or seed, and
    where the cache can't be written.
    """
    organism, seed = find_organism(name)
    settings = settings or organism.settings
    folder = cache / f"{organism.name}-{seed}-{_digest(organism, settings, seed)[:16]}"
    if not is_sound(folder, NOTE):
        _build(organism, settings, seed, folder)
    return folder


def _build(organism: Organism, settings: Settings, seed: int, folder: Path) -> None:
    """Pre-trains the organism into the folder, and says so."""

    def save(scratch: Path) -> dict[str, Any]:
        print(
            f"Pre-training {organism.name} (seed {seed}) from scratch: {settings.steps} steps, "
            "one to three minutes, this once ...",
            flush=True,
        )
        started = time.perf_counter()
        tokenizer = make_tokenizer(organism.words)
        model = pretrain(organism.draw, tokenizer, settings, seed)
        seconds = time.perf_counter() - started
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        print(f"... done in {seconds:.0f} s; kept in {folder}", flush=True)
        return {
            "organism": organism.name,
            "seed": seed,
            "settings": asdict(settings),
            "seconds": round(seconds, 1),
        }

    keep(folder, NOTE, save)


def _digest(organism: Organism, settings: Settings, seed: int) -> str:
    """Of all that decides the weights: settings, words, and the first documents themselves."""
    rng = random.Random(f"digest/{seed}")
    documents = [asdict(organism.draw(rng)) for _ in range(_DIGEST_DOCUMENTS)]
    parts = [_FORMAT, organism.name, seed, asdict(settings), organism.words, documents]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
