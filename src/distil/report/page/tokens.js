// A rollout's tokens: fill for the local cost, a bar below or above for the future credit, and a
// panel of what both sides would have said there.
"use strict";

function tokenView(tokens, scales, start) {
  const panel = el("div", { class: "token-panel", "aria-live": "polite" });
  const spans = tokens.text.map((text, i) => tokenSpan(tokens, scales, i, text));
  let current = -1, pinned = -1;
  const show = (i) => {
    if (current >= 0) spans[current].classList.remove("current");
    current = i;
    spans[i].classList.add("current");
    panel.replaceChildren(...panelOf(tokens, i));
  };
  const pin = (i, focus) => {
    if (pinned >= 0) spans[pinned].tabIndex = -1;
    pinned = i;
    spans[i].tabIndex = 0;
    show(i);
    if (focus) spans[i].focus({ preventScroll: false });
  };
  spans.forEach((span, i) => {
    span.addEventListener("mouseenter", () => show(i));
    span.addEventListener("mouseleave", () => { if (pinned >= 0) show(pinned); });
    span.addEventListener("focus", () => pin(i, false));
    span.addEventListener("click", () => pin(i, true));
  });
  const text = el("div", { class: "tokens", role: "group", "aria-label": "Tokens of the answer; " +
    "arrow keys go from one to the next",
    onkeydown: (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      pin(Math.min(Math.max(pinned + by, 0), spans.length - 1), true);
    } }, spans);
  if (spans.length) pin(Math.min(start || 0, spans.length - 1), false);
  return { text, panel };
}

function tokenSpan(tokens, scales, i, text) {
  const active = tokens.mask[i];
  const share = (value, full) => Math.min(Math.abs(value || 0) / full, 1);
  const span = el("span", { class: active ? "token" : "token masked", tabindex: -1 },
    visible(text), text.includes("\n") ? el("br") : null);
  if (active) {
    const credit = tokens.credit[i] || 0;
    span.style.setProperty("--fill", (85 * share(tokens.cost[i], scales.cost)).toFixed(0) + "%");
    const bar = (6 * share(credit, scales.credit)).toFixed(1) + "px";
    span.style.setProperty(credit > 0 ? "--below" : "--above", bar);
    span.setAttribute("aria-label", `${text}: cost ${number(tokens.cost[i])}, ` +
      `future credit ${signed(tokens.credit[i])}`);
  }
  return span;
}

function visible(text) {
  return text === "" ? "∅" : text.replace(/\n/g, "⏎").replace(/\t/g, "⇥");
}

function panelOf(tokens, i) {
  if (!tokens.mask[i]) {
    return [el("h4", {}, el("code", {}, visible(tokens.text[i]))),
      el("p", {}, "Not scored: a tool or an environment wrote it.")];
  }
  const chance = (value) => (value == null ? null : Math.exp(value));
  const own = chance(tokens.logp[i]);
  const theirs = tokens.teacher_logp ? chance(tokens.teacher_logp[i]) : null;
  const credit = tokens.credit[i];
  const meaning = credit == null || credit === 0 ? "no disagreement to come beyond its siblings'"
    : credit > 0 ? "more disagreement to come than after its siblings' tokens: pushed down"
      : "less disagreement to come than after its siblings' tokens: pushed up";
  return [
    el("h4", {}, `Token ${i + 1} of ${tokens.text.length}: `, el("code", {}, visible(tokens.text[i]))),
    el("dl", { class: "facts" },
      el("dt", {}, "local cost"), el("dd", {}, number(tokens.cost[i]) + " nats"),
      el("dt", {}, "future credit"), el("dd", {}, `${signed(credit)} nats: ${meaning}`),
      el("dt", {}, "its probability"),
      el("dd", {}, `student ${percent(own)}, teacher ${percent(theirs)}`)),
    el("div", { class: "sides" },
      choicesOf("Student would say", tokens.student_top[i], tokens.text[i], "student"),
      choicesOf("Teacher would say", tokens.teacher_top[i], tokens.text[i], "teacher")),
  ];
}

function choicesOf(title, choices, said, side) {
  return el("table", { class: "choices " + side }, el("caption", {}, title),
    el("tbody", {}, choices.map(([text, chance]) => el("tr",
      { class: text === said ? "said" : "", title: text === said ? "the token that was sampled" : null },
      el("th", { scope: "row" }, el("code", {}, visible(text))),
      el("td", {}, el("span", { class: "bar", style: `--share: ${(100 * chance).toFixed(1)}%` })),
      el("td", { class: "chance" }, percent(chance))))));
}

function legend() {
  const sample = (text, name, value) => el("span", { class: "token", style: `${name}: ${value}` }, text);
  return el("p", { class: "legend" },
    sample("local cost", "--fill", "60%"), " the fuller, the more teacher and student disagree here; ",
    sample("bar below", "--below", "5px"), " more trouble later than its siblings (pushed down); ",
    sample("bar above", "--above", "5px"), " less (pushed up).");
}
