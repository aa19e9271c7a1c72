"""Tool traces as text: what is said of each call, turn by turn, within its bounds, to whom."""

from typing import Any

from distil import Feedback
from distil.feedback import choose_contexts
from distil.feedback.tools import tool_calls, tool_traces, trace_text, transcript
from distil.prompts.messages import CUT_MARK
from distil.types import Rollout


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def said(content: str, *calls: dict[str, Any]) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": content,
        **({"tool_calls": list(calls)} if calls else {}),
    }


def answered(name: str, content: Any) -> dict[str, Any]:
    return {"role": "tool", "name": name, "content": content}


ATTEMPT = [
    said("Let me look.", call("find", word="cat")),
    answered("find", "{'error': 'no such word'}"),
    said("", call("find", word="dog"), call("size", of="dog")),
    answered("size", "large"),
    answered("find", "page 7"),
    said("It is on page 7."),
]


def test_a_trace_says_each_call_with_what_came_of_it() -> None:
    assert trace_text(tool_calls(ATTEMPT)) == (
        "find(word='cat') failed: no such word\nfind(word='dog') -> page 7\nsize(of='dog') -> large"
    )


def test_a_transcript_shows_words_calls_and_outputs_in_order() -> None:
    assert transcript(ATTEMPT) == (
        "Let me look.\nfind(word='cat') failed: no such word\n"
        "find(word='dog') -> page 7\nsize(of='dog') -> large\nIt is on page 7."
    )


def test_a_transcript_leaves_each_turns_thinking_out() -> None:
    turns = [
        said("<think>which?</think>Looking.", call("find", word="a")),
        answered("find", "3"),
        said("so it is three</think>Three."),
    ]
    assert transcript(turns) == "Looking.\nfind(word='a') -> 3\nThree."


def test_single_turns_are_kept_as_they_are() -> None:
    assert transcript("plain <think>text") == "plain <think>text"
    assert transcript([said("<think>a</think>b")]) == "<think>a</think>b"
    assert tool_traces(completions=["plain", [said("no tools")]]) == [None, None]


def test_calls_without_an_answer_were_not_run() -> None:
    assert (
        trace_text(tool_calls([said("", call("find", word="a"))])) == "find(word='a') was not run"
    )


def test_only_trls_own_error_form_is_an_error() -> None:
    for content, failed in [
        ("{'error': 'it\\'s gone'}", True),
        ('{"error": "gone"}', True),
        ("{'error': 1, 'found': 2}", False),
        ("{'error': [", False),
        ("error: none", False),
        ("{'error': " + "[" * 5000, False),
    ]:
        (found,) = tool_calls([said("", call("f")), answered("f", content)])
        assert found.failed is failed, content[:30]
    (found,) = tool_calls([said("", call("f")), answered("f", "{'error': 'it\\'s gone'}")])
    assert found.output == "it's gone"


def test_outputs_as_lists_of_content_give_their_text() -> None:
    blocks = [{"type": "image", "image": None}, {"type": "text", "text": "a cat"}]
    (found,) = tool_calls([said("", call("look")), answered("look", blocks)])
    assert str(found) == "look() -> a cat"


def test_a_trace_is_bounded_and_keeps_what_failed() -> None:
    many = []
    for i in range(40):
        content = "{'error': 'broken'}" if i == 3 else "fine " * 400
        many += [said("", call("f", i=i)), answered("f", content)]
    text = trace_text(tool_calls(many), 3000)
    assert text is not None
    assert len(text) <= 3000 + 3 * len(CUT_MARK)
    shown = text.splitlines()
    assert "f(i=3) failed: broken" in shown
    assert shown[0] == "[...]"  # what was left out before it
    assert shown.index("f(i=3) failed: broken") < next(
        i for i, line in enumerate(shown) if line.startswith("f(i=39)")
    )


def test_one_huge_argument_and_one_huge_output_are_cut() -> None:
    huge = [said("", call("f", x="a" * 10**6)), answered("f", "b" * 10**6)]
    text = trace_text(tool_calls(huge))
    assert text is not None
    assert len(text) < 1500


def test_only_rollouts_that_did_not_succeed_are_shown_their_trace() -> None:
    trace = (Feedback(text="f() -> 1", source="tools"), Feedback(text="wrong", source="task"))
    group = [Rollout(0, "a", 0.0, trace), Rollout(0, "b", 1.0, trace), Rollout(0, "c", None, trace)]
    kinds = [c and c.report for c in choose_contexts(group, ["tools"])]
    assert kinds == ["f() -> 1", None, "f() -> 1"]
    assert choose_contexts(group, ["report"])[0].report == "wrong"
