// Unpacks what the page carries: gzipped JSON in base64, the rollouts a block at a time.
"use strict";

const KEPT_BLOCKS = 40;

// Right from a reward of 0.5 on, as everywhere in distil (SUCCESS_REWARD).
function verdictOf(reward) {
  return reward == null ? "ungraded" : reward >= 0.5 ? "right" : "wrong";
}

async function unpack(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// One run's rollouts: columns of what the table shows, and the whole of one at a time.
class Rollouts {
  constructor(run, index) {
    this.run = run;
    this.found = index.found;
    this.detailed = index.detailed;
    this.columns = index.columns;
    this.perBlock = index.block;
    this.count = index.columns.step.length;
    this.blocks = new Map();
    this.scale = null;
  }

  static async of(run) {
    return new Rollouts(run, await unpack("index-" + run));
  }

  // What the table has of each, made once.
  rows() {
    this.made = this.made || this.makeRows();
    return this.made;
  }

  makeRows() {
    const names = Object.keys(this.columns);
    return Array.from({ length: this.count }, (_, i) => {
      const row = { run: this.run, i, id: this.run + "/" + i };
      for (const name of names) row[name] = this.columns[name][i];
      row.size = row.credit == null ? null : Math.abs(row.credit);
      row.verdict = verdictOf(row.reward);
      return row;
    });
  }

  async at(i) {
    const block = await this.block(Math.floor(i / this.perBlock));
    const row = block.rows[i % this.perBlock];
    const text = (place) => (place == null ? null : block.texts[place]);
    const messages = (some) => some && some.map(([role, place]) => [role, text(place)]);
    return {
      ...row,
      prompt: messages(row.prompt),
      teacher: messages(row.teacher),
      feedback: row.feedback.map(([who, said, shown]) => [who, text(said), text(shown)]),
    };
  }

  async block(number) {
    if (!this.blocks.has(number)) {
      if (this.blocks.size >= KEPT_BLOCKS) this.blocks.delete(this.blocks.keys().next().value);
      this.blocks.set(number, await unpack(`rollouts-${this.run}-${number}`));
    }
    return this.blocks.get(number);
  }

  // Attempts at one problem lie beside each other, in the order of steps.
  sameProblem(i) {
    const problem = this.columns.problem;
    let from = i, to = i;
    while (from > 0 && problem[from - 1] === problem[i]) from--;
    while (to + 1 < this.count && problem[to + 1] === problem[i]) to++;
    return [from, to];
  }

  // What is drawn at full strength: the 95th percentile of rollouts' highest cost and credit.
  scales() {
    if (!this.scale) {
      const high = (values) => {
        const sorted = values.filter((v) => v != null).map(Math.abs).sort((a, b) => a - b);
        return sorted.length ? sorted[Math.floor(0.95 * (sorted.length - 1))] || 1 : 1;
      };
      this.scale = { cost: high(this.columns.peak), credit: high(this.columns.credit) };
    }
    return this.scale;
  }
}
