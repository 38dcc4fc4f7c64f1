// What is sent, as docs/SDK.md lists it; the door's side is streams/sdk_batch.py.

export type Value = string | number | boolean | null;
export type Properties = Record<string, unknown>;

export interface Item {
  id: string;
  type: "event" | "purchase" | "attributes" | "session_start" | "session_end" | "identify";
  time: string;
  /** Whose item it is, decided when it happened: absent while nobody is known on the device. */
  external_id?: string;
  name?: string;
  product_id?: string;
  currency?: string;
  price?: number;
  quantity?: number;
  properties?: Properties;
  attributes?: Record<string, Value>;
  session_id?: string;
  duration_s?: number;
}

export interface Refusal {
  index: number;
  id: string;
  reason: string;
  field: string;
  detail: string;
}
