"use strict";
// Asks for what is new every two seconds, keeps ten minutes, and writes text only as text.
const EVERY_MS = 2000, POINTS_MAX = 300, ROWS_MAX = 40;
const at = (id) => document.getElementById(id);
const history = { at_s: [] };
const charts = {};
let afterMs = 0;

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]])
    if (seconds >= size) return `${(seconds / size).toFixed(seconds < 10 * size ? 1 : 0)} ${unit}`;
  return seconds >= 10 || seconds === 0 ? `${Math.round(seconds)} s` : seconds >= 1 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds * 1000)} ms`;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
}

function components(found, nowMs) {
  at("components").replaceChildren(...found.map((each) => {
    const row = make("li", undefined, { "data-state": each.state });
    const since = `${each.state === "OK" ? "" : "since "}${new Date(each.since_ms).toLocaleTimeString()}, ${span((nowMs - each.since_ms) / 1000)}`;
    row.append(make("span", each.state, { class: "state" }), make("span", each.component, { class: "name" }),
      make("span", each.why, { class: "why" }), make("span", since, { class: "since" }));
    return row;
  }));
}

function facts(id, pairs) {
  at(id).replaceChildren(...pairs.map(([name, value]) => {
    const pair = make("div");
    pair.append(make("dt", name), make("dd", value));
    return pair;
  }));
}

function table(id, heads, rows, nothing) {
  const head = make("tr");
  head.append(...heads.map(([text, isNumber]) => make("th", text, { scope: "col", class: isNumber ? "number" : "" })));
  const lines = rows.map((cells) => {
    const line = make("tr");
    line.append(...cells.map((cell, index) => {
      const isState = heads[index][0] === "Status";
      return make("td", cell, { class: heads[index][1] ? "number" : "", ...(isState ? { "data-state": cell } : {}) });
    }));
    return line;
  });
  if (!lines.length) {
    lines.push(make("tr"));
    lines[0].append(make("td", nothing, { colspan: heads.length }));
  }
  at(id).replaceChildren(head, ...lines);
}

const COLOURS = ["#3b7dd8", "#c7611c", "#2f9e6e", "#a04fb5", "#c2a012", "#d0466b", "#3aa3b3", "#7a8796"];
const DASHES = [[], [6, 3], [2, 3]];

function chart(id, names, labels) {
  const words = labels.map((label, index) => {
    const last = [...(history[names[index]] || [])].reverse().find((value) => value !== null && value !== undefined);
    return `${label} ${number(last)}`;
  });
  at(id).setAttribute("aria-label", `Chart of ten minutes. Newest values: ${words.join(", ")}.`);
  const data = [history.at_s, ...names.map((name) => history[name] || history.at_s.map(() => null))];
  const width = at(id).clientWidth, key = names.join() + getComputedStyle(document.body).color;
  const known = charts[id];
  if (known && known.key === key) {
    if (known.plot.width !== width) known.plot.setSize({ width, height: 170 });
    known.plot.setData(data);
    return;
  }
  if (known) known.plot.destroy();
  const styles = getComputedStyle(document.documentElement);
  const axis = { stroke: styles.getPropertyValue("--soft").trim(), grid: { stroke: styles.getPropertyValue("--line").trim(), width: 1 } };
  const series = labels.map((label, index) => ({
    label, stroke: COLOURS[index % COLOURS.length], width: 1.5, dash: DASHES[Math.floor(index / COLOURS.length) % 3],
    value: (_, value) => number(value),
  }));
  const scales = { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } };
  const plot = new uPlot({ width, height: 170, scales, axes: [axis, { ...axis, size: 54 }], series: [{}, ...series] }, data, at(id));
  charts[id] = { key, plot };
}

function remember(news) {
  const columns = { ...news, ...news.lag };
  delete columns.lag;
  const count = news.at_s.length, length = history.at_s.length;
  for (const name of new Set([...Object.keys(history), ...Object.keys(columns)])) {
    history[name] = [...(history[name] || Array(length).fill(null)), ...(columns[name] || Array(count).fill(null))].slice(-POINTS_MAX);
  }
}

function show(report) {
  document.body.dataset.ready = "yes";
  document.title = `${report.state} · Headrace`;
  at("about").textContent = `${report.app}, ${report.role} on ${report.transport === "Kafka" ? "Kafka" : "the embedded log"}, ${report.version}`;
  at("headline").textContent = report.headline;
  at("fresh").textContent = `as of ${new Date(report.at_ms).toLocaleTimeString()}`;
  components(report.components, report.at_ms);
  if (!report.history) return;
  afterMs = report.at_ms;
  remember(report.history);
  const now = report.now, lag = report.readers.reduce((sum, each) => sum + each.lag, 0);
  const behind = Math.max(0, ...report.readers.map((each) => each.behind_s));
  facts("now", [["Events per second", number(now.events_per_s)], ["Sends per second", number(now.sends_per_s)],
    ["Failed attempts per second", number(now.failed_per_s)], ["Lag, records", number(lag)], ["Lag, time", span(behind)],
    ["Event age p50", span(now.p50)], ["Event age p99", span(now.p99)],
    ["Partitions open", `${report.partitions.opened} of ${report.partitions.assigned}`]]);
  chart("throughput", ["events_per_s", "sends_per_s", "failed_per_s", "refused_per_s"], ["events", "sends", "failed", "refused"]);
  const lanes = Object.keys(report.history.lag);
  chart("lag", lanes, lanes.map((name) => name.replace("partition ", "")));
  chart("latency", ["p50", "p95", "p99"], ["p50", "p95", "p99"]);
  table("senders", [["Channel"], ["In flight", 1], ["Oldest", 1], ["Waiting", 1], ["To retry", 1], ["Uncertain", 1], ["Silent hosts", 1], ["Errors, 30 s", 1]],
    report.channels.map((each) => {
      const tried = each.sent + each.retried + each.failed;
      return [each.name, `${each.in_flight} of ${each.in_flight_max}`, span(each.oldest_attempt_s), number(each.pending), number(each.retry),
        number(each.held), number(each.silent_hosts), tried ? `${Math.round(100 * (tried - each.sent) / tried)} %` : "–"];
    }), "no channels");
  const grave = (each) => ["OK", "WARN", "STALL", "STOP"].indexOf(each.status);
  const readers = [...report.readers].sort((a, b) => grave(b) - grave(a) || b.lag - a.lag);
  table("readers", [["Status"], ["Stage"], ["Topic"], ["Partition", 1], ["Lag", 1], ["Behind", 1], ["Why"]],
    readers.slice(0, ROWS_MAX).map((each) => [each.status, each.agent, each.topic, each.partition, number(each.lag), span(each.behind_s), each.why]), "no readers");
  table("letters", [["Reason"], ["Since start", 1], ["Last 30 s", 1]],
    report.dead_letters.map((each) => [each.reason, number(each.total), number(each.recent)]), "none");
  const reasons = report.dead_letters.map((each) => each.reason);
  at("replay").hidden = !report.can_replay || !reasons.length;
  if (at("reason").dataset.shown !== reasons.join()) {
    at("reason").dataset.shown = reasons.join();
    at("reason").replaceChildren(...reasons.map((reason) => make("option", reason)));
  }
  const next = report.timers.next_s;
  facts("segments", [["Oldest timer", report.timers.overdue_s ? `${span(report.timers.overdue_s)} late` : next ? `due ${new Date(next * 1000).toLocaleString()}` : "none"],
    ...Object.entries(report.segments).map(([name, seconds]) => [`${name}, behind by`, span(seconds)])]);
}

async function look() {
  try {
    const answer = await fetch(`/status.json?after_ms=${afterMs}`, { cache: "no-store" });
    if (!answer.ok) throw new Error(`answered ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    at("fresh").textContent = `no answer since ${afterMs ? new Date(afterMs).toLocaleTimeString() : "the start"}`;
    if (afterMs) at("headline").textContent = "This process does not answer; what follows is the last that it said";
  }
  setTimeout(look, EVERY_MS);
}

at("replay").addEventListener("submit", async (event) => {
  event.preventDefault();
  at("replayed").textContent = "replaying";
  const headers = { Authorization: `Bearer ${at("key").value}`, "Content-Type": "application/json" };
  const answer = await fetch("/status/replay", { method: "POST", headers, body: JSON.stringify({ reason: at("reason").value }) });
  const said = await answer.json();
  at("replayed").textContent = answer.ok ? `${said.letters} replayed in ${said.records} records` : said.message;
});
look();
