"""How large a report of 10,000 rollouts is, and how long a browser takes over it.

    python benchmarks/report.py [--rollouts 10000] [--tokens 120] [--detailed 0.5]

Makes up a run (answers of so many tokens, so large a share of them with token values, five choices
a side), writes its report, opens it in headless Chromium, and prints seconds and megabytes: to
write, to open (navigation to ready), to draw the table of all rollouts, to filter it, to sort it by
disagreement and open the first one (its block unpacked), to go on to the next, and the longest task
while the table is scrolled through. Needs chromium and chromedriver. Nothing is trained.
"""

import argparse
import json
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from distil.config import Recipe
from distil.report import report

WORDS = (
    "add",
    "nine",
    "seven",
    "plus",
    "so",
    "carry",
    "one",
    "then",
    "answer",
    "is",
    "not",
    "wait",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=10_000)
    parser.add_argument("--tokens", type=int, default=120)
    parser.add_argument("--detailed", type=float, default=0.5)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        make_run(run, settings.rollouts, settings.tokens, settings.detailed)
        raw = (run / "rollouts.jsonl").stat().st_size
        began = time.perf_counter()
        page = report([run])
        rows = [("write the report, s", time.perf_counter() - began)]
        megabytes = f"{raw / 1e6:.0f} MB, report {page.stat().st_size / 1e6:.1f} MB"
        about = f"{settings.rollouts:,} rollouts of {settings.tokens} tokens"
        print(f"{about}, {settings.detailed:.0%} with token values: rollouts.jsonl {megabytes}")
        rows += browse(page)
    for name, value in rows:
        print(f"{name:<52}{value:8.3f}")


def make_run(run: Path, rollouts: int, tokens: int, detailed: float) -> None:
    """Sixty-four rollouts a step, of 500 problems."""
    run.mkdir()
    (run / "recipe.yaml").write_text(yaml.safe_dump(Recipe().as_dict()))
    draw = random.Random(0)
    steps = range(1, rollouts // 64 + 2)
    with (run / "metrics.jsonl").open("w") as file:
        for s in steps:
            figures = {f"figure/{i}": draw.random() for i in range(50)}
            file.write(json.dumps({"step": s, "step_time": 3.0, **figures}) + "\n")
    with (run / "rollouts.jsonl").open("w") as file:
        for i in range(rollouts):
            file.write(json.dumps(rollout(draw, i, tokens, detailed)) + "\n")


def rollout(draw: random.Random, i: int, tokens: int, detailed: float) -> dict[str, Any]:
    words = [" " + draw.choice(WORDS) for _ in range(tokens)]
    problem = draw.randrange(500)
    question = f"Problem {problem}: " + " ".join(random.Random(problem).choices(WORDS, k=60))
    hint = " ".join(draw.choices(WORDS, k=40))
    record: dict[str, Any] = {
        "step": i // 64 + 1, "row": i % 64, "group": i % 64 // 8, "problem": str(problem),
        "prompt": [{"role": "user", "content": question}], "completion": "".join(words),
        "reward": float(draw.random() < 0.4),
        "feedback": [{"source": "checker", "text": hint, "demonstration": None}],
        "context": draw.choice(["sibling", "report", None]),
        "teacher_prompt": [{"role": "user", "content": question + hint}],
    }  # fmt: skip
    if draw.random() < detailed:
        numbers = [[round(draw.gauss(0, 1), 5) for _ in words] for _ in range(4)]
        choices = [[[[" " + draw.choice(WORDS), round(draw.random() ** 3, 5)] for _ in range(5)]
                    for _ in words] for _ in range(2)]  # fmt: skip
        record["tokens"] = {
            "text": words, "mask": [1] * tokens, "cost": [abs(x) for x in numbers[0]],
            "credit": numbers[1], "logp": [-abs(x) for x in numbers[2]],
            "teacher_logp": [-abs(x) for x in numbers[3]],
            "student_top": choices[0], "teacher_top": choices[1],
        }  # fmt: skip
    return record


def browse(page: Path) -> list[tuple[str, float]]:
    """(what, seconds) as the page itself measures them."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        raise SystemExit("chromium and chromedriver are needed: apt-get install chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"):
        options.add_argument(flag)
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    chrome.set_script_timeout(120)
    chrome.get(page.as_uri())

    def timed(what: str, until: str) -> float:
        """Seconds from doing `what` until `until` holds and a frame is drawn."""
        return chrome.execute_async_script(
            f"const done = arguments[0], t = performance.now(); {what};"
            f"const look = () => ({until}) ? requestAnimationFrame(() => requestAnimationFrame("
            "() => done((performance.now() - t) / 1000))) : setTimeout(look, 4); look()"
        )

    ready = timed("", "document.body.dataset.ready")
    opened = chrome.execute_script(
        "return [performance.timing.domContentLoadedEventEnd, performance.timing.navigationStart]"
    )
    click = "document.querySelector('{}').click()".format
    search = (
        "const box = document.querySelector('.toolbar input[type=search]'); box.value = 'carry';"
        "box.dispatchEvent(new Event('input'))"
    )
    press = (
        "const old = document.querySelector('.headline').textContent;"
        "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'j'}))"
    )
    rows = [
        ("open: navigation until the page is parsed, s", (opened[0] - opened[1]) / 1000),
        ("  and from there until it's ready, s", ready),
        (
            "table of all rollouts, s",
            timed(click("#tab-credit"), "document.querySelector('.tabulator-row')"),
        ),
        (
            "filter by a word, s",
            timed(search, "document.querySelector('.table').dataset.rows"),
        ),
        (
            "largest disagreement: sort, unpack, show, s",
            timed(click("[data-ranking=peak]"), "document.querySelector('.token-panel')"),
        ),
        (
            "the next one, s",
            timed(press, "document.querySelector('.headline').textContent !== old"),
        ),
    ]
    longest = chrome.execute_async_script(
        "const done = arguments[0], h = document.querySelector('.tabulator-tableholder');"
        "let worst = 0, last = performance.now(), n = 0;"
        "const step = () => { const now = performance.now(); worst = Math.max(worst, now - last);"
        "last = now; h.scrollTop += 900; n++ < 100 ? requestAnimationFrame(step)"
        " : done(worst / 1000) }; requestAnimationFrame(step)"
    )
    rows.append(("longest frame of 100 while scrolling, s", longest))
    chrome.quit()
    return rows


if __name__ == "__main__":
    main()
