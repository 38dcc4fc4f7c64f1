// Items that the door has not answered for. Each is an entry of its own, so tabs share the queue without rewriting it.

import { bytesOf, log, now } from "./env";
import type { Item } from "./items";
import type { Store } from "./store";

export const ITEM_BYTES_MAX = 50_000;
const UNCERTAIN_MS = 23 * 3_600_000; // the door knows an id for 24 h; after that a second try could count twice
const SEQUENCE_DIGITS = 12;

/** Why items were given up: the queue was full, the door refused them, they might have counted twice, too large. */
export type Reason = "overflow" | "refused" | "uncertain" | "too_large";
export type Dropped = Record<Reason, number>;

export interface Entry {
  name: string;
  item: Item;
  bytes: number;
}

export class Queue {
  constructor(
    private store: Store,
    private itemsMax: number,
  ) {}

  /** Keep an item behind all that were put before; false if it is too large, or no JSON, as with a loop in it. */
  put(item: Item): boolean {
    let text: string;
    try {
      text = JSON.stringify(item);
    } catch (error) {
      log("no JSON", item.type, error);
      return false;
    }
    if (bytesOf(text) > ITEM_BYTES_MAX) {
      this.count("too_large", 1);
      log("too large", item.type);
      return false;
    }
    const sequence = Math.max(this.store.get<number>("seq") ?? 0, now()) + 1;
    this.store.set("seq", sequence);
    const name = `i.${String(sequence).padStart(SEQUENCE_DIGITS + 2, "0")}.${item.id}`;
    if (!this.store.set(name, item)) log("kept in memory only");
    this.bound();
    return true;
  }

  /** The oldest items within these bounds, without those that it is too late to send. */
  head(itemsMax: number, bytesMax: number): Entry[] {
    const tried = this.tried();
    const found: Entry[] = [];
    let size = 0;
    for (const name of this.names()) {
      const item = this.store.get<Item>(name);
      if (item === undefined) continue; // another tab has just sent it
      if (now() - (tried[item.id] ?? now()) > UNCERTAIN_MS) {
        this.drop("uncertain", [{ name, item, bytes: 0 }]);
        continue;
      }
      const bytes = bytesOf(JSON.stringify(item)) + 1;
      if (found.length >= itemsMax || (found.length && size + bytes > bytesMax)) break;
      size += bytes;
      found.push({ name, item, bytes });
    }
    return found;
  }

  /** Note that these are about to be sent: from now on nobody knows whether the door has them. Returns the new ones. */
  attempt(entries: Entry[]): Entry[] {
    const tried = this.tried();
    const first = entries.filter(({ item }) => tried[item.id] === undefined);
    for (const { item } of first) tried[item.id] = now();
    this.store.set("tried", tried);
    return first;
  }

  /** The door has answered for these: forget them. */
  settle(entries: Entry[]): void {
    const tried = this.tried();
    for (const { name, item } of entries) {
      this.store.remove(name);
      delete tried[item.id];
    }
    this.store.set("tried", tried);
  }

  /** The one attempt of these did surely not reach the log: they may be sent at any later time. */
  untry(entries: Entry[]): void {
    const tried = this.tried();
    for (const { item } of entries) delete tried[item.id];
    this.store.set("tried", tried);
  }

  drop(reason: Reason, entries: Entry[]): void {
    this.settle(entries);
    this.count(reason, entries.length);
  }

  count(reason: Reason, items: number): void {
    if (!items) return;
    const dropped = this.dropped();
    dropped[reason] += items;
    this.store.set("dropped", dropped);
  }

  dropped(): Dropped {
    return { overflow: 0, refused: 0, uncertain: 0, too_large: 0, ...this.store.get<Partial<Dropped>>("dropped") };
  }

  size(): number {
    return this.names().length;
  }

  private names(): string[] {
    return this.store.names("i.");
  }

  private tried(): Record<string, number> {
    return this.store.get<Record<string, number>>("tried") ?? {};
  }

  /** Give the oldest up while there are too many; who was identified is known to the last. */
  private bound(): void {
    const names = this.names();
    let over = names.length - this.itemsMax;
    const entries = over > 0 ? names.map((name) => ({ name, item: this.store.get<Item>(name), bytes: 0 })) : [];
    for (const pass of [false, true])
      for (const { name, item, bytes } of entries) {
        if (over <= 0) return;
        if (item && (item.type === "identify") === pass) {
          this.drop("overflow", [{ name, item, bytes }]);
          over--;
        }
      }
  }
}
