// The SDK by itself: what it sends, what it keeps, what it gives up.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { Browser, settled } from "./browser.mjs";
import { APP, bodyOf } from "./calls.mjs";

const VECTORS = new URL("../../tests/streams/vectors/sdk.json", import.meta.url);
const HOUR_MS = 3_600_000;

/** A browser whose door keeps what arrives; `fate` says what becomes of a request. */
function visit(fate = () => 200) {
  const browser = new Browser();
  const bodies = [];
  browser.network = async (url, options) => {
    const body = JSON.parse(options.body);
    const what = fate(bodies.length, body);
    if (what === "lost") throw new TypeError("Failed to fetch");
    bodies.push(body);
    if (what === "unheard") throw new TypeError("Failed to fetch");
    const answer = typeof what === "number" ? { status: what } : what;
    return { body: { message: "success", accepted: body.items.length, errors: [] }, ...answer };
  };
  const open = (options) => {
    const tab = browser.open();
    tab.headrace.initialize(APP, options);
    return tab;
  };
  const names = () => bodies.flatMap((body) => body.items.map((item) => item.name ?? item.type));
  return { browser, bodies, open, names };
}

for (const vector of JSON.parse(readFileSync(VECTORS, "utf8")).filter((each) => each.calls))
  test(`the calls of "${vector.name}" send its body`, async () => {
    assert.deepEqual(await bodyOf(vector.calls), vector.body);
  });

test("what was logged offline survives a reload and goes in order", async () => {
  const { browser, open, names } = visit();
  browser.online = false;
  const first = open();
  for (let at = 0; at < 120; at++) first.headrace.logCustomEvent(`e${at}`);
  first.close({ kindly: false });
  open();
  browser.setOnline(true);
  await browser.advance(60_000);
  assert.deepEqual(names(), Array.from({ length: 120 }, (_, at) => `e${at}`));
});

test("a refused item is dropped and told, its neighbours are kept", async () => {
  const { browser, open, bodies } = visit((_, body) => ({
    status: 200,
    body: { accepted: 2, errors: [{ index: 1, id: body.items[1].id, reason: "bad_value", field: "name", detail: "" }] },
  }));
  const { headrace } = open();
  const told = [];
  headrace.subscribeToRefusedItems((refusals) => told.push(...refusals));
  for (const name of ["a", "b", "c"]) headrace.logCustomEvent(name);
  assert.equal(await headrace.requestImmediateDataFlush(), true);
  await browser.advance(60_000);
  assert.equal(bodies.length, 1);
  assert.equal(told[0].reason, "bad_value");
  const status = headrace.getQueueStatus();
  assert.deepEqual([status.queued, status.dropped.refused], [0, 1]);
});

test("one item that spoils its batch is found and dropped, the others arrive", async () => {
  const { browser, open, bodies } = visit((_, body) => (body.items.some((item) => item.name === "bad") ? 400 : 200));
  const { headrace } = open();
  for (let at = 0; at < 20; at++) headrace.logCustomEvent(at === 7 ? "bad" : `e${at}`);
  await browser.advance(120_000);
  const good = bodies.filter((body) => !body.items.some((item) => item.name === "bad"));
  assert.equal(good.flatMap((body) => body.items).length, 19);
  assert.equal(headrace.getQueueStatus().dropped.refused, 1);
});

for (const answer of [
  { status: 200, body: "<!doctype html><title>A shop</title>" },
  { status: 200, body: "null" },
  { status: 200, body: { message: "welcome" } },
  { status: 400, body: "<h1>Bad Request</h1>" },
  { status: 415, body: "" },
])
  test(`what no door has answered is kept, and sent however late: ${JSON.stringify(answer)}`, async () => {
    let isDoor = false;
    const asked = [];
    const { browser, open, bodies } = visit(() => (asked.push(browser.nowMs), isDoor ? 200 : answer));
    const { headrace } = open();
    for (const name of ["a", "b"]) headrace.logCustomEvent(name);
    await browser.advance(10 * 60_000);
    assert.ok(asked.length < 10, `asked ${asked.length} times in ten minutes`);
    await browser.advance(25 * HOUR_MS);
    assert.equal(headrace.getQueueStatus().queued, 2);
    bodies.length = 0;
    isDoor = true;
    assert.equal(await headrace.requestImmediateDataFlush(), true);
    assert.deepEqual(bodies.flatMap((body) => body.items.map((item) => item.name)), ["a", "b"]);
    assert.deepEqual(new Set(Object.values(headrace.getQueueStatus().dropped)), new Set([0]));
  });

test("pauses grow, bear jitter, and Retry-After is honoured", async () => {
  const at = [];
  const { browser, open } = visit(() => (at.push(browser.nowMs), at.length === 4 ? { status: 429, headers: { "Retry-After": "100" } } : 500));
  browser.random = () => 0;
  open({ flushIntervalInSeconds: 0.1 }).headrace.logCustomEvent("a");
  await browser.advance(200_000);
  const pauses = at.slice(1).map((time, index) => Math.round((time - at[index]) / 1_000));
  assert.deepEqual(pauses.slice(0, 5), [1, 2, 4, 100, 16]);
});

