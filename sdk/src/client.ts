// One app on one page: who is there, what they do, and when it is sent.

import { bytesOf, iso, log, matches, now, numberOf, uuid } from "./env";
import type { Item, Properties, Refusal, Value } from "./items";
import { Queue } from "./queue";
import { Sender } from "./sender";
import { Sessions } from "./session";
import { Store } from "./store";
import { User } from "./user";

export const VERSION = "0.1.0";
const ID_BYTES_MAX = 987;
const NAME_CHARS_MAX = 255;

export interface Options {
  /** Where the door is; by default where the script came from. */
  baseUrl?: string;
  /** Seconds without a tracked call after which a session is over; 1,800. */
  sessionTimeoutInSeconds?: number;
  /** Seconds between two looks at the queue; 10. */
  flushIntervalInSeconds?: number;
  /** Items kept while the door cannot be reached; 1,000. The oldest go first. */
  queueItemsMax?: number;
  /** The device's id if none is known yet; a random UUID. */
  deviceId?: string;
  /** What is sent of the device when it changes: TIME_ZONE (the default), LANGUAGE. */
  devicePropertyAllowlist?: string[];
  /** Track robots too, by their User-Agent. */
  allowCrawlerActivity?: boolean;
  /** Say on the console what happens. */
  enableLogging?: boolean;
}

type New = Omit<Item, "id" | "time" | "external_id">;

export class Client {
  readonly user: User;
  readonly queue: Queue;
  readonly sender: Sender;
  private store: Store;
  private sessions: Sessions;
  private pending: Record<string, Value> = {};
  private listeners: [EventTarget, string, () => void][] = [];

  constructor(
    readonly appId: string,
    baseUrl: string,
    private options: Options,
  ) {
    this.store = new Store(`headrace.${appId}.`);
    this.queue = new Queue(this.store, options.queueItemsMax ?? 1_000);
    const url = `${baseUrl.replace(/\/+$/, "")}/sdk/v1/track`;
    const target = { url, appId, sdk: `web/${VERSION}`, deviceId: () => this.deviceId() };
    this.sender = new Sender(this.store, this.queue, target, 1_000 * (options.flushIntervalInSeconds ?? 10));
    this.user = new User((name, value) => this.setAttribute(name, value), () => this.userId());
    this.sessions = new Sessions(
      this.store,
      1_000 * (options.sessionTimeoutInSeconds ?? 1_800),
      (item) => this.queue.put(item),
      () => this.userId(),
      () => this.describeDevice(),
    );
    this.deviceId();
    this.listen();
    this.sessions.expire();
    this.sender.schedule();
  }

  deviceId(): string {
    const known = this.store.get<string>("device");
    if (known !== undefined) return known;
    const given = this.options.deviceId;
    const id = given !== undefined && /^[\w-]{8,64}$/.test(given) ? given : uuid();
    this.store.set("device", id);
    return id;
  }

  userId(): string | undefined {
    return this.store.get<string>("user");
  }

  /** What happened before goes to whoever was there before; what follows goes to this user. */
  changeUser(id: string): boolean {
    const size = typeof id === "string" ? bytesOf(id) : 0;
    if (!size || size > ID_BYTES_MAX || id.indexOf("device:") === 0) {
      log("no user id", id);
      return false;
    }
    const before = this.userId();
    if (id === before) return true;
    this.settle();
    const hadSession = this.sessions.end();
    if (before === undefined) this.queue.put({ id: uuid(), type: "identify", time: iso(now()), external_id: id });
    this.store.set("user", id);
    if (hadSession) this.sessions.start();
    void this.sender.flush();
    return true;
  }

  openSession(): void {
    this.settle();
    this.sessions.open();
    void this.sender.flush();
  }

  event(name: string, properties?: Properties): boolean {
    if (!isName(name) || !isProperties(properties)) return false;
    return this.track({ type: "event", name, ...(properties ? { properties } : {}) });
  }

