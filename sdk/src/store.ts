// What outlives a page: localStorage below a prefix; where there is none, or it is full, the page's own memory.

export class Store {
  private memory = new Map<string, string>();

  constructor(private prefix: string) {}

  get<T>(name: string): T | undefined {
    const key = this.prefix + name;
    const text = this.memory.get(key) ?? this.try((storage) => storage.getItem(key));
    if (text === null || text === undefined) return undefined;
    try {
      return JSON.parse(text) as T;
    } catch {
      this.remove(name); // not ours, or torn
      return undefined;
    }
  }

  /** False when only this page will know it. */
  set(name: string, value: unknown): boolean {
    const key = this.prefix + name;
    const text = JSON.stringify(value);
    if (this.try((storage) => (storage.setItem(key, text), true))) {
      this.memory.delete(key);
      return true;
    }
    this.memory.set(key, text);
    return false;
  }

  remove(name: string): void {
    const key = this.prefix + name;
    this.memory.delete(key);
    this.try((storage) => storage.removeItem(key));
  }

  /** Every name below a prefix, in order. */
  names(below: string): string[] {
    const found = new Set<string>();
    const start = this.prefix + below;
    this.try((storage) => {
      for (let at = 0; at < storage.length; at++) {
        const key = storage.key(at);
        if (key !== null && key.startsWith(start)) found.add(key.slice(this.prefix.length));
      }
    });
    this.memory.forEach((_, key) => key.startsWith(start) && found.add(key.slice(this.prefix.length)));
    return Array.from(found).sort();
  }

  private try<T>(work: (storage: Storage) => T): T | undefined {
    try {
      return work(localStorage);
    } catch {
      return undefined; // refused by the browser's settings, or full
    }
  }
}
