"use strict";
// Asks every two seconds while it is looked at; names are written as text, never as markup.
const EVERY_MS = 2000, HEIGHT = 240, KEPT = "headrace-key";
const at = (id) => document.getElementById(id);
const wanted = location.pathname === "/campaigns" ? null : decodeURIComponent(location.pathname.slice("/campaigns/".length));
const MEASURES = [
  ["sent", "Sent"], ["unique_opens", "Unique opens"], ["unique_clicks", "Unique clicks"], ["conversions_a", "Conversions A"],
  ["conversions_b", "Conversions B"], ["conversions_c", "Conversions C"], ["conversions_d", "Conversions D"], ["revenue", "Revenue"],
  ["recipients", "Unique recipients"], ["machine_opens", "Machine opens"], ["unsubscribes", "Unsubscribes"],
  ["bounces", "Bounces"], ["errors", "Errors"], ["aborts", "Aborts"], ["control", "Enrolled in control"],
];
const COLOURS = ["#3b7dd8", "#c7611c", "#2f9e6e", "#a04fb5", "#c2a012", "#d0466b", "#3aa3b3", "#6b8e23"];
let answer = null, plot = null, plotKey = "", key = sessionStorage.getItem(KEPT) || "", timer = 0;

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const number = (value) => value === null || value === undefined ? "–" : value.toLocaleString("en", { maximumFractionDigits: 2 });
const percent = (rate) => !rate ? "" : `${(100 * rate).toFixed(rate < 0.1 ? 2 : 1)} %`;
const money = (amounts) => Object.entries(amounts).map(([currency, amount]) => `${number(Number(amount))} ${currency}`).join(", ") || "–";
const nameOf = (each) => each.is_control ? "Control group" : each.variant || "The message";
const moment = (text) => text ? new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : "never";

function fill(id, heads, rows, nothing) {
  const head = make("tr");
  head.append(...heads.map((text, index) => make("th", text, { scope: "col", class: index ? "number" : "" })));
  const lines = rows.map((cells) => {
    const line = make("tr");
    line.append(...cells.map(([content, rate], index) => {
      const cell = make("td", undefined, index ? { class: "number", "data-head": heads[index] } : {});
      cell.append(content);
      if (rate) cell.append(make("span", rate, { class: "rate" }));
      return cell;
    }));
    return line;
  });
  if (!lines.length) lines.push(make("tr")), lines[0].append(make("td", nothing, { colspan: heads.length }));
  at(id).replaceChildren(head, ...lines);
}

function cells(totals, rates) {
  return [
    [number(totals.sent)], [number(totals.delivered), percent(rates.delivered)],
    [number(totals.unique_opens), percent(rates.opened)], [number(totals.unique_clicks), percent(rates.clicked)],
    [number(totals.conversions_a), percent(rates.conversions_a)], [money(totals.revenue)],
    [number(totals.unsubscribes)], [number(totals.bounces)], [number(totals.errors + totals.aborts)], [number(totals.control)],
  ];
}
const HEADS = ["Sent", "Delivered", "Opened", "Clicked", "Converted", "Revenue", "Unsubscribed", "Bounced", "Failed", "In control"];

function showAll(rows) {
  at("about").textContent = rows.length ? `${rows.length} ${rows.length === 1 ? "campaign" : "campaigns"}, over all time` : "Nothing is defined yet.";
  fill("campaigns", ["Campaign", "State", ...HEADS], rows.map((each) => {
    const link = make("a", each.campaign, { href: `/campaigns/${encodeURIComponent(each.campaign)}` });
    return [[link], [each.state], ...cells({ ...each.totals, control: each.control }, each.rates)];
  }), "no campaigns");
}

/** In words, what the primary conversion says of each variant against the control group. */
function verdict(variants) {
  const against = variants.filter((each) => each.versus_control);
  at("verdict").textContent = against.map((each) => {
    const { uplift, confidence } = each.versus_control, change = `${uplift >= 0 ? "+" : "−"}${(100 * Math.abs(uplift)).toFixed(1)} %`;
    return `${nameOf(each)} converts ${change} against the control group (${(100 * confidence).toFixed(0)} % confidence).`;
  }).join(" ");
}

function showOne(found) {
  at("title").textContent = found.campaign;
  document.title = `${found.campaign} · Headrace`;
  at("about").textContent = `${found.channel || "No channel"} · first sent ${moment(found.first_sent)} · last sent ${moment(found.last_sent)}`;
  const used = ["b", "c", "d"].filter((letter) => found.variants.some((each) => each.totals[`conversions_${letter}`]));
  fill("variants", ["Variant", ...HEADS, ...used.map((letter) => `Converted ${letter.toUpperCase()}`)], found.variants.map((each) => [
    [nameOf(each)], ...cells(each.totals, each.rates),
    ...used.map((letter) => [number(each.totals[`conversions_${letter}`]), percent(each.rates[`conversions_${letter}`])]),
  ]), "nothing was sent");
  verdict(found.variants);
  draw(found);
}

