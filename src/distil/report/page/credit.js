// One rollout: verdict, question, answer with its credit, what the teacher was shown, its history.
"use strict";

async function rolloutView(rollouts, row, start, open) {
  const record = await rollouts.at(row.i);
  const tokens = record.tokens && tokenView(record.tokens, rollouts.scales(), start);
  const answer = tokens ? [legend(), tokens.text]
    : [el("p", { class: "about" }, row.tokens === 0 && row.cost != null
      ? "Its token values were left out, to keep this page small (--megabytes)."
      : "Token values weren't logged for this rollout (train.log_rollouts a step)."),
    el("div", { class: "text" }, record.completion)];
  return el("div", { class: "rollout" },
    el("div", { class: "headline" },
      el("span", { class: "verdict " + row.verdict },
        row.reward == null ? "not graded" : `${row.verdict}: reward ${number(row.reward)}`),
      ` step ${row.step}, problem ${row.problem}, feedback: ${row.context || "none"}`),
    historyOf(rollouts, row, open),
    el("div", { class: "columns" },
      el("div", {},
        el("h3", {}, "Question"), messagesOf(record.prompt),
        el("h3", {}, "Answer"), answer, tokens && tokens.panel),
      el("div", {},
        el("h3", {}, "What was said about it"), feedbackOf(record.feedback),
        el("h3", {}, "What the teacher was shown"),
        record.teacher ? messagesOf(record.teacher)
          : el("p", { class: "about" }, "Nothing: this rollout had no feedback, and was masked out."))));
}

function messagesOf(messages) {
  return el("div", { class: "messages" }, messages.map(([role, text]) => el("div", { class: "message" },
    role ? el("div", { class: "role" }, role) : null, el("div", { class: "text" }, text || ""))));
}

function feedbackOf(feedback) {
  if (!feedback.length) return el("p", { class: "about" }, "Nothing.");
  return el("div", { class: "messages" }, feedback.map(([who, said, shownAs]) =>
    el("div", { class: "message" },
      el("div", { class: "role" }, (who || "feedback function") + (shownAs != null ? ", a solution" : "")),
      said != null ? el("div", { class: "text" }, said) : null,
      shownAs != null ? el("div", { class: "text" }, shownAs) : null)));
}

// The attempts at this problem over training, one mark each.
function historyOf(rollouts, row, open) {
  const [from, to] = rollouts.sameProblem(row.i);
  const { step, reward, tokens } = rollouts.columns;
  const marks = [];
  for (let i = from; i <= to; i++) {
    const verdict = verdictOf(reward[i]);
    const signs = { right: "●", wrong: "○", ungraded: "?" };
    marks.push(el("button", {
      type: "button", class: `mark ${verdict}${tokens[i] ? " detailed" : ""}`,
      "aria-current": i === row.i ? "true" : null,
      title: `step ${step[i]}: ${verdict}${tokens[i] ? ", with token values" : ""}`,
      onclick: () => open(i),
    }, signs[verdict]));
  }
  const go = (by) => el("button", { type: "button", disabled: row.i + by < from || row.i + by > to,
    onclick: () => open(row.i + by), title: by < 0 ? "the attempt before (,)" : "the next attempt (.)" },
  by < 0 ? "◀" : "▶");
  return el("div", { class: "history" },
    el("span", {}, `${row.i - from + 1} of ${to - from + 1} attempts at this problem, by step `),
    go(-1), el("div", { class: "marks" }, marks), go(1));
}
