"""What a verifier may evaluate of a model's answer: values and arithmetic, never names or calls.

Some of reasoning-gym's verifiers hand an answer to `eval` where the right one lies within reach
("entry['answer'].split()" reads it), and sympy's parser evaluates what it has parsed. `refused`
looks at the compiled text before it's run.
"""

import builtins
import dis
import re
from types import CodeType

HARMLESS = frozenset({"abs", "divmod", "max", "min", "pow", "round", "sum"})
FORBIDDEN = frozenset(dir(builtins)) - HARMLESS
GYM = "reasoning_gym"
SYMPY = "sympy.parsing.sympy_parser"


def refused(code: CodeType, module: str) -> str | None:
    """Why `module` may not evaluate this text; None if it may, or isn't one that does so.

    reasoning-gym: values and arithmetic. sympy's parser: also calls of its own names, which aren't
    Python's and take no text but names and numbers ("Symbol('x')"); no attributes.
    """
    if module.split(".")[0] == GYM:
        named = code.co_names
    elif module == SYMPY:
        named = tuple(n for n in code.co_names if n in FORBIDDEN or n.startswith("__"))
        attributes = [i.argval for i in dis.get_instructions(code) if "_ATTR" in i.opname]
        attributes += [i.argval for i in dis.get_instructions(code) if "_METHOD" in i.opname]
        named += tuple(attributes)
    else:
        return None
    texts = [c for c in code.co_consts if isinstance(c, str) and not re.fullmatch(r"[\w.]*", c)]
    if any(isinstance(c, CodeType) for c in code.co_consts):
        return "evaluate a loop or function of an answer"
    if named or (texts and module == SYMPY):
        return f"evaluate {(named or texts)[0]!r}"
    return None
