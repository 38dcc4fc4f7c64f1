// Sessions: they end after some time without a tracked call, and belong to whoever was there when they began.

import { iso, now, timerMs, uuid } from "./env";
import type { Item } from "./items";
import type { Store } from "./store";

interface State {
  id: string;
  start: number;
  last: number;
  user?: string;
}

/** What the session needs of its owner: an item queued as of a time, for a user. */
export type Put = (item: Omit<Item, "time"> & { time: string }) => void;

export class Sessions {
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private store: Store,
    private timeoutMs: number,
    private put: Put,
    private user: () => string | undefined,
    private onStart: () => void,
  ) {}

  /** Go on with the session that there is, or start one. */
  open(): void {
    this.expire();
    const state = this.state();
    if (state) this.keep({ ...state, last: now() });
    else this.start();
  }

  /** Something tracked happens: the session goes on, or a new one takes the place of one that is over. */
  touch(): void {
    if (this.state()) this.open();
  }

  /** End the session now; true if there was one. */
  end(): boolean {
    this.expire();
    const state = this.state();
    if (state) this.close({ ...state, last: now() });
    return state !== undefined;
  }

  /** End a session in which nothing has happened for too long, as of its last moment. */
  expire(): void {
    const state = this.state();
    if (state && now() - state.last >= this.timeoutMs) this.close(state);
    else if (state) this.watch(state);
  }

  stop(): void {
    if (this.timer !== undefined) clearTimeout(this.timer);
  }

  start(): void {
    const user = this.user();
    const state: State = { id: uuid(), start: now(), last: now(), ...(user === undefined ? {} : { user }) };
    this.keep(state);
    this.put({ id: `${state.id}.start`, type: "session_start", time: iso(state.start), session_id: state.id, ...of(state) });
    this.onStart();
  }

  private close(state: State): void {
    this.store.remove("session");
    this.put({
      id: `${state.id}.end`, // not random: tabs that end the same session end it once
      type: "session_end",
      time: iso(state.last),
      session_id: state.id,
      duration_s: Math.max(0, state.last - state.start) / 1_000,
      ...of(state),
    });
  }

  private state(): State | undefined {
    return this.store.get<State>("session");
  }

  private keep(state: State): void {
    this.store.set("session", state);
    this.watch(state);
  }

  private watch(state: State): void {
    this.stop();
    this.timer = setTimeout(() => this.expire(), timerMs(Math.max(0, state.last + this.timeoutMs - now()) + 1));
  }
}

function of(state: State): { external_id?: string } {
  return state.user === undefined ? {} : { external_id: state.user };
}
