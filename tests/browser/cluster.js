/** A real cluster for the tests: `twstock up` on free ports, with data of its own. */

import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const BIN = process.env.TWSTOCK_BIN ?? join(ROOT, ".venv/bin");
const PORTS = 8;
const POLL_MS = 50;
/** What an administrator of the cluster shows. */
export const ADMIN_TOKEN = "only-for-tests";
/** How long a condition may take before it is called a failure; nobody measures by it. */
export const LIMIT_MS = 60_000;

/** Wait until `find` gives something; what it gave. Fails, naming `what`. */
export async function until(find, what) {
  const end = Date.now() + LIMIT_MS;
  for (;;) {
    const found = await Promise.resolve(find()).catch(() => null);
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited ${LIMIT_MS} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

function isFree(port) {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once("error", () => resolve(false));
    probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
  });
}

/** The first of `PORTS` ports in a row that nobody uses, below those the kernel hands out. */
async function freePorts() {
  for (let tries = 0; tries < 200; tries += 1) {
    const first = 20_000 + Math.floor(Math.random() * 12_000);
    const ports = Array.from({ length: PORTS }, (_, i) => first + i);
    if ((await Promise.all(ports.map(isFree))).every(Boolean)) return first;
  }
  throw new Error("no free ports");
}

const catalogOf = (stocks) => `${["name,price,quantity", ...stocks].join("\n")}\n`;

/** `twstock up --no-restart`: what a test kills stays dead until it is started again. */
export class Cluster {
  #directory = "";
  #up = null;
  #started = [];
  url = "";

  /** @param {string[]} stocks - lines of the catalog's CSV; none: the twelve of the package */
  async start(stocks = []) {
    this.#directory = await mkdtemp(join(tmpdir(), "twstock-browser-"));
    const first = await freePorts();
    this.url = `http://127.0.0.1:${first}`;
    const flags = ["--data", this.data, "--http", `127.0.0.1:${first}`, "--no-restart"];
    flags.push("--base-port", String(first + 1));
    flags.push("--admin-token-file", await this.#written("admin-token", `${ADMIN_TOKEN}\n`));
    if (stocks.length)
      flags.push("--catalog-csv", await this.#written("catalog.csv", catalogOf(stocks)));
    this.#up = spawn(join(BIN, "twstock"), ["up", ...flags], { stdio: ["ignore", "pipe", "pipe"] });
    process.once("exit", () => this.#up.kill("SIGTERM"));
    await this.#ready();
  }

  /** Where the members keep their data. */
  get data() {
    return join(this.#directory, "data");
  }

  async #written(name, text) {
    const path = join(this.#directory, name);
    await writeFile(path, text, { mode: 0o600 });
    return path;
  }

  #ready() {
    let said = "";
    return new Promise((resolve, reject) => {
      const hear = (bytes) => {
        said += bytes;
        if (said.includes("ready http://")) resolve();
      };
      this.#up.stdout.on("data", hear);
      this.#up.stderr.on("data", hear);
      this.#up.once("exit", (code) => reject(new Error(`twstock up ended with ${code}: ${said}`)));
      this.#up.once("error", reject);
    });
  }

  /** End everything that was started, and remove the data. */
  async stop() {
    await Promise.all([this.#up, ...this.#started].map((child) => ended(child, "SIGTERM")));
    await rm(this.#directory, { recursive: true, force: true });
  }

  /** The JSON that the API answers, whatever its status. */
  async ask(path, options = {}) {
    const response = await fetch(`${this.url}${path}`, options);
    return response.json();
  }

  /** Whether the front-end has a route: not all of them have a feed. */
  async has(path) {
    const stop = new AbortController();
    const response = await fetch(`${this.url}${path}`, { signal: stop.signal });
    stop.abort();
    return response.status === 200;
  }

  /** Trade past the browser; the number of the order. */
  async trade(name, quantity, type = "buy") {
    const data = await this.#done("/orders", { name, quantity, type });
    return data.transaction_number;
  }

  /** Change a stock past the browser; the number of the change. */
  async change(path, terms) {
    const data = await this.#done(path, terms, { Authorization: `Bearer ${ADMIN_TOKEN}` });
    return data.change_number;
  }

  /** Have something done, once; what is told of it. */
  #done(path, terms, more) {
    const headers = { ...more, "Idempotency-Key": randomUUID() };
    const body = terms && JSON.stringify(terms);
    return this.#answered(path, { method: "POST", headers, body });
  }

  /**
   * What is told in answer to a request that is to succeed. It is made again as long as nobody can
   * answer it: how long an election or a start takes depends on the machine.
   */
  async #answered(path, options = {}) {
    const { data, error } = await until(async () => {
      const told = await this.ask(path, options);
      return told.error?.code === 503 ? null : told;
    }, `${path} to be answered`);
    if (error) throw new Error(error.message);
    return data;
  }

  /** All changes that were made. */
  changes() {
    return this.#answered("/admin/changes?limit=1000");
  }

  /** The number of the last order. */
  async last() {
    // A leader that is too busy to say so has no number, and the others may not have its last ones.
    const rows = await this.members();
    let last = Math.max(...rows.map((row) => row.last_transaction ?? 0));
    for (;;) {
      const more = await this.#answered(`/orders?after=${last}&limit=1000`);
      if (!more.length) return last;
      last = more.at(-1).order_num;
    }
  }

  /** The rows of `GET /cluster`. */
  async members() {
    return (await this.ask("/cluster")).data.services;
  }

  /** The row of the order group's leader. */
  leader() {
    const leads = (row) => row.service === "order" && row.role === "leader";
    return until(async () => (await this.members()).find(leads), "an order leader");
  }

  /** Kill -9 a member by the process id that its row tells. */
  kill(row) {
    process.kill(row.pid, "SIGKILL");
  }

  /** Start a member that was killed; resolves when the front-end answers again. */
  async revive(row) {
    const plugin = { front: "stock-frontend", order: "stock-order" }[row.service];
    const name = `${row.service}-${row.id}`;
    const config = ["--config", join(this.data, "cluster.toml"), "--name", name];
    const arguments_ = ["-n", "--pidfile=", plugin, ...config];
    const child = spawn(join(BIN, "twistd"), arguments_, { cwd: this.#directory, stdio: "ignore" });
    this.#started.push(child);
    const isAlive = (each) => each.service === row.service && each.id === row.id && each.alive;
    await until(async () => (await this.members()).some(isAlive), `${name} to answer`);
    await until(async () => (await fetch(`${this.url}/readyz`)).ok, "the front-end to be ready");
  }

  /** What the front-end logged, for a failure that nobody understands. */
  log() {
    return readFile(join(this.data, "front-1/service.log"), "utf8");
  }
}

function ended(child, signal) {
  if (!child || child.exitCode !== null || child.signalCode !== null) return undefined;
  return new Promise((resolve) => {
    child.once("exit", resolve);
    child.kill(signal);
  });
}
