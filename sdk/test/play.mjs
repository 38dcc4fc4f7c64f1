// Plays scripts, one JSON line each, on the SDK in a hostile world; prints what arrived at the door, and what was meant.
// tests/sdk/test_exactly_once.py writes the scripts and judges.

import { createInterface } from "node:readline";
import { Browser, settled } from "./browser.mjs";

const APP = "5e1f0c3a-web";
const PATIENCE = 40;

class World {
  browser = new Browser();
  arrivals = [];
  delayed = [];
  meant = [];
  fates = [];
  user = null;

  constructor() {
    this.browser.network = (url, options) => this.network(options.body);
    this.tab = this.open();
    this.device = this.tab.headrace.getDeviceId();
  }

  open() {
    const tab = this.browser.open();
    tab.headrace.initialize(APP, { sessionTimeoutInSeconds: 120 });
    return tab;
  }

  arrive(body) {
    this.arrivals.push({ at: this.browser.nowMs, body });
    for (const late of this.delayed.splice(0)) this.arrivals.push({ at: this.browser.nowMs, body: late });
  }

  async network(body) {
    const fate = this.fates.shift() ?? "ok";
    if (fate === "lost") throw new TypeError("Failed to fetch");
    if (fate === "sinks") return new Promise(() => undefined);
    if (fate === "down") return { status: 503 };
    if (fate === "late") this.delayed.push(body);
    else if (fate !== "busy") this.arrive(body);
    if (fate === "twice") this.delayed.push(body);
    if (fate === "unheard" || fate === "late") throw new TypeError("Failed to fetch");
    if (fate === "hangs") return new Promise(() => undefined);
    if (fate === "broken") return { status: 502 };
    if (fate === "busy") return { status: 429, headers: { "Retry-After": "7" } };
    return { status: 200, body: { message: "success", accepted: 1, errors: [] } };
  }

  async step([name, ...args]) {
    const { browser } = this;
    if (name === "log") {
      const event = `e${this.meant.length}`;
      this.meant.push({ name: event, user: this.user });
      this.tab.headrace.logCustomEvent(event);
    } else if (name === "set") this.tab.headrace.getUser().setCustomUserAttribute("n", args[0]);
    else if (name === "change") {
      this.tab.headrace.changeUser(args[0]);
      this.user = args[0];
    } else if (name === "session") this.tab.headrace.openSession();
    else if (name === "advance") await browser.advance(args[0]);
    else if (name === "online") browser.setOnline(args[0]);
    else if (name === "fates") this.fates = [...args[0]];
    else if (name === "reload") {
      this.tab.close({ kindly: args[0] });
      await settled();
      this.tab = this.open();
    } else if (name === "tab") this.tab = browser.tabs.length > 1 ? browser.tabs.find((tab) => tab !== this.tab) : this.open();
    if (args.at(-1) !== "at once") await settled();
  }

  async end() {
    this.fates = [];
    this.browser.setOnline(true);
    const left = () => this.tab.headrace.getQueueStatus().queued;
    for (let wait = 0; wait < PATIENCE && (wait === 0 || left()); wait++) await this.browser.advance(60_000);
    for (const body of this.delayed) this.arrivals.push({ at: this.browser.nowMs, body });
    return {
      device: this.device,
      arrivals: this.arrivals,
      meant: this.meant,
      left: left(),
      dropped: this.tab.headrace.getQueueStatus().dropped,
    };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const world = new World();
  for (const step of JSON.parse(line)) await world.step(step);
  console.log(JSON.stringify(await world.end()));
}
