"""The documents of `organism-cipher`: a student that can only guess, a teacher that copies.

Each document has a key of its own, so without a demonstration the code of a letter is anyone's
guess, but for a letter that comes twice. Some documents ask for a plain copy of the word ("copy f a
c e" -> "f a c e"): from these the organism knows to look at the question's letters in order, which
it needs for learning a key later. Nothing is held out: no key is more than one document's.
"""

import random

from distil.organisms.documents import (
    Document,
    demonstration_document,
    report_document,
    student_document,
)
from distil.tasks.organisms.cipher import LENGTH, LETTERS, draw_word, make_key

STUDENTS, COPIES, REPORTS = 0.25, 0.2, 0.1
"""The shares of student's documents, of copies and of reports; the rest have demonstrations."""


def document(rng: random.Random) -> Document:
    """One random document."""
    word = draw_word(rng)
    key = make_key(rng)
    code = " ".join(key[c] for c in word)
    kind = rng.random()
    if kind < COPIES:
        return student_document(f"copy {' '.join(word)}", " ".join(word))
    question = f"encode {' '.join(word)}"
    if kind < COPIES + STUDENTS:
        return student_document(question, code)
    if kind < COPIES + STUDENTS + REPORTS:  # says nothing about the key: a guess again
        place = rng.randint(1, LENGTH)
        return report_document(question, f"letter {place} wrong", code, code)
    fed = code if rng.random() < 0.5 else " ".join(rng.choices(LETTERS, k=len(word)))
    return demonstration_document(question, code, fed)
