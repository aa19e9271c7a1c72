// Chart.js with this page's colours: lines with bands, stacked bars. Redrawn when the theme changes.
"use strict";

const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3], [12, 4]];
const POINTS = ["circle", "rect", "triangle", "rectRot", "star"];
const drawn = new Set();

function colour(place) {
  return style("--run-" + (place % 7));
}

function faint(hex, share) {
  return hex + Math.round(255 * share).toString(16).padStart(2, "0");
}

// make() is asked each time it's drawn: {series, xTitle, yTitle, unit, points,
// whole}: y from 0 to 1; a mark at each point; x in whole numbers.
// A series: {label, x, y, low, high, place, kind}; kind: which dash and point within a place.
function lines(canvas, make) {
  return remember(canvas, () => {
    const { series, xTitle, yTitle, unit = false, points = false, whole = false } = make();
    return {
      type: "line",
      data: { datasets: series.flatMap((s) => datasets(s, points)) },
      options: {
        ...common(),
        interaction: { mode: "nearest", axis: "x", intersect: false },
        scales: {
          x: { ...axis(xTitle, whole), type: "linear", bounds: "data" },
          y: { ...axis(yTitle), ...(unit ? { min: 0, suggestedMax: 1 } : {}) },
        },
      },
    };
  });
}

function datasets(s, points) {
  const tint = colour(s.place);
  const at = (values) => s.x.map((x, i) => ({ x, y: values[i] })).filter((p) => p.y != null);
  const bare = { pointRadius: 0, pointHitRadius: 0, borderWidth: 0, label: "" };
  const found = [];
  if (s.low && s.low.some((v) => v != null)) {
    found.push({ ...bare, data: at(s.low), fill: false });
    found.push({ ...bare, data: at(s.high), fill: "-1", backgroundColor: faint(tint, 0.18) });
  }
  const few = points || s.x.length < 30;
  found.push({
    label: s.label, data: at(s.y), borderColor: tint, backgroundColor: tint, borderWidth: 2,
    borderDash: DASHES[(s.kind || 0) % DASHES.length],
    pointStyle: POINTS[(s.kind || 0) % POINTS.length],
    pointRadius: few ? 3.5 : 0, pointHoverRadius: 5, fill: false,
  });
  return found;
}

// parts: [{label, values}] of the same labels; each a stripe of every bar.
function bars(canvas, labels, parts, { title, xTitle, horizontal = false, unit = false }) {
  return remember(canvas, () => ({
    type: "bar",
    data: {
      labels,
      datasets: parts.map((part, place) => ({
        label: part.label, data: part.values, backgroundColor: style("--part-" + (place % 8)),
        borderColor: style("--page"), borderWidth: labels.length > 60 ? 0 : 1,
        barPercentage: 1, categoryPercentage: labels.length > 12 ? 1 : 0.8,
      })),
    },
    options: {
      ...common(),
      indexAxis: horizontal ? "y" : "x",
      interaction: { mode: "index", intersect: false },
      scales: {
        x: { ...axis(xTitle), stacked: true, ...(unit && horizontal ? { max: 1 } : {}) },
        y: { ...axis(title), stacked: true, ...(unit && !horizontal ? { max: 1 } : {}) },
      },
    },
  }));
}

function axis(title, whole = false) {
  const faded = style("--faded");
  return {
    title: { display: !!title, text: title || "", color: faded },
    grid: { color: style("--grid") },
    ticks: { color: faded, maxRotation: 0, autoSkip: true, ...(whole ? { precision: 0 } : {}) },
  };
}

function common() {
  return {
    responsive: true, maintainAspectRatio: false, animation: false, normalized: true,
    plugins: {
      legend: {
        labels: { color: style("--ink"), usePointStyle: true, filter: (item) => item.text !== "" },
        position: "bottom",
      },
      tooltip: {
        filter: (item) => item.dataset.label !== "",
        callbacks: { label: (item) => ` ${item.dataset.label}: ${tip(item)}` },
      },
    },
  };
}

function tip(item) {
  const horizontal = item.chart.options.indexAxis === "y";
  return number(horizontal ? item.parsed.x : item.parsed.y, 4);
}

function remember(canvas, config) {
  const entry = { canvas, chart: null };
  entry.show = () => {
    if (entry.chart) entry.chart.destroy();
    entry.chart = new Chart(canvas, config());
  };
  drawn.add(entry);
  return entry;
}

// Charts of a hidden part have no size: they are made when they are first seen.
function showCharts(root) {
  for (const entry of drawn) {
    if (!entry.canvas.isConnected) { if (entry.chart) entry.chart.destroy(); drawn.delete(entry); }
    else if (root.contains(entry.canvas) && !entry.chart) entry.show();
  }
}

function redrawCharts() {
  for (const entry of drawn) if (entry.chart) entry.show();
}

function chartBox(label, { low = false } = {}) {
  const canvas = el("canvas", { role: "img", "aria-label": label });
  return { canvas, box: el("div", { class: low ? "chart low" : "chart" }, canvas) };
}