const valueOf = (counts, measure) => measure === "revenue" ? Object.values(counts.revenue).reduce((sum, amount) => sum + Number(amount), 0) : counts[measure];

function draw(found) {
  const measure = at("measure").value, width = at("chart").clientWidth;
  const data = [found.times.map((text) => Date.parse(text) / 1000), ...found.variants.map((each) => each.series.map((counts) => valueOf(counts, measure)))];
  const label = at("measure").selectedOptions[0].textContent;
  const sums = found.variants.map((each, index) => `${nameOf(each)} ${number(data[index + 1].reduce((sum, value) => sum + value, 0))}`);
  at("chart").setAttribute("aria-label", `Chart of ${label} by the ${found.unit}. In all: ${sums.join(", ") || "nothing"}.`);
  const styles = getComputedStyle(document.documentElement), ink = styles.getPropertyValue("--soft").trim();
  const newKey = [width, ink, found.unit, ...found.variants.map(nameOf)].join();
  if (plot && plotKey === newKey) {
    plot.setData(data);
    return newest();
  }
  if (plot) plot.destroy();
  const line = { stroke: styles.getPropertyValue("--line").trim(), width: 1 };
  const axis = { stroke: ink, grid: line, ticks: line, font: "12px system-ui, sans-serif" };
  const text = (second) => new Date(second * 1000).toISOString().slice(...(found.unit === "day" ? [5, 10] : [11, 16]));
  const series = found.variants.map((each, index) => ({
    label: nameOf(each), stroke: each.is_control ? ink : COLOURS[index % COLOURS.length], width: 2, dash: each.is_control ? [6, 4] : [],
    value: (_, value) => number(value), points: { size: 5 },
  }));
  const options = {
    width, height: HEIGHT, tzDate: (second) => uPlot.tzDate(new Date(second * 1000), "UTC"), scales: { y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.1 : 1] } },
    axes: [{ ...axis, grid: { show: false }, space: 64, values: (_, seconds) => seconds.map(text) }, { ...axis, size: 58, values: (_, marks) => marks.map(number) }],
    series: [{ value: (_, second) => second ? `${new Date(second * 1000).toISOString().slice(0, 16).replace("T", " ")} UTC` : "–" }, ...series],
  };
  plot = new uPlot(options, data, at("chart"));
  plotKey = newKey;
  newest();
}

/** The legend gives the newest values while nobody points at older ones; uPlot clears it when it draws. */
function newest() {
  const shown = plot;
  setTimeout(() => { if (shown === plot && (plot.cursor.idx === null || plot.cursor.idx === undefined)) plot.setLegend({ idx: plot.data[0].length - 1 }); });
}

function query() {
  return wanted === null ? "" : `?campaign=${encodeURIComponent(wanted)}&unit=${at("unit").value}`;
}

async function ask(path) {
  return fetch(path, { headers: { Authorization: `Bearer ${key}` }, cache: "no-store" });
}

function locked(words) {
  at("ask").hidden = false;
  at("all").hidden = at("one").hidden = true;
  at("about").textContent = "The numbers need an API key that may read campaigns.data_series.";
  at("refused").textContent = words;
  at("fresh").textContent = "locked";
}

async function look() {
  clearTimeout(timer);
  try {
    if (!document.hidden) await renew();
  } catch (error) {
    at("fresh").textContent = "no answer; trying again";
    at("fresh").className = "stale";
  }
  document.body.dataset.ready = "yes";
  timer = setTimeout(look, EVERY_MS);
}

async function renew() {
  if (!key) return locked("");
  const found = await ask(`/campaigns.json${query()}`);
  if (found.status === 401 || found.status === 403) return locked((await found.json()).message);
  if (!found.ok) {
    at("about").textContent = (await found.json()).message;
    return;
  }
  answer = await found.json();
  at("ask").hidden = true;
  at("all").hidden = wanted !== null;
  at("one").hidden = wanted === null;
  if (wanted === null) showAll(answer); else showOne(answer);
  at("fresh").textContent = `as of ${new Date().toLocaleTimeString([], { hour12: false })}`;
  at("fresh").className = "";
}

async function download() {
  const found = await ask(`/campaigns.csv${query()}`);
  if (!found.ok) return;
  const link = make("a", undefined, { href: URL.createObjectURL(await found.blob()), download: `${wanted}-${at("unit").value}.csv` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

at("measure").append(...MEASURES.map(([value, text]) => make("option", text, { value })));
if (wanted !== null) at("title").textContent = wanted;
at("measure").addEventListener("change", () => answer && draw(answer));
at("unit").addEventListener("change", look);
at("csv").addEventListener("click", download);
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("key").value.trim();
  sessionStorage.setItem(KEPT, key);
  look();
});
document.addEventListener("visibilitychange", () => document.hidden || look());
addEventListener("resize", () => answer && wanted !== null && draw(answer));
look();