test("the queue is bounded: the oldest go first, who was identified last, and they are counted", async () => {
  const { browser, open, bodies } = visit();
  browser.online = false;
  const { headrace } = open({ queueItemsMax: 10 });
  headrace.changeUser("mel");
  for (let at = 0; at < 15; at++) headrace.logCustomEvent(`e${at}`);
  assert.equal(headrace.getQueueStatus().dropped.overflow, 6);
  await settled();
  browser.setOnline(true);
  await settled();
  assert.deepEqual(bodies[0].items.map((item) => item.name ?? item.type), ["identify", ...[6, 7, 8, 9, 10, 11, 12, 13, 14].map((n) => `e${n}`)]);
});

test("what may have arrived a day ago is not sent again, what surely did not is", async () => {
  const { browser, open, names } = visit((count) => (count === 0 ? "unheard" : 200));
  const { headrace } = open();
  headrace.logCustomEvent("unheard");
  await headrace.requestImmediateDataFlush();
  browser.online = false;
  headrace.logCustomEvent("never sent");
  await browser.advance(25 * HOUR_MS);
  browser.setOnline(true);
  await browser.advance(60_000);
  assert.deepEqual(names(), ["unheard", "never sent"]);
  assert.equal(headrace.getQueueStatus().dropped.uncertain, 1);
});

test("when the page goes, what waits goes by beacon, and again with the same ids from the next page", async () => {
  const { browser, open, bodies } = visit();
  const first = open();
  first.headrace.logCustomEvent("a");
  first.close();
  await settled();
  assert.equal(bodies.length, 1);
  open();
  await browser.advance(30_000);
  assert.deepEqual(bodies[1].items, bodies[0].items);
  await browser.advance(60_000);
  assert.equal(bodies.length, 2);
});

test("what follows never arrives before: a beacon takes along what is under way", async () => {
  const { browser, open, bodies } = visit();
  const answers = browser.network;
  let sinks = true;
  browser.network = (...request) => (sinks ? new Promise(() => undefined) : answers(...request));
  const tab = open();
  tab.headrace.logCustomEvent("first");
  void tab.headrace.requestImmediateDataFlush();
  await settled();
  sinks = false;
  tab.headrace.logCustomEvent("second");
  tab.close();
  await settled();
  assert.deepEqual(bodies[0].items.map((item) => item.name), ["first", "second"]);
});

test("two tabs share queue, user and session, and send nothing twice", async () => {
  const { browser, open, bodies } = visit();
  const [one, other] = [open(), open()];
  one.headrace.openSession();
  other.headrace.openSession();
  one.headrace.changeUser("mel");
  other.headrace.logCustomEvent("a");
  await browser.advance(60_000);
  const items = bodies.flatMap((body) => body.items);
  assert.equal(new Set(items.map((item) => item.id)).size, items.length);
  assert.equal(items.filter((item) => item.type === "session_start").length, 2); // nobody's, and Mel's
  assert.equal(items.find((item) => item.name === "a").external_id, "mel");
});

test("a session goes on while something is tracked, and ends at its last moment", async () => {
  const { browser, open, bodies } = visit();
  const { headrace } = open({ sessionTimeoutInSeconds: 60, devicePropertyAllowlist: [] });
  headrace.openSession();
  for (let at = 0; at < 3; at++) {
    await browser.advance(50_000);
    headrace.logCustomEvent("a");
  }
  await browser.advance(200_000);
  const items = bodies.flatMap((body) => body.items);
  const end = items.filter((item) => item.type === "session_end");
  assert.deepEqual([end.length, end[0].duration_s], [1, 150]);
  assert.equal(Date.parse(end[0].time), Date.parse(items[0].time) + 150_000);
});

test("without storage it works for as long as the page lives", async () => {
  const { browser, open, names } = visit();
  browser.storage.full = true;
  const { headrace } = open();
  headrace.changeUser("mel");
  headrace.logCustomEvent("a");
  await browser.advance(20_000);
  assert.deepEqual(names(), ["identify", "a"]);
});

test("wrong calls say so and send nothing", async () => {
  const { browser, open, bodies } = visit();
  const { headrace } = open();
  const user = headrace.getUser();
  const answers = [
    headrace.logCustomEvent(""),
    headrace.logCustomEvent("x", [1]),
    headrace.logPurchase("p", Number.NaN),
    headrace.logPurchase("p", 1, "EURO"),
    headrace.logPurchase("p", 1, "EUR", 0),
    headrace.changeUser(""),
    headrace.changeUser("device:x"),
    user.setEmail("nobody"),
    user.setDateOfBirth(2000, 2, 30),
    user.setGender("x"),
    user.setCustomUserAttribute("time", 1),
    user.setCustomUserAttribute("list", [1]),
    headrace.logCustomEvent("large", { text: "x".repeat(60_000) }),
  ];
  await browser.advance(20_000);
  assert.deepEqual(new Set(answers), new Set([false]));
  assert.equal(bodies.length, 0);
});

