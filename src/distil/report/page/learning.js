// How well it learns: rewards, evaluations, pass@k, any metric of a run's log.
"use strict";

const USUAL = [
  "distil/cost", "distil/future_share", "student/entropy", "teacher/entropy",
  "distil/agreement", "completions/mean_length", "grad_norm", "loss",
];
const X_TITLES = { step: "update", rollouts: "rollouts", seconds: "training seconds" };

function learningPart(head) {
  const runs = head.runs;
  return [
    section("Runs", "", el("div", { class: "cards" }, runs.map((run, i) => runCard(run, i)))),
    rewardSection(head),
    ...(runs.some((r) => r.evaluations.length) ? [heldOutSection(runs), passSection(runs)] : []),
    ...runs.filter((r) => r.table.length).map((run) => section("Results of " + run.name,
      "95% intervals over problems in brackets; teacher: the start model shown the answer.",
      plainTable(run.table))),
    metricsSection(runs),
  ];
}

function runCard(run, place) {
  const get = (name) => run.settings[name];
  const last = (values) => (values && values.length ? values[values.length - 1] : null);
  const facts = [
    ["status", run.status],
    ["model", get("model.name")], ["task", get("task.name")],
    ["objective", get("objective.name")], ["teacher", get("teacher.kind")],
    ["learning rate", get("train.learning_rate")], ["seed", get("train.seed")],
    ["last reward", number(last(run.reward.mean))],
    ["training time", run.seconds.total.length ? seconds(last(run.seconds.total)) : null],
    ["alarms", run.alarms.length || null], ["skipped steps", run.bad_steps.length || null],
  ].filter(([, value]) => value != null);
  return el("article", { class: "card", style: `--mark: var(--run-${place % 7})` },
    el("h3", {}, run.name),
    el("dl", {}, facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, shown(value))])));
}

// A curve's x: the step itself, or what the run had spent by then.
function along(run, steps, unit, rollouts) {
  if (unit === "step") return steps;
  if (unit === "rollouts") return rollouts;
  const { step, total } = run.seconds;
  let place = 0;
  return steps.map((s) => {
    while (place + 1 < step.length && step[place + 1] <= s) place++;
    return step.length && step[place] <= s ? total[place] : 0;
  });
}

function rewardSection(head) {
  const { canvas, box } = chartBox("Mean reward of training rollouts by step, with 95% intervals");
  let unit = "step", seeds = head.bands.length > 0;
  const series = () => {
    const banded = new Set(seeds ? head.bands.flatMap((b) => b.runs) : []);
    const means = seeds ? head.bands.map((band) => {
      const first = head.runs[band.runs[0]];
      const rollouts = band.step.map((s) => first.reward.rollouts[first.reward.step.indexOf(s)]);
      return { label: `${first.name} and ${band.runs.length - 1} other seeds`,
        x: along(first, band.step, unit, rollouts), y: band.mean, low: band.low, high: band.high,
        place: band.runs[0] };
    }) : [];
    const single = head.runs.map((run, place) => ({ run, place }))
      .filter(({ run, place }) => run.reward.step.length && !banded.has(place))
      .map(({ run, place }) => ({ label: run.name,
        x: along(run, run.reward.step, unit, run.reward.rollouts),
        y: run.reward.mean, low: run.reward.low, high: run.reward.high, place, kind: place }));
    return [...means, ...single];
  };
  const chart = lines(canvas,
    () => ({ series: series(), xTitle: X_TITLES[unit], yTitle: "reward" }));
  const tools = [choice("Along", Object.entries(X_TITLES), unit,
    (v) => { unit = v; chart.show(); })];
  if (head.bands.length) {
    tools.push(choice("Seeds", [["mean", "mean and interval"], ["each", "each alone"]], "mean",
      (v) => { seeds = v === "mean"; chart.show(); }));
  }
  return section("Reward in training",
    "Mean over each step's rollouts, sampled as in training; the band is the 95% interval over its " +
    "prompts, or over seeds where several are averaged.", el("div", { class: "row" }, tools), box);
}

function heldOutSection(runs) {
  const names = [...new Set(runs.flatMap((r) => r.evaluations.flatMap((e) => Object.keys(e.figures))))];
  const { canvas, box } = chartBox("Evaluations by step, with 95% intervals");
  let figure = names[0];
  const series = () => runs.flatMap((run, place) =>
    [["held out", (n) => /^(before|after|eval-)/.test(n)], ["validation", (n) => n.startsWith("validation")]]
      .map(([label, belongs], kind) => {
        const some = run.evaluations.filter((e) => belongs(e.name) && e.figures[figure]);
        const side = (i) => some.map((e) => e.figures[figure][i]);
        return { label: `${run.name}, ${label}`, x: some.map((e) => e.step), y: side(0), low: side(1),
          high: side(2), place, kind };
      }).filter((s) => s.x.length));
  const chart = lines(canvas,
    () => ({ series: series(), xTitle: "update", yTitle: figure, points: true }));
  return section("On problems it isn't trained on",
    "Each evaluation's mean over problems and its 95% interval.",
    choice("Figure", names.map((n) => [n, n]), figure,
      (v) => { figure = v; chart.show(); }), box);
}

function passSection(runs) {
  const { canvas, box } = chartBox("pass@k before and after training, with 95% intervals");
  const order = ["before", "after", "best", "teacher"];
  const series = runs.flatMap((run, place) => order.filter((n) => run.passes[n]).map((name) => ({
    label: runs.length > 1 ? `${run.name}, ${name}` : name, x: run.passes[name].k,
    y: run.passes[name].mean, low: run.passes[name].low, high: run.passes[name].high,
    place: runs.length > 1 ? place : order.indexOf(name), kind: order.indexOf(name),
  })));
  lines(canvas, () => ({ series, xTitle: "k", yTitle: "pass@k", points: true, unit: true,
    whole: true }));
  return section("pass@k before and after",
    "The chance that one of k samples is right, unbiased; band: 95% over problems. A model that only " +
    "sharpened what it could do rises on the left and not on the right.", box);
}

function metricsSection(runs) {
  const names = [...new Set(runs.flatMap((r) => Object.keys(r.metrics)))].filter((n) => n !== "step").sort();
  if (!names.length) return section("Metrics", "No step of this run is over yet.");
  const grid = el("div", { class: "grid" });
  const add = (name, first) => {
    const { canvas, box } = chartBox(name + " by step");
    const series = runs.filter((run) => run.metrics[name]).map((run) => ({ label: run.name,
      x: run.metrics.step, y: run.metrics[name], place: runs.indexOf(run),
      kind: runs.indexOf(run) }));
    lines(canvas, () => ({ series, xTitle: "", yTitle: "" }));
    const figure = el("figure", {}, el("figcaption", {}, name), box);
    if (first) grid.prepend(figure); else grid.append(figure);
    if (first) showCharts(figure);
  };
  USUAL.filter((n) => names.includes(n)).forEach((n) => add(n, false));
  const picker = choice("Add", [["", "another metric …"], ...names.map((n) => [n, n])], "",
    (v) => { if (v) add(v, true); });
  return section("Metrics", "Every figure of metrics.jsonl, by optimiser update; docs/metrics.md says "
    + "what each one means.", picker, grid);
}
