// A browser made of nothing: storage, clock, network and tabs that a test moves by hand, and the built SDK in it.

import { readFileSync } from "node:fs";
import vm from "node:vm";

const SCRIPT = new vm.Script(readFileSync(new URL("../dist/headrace.js", import.meta.url), "utf8"));

/** Let every promise that can go on go on. */
export async function settled() {
  for (let turn = 0; turn < 4; turn++) await new Promise((go) => setImmediate(go));
}

/** localStorage of one origin, shared by its tabs; `full` refuses every write. */
class Storage {
  entries = new Map();
  full = false;

  get length() {
    return this.entries.size;
  }

  key(at) {
    return [...this.entries.keys()][at] ?? null;
  }

  getItem(key) {
    return this.entries.get(key) ?? null;
  }

  setItem(key, value) {
    if (this.full) throw new Error("QuotaExceededError");
    this.entries.set(key, String(value));
  }

  removeItem(key) {
    this.entries.delete(key);
  }
}

/** What tabs share: storage, the clock, the network. `network(url, options)` answers each request. */
export class Browser {
  storage = new Storage();
  online = true;
  uuids = 0;
  tabs = [];
  network = async () => ({ status: 200, body: { message: "success", accepted: 0, errors: [] } });
  random = () => 0.5;

  constructor(nowMs = Date.UTC(2026, 0, 31, 12)) {
    this.nowMs = nowMs;
  }

  uuid() {
    this.uuids += 1;
    return `00000000-0000-4000-8000-${String(this.uuids).padStart(12, "0")}`;
  }

  open() {
    const tab = new Tab(this);
    this.tabs.push(tab);
    return tab;
  }

  /** Let time pass, timers fire in order. */
  async advance(ms) {
    const until = this.nowMs + ms;
    for (;;) {
      const due = this.tabs
        .flatMap((tab) => [...tab.timers.values()].map((timer) => ({ tab, ...timer })))
        .filter((timer) => timer.at <= until)
        .sort((one, other) => one.at - other.at || one.id - other.id)[0];
      if (!due) break;
      this.nowMs = Math.max(this.nowMs, due.at);
      due.tab.timers.delete(due.id);
      due.work();
      await settled();
    }
    this.nowMs = until;
    await settled();
  }

  /** Somebody sets the clock; timers fire when they would have. */
  setClock(byMs) {
    this.nowMs += byMs;
    for (const tab of this.tabs) for (const timer of tab.timers.values()) timer.at += byMs;
  }

  setOnline(online) {
    this.online = online;
    if (online) for (const tab of this.tabs) tab.window.dispatchEvent(new Event("online"));
  }
}

let ids = 0;

export class Tab {
  timers = new Map();
  window = new EventTarget();
  document = Object.assign(new EventTarget(), {
    visibilityState: "visible",
    currentScript: { src: "https://door.example/sdk/headrace.js" },
  });

  constructor(browser) {
    this.browser = browser;
    const tab = this;
    class FakeDate extends Date {
      constructor(...args) {
        args.length ? super(...args) : super(browser.nowMs);
      }

      static now() {
        return browser.nowMs;
      }
    }
    this.context = vm.createContext({
      window: this.window,
      document: this.document,
      localStorage: browser.storage,
      location: { origin: "https://shop.example" },
      console,
      URL,
      AbortController,
      Date: FakeDate,
      Math: Object.assign(Object.create(Math), { random: () => browser.random() }),
      Intl: { DateTimeFormat: () => ({ resolvedOptions: () => ({ timeZone: "Europe/Paris" }) }) },
      crypto: { randomUUID: () => browser.uuid() },
      navigator: {
        get onLine() {
          return browser.online;
        },
        userAgent: "Mozilla/5.0",
        language: "fr-FR",
        sendBeacon: (url, body) => {
          void tab.request(url, { body, beacon: true }).catch(() => undefined);
          return true;
        },
      },
      setTimeout: (work, ms) => {
        ids += 1;
        if (!(ms < 2 ** 31)) ms = 1; // as browsers have it
        tab.timers.set(ids, { id: ids, at: browser.nowMs + ms, work });
        return ids;
      },
      clearTimeout: (id) => tab.timers.delete(id),
      fetch: (url, options) => tab.request(url, options),
    });
    SCRIPT.runInContext(this.context);
    this.headrace = this.context.headrace;
  }

  async request(url, options) {
    if (!this.browser.online) throw new TypeError("Failed to fetch");
    const aborted = new Promise((_, reject) => {
      options.signal?.addEventListener("abort", () => reject(new Error("aborted")));
    });
    const answer = await Promise.race([this.browser.network(url, options), aborted]);
    if (this.closed) return new Promise(() => undefined); // nobody is there to hear it
    return {
      status: answer.status,
      text: async () => (typeof answer.body === "string" ? answer.body : JSON.stringify(answer.body ?? {})),
      headers: { get: (name) => answer.headers?.[name] ?? null },
    };
  }

  /** The page goes; `kindly` with the events that a browser sends, otherwise as by a crash. */
  close({ kindly = true } = {}) {
    if (kindly) this.window.dispatchEvent(new Event("pagehide"));
    this.closed = true;
    this.timers.clear();
    this.browser.tabs = this.browser.tabs.filter((tab) => tab !== this);
  }
}
