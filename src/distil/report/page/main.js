// Parts as tabs, light and dark, keys, and the start.
"use strict";

const KEYS = [
  ["1 … 4", "the parts of the report"], ["j, k", "next and previous rollout of the list"],
  [", and .", "the attempt before and after at the same problem"],
  ["← →", "from token to token, once one has the focus"], ["/", "search rollouts"],
  ["t", "light or dark"], ["?", "this help"],
];

async function begin() {
  const head = await unpack("head");
  const main = document.getElementById("main");
  document.getElementById("names").textContent = head.runs.map((r) => r.name).join(", ");
  const credit = new CreditPart(head, await Promise.all(head.runs.map((_, i) => Rollouts.of(i))));
  const parts = [
    ["learning", "Learning", learningPart(head)], ["credit", "Credit", [credit.element()]],
    ["course", "Feedback, time, alarms", coursePart(head)], ["settings", "Settings", settingsPart(head)],
  ];
  const tabs = document.getElementById("tabs");
  const panels = {};
  for (const [name, title, children] of parts) {
    panels[name] = el("div", { class: "part", id: "part-" + name, role: "tabpanel",
      "aria-labelledby": "tab-" + name, hidden: true }, children);
    tabs.append(el("button", { type: "button", role: "tab", id: "tab-" + name,
      "aria-controls": "part-" + name, onclick: () => show(name) }, title));
  }
  main.replaceChildren(...Object.values(panels),
    el("footer", {}, `Made ${head.made} by distil report.`));

  let table = null;
  async function show(name) {
    for (const [other, panel] of Object.entries(panels)) {
      panel.hidden = other !== name;
      document.getElementById("tab-" + other).setAttribute("aria-selected", String(other === name));
    }
    showCharts(panels[name]);
    if (name === "credit") await (table = table || credit.startTable());
    else history.replaceState(null, "", "#" + name);
  }

  function toggleTheme() {
    setTheme(document.documentElement.dataset.theme === "light" ? "dark" : "light");
    redrawCharts();
  }

  const help = document.getElementById("help");
  help.append(el("h2", {}, "Keys"), el("dl", { class: "facts" },
    KEYS.map(([key, does]) => [el("dt", {}, key), el("dd", {}, does)])),
  el("h2", {}, "Colours"), legend(),
  el("form", { method: "dialog" }, el("button", {}, "Close")));
  document.getElementById("help-button").addEventListener("click", () => help.showModal());
  document.getElementById("theme").addEventListener("click", toggleTheme);
  preference.addEventListener("change", () => {
    followPreference();
    redrawCharts();
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      if (event.key === "Escape") { event.preventDefault(); event.target.blur(); }
      return;
    }
    const here = !panels.credit.hidden;
    const acts = {
      t: toggleTheme, "?": () => help.showModal(),
      ...Object.fromEntries(parts.map(([name], i) => [String(i + 1), () => show(name)])),
      ...(here ? { j: () => credit.move(1), k: () => credit.move(-1), ".": () => credit.attempt(1),
        ",": () => credit.attempt(-1), "/": () => credit.search.focus() } : {}),
    };
    if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
  });

  const [name, run, i] = location.hash.slice(1).split("/");
  await show(panels[name] ? name : "learning");
  if (name === "credit" && credit.all[run] && i < credit.all[run].count) {
    await credit.open(credit.all[run].rows()[i]);
  }
  document.body.dataset.ready = "true";
}

const preference = matchMedia("(prefers-color-scheme: dark)");

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
}

function followPreference() {
  setTheme(preference.matches ? "dark" : "light");
}

followPreference();
begin().catch((error) => {
  document.getElementById("main").replaceChildren(
    el("p", { role: "alert" }, "This report can't be shown: " + error.message));
  throw error;
});
