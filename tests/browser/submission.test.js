/** What the console decides of a request on its way: its key, its attempts, when its outcome is known. */

import assert from "node:assert/strict";
import { test } from "node:test";

const STATIC = "../../twstock/web/static/js";
const { makeChange } = await import(`${STATIC}/model/change.js`);
const { forget, keep, kept, placeOrder } = await import(`${STATIC}/model/order.js`);
const { ask, askPages, Refused, Stranger, Unreachable } = await import(`${STATIC}/http.js`);
const { newKey, Submission } = await import(`${STATIC}/model/submission.js`);

const nextTurn = () => new Promise((resolve) => setTimeout(resolve, 0));

test("who stops asking is told at once, and nothing is over before the attempt under way is", async () => {
  const told = [];
  let fail;
  const send = (stop) =>
    new Promise((_, reject) => {
      fail = reject;
      stop.addEventListener("abort", () => told.push("given up"));
    });
  const tell = ({ state, attempt, isOver }) => told.push([state, attempt, isOver]);
  const submission = new Submission(send, tell);
  const run = submission.run();
  submission.stop();
  submission.stop();
  assert.deepEqual(told, [["asking", 1, false], "given up", ["stopped", 1, false]]);
  fail(new Unreachable("given up"));
  await run;
  assert.deepEqual(told.slice(3), [["stopped", 1, true]]);
});

test("what is known when somebody stops asking is said", async () => {
  const endings = [
    ["answered", (resolve) => resolve({ data: { transaction_number: 7 } })],
    ["refused", (_, reject) => reject(new Refused(404, "invalid stock name"))],
    ["stopped", (_, reject) => reject(new Refused(503, "not now", { outcome: "unknown" }))],
  ];
  for (const [state, end] of endings) {
    const submission = new Submission(
      () => new Promise(end),
      () => {},
    );
    const run = submission.run();
    submission.stop();
    await run;
    assert.equal(submission.state, state);
  }
});

const ended = (status, message = "no", more = {}) =>
  new Refused(status, message, { code: status, retryS: 0, ...more });

/** What becomes of a request whose attempts end like this, one after the other. */
async function outcomeOf(attempts, isDoubtful) {
  const left = [...attempts];
  const submission = new Submission(
    () => (left.length ? Promise.reject(left.shift()) : new Promise(() => {})),
    () => {},
    isDoubtful,
  );
  submission.run();
  while (left.length) await nextTurn();
  await nextTurn();
  return submission.state;
}

test("an answer that decides nothing leaves the doubt of an earlier attempt", async () => {
  const lost = Object.assign(new Unreachable("lost"), { retryS: 0 });
  const unknown = ended(503, "not now", { outcome: "unknown" });
  const nothing = [
    ...[301, 400, 401, 403, 405, 413].map((status) => ended(status)),
    ...[400, 404, 409, 422].map((status) => ended(status, "name: no route", { code: undefined })),
    ended(404, "no such path"),
  ];
  for (const answer of nothing) {
    assert.equal(await outcomeOf([lost, answer]), "asking", `${answer.status}`);
    assert.equal(await outcomeOf([unknown, answer]), "asking", `${answer.status}`);
    assert.equal(await outcomeOf([answer], true), "asking", "an earlier page has sent it");
    assert.equal(await outcomeOf([answer]), "refused", "nobody has sent it before");
  }
  const words = [[404], [409], [422], [400, "quantity: too large"]];
  for (const answer of words.map((given) => ended(...given))) {
    assert.equal(await outcomeOf([lost, unknown, answer], true), "refused");
  }
  const turnedAway = [ended(408), ended(429), ended(507), ended(503, "idle", { outcome: "none" })];
  assert.equal(await outcomeOf([...turnedAway, ended(403)]), "refused");
});

