// Small things for making elements and writing numbers. What a model wrote is always set as text.
"use strict";

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

function number(value, digits = 3) {
  if (value == null) return "–";
  if (Math.abs(value) >= 1e4) return Math.round(value).toLocaleString("en");
  if (value !== 0 && Math.abs(value) < 1e-3) return value.toPrecision(3);
  return String(+value.toFixed(digits));
}

function signed(value, digits = 3) {
  return value == null ? "–" : (value > 0 ? "+" : "") + number(value, digits);
}

// Two digits behind the point, so that a column lines up.
function fixed(value, plus = "") {
  return value == null ? "–" : (value > 0 ? plus : "") + value.toFixed(2);
}

function percent(value) {
  if (value == null) return "–";
  return value >= 0.1 ? (100 * value).toFixed(0) + "%" : (100 * value).toPrecision(2) + "%";
}

function seconds(value) {
  if (value < 90) return number(value, 1) + " s";
  const minutes = Math.round(value / 60);
  return minutes < 90 ? minutes + " min" : number(value / 3600, 1) + " h";
}

function shown(value) {
  return value == null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value);
}

// A choice among texts; calls back with the chosen one.
function choice(label, options, value, changed) {
  const select = el("select", { onchange: () => changed(select.value) });
  for (const [key, text] of options) select.append(el("option", { value: key }, text));
  select.value = value;
  return el("label", { class: "choice" }, label + " ", select);
}

function plainTable(rows, caption) {
  const [head, ...body] = rows;
  return el("div", { class: "wide" }, el("table", { class: "plain" },
    caption ? el("caption", {}, caption) : null,
    el("thead", {}, el("tr", {}, head.map((cell) => el("th", { scope: "col" }, cell)))),
    el("tbody", {}, body.map((row) => el("tr", {}, row.map((cell, i) =>
      i ? el("td", {}, cell) : el("th", { scope: "row" }, cell)))))));
}

function section(title, about, ...children) {
  return el("section", {}, el("h2", {}, title), about ? el("p", { class: "about" }, about) : null,
    ...children);
}

function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
