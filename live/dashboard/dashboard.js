"use strict";
/* Polls the JSON API once a second and draws it. Nothing is stored but a token, for this tab. */

const KEPT = 120;
const FIVE = ["job_create", "snapshot_acquire", "node_selection", "session_lock_wait", "job_result"];
const WAY = ["dispatch_stage.created", "dispatch_stage.assigned", "dispatch_stage.sent",
  "dispatch_stage.acked", "dispatch_stage.result", "dispatch_stage.delivered", "queue_wait",
  "end_to_end", "loop_lag"];
const $ = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const history = { at: [], flight: [], queue: [], p50: [], p99: [] };
let charts = [];
let ended = null;

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function row(cells, className) {
  const made = element("tr", undefined, className);
  for (const [content, kind] of cells) {
    const cell = element("td", content instanceof Node ? undefined : content, kind);
    if (content instanceof Node) cell.append(content);
    made.append(cell);
  }
  return made;
}

function ms(value) {
  if (value === undefined || value === null) return "–";
  if (value >= 100) return value.toFixed(0);
  return value >= 1 ? value.toFixed(2) : value.toFixed(3);
}

function show(id, rows, columns) {
  const nobody = row([["nothing yet", "none"]]);
  nobody.firstChild.colSpan = columns;
  $(id).replaceChildren(...(rows.length ? rows : [nobody]));
}

async function ask(path) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store" });
  $("login").hidden = answer.status !== 401;
  if (!answer.ok) throw new Error((await answer.json()).message || answer.statusText);
  return answer.json();
}

function drawHead(now) {
  const state = now.draining ? "warn" : now.store.up ? "good" : "bad";
  const words = now.draining ? "draining" : now.store.up ? "ready" : "the store is away";
  $("state").className = `dot ${state}`;
  $("state").setAttribute("aria-label", words);
  const hours = Math.floor(now.uptime_s / 3600), minutes = Math.floor(now.uptime_s / 60) % 60;
  $("about").textContent = `${words} · ${now.instance} · policy ${now.policy} · ` +
    `store ${now.store.kind} · up ${hours} h ${minutes} min`;
  $("notice").hidden = state === "good";
  $("notice").textContent = state === "bad"
    ? "The store does not answer: new utterances are refused, sessions stay open."
    : "Draining: open work is finished, nobody new is taken in.";
}

function drawTiles(stats, rate) {
  const now = stats.scheduler, power = stats.nodes.compute_power;
  const tiles = [
    ["sessions", now.sessions, false],
    ["jobs in flight", now.jobs_in_flight, false],
    ["waiting for a node", now.queue.depth, now.queue.depth > 0],
    ["slots used", `${power.total_jobs} / ${power.total_slots}`, false],
    ["nodes online", stats.nodes.connected_nodes, stats.nodes.connected_nodes === 0],
    ["jobs a second", rate === null ? "–" : rate.toFixed(rate < 10 ? 1 : 0), false],
  ];
  $("tiles").replaceChildren(...tiles.map(([name, value, warns]) => {
    const tile = element("div", undefined, warns ? "tile warn" : "tile");
    tile.append(element("b", String(value)), element("span", name));
    return tile;
  }));
}

function jobsEnded(series) {
  const found = series.find((entry) => entry.name === "simsched_jobs_ended");
  return found ? found.samples.reduce((sum, sample) => sum + sample.value, 0) : 0;
}

function remember(stats, latency) {
  const dispatch = latency.dispatch || {};
  history.at.push(Date.now() / 1000);
  history.flight.push(stats.scheduler.jobs_in_flight);
  history.queue.push(stats.scheduler.queue.depth);
  history.p50.push(dispatch.p50 ?? null);
  history.p99.push(dispatch.p99 ?? null);
  for (const column of Object.values(history)) if (column.length > KEPT) column.shift();
}

function clock(seconds) {
  return new Date(1000 * seconds).toLocaleTimeString("en-GB");
}

function words(name) {
  return name.replaceAll("_", " ").replace("dispatch stage.", "… ");
}

function chart(place, names, columns) {
  const axis = { stroke: css("--soft"), grid: { stroke: css("--line"), width: 1 },
    ticks: { show: false }, font: "11px system-ui" };
  const colours = [css("--one"), css("--two")];
  const spread = (u, low, high) => [0, Math.max(1, (high || 0) * 1.15)];
  const made = new uPlot({
    width: place.clientWidth, height: place.clientHeight, cursor: { show: false },
    legend: { show: false },
    scales: { y: { range: spread } },
    axes: [{ ...axis, space: 80, size: 26, values: (u, ticks) => ticks.map(clock) },
      { ...axis, size: 44 }],
    series: [{}, ...names.map((label, i) => ({ label, stroke: colours[i], width: 2,
      points: { show: false } }))],
  }, [history.at, ...columns], place);
  return { made, place, columns };
}

function drawCharts() {
  if (!charts.length) {
    charts = [chart($("work"), ["in flight", "waiting"], [history.flight, history.queue]),
      chart($("latency"), ["p50", "p99"], [history.p50, history.p99])];
  }
  for (const { made, columns } of charts) made.setData([history.at, ...columns]);
}

function rebuildCharts() {
  for (const { made } of charts) made.destroy();
  charts = [];
  if (history.at.length) drawCharts();
}

