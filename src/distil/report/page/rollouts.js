// The table of rollouts: search, filters, what is most striking; and the one that is open.
"use strict";

const RANKINGS = {
  newest: { text: "Newest", field: "step", about: "" },
  peak: { text: "Largest disagreement", field: "peak", at: "peak_at",
    about: "By the highest local cost of a token." },
  size: { text: "Largest future credit", field: "size", at: "credit_at",
    about: "By the future credit of a token that is furthest from 0." },
  doubt: { text: "Teacher confident and wrong", field: "doubt", at: "doubt_at",
    about: "Failed answers that the teacher finds likely (its mean probability of a token), and right " +
      "ones at whose tokens the student was sure, and the teacher of another one." },
};

class CreditPart {
  constructor(head, all) {
    this.head = head;
    this.all = all;
    this.ranking = "newest";
    this.filters = { text: "", verdict: "", context: "", run: "", tokens: false };
    this.opened = null;
  }

  element() {
    this.counts = el("p", { class: "about" }, this.countText());
    this.about = el("span", { class: "about" });
    this.place = el("div", { class: "table" });
    this.detail = el("div", { class: "detail", id: "detail" },
      el("p", { class: "about" }, "Choose a rollout: click it, or press j."));
    return el("div", { class: "credit" },
      el("div", { class: "list" }, this.toolbar(), this.counts, this.place), this.detail);
  }

  countText() {
    return this.all.map((r) => `${this.head.runs[r.run].name}: ${r.count} of ${r.found} rollouts, ` +
      `token values of ${r.columns.tokens.filter(Boolean).length} of ${r.detailed}`).join("; ") + ".";
  }

  toolbar() {
    const set = (name) => (value) => { this.filters[name] = value; this.refilter(); };
    const contexts = [...new Set(this.all.flatMap((r) => r.columns.context).map((c) => c || "none"))];
    this.search = el("input", { type: "search", placeholder: "search answers and problems (/)",
      "aria-label": "Search rollouts", oninput: () => set("text")(this.search.value.toLowerCase()) });
    this.box = el("input", { type: "checkbox",
      onchange: () => set("tokens")(this.box.checked) });
    this.buttons = Object.entries(RANKINGS).map(([name, { text }]) => el("button", { type: "button",
      "data-ranking": name, "aria-pressed": String(name === this.ranking),
      onclick: () => this.rank(name) }, text));
    return el("div", { class: "toolbar" },
      el("div", { class: "row", role: "group", "aria-label": "Order" }, this.buttons), this.about,
      el("div", { class: "row" }, this.search,
        choice("Verdict", [["", "any"], ...["right", "wrong", "ungraded"].map((v) => [v, v])], "",
          set("verdict")),
        choice("Feedback", [["", "any"], ...contexts.map((c) => [c, c])], "",
          set("context")),
        this.all.length > 1 ? choice("Run", [["", "all"],
          ...this.head.runs.map((r, i) => [String(i), r.name])], "", set("run")) : null,
        el("label", { class: "choice" }, this.box, " with token values")));
  }

  startTable() {
    const runs = this.head.runs;
    const narrow = { headerHozAlign: "right", hozAlign: "right" };
    this.table = new Tabulator(this.place, {
      data: this.all.flatMap((r) => r.rows()), index: "id", height: "100%", layout: "fitColumns",
      placeholder: "No rollout like this.", initialSort: [{ column: "step", dir: "desc" }],
      columns: [
        { title: "run", field: "run", width: 90, visible: runs.length > 1,
          formatter: (cell) => el("span", {}, runs[cell.getValue()].name) },
        { title: "step", field: "step", width: 68, ...narrow },
        { title: "verdict", field: "verdict", width: 92,
          formatter: (cell) => el("span", { class: "verdict " + cell.getValue() }, cell.getValue()) },
        { title: "feedback", field: "context", width: 104,
          formatter: (cell) => el("span", {}, cell.getValue() || "none") },
        { title: "answer", field: "preview", minWidth: 130, widthGrow: 3,
          formatter: (cell) => el("span", {}, cell.getValue()) },
        { title: "peak cost", field: "peak", width: 108, ...narrow,
          formatter: (c) => fixed(c.getValue()) },
        { title: "credit", field: "size", width: 82, ...narrow,
          formatter: (c) => fixed(c.getRow().getData().credit, "+") },
        { title: "doubt", field: "doubt", width: 80, ...narrow,
          formatter: (c) => fixed(c.getValue()) },
        { title: "problem", field: "problem", width: 100,
          formatter: (cell) => el("span", {}, cell.getValue()) },
      ],
    });
    this.table.on("rowClick", (_, row) => this.open(row.getData()));
    this.table.on("dataFiltered", (_, rows) => { this.place.dataset.rows = rows.length; });
    return new Promise((done) => this.table.on("tableBuilt", done));
  }

  refilter() {
    const { text, verdict, context, run, tokens } = this.filters;
    this.table.setFilter((row) => (!text || (row.preview + " " + row.problem).toLowerCase().includes(text))
      && (!verdict || row.verdict === verdict) && (!context || (row.context || "none") === context)
      && (!run || String(row.run) === run) && (!tokens || row.tokens === 1));
  }

  rank(name) {
    this.ranking = name;
    const { field, about } = RANKINGS[name];
    for (const b of this.buttons) b.setAttribute("aria-pressed", String(b.dataset.ranking === name));
    this.about.textContent = about;
    if (name !== "newest") this.box.checked = this.filters.tokens = true;
    this.refilter();
    this.table.setSort(field, "desc");
    const first = this.rows()[0];
    if (first) this.open(first);
  }

  rows() {
    return this.table.getData("active");
  }

  async open(row) {
    this.opened = row;
    const rollouts = this.all[row.run];
    const at = RANKINGS[this.ranking].at;
    const view = await rolloutView(rollouts, row, at ? row[at] : row.peak_at,
      (i) => this.open(rollouts.rows()[i]));
    if (this.opened !== row) return; // another one was opened meanwhile
    this.detail.replaceChildren(view);
    if (matchMedia("(max-width: 1100px)").matches) this.detail.scrollIntoView({ block: "start" });
    this.table.deselectRow();
    const found = this.table.getRow(row.id);
    if (found) {
      found.select();
      if (this.rows().some((r) => r.id === row.id)) {
        this.table.scrollToRow(row.id, "nearest", false).catch(() => {});
      }
    }
    history.replaceState(null, "", `#credit/${row.run}/${row.i}`);
  }

  move(by) {
    const rows = this.rows();
    const here = this.opened ? rows.findIndex((r) => r.id === this.opened.id) : -1;
    const next = rows[Math.min(Math.max(here + by, 0), rows.length - 1)];
    if (next) this.open(next);
  }

  attempt(by) {
    if (!this.opened) return;
    const rollouts = this.all[this.opened.run];
    const [from, to] = rollouts.sameProblem(this.opened.i);
    const next = this.opened.i + by;
    if (next >= from && next <= to) this.open(rollouts.rows()[next]);
  }
}
