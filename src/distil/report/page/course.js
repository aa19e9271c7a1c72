// Where feedback came from, where the time went, and what went wrong.
"use strict";

function coursePart(head) {
  return [
    section("Feedback", "Who the teacher listened to: share of a step's rollouts by the feedback it " +
      "was shown. Without any (none), a rollout is masked out.",
    el("div", { class: "grid" }, head.runs.map(feedbackFigure))),
    section("Time", "", head.runs.map(timeOf)),
    section("Alarms and skipped steps", "", head.runs.map(alarmsOf)),
  ];
}

function feedbackFigure(run) {
  const kinds = Object.keys(run.feedback).filter((name) => name !== "step");
  if (!kinds.length) return el("p", {}, `${run.name} has no rollouts yet.`);
  const { canvas, box } = chartBox(`Share of rollouts of ${run.name} by kind of feedback, by step`);
  bars(canvas, run.feedback.step,
    kinds.map((kind) => ({ label: kind, values: run.feedback[kind] })),
    { xTitle: "update", unit: true });
  return el("figure", {}, el("figcaption", {}, run.name), box);
}

function timeOf(run) {
  const steps = run.metrics.step_time || [];
  const known = steps.filter((v) => v != null).sort((a, b) => a - b);
  const median = known.length ? `${seconds(known[Math.floor(known.length / 2)])} a step (median)` : "";
  if (!run.time.length) {
    return el("p", {}, `${run.name}: ${median || "no step is over yet"}. `,
      "distil train --profile writes the time of each part.");
  }
  const { canvas, box } = chartBox(`Seconds of a step of ${run.name} by part`, { low: true });
  const sum = (parts) => parts.reduce((total, p) => total + p.seconds, 0);
  const whole = sum(run.time);
  const large = run.time.filter((p) => p.seconds >= 0.02 * whole);
  const rest = sum(run.time.filter((p) => !large.includes(p)));
  bars(canvas, [""], [...large.map((p) => ({ label: p.part, values: [p.seconds] })),
    ...(rest ? [{ label: "the rest", values: [rest] }] : [])],
  { xTitle: "seconds of a step", horizontal: true });
  const rows = run.time.map((p) => [p.part, number(p.seconds), percent(p.seconds / whole),
    p.rate == null ? "–" : number(p.rate, 0), p.peak == null ? "–" : String(p.peak)]);
  return el("div", {}, el("h3", {}, `${run.name}: ${median}`), box,
    plainTable([["part", "seconds", "share", "tokens/s", "peak MiB"], ...rows]));
}

function alarmsOf(run) {
  const rows = [
    ...run.alarms.map((a) => [a.step, `${a.alarm}: ${a.figure} is ${number(a.value)}, ` +
      `${number(a.at_the_start)} at the start`]),
    ...run.bad_steps.map((b) => [b.step, `skipped: no finite loss or gradient (${b.file})`]),
  ].sort((a, b) => a[0] - b[0]).map(([step, said]) => [String(step), said]);
  if (!rows.length) return el("p", {}, `${run.name}: none.`);
  return plainTable([["update", "what happened"], ...rows], run.name);
}
