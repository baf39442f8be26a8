/** The console in headless Chromium, against a cluster of its own: `make test-browser`. */

import { after, afterEach, before } from "node:test";
import { stage } from "./stage.js";

before(() => stage.start(), { timeout: 120_000 });
afterEach(() => stage.leave());
after(() => stage.stop(), { timeout: 60_000 });

await import("./cases/market.js");
await import("./cases/ticket.js");
await import("./cases/orders.js");
await import("./cases/live.js");
await import("./cases/cluster.js");
await import("./cases/admin.js");
await import("./cases/connection.js");
await import("./cases/appearance.js");
