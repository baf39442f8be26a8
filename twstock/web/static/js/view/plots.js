/** The last ten minutes of this front-end: throughput, latency, and how often the cache hits. */

import { byId, element, setText } from "../dom.js";
import { clock, count, NOTHING } from "../format.js";
import { ask, Refused } from "../http.js";

const POLL_MS = 2000;
const SHOWN_S = 600;
const HEIGHT_PX = 180;
const ABSENT_POLL_MS = 30_000;
const LIBRARY = "../../vendor/uplot-1.6.32/uPlot.esm.js";

const perSecond = (value) => `${count(value)}/s`;
const milliseconds = (value) => `${value < 10 ? value.toFixed(2) : value.toFixed(1)} ms`;
const percent = (value) => `${value.toFixed(1)} %`;
const ratio = (row) => {
  const asked = row.hits + row.misses;
  return asked ? (100 * row.hits) / asked : null;
};

/** The plots. Lines have a name, a colour and a value in each row; the first has an area, too. */
const PLOTS = [
  {
    title: "Throughput",
    show: perSecond,
    lines: [
      { name: "lookups", colour: "--line-1", fill: "--line-1-wash", value: (row) => row.lookups },
      { name: "orders", colour: "--line-2", value: (row) => row.orders },
    ],
  },
  {
    title: "Latency",
    show: milliseconds,
    lines: [
      { name: "p50", colour: "--line-1", fill: "--line-1-wash", value: (row) => row.p50_ms },
      { name: "p99", colour: "--line-2", value: (row) => row.p99_ms },
    ],
  },
  {
    title: "Cache hits",
    show: percent,
    max: 100,
    lines: [{ name: "of lookups", colour: "--line-1", fill: "--line-1-wash", value: ratio }],
  },
];

/** Asks for the history while it is started, and draws it. */
export class Plots {
  #room = byId("plots");
  #library = null;
  #drawn = [];
  #timer = 0;
  #isStarted = false;
  /** @type {any[]} */
  #rows = [];

  constructor() {
    const again = () => this.#make();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    new ResizeObserver(() => this.#fit()).observe(this.#room);
  }

  /** Begin to ask. */
  start() {
    this.#isStarted = true;
    this.#turn();
  }

  /** Nobody looks any more. */
  stop() {
    this.#isStarted = false;
    clearTimeout(this.#timer);
  }

  async #turn() {
    clearTimeout(this.#timer);
    let wait = POLL_MS;
    try {
      this.#library ??= (await import(LIBRARY)).default;
      if (!this.#drawn.length) this.#make();
      if (!document.hidden) this.#take((await ask("/history")).data.rows);
    } catch (problem) {
      if (problem instanceof Refused) {
        wait = ABSENT_POLL_MS;
        this.#take([]);
      }
    }
    clearTimeout(this.#timer);
    if (this.#isStarted) this.#timer = setTimeout(() => this.#turn(), wait);
  }

  #take(rows) {
    this.#rows = rows;
    const times = rows.map((row) => row.at);
    for (const each of this.#drawn) {
      const { plot, about, figure } = each;
      figure.classList.toggle("without", !rows.length);
      plot.setData([times, ...about.lines.map((line) => rows.map(line.value))]);
      each.say(rows.length - 1);
    }
  }

  #make() {
    if (!this.#library) return;
    for (const { plot } of this.#drawn) plot.destroy();
    this.#room.replaceChildren();
    this.#drawn = PLOTS.map((about) => this.#makeOne(about));
    this.#take(this.#rows);
  }

  #makeOne(about) {
    const { figure, canvas, values, at } = frame(about);
    this.#room.append(figure);
    const say = (index) => {
      const row = this.#rows[index];
      setText(at, row && index < this.#rows.length - 1 ? clock(row.at * 1000) : "");
      about.lines.forEach((line, i) => {
        const value = row ? line.value(row) : null;
        setText(values[i], value == null ? NOTHING : about.show(value));
      });
    };
    const newest = () => this.#rows.length - 1;
    const hover = (plot) => say(plot.cursor.idx ?? newest());
    const plot = new this.#library(
      options(about, canvas, hover),
      [[], ...about.lines.map(() => [])],
      canvas,
    );
    return { plot, about, figure, canvas, say: () => hover(plot) };
  }

  #fit() {
    for (const { plot, canvas } of this.#drawn) {
      if (canvas.clientWidth) plot.setSize({ width: canvas.clientWidth, height: HEIGHT_PX });
    }
  }
}

/** The figure around a plot: its title, what each line says now, and room for the canvas. */
function frame(about) {
  const at = element("span", { class: "plot-at" });
  const values = about.lines.map(() => element("b"));
  const keys = about.lines.map((line, i) => {
    const mark = element("span", { class: line.fill ? "key area" : "key", "aria-hidden": true });
    mark.style.setProperty("--key", `var(${line.colour})`);
    mark.style.setProperty("--key-fill", `var(${line.fill})`);
    return element("span", { class: "plot-value" }, mark, `${line.name} `, values[i]);
  });
  const title = element("h2", {}, about.title);
  const caption = element("figcaption", {}, title, at, ...keys);
  const canvas = element("div", {
    class: "plot",
    role: "img",
    "aria-label": `${about.title}, the last ten minutes`,
  });
  const without = element("p", { class: "empty" }, "No history");
  return {
    figure: element("figure", { class: "panel" }, caption, canvas, without),
    canvas,
    values,
    at,
  };
}

function options(about, canvas, hover) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const font = `11px ${style.getPropertyValue("--font")}`;
  const grid = { stroke: colour("--line"), width: 1 };
  const axis = { stroke: colour("--muted"), font, grid, ticks: { ...grid, size: 4 } };
  return {
    width: canvas.clientWidth || 300,
    height: HEIGHT_PX,
    legend: { show: false },
    cursor: { sync: { key: "history" }, drag: { x: false, y: false }, y: false },
    hooks: { setCursor: [hover] },
    scales: {
      x: {
        range: (_plot, _low, high) => [
          (high ?? Date.now() / 1000) - SHOWN_S,
          high ?? Date.now() / 1000,
        ],
      },
      y: { range: (_plot, _low, high) => [0, about.max ?? Math.max(1, (high || 0) * 1.1)] },
    },
    axes: [
      { ...axis, size: 28, space: 70, values: (_plot, times) => times.map((time) => minute(time)) },
      { ...axis, size: 48, space: 32, values: (_plot, ticks) => ticks.map((tick) => count(tick)) },
    ],
    series: [{}, ...about.lines.map((line) => series(line, colour))],
  };
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const minute = (seconds) => CLOCK.format(new Date(seconds * 1000));

function series(line, colour) {
  const fill = line.fill && colour(line.fill);
  return { stroke: colour(line.colour), fill, width: 1.25, points: { show: false } };
}
