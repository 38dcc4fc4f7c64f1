// Sends the queue to the door: in order, one request at a time, again until it is answered.

import { iso, log, now, timerMs, uuid } from "./env";
import type { Refusal } from "./items";
import type { Entry, Queue } from "./queue";
import type { Store } from "./store";

const ITEMS_MAX = 50;
const BYTES_MAX = 60_000; // browsers let requests outlive their page up to 64 KiB
const TIMEOUT_MS = 15_000;
const LEASE_MS = 20_000;
const PAUSE_MS_MIN = 1_000;
const PAUSE_MS_MAX = 300_000;
const PAUSE_MS_BARRED = 60_000;
const PAUSE_MS_LONGEST = 24 * 3_600_000; // whatever Retry-After says

export interface Target {
  url: string;
  appId: string;
  sdk: string;
  deviceId: () => string;
}

export class Sender {
  onRefused: (refusals: Refusal[]) => void = () => undefined;
  private tab = uuid();
  private failures = 0;
  private notBefore = 0;
  private pauseMs = 0;
  private itemsMax = ITEMS_MAX;
  private sending: Promise<boolean> | undefined;
  private inFlight = new Set<string>();
  private beaconed = new Set<string>();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private stopped = false;

  constructor(
    private store: Store,
    private queue: Queue,
    private target: Target,
    private intervalMs: number,
  ) {}

