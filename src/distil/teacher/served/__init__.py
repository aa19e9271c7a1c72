"""A teacher that another machine runs: its log-probabilities, or samples, over HTTP.

    asking    many requests at once, each again where it stumbles, all within a deadline
    answers   reading what came, of which nothing is certain
    greeting  what is found out before a run: is it there, does it know the limits, whose tokens
    teacher   ServedTeacher: the same TeacherScores as a pass of weights that are here

The server is asked over the OpenAI API's /v1/completions, with vLLM's `prompt_logprobs`, or
`return_token_ids` for samples: nothing else is needed of it. Left out: starting one
(docs/served.md), and teachers that are shown text instead of token ids.
"""