test("nothing that a page passes throws into it: loops, BigInts, symbols, getters that fail, nothing at all", async () => {
  const { browser, open, bodies } = visit();
  const { headrace } = open(null);
  const loop = {};
  loop.self = loop;
  const hostile = [loop, { n: 1n }, { get now() { throw new Error("later"); } }];
  const odd = [Symbol("x"), Object.create(null), { valueOf() { throw new Error("no"); } }];
  const user = headrace.getUser();
  const setters = Object.getOwnPropertyNames(Object.getPrototypeOf(user)).filter((name) => name.startsWith("set"));
  const answers = [
    ...hostile.flatMap((each) => [headrace.logCustomEvent("v", each), headrace.logPurchase("p", 1, "EUR", 1, each)]),
    ...odd.flatMap((each) => [
      headrace.logCustomEvent(each),
      headrace.changeUser(each),
      headrace.logPurchase("p", each),
      headrace.logPurchase(each, 1),
      headrace.logPurchase("p", 1, each),
      headrace.logPurchase("p", 1, "EUR", each),
      ...setters.map((name) => user[name](each, each, each)),
    ]),
  ];
  assert.deepEqual(new Set(answers), new Set([false]));
  headrace.destroy();
  for (const each of odd) assert.equal(headrace.initialize(each), false);
  assert.equal(headrace.initialize(APP, { baseUrl: 7 }), true);
  await browser.advance(20_000);
  assert.equal(bodies.length, 0);
});

test("a beacon that throws is one that was not sent", async () => {
  const { open, browser, names } = visit();
  const tab = open();
  tab.context.navigator.sendBeacon = () => {
    throw new TypeError("blocked");
  };
  tab.headrace.logCustomEvent("a");
  tab.close();
  browser.online = false;
  open();
  await browser.advance(25 * HOUR_MS);
  browser.setOnline(true);
  await browser.advance(60_000);
  assert.deepEqual(names(), ["a"]);
});

test("a clock that is set back makes no pause longer", async () => {
  const { browser, open, names } = visit((count) => (count === 0 ? 503 : 200));
  open().headrace.logCustomEvent("a");
  await browser.advance(15_000);
  browser.setClock(-48 * HOUR_MS);
  await browser.advance(60_000);
  assert.deepEqual(names(), ["a", "a"]);
});

test("no timer is longer than browsers have them, whatever a door or the page says", async () => {
  const { browser, open, bodies } = visit((count) => (count === 0 ? { status: 429, headers: { "Retry-After": "1e10" } } : 200));
  let timers = 0;
  const tab = open({ sessionTimeoutInSeconds: 90 * 86_400, flushIntervalInSeconds: 90 * 86_400 });
  const real = tab.context.setTimeout;
  tab.context.setTimeout = (...args) => {
    timers += 1;
    assert.ok(timers < 1_000, "a timer fires again and again");
    return real(...args);
  };
  tab.headrace.openSession();
  await browser.advance(20 * 24 * HOUR_MS);
  assert.ok(timers < 50, `${timers} timers in twenty days`);
  await browser.advance(15 * 24 * HOUR_MS);
  assert.equal(bodies.length, 2);
});

test("what went by beacon too may have arrived, whatever the request itself was answered", async () => {
  const { browser, open, bodies } = visit();
  const answers = browser.network;
  let refuse;
  browser.network = (...request) =>
    request[1].beacon ? answers(...request) : new Promise((go) => (refuse = () => go({ status: 429 })));
  const tab = open();
  tab.headrace.logCustomEvent("a");
  void tab.headrace.requestImmediateDataFlush();
  await settled();
  tab.headrace.logCustomEvent("b");
  tab.window.dispatchEvent(new Event("pagehide"));
  await settled();
  refuse();
  await settled();
  browser.online = false;
  await browser.advance(25 * HOUR_MS);
  browser.network = answers;
  browser.setOnline(true);
  await browser.advance(60_000);
  assert.deepEqual(bodies.map((body) => body.items.map((item) => item.name)), [["a", "b"]]);
  assert.equal(tab.headrace.getQueueStatus().dropped.uncertain, 2);
});

test("disabled it does nothing until it is enabled, and wiped it is another device", async () => {
  const { browser, open, bodies } = visit();
  const tab = open();
  const device = tab.headrace.getDeviceId();
  tab.headrace.disableSDK();
  assert.equal(tab.headrace.initialize(APP), false);
  assert.equal(tab.headrace.logCustomEvent("a"), false);
  tab.headrace.enableSDK();
  assert.equal(tab.headrace.initialize(APP), true);
  assert.equal(tab.headrace.getDeviceId(), device);
  tab.headrace.logCustomEvent("b");
  tab.headrace.wipeData();
  assert.notEqual(tab.headrace.getDeviceId(), device);
  await browser.advance(20_000);
  assert.equal(bodies.length, 0);
});
