/** A front-end whose `/events` says what a test tells it to; all else is passed on to a real one. */

import { createServer, request } from "node:http";

/** Serves on a free port in front of the front-end at `origin`. */
export class FakeFeed {
  #server;
  #origin;
  #streams = new Set();
  /** The cursor that each subscriber came with, in sequence; empty: none. */
  cursors = [];
  /** How many of the next subscribers are turned away. */
  refusals = 0;
  url = "";

  /** @param {string} origin */
  constructor(origin) {
    this.#origin = origin;
    this.#server = createServer((asked, answer) => this.#answer(asked, answer));
  }

  start() {
    return new Promise((resolve) => {
      this.#server.listen(0, "127.0.0.1", () => {
        this.url = `http://127.0.0.1:${this.#server.address().port}`;
        resolve();
      });
    });
  }

  stop() {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(resolve));
  }

  /** Say something to every subscriber. */
  send(kind, data, id) {
    for (const stream of this.#streams) {
      stream.write(`event: ${kind}\nid: ${id}\ndata: ${JSON.stringify(data)}\n\n`);
    }
  }

  /** End every stream. */
  end() {
    for (const stream of this.#streams) stream.destroy();
  }

  #answer(asked, answer) {
    const { pathname, searchParams } = new URL(asked.url, this.#origin);
    if (pathname === "/events") this.#subscribe(searchParams.get("last_event_id") ?? "", answer);
    else this.#pass(asked, answer);
  }

  #subscribe(cursor, answer) {
    if (this.refusals > 0) {
      this.refusals -= 1;
      answer.writeHead(503).end();
      return;
    }
    this.cursors.push(cursor);
    answer.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
    answer.write(": hello\n\n");
    this.#streams.add(answer);
    answer.on("close", () => this.#streams.delete(answer));
  }

  #pass(asked, answer) {
    const { method, headers, url } = asked;
    const passed = request(`${this.#origin}${url}`, { method, headers }, (reply) => {
      answer.writeHead(reply.statusCode, reply.headers);
      reply.pipe(answer);
    });
    passed.on("error", () => answer.destroy());
    asked.pipe(passed);
  }
}
