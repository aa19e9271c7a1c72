// All settings of each run, and where the runs differ.
"use strict";

function settingsPart(head) {
  const runs = head.runs;
  const parts = [];
  if (runs.length > 1) {
    const rows = head.differences.map(([name, ...values]) => [name, ...values.map(shown)]);
    parts.push(section("Where they differ", "", rows.length
      ? plainTable([["setting", ...runs.map((r) => r.name)], ...rows])
      : el("p", {}, "Their recipes are the same.")));
  }
  parts.push(settingsTable("Settings", "settings", runs, "As resolved: recipe.yaml of each run."));
  parts.push(settingsTable("Made with", "environment", runs, "environment.json of each run."));
  return parts;
}

function settingsTable(title, field, runs, about) {
  const names = [...new Set(runs.flatMap((r) => Object.keys(r[field])))];
  if (!names.length) return section(title, "This run has none: it wasn't begun by distil train.");
  const body = el("div", {});
  const fill = (wanted) => {
    const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = names.map((n) => [n, ...runs.map((r) => shown(r[field][n]))])
      .filter((row) => words.every((w) => row.join(" ").toLowerCase().includes(w)));
    body.replaceChildren(rows.length ? plainTable([["", ...runs.map((r) => r.name)], ...rows])
      : el("p", {}, "Nothing with these words."));
  };
  fill("");
  const search = el("input", { type: "search", placeholder: "search", "aria-label": `Search ${title}`,
    oninput: () => fill(search.value) });
  return section(title, about, search, body);
}