function stepRow(name, spread, most, className) {
  const bar = element("i");
  bar.style.width = `${most > 0 ? Math.max(1, 100 * spread.p99 / most) : 0}%`;
  return row([[words(name), ""], [spread.count, "n wide"],
    [ms(spread.p50), "n"], [ms(spread.p99), "n"], [bar, "bar"]], className);
}

function drawSteps(latency) {
  const shown = [...FIVE, ...WAY].filter((name) => latency[name]);
  const most = Math.max(0, ...shown.map((name) => latency[name].p99));
  show("steps", shown.map((name) =>
    stepRow(name, latency[name], most, FIVE.includes(name) ? "five" : "")), 5);
  const all = Object.keys(latency).filter((name) => name.startsWith("step."));
  all.sort((one, other) => latency[other].p99 - latency[one].p99);
  const top = all.length ? latency[all[0]].p99 : 0;
  show("all-steps", all.map((name) => stepRow(name.slice(5), latency[name], top, "")), 5);
}

function drawCanary(compared, canary) {
  $("canary-section").hidden = !canary;
  if (!canary) return;
  $("canary-policy").textContent = `${canary.policy}, ${(100 * canary.share).toFixed(0)} %`;
  show("canary", Object.entries(compared || {}).map(([name, { base = {}, canary: other = {} }]) =>
    row([[words(name), ""], [ms(base.p50), "n"], [ms(other.p50), "n"], [ms(base.p99), "n"],
      [ms(other.p99), "n"]])), 5);
}

function drawNodes(stats) {
  const listed = stats.nodes.compute_power.node_power_details;
  const all = stats.nodes.compute_power.total_nodes;
  $("nodes-count").textContent = all > listed.length ? `first ${listed.length} of ${all}` : all;
  $("nodes").replaceChildren(...listed.map((node) => {
    const item = element("li", undefined, node.health === "offline" ? "away" : "");
    const title = element("b", node.node_id);
    title.title = node.pairs.join(" ");
    const slots = element("div", undefined, "slots");
    slots.setAttribute("role", "img");
    slots.setAttribute("aria-label", `${node.current_jobs} of ${node.slots} slots`);
    for (let i = 0; i < Math.min(node.slots, 24); i += 1) {
      slots.append(element("i", undefined, i < node.current_jobs ? "used" : ""));
    }
    item.append(title, element("small", `${node.health} · ${node.current_jobs}/${node.slots}`),
      slots);
    return item;
  }));
  if (!listed.length) $("nodes").replaceChildren(element("li", "no node is connected", "none"));
}

async function drawPools() {
  const { pools } = await ask("/api/v1/phase3/pools");
  const inUse = pools.filter((pool) => pool.nodes > 0);
  show("pools", inUse.map((pool) => row([[pool.pool_id, ""], [pool.ready, "n"], [pool.nodes, "n"],
    [`${pool.jobs} / ${pool.slots}`, "n"]])), 4);
}

async function why(job) {
  const told = await ask(`/api/v1/jobs/${encodeURIComponent(job)}`);
  const lines = [`${told.job}: ${told.status} on ${told.node || "no node"}, ` +
    `${told.attempts} attempt(s)`];
  for (const look of told.decisions) {
    lines.push("", `candidates: ${look.chosen.join(", ") || "none"}`);
    for (const node of look.nodes) {
      lines.push(`  ${node.node}  ${node.jobs}/${node.slots}  ${node.text}`);
    }
  }
  lines.push("");
  for (const { event, after_ms: after, ...rest } of told.timeline) {
    const facts = Object.entries(rest).filter(([name]) => name !== "instance")
      .map(([name, value]) => `${name}=${value}`).join(" ");
    lines.push(`+${after.toFixed(1)} ms  ${event}  ${facts}`);
  }
  $("why").textContent = lines.join("\n");
  $("why").hidden = false;
}

async function drawJobs() {
  const { jobs } = await ask("/api/v1/decisions?limit=12");
  show("jobs", jobs.map((job) => {
    const name = element("button", job.job, "link");
    name.title = "why this node?";
    name.addEventListener("click", () => why(job.job).catch(failed));
    const state = job.reason ? `${job.status}: ${job.reason}` : job.status;
    return row([[name, ""], [job.node || "–", ""], [state, job.status], [ms(job.took_ms), "n"]]);
  }), 4);
}

function failed(error) {
  $("state").className = "dot bad";
  $("notice").hidden = false;
  $("notice").textContent = `No answer: ${error.message}`;
}

async function poll() {
  try {
    const answer = await ask("/api/v1/metrics");
    const count = jobsEnded(answer.series), at = Date.now();
    const rate = ended ? Math.max(0, count - ended.count) * 1000 / (at - ended.at) : null;
    ended = { count, at };
    remember(answer.stats, answer.latency_ms);
    drawHead(answer.stats.scheduler);
    drawTiles(answer.stats, rate);
    drawCharts();
    drawSteps(answer.latency_ms);
    drawCanary(answer.canary, answer.stats.scheduler.canary);
    drawNodes(answer.stats);
    await Promise.all([drawPools(), drawJobs()]);
    document.body.dataset.polls = String(1 + Number(document.body.dataset.polls || 0));
  } catch (error) {
    failed(error);
  }
  setTimeout(poll, 1000);
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
});
addEventListener("resize", rebuildCharts);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", rebuildCharts);
poll();
