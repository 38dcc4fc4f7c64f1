// Makes the calls of a vector on an SDK in a browser whose time and ids are fixed; gives the body that it sends.

import { Browser, settled } from "./browser.mjs";

export const APP = "5e1f0c3a-web";

export async function bodyOf(calls) {
  const browser = new Browser();
  const bodies = [];
  browser.network = async (url, options) => {
    bodies.push(JSON.parse(options.body));
    return { status: 200, body: { message: "success", accepted: 0, errors: [] } };
  };
  browser.online = false;
  const tab = browser.open();
  tab.headrace.initialize(APP);
  for (const [name, ...args] of calls) {
    if (name === "advance") await browser.advance(...args);
    else if (name.startsWith("user.")) tab.headrace.getUser()[name.slice("user.".length)](...args);
    else tab.headrace[name](...args);
  }
  await settled();
  browser.setOnline(true);
  await settled();
  if (bodies.length !== 1) throw new Error(`${bodies.length} bodies`);
  return bodies[0];
}