test("who answers in another form is no front-end, and the order is in doubt", async () => {
  const given = globalThis.fetch;
  try {
    for (const body of [null, [], {}, { data: {} }, { data: { transaction_number: "1" } }]) {
      globalThis.fetch = async () => Response.json(body);
      const order = { name: "A", quantity: "1", type: "buy" };
      await assert.rejects(placeOrder(order, "one"), Stranger);
      const draft = { kind: "halt", name: "A", price: "", quantity: "" };
      await assert.rejects(makeChange(draft, "token", "one"), Stranger);
      globalThis.fetch = async () => Response.json(body, { status: 404 });
      const problem = await placeOrder(order, "one").catch((caught) => caught);
      assert.deepEqual([problem.status, problem.decides], [404, false]);
    }
    const error = { code: 404, message: "invalid stock name" };
    globalThis.fetch = async () => Response.json({ error }, { status: 404 });
    assert.equal((await ask("/").catch((caught) => caught)).decides, true);
  } finally {
    globalThis.fetch = given;
  }
});

test("a list that never ends, or is none, is no front-end's", async () => {
  const given = globalThis.fetch;
  try {
    for (const body of [null, {}, { data: [] }, { data: [], next: "A" }, { next: null }]) {
      globalThis.fetch = async () => Response.json(body);
      await assert.rejects(
        askPages(
          () => "/stocks",
          () => {},
          "A",
        ),
        Stranger,
      );
    }
    globalThis.fetch = async () => Response.json({ data: [], next: 7 });
    await assert.rejects(
      askPages(
        () => "/orders",
        () => {},
        "7",
      ),
      Stranger,
    );
  } finally {
    globalThis.fetch = given;
  }
});

test("an error without words is told by its status", async () => {
  const given = globalThis.fetch;
  try {
    for (const body of ["{}", "<html>"]) {
      globalThis.fetch = async () => new Response(body, { status: 502 });
      await assert.rejects(ask("/"), { status: 502, message: "status 502" });
    }
  } finally {
    globalThis.fetch = given;
  }
});

test("a pause ends when somebody stops asking", { timeout: 4000 }, async () => {
  const submission = new Submission(
    () => Promise.reject(new Refused(503, "not now", { outcome: "unknown", retryS: 1e9 })),
    ({ attempt, state }) =>
      attempt === 2 && state === "asking" && setTimeout(() => submission.stop(), 0),
  );
  await submission.run();
  assert.equal(submission.state, "stopped");
});

test("a request ends when it is given up", async () => {
  const given = globalThis.fetch;
  globalThis.fetch = (_, { signal }) =>
    new Promise((_resolve, reject) => {
      if (signal.aborted) reject(signal.reason);
      signal.addEventListener("abort", () => reject(signal.reason));
    });
  try {
    const stop = new AbortController();
    const asking = ask("/orders", { signal: stop.signal });
    stop.abort();
    await assert.rejects(asking, Unreachable);
    await assert.rejects(ask("/orders", { signal: stop.signal }), Unreachable);
  } finally {
    globalThis.fetch = given;
  }
});

test("what the browser has kept is not asked whether it is still so", async () => {
  const given = globalThis.fetch;
  const asked = [];
  globalThis.fetch = async (path, options) => {
    asked.push(options.cache);
    return Response.json({ data: {} });
  };
  try {
    await ask("/stocks/A");
    await ask("/orders", { method: "POST" });
  } finally {
    globalThis.fetch = given;
  }
  assert.deepEqual(asked, ["no-store", "no-store"]);
});

test("an order whose outcome is known is forgotten, and no other", () => {
  const items = new Map();
  globalThis.sessionStorage = {
    getItem: (name) => items.get(name) ?? null,
    setItem: (name, value) => items.set(name, value),
    removeItem: (name) => items.delete(name),
  };
  try {
    forget("one");
    keep({ name: "A", quantity: "1", type: "buy" }, "two");
    forget("one");
    assert.equal(kept().key, "two");
    forget("two");
    assert.equal(kept(), null);
    for (const odd of ["{}", "1", "[", '{"draft":{"name":"A"},"key":"one"}']) {
      sessionStorage.setItem("twstock.submission", odd);
      assert.equal(kept(), null, odd);
    }
  } finally {
    delete globalThis.sessionStorage;
  }
});

test("keys differ, and fit the API's limits", () => {
  const keys = new Set(Array.from({ length: 1000 }, newKey));
  assert.equal(keys.size, 1000);
  for (const key of keys) assert.match(key, /^[\x21-\x7e]{16,255}$/);
});