  purchase(id: string, price: number, currency: string, quantity: number, properties?: Properties): boolean {
    const amount = numberOf(price);
    const isPrice = price !== null && isFinite(amount) && Math.abs(amount) <= 1e12;
    const isQuantity = Number.isInteger(quantity) && quantity >= 1 && quantity <= 100;
    if (!isName(id) || !isPrice || !isQuantity || !matches(currency, /^[A-Za-z]{3}$/) || !isProperties(properties)) return false;
    const exact = Number(amount.toFixed(6)); // 0.1 + 0.2 is meant to be 0.3
    return this.track({
      type: "purchase",
      product_id: id,
      price: exact,
      currency: currency.toUpperCase(),
      quantity,
      ...(properties ? { properties } : {}),
    });
  }

  /** Send what there is; resolves to whether the door has answered for all of it. */
  flush(): Promise<boolean> {
    this.settle();
    return this.sender.retryNow();
  }

  /** Forget everything: the next call is that of a new device. */
  wipe(): void {
    this.pending = {};
    for (const name of this.store.names("")) this.store.remove(name);
  }

  destroy(): void {
    this.settle();
    this.sender.stop();
    this.sessions.stop();
    for (const [target, name, work] of this.listeners) target.removeEventListener(name, work);
  }

  onRefused(work: (refusals: Refusal[]) => void): void {
    this.sender.onRefused = work;
  }

  private track(item: New): boolean {
    this.settle();
    this.sessions.touch();
    return this.put(item);
  }

  private put(item: New): boolean {
    const user = this.userId();
    const id = user === undefined ? {} : { external_id: user };
    return this.queue.put({ id: uuid(), time: iso(now()), ...id, ...item });
  }

  /** Setters called one after the other become one item. */
  private setAttribute(name: string, value: Value): void {
    if (!Object.keys(this.pending).length) void Promise.resolve().then(() => this.settle());
    this.pending[name] = value;
  }

  private settle(): void {
    if (!Object.keys(this.pending).length) return;
    const attributes = this.pending;
    this.pending = {};
    this.sessions.touch();
    this.put({ type: "attributes", attributes });
  }

  /** Tell the user's time zone, or language, once they differ from what was told of this user. */
  private describeDevice(): void {
    const allowed = this.options.devicePropertyAllowlist ?? ["TIME_ZONE"];
    const attributes: Record<string, string> = {};
    if (allowed.indexOf("TIME_ZONE") >= 0) {
      const zone = typeof Intl === "undefined" ? undefined : Intl.DateTimeFormat().resolvedOptions().timeZone;
      if (zone) attributes.time_zone = zone;
    }
    if (allowed.indexOf("LANGUAGE") >= 0 && typeof navigator !== "undefined" && navigator.language)
      attributes.language = navigator.language.slice(0, 2).toLowerCase();
    const told = JSON.stringify([this.userId(), attributes]);
    if (!Object.keys(attributes).length || told === this.store.get<string>("described")) return;
    this.store.set("described", told);
    this.put({ type: "attributes", attributes });
  }

  private listen(): void {
    const on = (target: EventTarget, name: string, work: () => void) => {
      target.addEventListener(name, work);
      this.listeners.push([target, name, work]);
    };
    const hide = () => {
      this.settle();
      this.sender.hide();
    };
    if (typeof window !== "undefined") {
      on(window, "online", () => void this.sender.retryNow());
      on(window, "pagehide", hide);
      on(window, "pageshow", () => this.sender.show());
    }
    if (typeof document !== "undefined")
      on(document, "visibilitychange", () => (document.visibilityState === "hidden" ? hide() : this.sender.show()));
  }
}

function isName(name: unknown): name is string {
  const is = typeof name === "string" && name.length > 0 && name.length <= NAME_CHARS_MAX;
  if (!is) log("no name", name);
  return is;
}

function isProperties(properties: unknown): properties is Properties | undefined {
  return properties == null || (typeof properties === "object" && !Array.isArray(properties));
}
