// The calls that a page makes, named as Braze's web SDK names them. Nothing here ever throws because of a network.

import { Client, type Options } from "./client";
import { log, setLogs } from "./env";
import type { Properties, Refusal } from "./items";
import type { Dropped } from "./queue";
import { type User, Genders, NotificationSubscriptionTypes } from "./user";

export { Genders, NotificationSubscriptionTypes };

const ROBOTS = /bot\b|crawl|spider|slurp|preview/i;
const from = typeof document !== "undefined" ? (document.currentScript as HTMLScriptElement | null) : null;
const home = from && from.src ? new URL(from.src).origin : typeof location !== "undefined" ? location.origin : "";
const OFF = "headrace.off";

let client: Client | undefined;

/** Begin; false if the app id is missing, the SDK is disabled here, or a robot is looking. */
export function initialize(appId: string, given?: Options): boolean {
  const options = given ?? {};
  setLogs(options.enableLogging === true);
  if (typeof appId !== "string" || !appId) {
    log("no app id");
    return false;
  }
  if (isDisabled()) return false;
  if (client) return client.appId === appId;
  const agent = typeof navigator === "undefined" ? "" : navigator.userAgent || "";
  if (!options.allowCrawlerActivity && ROBOTS.test(agent)) return false;
  client = new Client(appId, typeof options.baseUrl === "string" ? options.baseUrl : home, options);
  return true;
}

export function isInitialized(): boolean {
  return client !== undefined;
}

/** Start a session, or go on with the one that there is. */
export function openSession(): void {
  client?.openSession();
}

/** From now on this user is there. There is no going back to nobody but `wipeData`. */
export function changeUser(id: string): boolean {
  return client?.changeUser(id) ?? false;
}

export function getUser(): User | undefined {
  return client?.user;
}

export function getDeviceId(): string | undefined {
  return client?.deviceId();
}

/** False if it cannot be sent, such as for a name that is none. */
export function logCustomEvent(name: string, properties?: Properties): boolean {
  return client?.event(name, properties) ?? false;
}

/** The price is that of one; quantity from 1 to 100. */
export function logPurchase(
  productId: string,
  price: number,
  currency = "USD",
  quantity = 1,
  properties?: Properties,
): boolean {
  return client?.purchase(productId, price, currency, quantity, properties) ?? false;
}

/** Send now; resolves to whether the door has answered for everything. */
export function requestImmediateDataFlush(): Promise<boolean> {
  return client?.flush() ?? Promise.resolve(false);
}

/** Be told of items that the door refused, and why: they are not sent again. */
export function subscribeToRefusedItems(work: (refusals: Refusal[]) => void): void {
  client?.onRefused(work);
}

/** How many items wait, and how many were given up, by reason. */
export function getQueueStatus(): { queued: number; dropped: Dropped } | undefined {
  return client && { queued: client.queue.size(), dropped: client.queue.dropped() };
}

/** Forget user, device, session and queue. */
export function wipeData(): void {
  client?.wipe();
}

/** Stop on this browser until `enableSDK`; what is queued stays. */
export function disableSDK(): void {
  mark((storage) => storage.setItem(OFF, "1"));
  destroy();
}

export function enableSDK(): void {
  mark((storage) => storage.removeItem(OFF));
}

export function isDisabled(): boolean {
  return mark((storage) => storage.getItem(OFF)) === "1";
}

export function destroy(): void {
  client?.destroy();
  client = undefined;
}

function mark<T>(work: (storage: Storage) => T): T | undefined {
  try {
    return work(localStorage);
  } catch {
    return undefined;
  }
}
