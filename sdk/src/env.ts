// The browser around us, or as much of it as there is.

let logs = false;

export function setLogs(on: boolean): void {
  logs = on;
}

export function log(...words: unknown[]): void {
  if (logs && typeof console !== "undefined") console.log("headrace:", ...words);
}

export function now(): number {
  return Date.now();
}

const TIMER_MS_MAX = 2 ** 31 - 1;

/** As long as a timer can be: beyond, browsers take it for none, and it would fire again and again. */
export function timerMs(ms: number): number {
  return ms < TIMER_MS_MAX ? ms : TIMER_MS_MAX;
}

export function iso(ms: number): string {
  return new Date(ms).toISOString();
}

/** A random UUID; `crypto.randomUUID` is there in secure contexts only. */
export function uuid(): string {
  const source = typeof crypto === "undefined" ? undefined : crypto;
  if (source && source.randomUUID) return source.randomUUID();
  const bytes = new Uint8Array(16);
  if (source && source.getRandomValues) source.getRandomValues(bytes);
  else for (let at = 0; at < 16; at++) bytes[at] = Math.random() * 256;
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => (byte + 256).toString(16).slice(1)).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** The bytes of a text as UTF-8, without making them. */
export function bytesOf(text: string): number {
  let size = text.length;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code > 0x7f) size += code > 0x7ff && (code & 0xf800) !== 0xd800 ? 2 : 1;
  }
  return size;
}

/** Whether it is a text of that form. */
export function matches(value: unknown, form: RegExp): value is string {
  return typeof value === "string" && form.test(value);
}

/** As a number; NaN for what cannot become one, such as a symbol. */
export function numberOf(value: unknown): number {
  try {
    return Number(value);
  } catch {
    return NaN;
  }
}
