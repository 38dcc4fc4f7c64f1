"use strict";
// Asks for what is new every two seconds, keeps ten minutes, and writes text only as text.
const EVERY_MS = 2000, POINTS_MAX = 300, ROWS_MAX = 200;
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

function clock(ms) {
  return new Date(ms).toLocaleTimeString([], { hour12: false });
}

function components(found, nowMs) {
  const bad = found.filter((each) => each.state !== "OK"), well = found.filter((each) => each.state === "OK");
  at("components").replaceChildren(...bad.map((each) => {
    const row = make("li", undefined, { "data-state": each.state });
    const since = `since ${clock(each.since_ms)}, for ${span((nowMs - each.since_ms) / 1000)}`;
    row.append(make("span", each.state, { class: "state" }), make("span", each.component, { class: "name" }),
      make("span", each.why, { class: "why" }), make("span", since, { class: "since" }));
    return row;
  }));
  at("well").replaceChildren(...well.map((each) => {
    const row = make("li", undefined, { "data-state": "OK", title: `since ${clock(each.since_ms)}` });
    const words = make("span");
    words.append(make("span", each.component, { class: "name" }), " ", make("span", each.why, { class: "why" }));
    row.append(make("span", "OK", { class: "state" }), words);
    return row;
  }));
}

function restoring(found) {
  at("restore-section").hidden = !found.length;
  at("restore").replaceChildren(...found.map((each) => {
    const row = make("li"), name = `Partition ${each.partition}`;
    row.append(make("span", name), make("progress", undefined, { value: each.most - each.left, max: Math.max(1, each.most), "aria-label": name }),
      make("span", `${number(each.left)} of ${number(each.most)} records left`));
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
      const [head, isNumber] = heads[index], isState = head === "Status";
      return make("td", cell, { class: isNumber ? "number" : "", ...(isNumber ? { "data-head": head } : {}), ...(isState ? { "data-state": cell } : {}) });
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

const HEIGHT = 180;

/** The legend gives the newest values while nobody points at an older one. */
function newest(plot) {
  const tell = () => { if (plot.cursor.idx === null || plot.cursor.idx === undefined) plot.setLegend({ idx: plot.data[0].length - 1 }); };
  setTimeout(tell); // uPlot clears the legend when it draws, which it does after this turn
}

function chart(id, names, labels, format = number) {
  const words = labels.map((label, index) => {
    const last = [...(history[names[index]] || [])].reverse().find((value) => value !== null && value !== undefined);
    return `${label} ${format(last)}`;
  });
  at(id).setAttribute("aria-label", `Chart of ten minutes. Newest values: ${words.join(", ")}.`);
  const data = [history.at_s, ...names.map((name) => history[name] || history.at_s.map(() => null))];
  const width = at(id).clientWidth, key = names.join() + getComputedStyle(document.body).color;
  const known = charts[id];
  if (known && known.key === key) {
    if (known.plot.width !== width) known.plot.setSize({ width, height: HEIGHT });
    known.plot.setData(data);
    newest(known.plot);
    return;
  }
  if (known) known.plot.destroy();
  const styles = getComputedStyle(document.documentElement);
  const line = { stroke: styles.getPropertyValue("--line").trim(), width: 1 };
  const axis = { stroke: styles.getPropertyValue("--soft").trim(), grid: line, ticks: line, font: "12px system-ui, sans-serif" };
  const times = { ...axis, grid: { show: false }, space: 70, values: (_, seconds) => seconds.map((each) => clock(each * 1000)) };
  const series = labels.map((label, index) => ({
    label, stroke: COLOURS[index % COLOURS.length], width: 1.5, dash: DASHES[Math.floor(index / COLOURS.length) % 3],
    value: (_, value) => format(value), points: { size: 4 },
  }));
  const scales = { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } };
  const values = (_, marks) => marks.map(format);
  const plot = new uPlot({ width, height: HEIGHT, scales, axes: [times, { ...axis, size: 58, values }], series: [{}, ...series] }, data, at(id));
  charts[id] = { key, plot };
  newest(plot);
}

function remember(news) {
  const columns = { ...news, ...news.lag };
  delete columns.lag;
  const count = news.at_s.length, length = history.at_s.length;
  for (const name of new Set([...Object.keys(history), ...Object.keys(columns)])) {
    history[name] = [...(history[name] || Array(length).fill(null)), ...(columns[name] || Array(count).fill(null))].slice(-POINTS_MAX);
  }
}

const grave = (each) => ["OK", "WARN", "STALL", "STOP"].indexOf(each.status);

/** One line per stage and topic: what waits in all, and the partition that is worst. */
function stages(readers) {
  const groups = new Map();
  for (const each of readers) groups.set(`${each.agent} ${each.topic}`, [...(groups.get(`${each.agent} ${each.topic}`) || []), each]);
  return [...groups.values()].map((those) => {
    const worst = [...those].sort((a, b) => grave(b) - grave(a) || b.lag - a.lag)[0];
    const lag = those.reduce((sum, each) => sum + each.lag, 0), behind = Math.max(...those.map((each) => each.behind_s));
    const why = worst.status === "OK" ? worst.why : `partition ${worst.partition}: ${worst.why}`;
    return [worst.status, worst.agent, worst.topic, number(those.length), number(lag), span(behind), why];
  });
}

function senders(channels) {
  table("senders", [["Channel"], ["In flight", 1], ["Oldest", 1], ["Waiting", 1], ["Bulk waiting", 1], ["To retry", 1], ["Uncertain", 1], ["Silent hosts", 1], ["Sent, 30 s", 1], ["Errors, 30 s", 1]],
    channels.map((each) => {
      const tried = each.sent + each.retried + each.failed;
      return [each.name, `${each.in_flight} of ${each.in_flight_max}`, span(each.oldest_attempt_s), number(each.waiting.transactional), number(each.waiting.bulk), number(each.retry),
        number(each.held), number(each.silent_hosts), number(each.sent), tried ? `${Math.round(100 * (tried - each.sent) / tried)} %` : "–"];
    }), "no channels");
}

function letters(found, canReplay) {
  table("letters", [["Reason"], ["Since start", 1], ["Last 30 s", 1]],
    found.map((each) => [each.reason, number(each.total), number(each.recent)]), "none");
  const reasons = found.map((each) => each.reason);
  at("replay").hidden = !canReplay || !reasons.length;
  if (at("reason").dataset.shown !== reasons.join()) {
    at("reason").dataset.shown = reasons.join();
    at("reason").replaceChildren(...reasons.map((reason) => make("option", reason)));
  }
}

function show(report) {
  document.body.dataset.ready = "yes";
  document.title = `${report.state} · Headrace`;
  at("about").textContent = `${report.app}, ${report.role} on ${report.transport === "Kafka" ? "Kafka" : "the embedded log"}, version ${report.version}`;
  at("headline").textContent = report.headline;
  at("headline").dataset.state = report.state;
  at("sending").textContent = report.sending.map((each) =>
    `${each.campaign}: ${each.decided.toLocaleString("en")} of ${each.users.toLocaleString("en")} users decided`
    + (each.ends ? `, ends about ${new Date(each.ends).toLocaleTimeString()}` : "")).join(" · ");
  at("fresh").textContent = `as of ${clock(report.at_ms)}`;
  at("fresh").className = "";
  components(report.components, report.at_ms);
  if (!report.history) return;
  afterMs = report.at_ms;
  remember(report.history);
  const now = report.now, lag = report.readers.reduce((sum, each) => sum + each.lag, 0);
  const behind = Math.max(0, ...report.readers.map((each) => each.behind_s));
  const canary = report.canary.on ? [["Canary, 30 s p99", span(report.canary.p99_s)]] : [];
  facts("now", [["Events per second", number(now.events_per_s)], ["Sends per second", number(now.sends_per_s)],
    ["Failed per second", number(now.failed_per_s)], ["Refused per second", number(now.refused_per_s)], ["Lag, records", number(lag)],
    ["Lag, time", span(behind)], ["Event age p50", span(now.p50)], ["Event age p99", span(now.p99)], ...canary,
    ["Partitions open", `${report.partitions.opened} of ${report.partitions.assigned}`]]);
  restoring(report.restore);
  chart("throughput", ["events_per_s", "sends_per_s", "failed_per_s", "refused_per_s"], ["events", "sends", "failed", "refused"]);
  const lanes = Object.keys(report.history.lag);
  chart("lag", lanes, lanes.map((name) => name.replace("partition ", "")));
  chart("latency", ["p50", "p95", "p99", ...(report.canary.on ? ["canary_s"] : [])], ["p50", "p95", "p99", ...(report.canary.on ? ["canary"] : [])], span);
  senders(report.channels);
  const readers = [...report.readers].sort((a, b) => grave(b) - grave(a) || b.lag - a.lag);
  table("stages", [["Status"], ["Stage"], ["Topic"], ["Partitions", 1], ["Lag", 1], ["Behind", 1], ["Why"]], stages(report.readers), "no readers");
  table("readers", [["Status"], ["Stage"], ["Topic"], ["Partition", 1], ["Lag", 1], ["Behind", 1], ["Why"]],
    readers.slice(0, ROWS_MAX).map((each) => [each.status, each.agent, each.topic, each.partition, number(each.lag), span(each.behind_s), each.why]), "no readers");
  letters(report.dead_letters, report.can_replay);
  const { overdue_s: overdue, next_s: next } = report.timers;
  facts("segments", [["Oldest timer", overdue ? `${span(overdue)} late` : next ? `in ${span(Math.max(0, next - report.at_ms / 1000))}` : "none"],
    ...Object.entries(report.segments).map(([name, seconds]) => [`${name}, behind by`, span(seconds)])]);
}

async function look() {
  try {
    const answer = await fetch(`/status.json?after_ms=${afterMs}`, { cache: "no-store" });
    if (!answer.ok) throw new Error(`answered ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    at("fresh").textContent = `no answer since ${afterMs ? clock(afterMs) : "the start"}`;
    at("fresh").className = "stale";
    at("headline").dataset.state = "STOP";
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
