// The setters of the user in force; each returns whether the value is of the right kind.

import { bytesOf, log, matches, numberOf } from "./env";
import type { Value } from "./items";

export const Genders = { MALE: "M", FEMALE: "F", OTHER: "O", UNKNOWN: null, NOT_APPLICABLE: "N", PREFER_NOT_TO_SAY: "P" };
export const NotificationSubscriptionTypes = {
  OPTED_IN: "opted_in",
  SUBSCRIBED: "subscribed",
  UNSUBSCRIBED: "unsubscribed",
};

const NAME_CHARS_MAX = 255;
const VALUE_BYTES_MAX = 10_000;
const SUBSCRIPTION = /^(opted_in|subscribed|unsubscribed)$/;
const RESERVED = ["type", "id", "time", "external_id", "device_id"];

export class User {
  constructor(
    private set: (name: string, value: Value) => void,
    private id: () => string | undefined,
  ) {}

  /** The id given to `changeUser`; null while nobody is known. */
  getUserId(): string | null {
    return this.id() ?? null;
  }

  setFirstName(name: string | null): boolean {
    return this.text("first_name", name);
  }

  setLastName(name: string | null): boolean {
    return this.text("last_name", name);
  }

  setEmail(email: string | null): boolean {
    const text = typeof email === "string" ? email.trim() : email;
    return (text === null || matches(text, /^[^@\s]+@[^@\s]+$/)) && this.text("email", text);
  }

  setPhoneNumber(phone: string | null): boolean {
    return (phone === null || matches(phone, /^[+0-9().\s/-]+$/)) && this.text("phone", phone);
  }

  setGender(gender: string | null): boolean {
    return (gender === null || matches(gender, /^[MFONP]$/)) && this.text("gender", gender);
  }

  /** Month from 1 to 12; no argument at all deletes. */
  setDateOfBirth(year?: number | null, month?: number | null, day?: number | null): boolean {
    if (year == null && month == null && day == null) return this.text("dob", null);
    const date = new Date(Date.UTC(numberOf(year), numberOf(month) - 1, numberOf(day)));
    if (isNaN(date.getTime()) || date.getUTCMonth() + 1 !== month || date.getUTCDate() !== day) return false;
    return this.text("dob", date.toISOString().slice(0, 10));
  }

  setCountry(country: string | null): boolean {
    return this.text("country", country);
  }

  setHomeCity(city: string | null): boolean {
    return this.text("home_city", city);
  }

  setLanguage(language: string | null): boolean {
    return this.text("language", language);
  }

  setEmailNotificationSubscriptionType(type: string): boolean {
    return matches(type, SUBSCRIPTION) && this.text("email_subscribe", type);
  }

  setPushNotificationSubscriptionType(type: string): boolean {
    return matches(type, SUBSCRIPTION) && this.text("push_subscribe", type);
  }

  /** Text, a number, a boolean or a time; null deletes. */
  setCustomUserAttribute(name: string, value: string | number | boolean | Date | null): boolean {
    if (typeof name !== "string" || !name || name.length > NAME_CHARS_MAX) return false;
    if (RESERVED.indexOf(name) >= 0 || name[0] === "_") return false;
    if (value instanceof Date) return !isNaN(value.getTime()) && this.put(name, value.toISOString());
    if (typeof value === "number") return isFinite(value) && this.put(name, value);
    return (value === null || typeof value === "boolean" || typeof value === "string") && this.put(name, value);
  }

  private text(name: string, value: string | null): boolean {
    return (value === null || typeof value === "string") && this.put(name, value);
  }

  private put(name: string, value: Value): boolean {
    if (typeof value === "string" && bytesOf(value) > VALUE_BYTES_MAX) {
      log("too long", name);
      return false;
    }
    this.set(name, value);
    return true;
  }
}