  /** Look again after an interval, or once a pause is over. */
  schedule(): void {
    if (this.stopped) return;
    if (this.timer !== undefined) clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.flush(), timerMs(Math.max(this.intervalMs, this.pauseLeftMs())));
  }

  stop(): void {
    this.stopped = true;
    if (this.timer !== undefined) clearTimeout(this.timer);
  }

  /** The way to the door may be free again: forget the pause. */
  retryNow(): Promise<boolean> {
    this.failures = 0;
    this.notBefore = 0;
    return this.flush();
  }

  /** Send everything; true when the door has answered for all of it. */
  flush(): Promise<boolean> {
    this.sending ??= this.run().then((done) => {
      this.sending = undefined;
      this.schedule();
      return done;
    });
    return this.sending;
  }

  /** The page may go: hand the queue to the browser, which sends it without us. What is under way goes with it: what
   *  follows must not arrive before, and what comes twice counts once. */
  hide(): void {
    const entries = this.queue.head(ITEMS_MAX, BYTES_MAX);
    if (entries.every(({ item }) => this.inFlight.has(item.id))) return;
    if (this.stopped || typeof navigator === "undefined" || !navigator.sendBeacon) return;
    const first = this.queue.attempt(entries);
    if (this.beacon(entries)) {
      for (const { item } of entries) {
        this.inFlight.add(item.id);
        this.beaconed.add(item.id);
      }
    } else {
      this.queue.untry(first);
    }
  }

  private beacon(entries: Entry[]): boolean {
    try {
      return navigator.sendBeacon(this.target.url, this.body(entries));
    } catch (error) {
      log("no beacon", error); // a blocker's own sendBeacon, or an address that is none
      return false;
    }
  }

  /** The page is back: what went by beacon was not answered for. */
  show(): void {
    if (!this.sending) this.inFlight.clear();
  }

  private async run(): Promise<boolean> {
    for (;;) {
      if (this.stopped || this.pauseLeftMs() > 0 || isOffline() || !this.lease()) return false;
      const entries = this.queue.head(this.itemsMax, BYTES_MAX);
      if (!entries.length) return true;
      const first = this.queue.attempt(entries);
      for (const { item } of entries) this.inFlight.add(item.id);
      const answered = await this.send(entries, first);
      for (const { item } of entries) this.inFlight.delete(item.id);
      this.store.remove("lease");
      if (!answered) return false;
    }
  }

  private async send(entries: Entry[], first: Entry[]): Promise<boolean> {
    const aborter = typeof AbortController === "undefined" ? undefined : new AbortController();
    const timer = setTimeout(() => aborter?.abort(), TIMEOUT_MS);
    try {
      const answer = await fetch(this.target.url, {
        method: "POST",
        body: this.body(entries), // text, so that no page needs to ask first whether it may send
        keepalive: true,
        credentials: "omit",
        ...(aborter ? { signal: aborter.signal } : {}),
      });
      const said = read(await answer.text());
      const isDoor = answer.status === 200 ? typeof said.accepted === "number" : typeof said.message === "string";
      if (answer.status >= 400 ? answer.status < 500 : !isDoor)
        this.queue.untry(first.filter(({ item }) => !this.beaconed.has(item.id))); // a beacon may have had its own answer
      const retryS = Number(answer.headers.get("Retry-After")) || 0;
      return this.answered(entries, answer.status, isDoor, said.errors ?? [], retryS);
    } catch (error) {
      log("not answered", error);
      return this.pause(PAUSE_MS_MIN);
    } finally {
      clearTimeout(timer);
    }
  }

  private answered(entries: Entry[], status: number, isDoor: boolean, errors: Refusal[], retryS: number): boolean {
    if (status === 200 && isDoor) {
      this.queue.settle(entries);
      for (const { item } of entries) this.beaconed.delete(item.id);
      this.queue.count("refused", errors.length);
      if (errors.length) this.tell(errors);
      this.failures = 0;
      this.itemsMax = Math.min(ITEMS_MAX, this.itemsMax * 2);
      return true;
    }
    log("answered", status, isDoor ? "" : "by something that is no door: look at baseUrl");
    const isSpoiled = status === 400 || status === 413 || status === 415;
    if (isSpoiled && (isDoor || status === 413 || entries.length > 1)) {
      if (entries.length === 1) this.queue.drop("refused", entries);
      else this.itemsMax = Math.ceil(entries.length / 2); // one of them spoils the others: find it
      return true;
    }
    const isBarred = isSpoiled || status === 200 || status === 401 || status === 403 || status === 404;
    return this.pause(Math.max(retryS * 1_000, isBarred ? PAUSE_MS_BARRED : PAUSE_MS_MIN));
  }

  private tell(errors: Refusal[]): void {
    log("refused", errors);
    try {
      this.onRefused(errors);
    } catch (error) {
      log("the page's own listener failed", error);
    }
  }

  /** Wait twice as long as last time, and not all pages at once. */
  private pause(atLeastMs: number): false {
    const longest = Math.min(PAUSE_MS_MAX, PAUSE_MS_MIN * 2 ** this.failures++);
    this.pauseMs = Math.min(PAUSE_MS_LONGEST, Math.max(atLeastMs, longest)) * (1 + Math.random() / 2);
    this.notBefore = now() + this.pauseMs;
    return false;
  }

  /** What is left of a pause; nothing if the clock was set back meanwhile, which would make it as much longer. */
  private pauseLeftMs(): number {
    const left = this.notBefore - now();
    return left > this.pauseMs ? 0 : left;
  }

  /** One tab sends at a time, as far as that can be had; two that do send the same ids, which count once. */
  private lease(): boolean {
    const held = this.store.get<{ tab: string; until: number }>("lease");
    const left = held && held.tab !== this.tab ? held.until - now() : 0;
    if (left > 0 && left <= LEASE_MS) return false;
    this.store.set("lease", { tab: this.tab, until: now() + LEASE_MS });
    return true;
  }

  private body(entries: Entry[]): string {
    const { appId, sdk, deviceId } = this.target;
    const items = entries.map(({ item }) => item);
    return JSON.stringify({ app_id: appId, device_id: deviceId(), sdk, sent_at: iso(now()), items });
  }
}

/** What an answer says; nothing where it is no JSON object, such as a page to sign in on. */
function read(text: string): { message?: unknown; accepted?: unknown; errors?: Refusal[] } {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

function isOffline(): boolean {
  return typeof navigator !== "undefined" && navigator.onLine === false;
}
