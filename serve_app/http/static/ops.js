// The page at /ops: asks v1/ops every few seconds and shows what it says.

const $ = (id) => document.getElementById(id);
const EVERY_MS = 5000;
const PATIENCE_MS = 20000; // The server itself waits up to ten seconds for replicas.
const KEY = "foreedge.key"; // Of the session storage, which ends with the page.
const [HEIGHT, LEFT, BOTTOM] = [150, 46, 20];
const LEAST_MOMENTS = 31;
const TICK_MINUTES = [1, 2, 5, 10];
const [MOST_TICKS, HALF_LABEL] = [6, 18];
const BOUNDARIES = {
  queue: "Queue (SQS)", source: "Images (S3)", model: "Models", pipeline: "Pipeline",
  output: "Results (S3)", ledger: "Ledger (S3)", database: "Database of the catalog",
  autoscaling: "Backlog for autoscaling", settings: "Settings",
};
const number = new Intl.NumberFormat("en");
const percent = new Intl.NumberFormat("en", { style: "percent", maximumSignificantDigits: 2 });
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const clockWithSeconds = new Intl.DateTimeFormat(
  "en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });

let timer = null;
let last = null; // The last answer, for the time after it and for another width.

class ErrorAnswer extends Error {}

async function ask() {
  clearTimeout(timer);
  const key = sessionStorage.getItem(KEY);
  try {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const answer = await fetch("v1/ops", { headers: key ? { "X-API-Key": key } : {}, signal });
    const found = await read(answer);
    if (answer.status === 401) return askForKey(found.detail);
    if (!answer.ok) throw new ErrorAnswer(found.detail ?? found.title);
    $("access").hidden = true;
    last = found;
    show(found);
  } catch (error) {
    const verdict = error instanceof ErrorAnswer
      ? "The server answers with an error" : "The server cannot be reached";
    judge(verdict, [explain(error), last ? `What is below was true at ${
      clockWithSeconds.format(new Date(last.at))}.` : ""], []);
  }
  timer = setTimeout(ask, EVERY_MS);
}

async function read(answer) {
  const text = await answer.text();
  try {
    return JSON.parse(text);
  } catch {
    // HAProxy answers in this way while no replica of HttpApi runs.
    throw new ErrorAnswer(`${answer.status} ${answer.statusText}: ${text.slice(0, 200)}`);
  }
}

function explain(error) {
  if (error.name === "TimeoutError") return `It did not answer within ${PATIENCE_MS / 1000} s.`;
  return error instanceof TypeError ? `It does not answer (${error.message}).` : error.message;
}

function askForKey(reason) {
  judge("This server needs an API key", sessionStorage.getItem(KEY) ? [reason] : [], []);
  $("facts-now").hidden = true;
  $("access").hidden = false;
  $("key").focus();
}

// --- what it says ---

function show(found) {
  $("facts-now").hidden = false;
  $("as-of").textContent = `at ${clockWithSeconds.format(new Date(found.at))}`;
  for (const each of document.querySelectorAll(".of-queue")) each.hidden = !found.ingest;
  judge(found.attention.length ? "Needs attention" : "Everything is healthy",
    found.attention, found.notes);
  showFacts(found);
  showTables(found);
  showPlots(found);
}

function judge(verdict, reasons, notes) {
  $("health").className = verdict === "Everything is healthy" ? "" : "bad";
  // Written only if it changes, so that a screen reader does not repeat it.
  if ($("verdict").textContent !== verdict) $("verdict").textContent = verdict;
  document.title = `${verdict} · Foreedge`;
  for (const [id, said] of [["reasons", reasons.filter(Boolean)], ["notes", notes]]) {
    const before = [...$(id).children].map((each) => each.textContent);
    if (before.join("\n") !== said.join("\n")) {
      $(id).replaceChildren(...said.map((text) => make("li", text)));
    }
  }
}

function showFacts(found) {
  const { backlog } = found;
  const ended = sum(found.outcomes);
  const failed = sum(found.failures_by_code);
  $("rate").textContent = number.format(found.images_per_s);
  $("waiting").textContent = backlog ? number.format(backlog.waiting) : "unknown";
  $("waiting-before").textContent = backlog ? "" : lastReading(found.history);
  $("in-flight").textContent = backlog ? number.format(backlog.in_flight) : "unknown";
  $("oldest").textContent = backlog ? duration(backlog.oldest_s) : "unknown";
  $("drained").textContent = timeLeft(backlog);
  $("policy").textContent = endOf(found);
  $("failed").textContent = number.format(failed);
  $("failed").className = failed ? "missing" : "";
  $("share").textContent = ended ? `${percent.format(failed / ended)} of ${number.format(ended)}` : "";
}

function lastReading(history) {
  const known = history.findLast(({ waiting }) => waiting !== null);
  return known ? `${number.format(known.waiting)} at ${clock.format(new Date(known.at))}` : "";
}

function timeLeft(backlog) {
  if (!backlog) return "unknown";
  if (!backlog.waiting && !backlog.in_flight) return "it is empty";
  return backlog.drained_in_s === null ? "not draining" : duration(backlog.drained_in_s);
}

// The hour by the rate of the last minute, and the time of the policy, which knows the replicas
// that start. It does not know what refuses.
function endOf({ at, backlog, boundaries }) {
  const said = [];
  if (backlog?.drained_in_s) {
    const end = new Date(Date.parse(at) + 1000 * backlog.drained_in_s);
    said.push(`at ${clock.format(end)}${backlog.drained_in_s > 64800 ? `, ${day.format(end)}` : ""}`);
  }
  const left = backlog && (backlog.waiting || backlog.in_flight);
  const refused = boundaries.some(({ reason }) => reason);
  if (left && !refused && backlog.policy_drained_in_s !== null) {
    said.push(`${duration(backlog.policy_drained_in_s)} by the policy`);
  }
  return said.join("; ");
}

function showTables(found) {
  const { failures_by_code: failed, retries_by_code: retried, refusals_by_code: refused } = found;
  fill("boundaries", found.boundaries, ({ name, reason }) =>
    [BOUNDARIES[name] ?? name, reason ? { text: "not well", name: "missing", more: reason }
      : { text: "well", name: "well" }], "No consumer has told yet.");
  fill("codes", [...new Set([failed, retried, refused].flatMap(Object.keys))], (code) =>
    [code, ...[failed, retried, refused].map((counts) => number.format(counts[code] ?? 0))],
  "Nothing has failed.");
  const letters = found.ingest
    ? [["dead letters", found.dead_letters], ["leases lost", found.leases_lost]] : [];
  fill("outcomes", [...Object.entries(found.outcomes), ...letters],
    ([name, count]) => [name, number.format(count)], "No image has ended.");
  fill("stages", found.stages, ({ name, images, median_s, p95_s }) =>
    [name, number.format(images), seconds(median_s), seconds(p95_s)],
  "No image was processed.");
  fill("replicas", found.replicas, ({ deployment, running, wanted, states }) => [
    deployment,
    { text: number.format(running), name: running ? "" : "missing" },
    number.format(wanted),
    Object.entries(states).filter(([state]) => state !== "RUNNING")
      .map(([state, count]) => `${count} ${state.toLowerCase()}`).join(", ") || "–"],
  "Serve knows no deployment.");
  fill("failures", found.last_failures, ({ at, way_in, code, subject, job_id, message }) =>
    [moment(new Date(at)), way_in, code, subject || job_id, message], "Nothing has failed.");
  const catalog = found.ingest?.catalog;
  $("catalog-section").hidden = !catalog?.jobs;
  if (catalog?.jobs) {
    fill("catalog", [
      ...Object.entries(catalog.jobs).map(([name, count]) => [name, number.format(count)]),
      ["taken, and nobody works on them", number.format(catalog.stale)],
      ["oldest that is pending", duration(catalog.oldest_pending_s ?? 0)],
    ], (cells) => cells, "");
  }
}

const shown = {}; // Rows of each table. A table that stays the same keeps what somebody selects.

function fill(id, rows, cells, nothing) {
  const content = rows.map(cells);
  const key = JSON.stringify(content);
  if (shown[id] === key) return;
  shown[id] = key;
  const made = content.map(([first, ...others]) => {
    const line = make("tr");
    const head = make("th");
    head.scope = "row";
    // A code may go on in the next line after each of its low lines.
    first.split(/(?<=_)/).forEach((part, index) =>
      head.append(...(index ? [make("wbr")] : []), part));
    line.append(head, ...others.map((cell) =>
      typeof cell === "string" ? make("td", cell) : describe(cell)));
    return line;
  });
  if (!made.length) {
    const line = make("tr");
    const cell = make("td", nothing, "nothing");
    cell.colSpan = $(id).closest("table").tHead.rows[0].cells.length;
    line.append(cell);
    made.push(line);
  }
  $(id).replaceChildren(...made);
}

// A cell with a class, and with a text below it if there is more to say.
function describe({ text, name, more }) {
  const cell = make("td");
  cell.append(make("span", text, name));
  if (more) cell.append(make("p", more));
  return cell;
}

// --- plots ---

function showPlots(found) {
  const history = sinceSomethingHappened(found.history);
  const times = history.map(({ at }) => new Date(at));
  // The last moment is not over, so that its rate would fall.
  const whole = history.slice(0, -1);
  draw("rates", "Images per second", times, [
    { values: whole.map(({ done }) => done), shape: "area", name: "done" },
    { values: whole.map(({ failed }) => failed), shape: "area bad", name: "failed" },
  ]);
  draw("backlog", "Messages", times, [
    { values: history.map(({ waiting }) => waiting), shape: "area", name: "waiting" },
    { values: history.map(({ in_flight }) => in_flight), shape: "line", name: "being processed" },
  ]);
}

// An application that is new has no half hour yet. Five minutes are drawn in any case.
function sinceSomethingHappened(history) {
  const first = history.findIndex(({ done, failed, waiting, in_flight }) =>
    done || failed || waiting !== null || in_flight !== null);
  const from = first < 0 ? history.length : Math.max(0, first - 1);
  return history.slice(Math.min(from, history.length - LEAST_MOMENTS));
}

function draw(id, what, times, series) {
  // As many units as pixels, so that the labels have one size at any width.
  const width = $(id).clientWidth || 540;
  $(id).setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  $(id).setAttribute("aria-label", `${what} since ${clock.format(times[0])}. ${series.map(summarize).join(" ")}`);
  const top = ceiling(Math.max(1, ...series.map(({ values }) => largest(values))));
  const x = (index) => LEFT + ((width - LEFT) * index) / (times.length - 1);
  const y = (value) => (HEIGHT - BOTTOM) * (1 - value / top) + 4;
  const shapes = [];
  for (const share of [0, 0.5, 1]) {
    const height = y(top * share);
    shapes.push(shape("line", { x1: LEFT, x2: width, y1: height, y2: height }));
    shapes.push(label(LEFT - 6, height + 4, number.format(top * share), "end"));
  }
  const [first, end] = [Number(times[0]), Number(times.at(-1))];
  for (const at of wholeMinutes(first, end)) {
    const place = LEFT + ((width - LEFT) * (at - first)) / (end - first);
    // A label in the middle of its minute would be cut off at the end.
    const anchor = place > width - HALF_LABEL ? "end" : "middle";
    shapes.push(label(place, HEIGHT, clock.format(new Date(at)), anchor));
  }
  for (const { values, shape: name } of series) {
    for (const [from, part] of parts(values)) {
      const points = part.map((value, index) => `${x(from + index).toFixed(1)},${y(value).toFixed(1)}`);
      const closed = name === "line" ? "" : ` L${x(from + part.length - 1).toFixed(1)},${y(0)} L${x(from).toFixed(1)},${y(0)} Z`;
      shapes.push(shape("path", { d: `M${points.join(" L")}${closed}`, class: name }));
    }
  }
  $(id).replaceChildren(...shapes);
}

// The whole minutes between two times that are labelled, all in milliseconds.
function wholeMinutes(first, end) {
  const steps = TICK_MINUTES.map((minutes) => 60000 * minutes);
  const step = steps.find((each) => (end - first) / each <= MOST_TICKS) ?? steps.at(-1);
  const found = [];
  for (let at = Math.ceil(first / step) * step; at <= end; at += step) found.push(at);
  return found;
}

const largest = (values) => Math.max(0, ...values.map((each) => each ?? 0));

function summarize({ values, name }) {
  const now = values.findLast((each) => each !== null);
  return `${name}: ${now === undefined ? "unknown" : `${number.format(now)} now`}, at most ${number.format(largest(values))}.`;
}

// The runs of values between gaps, each with the index of its first one. Nothing is drawn for zeros
// alone.
function parts(values) {
  const found = [];
  values.forEach((value, index) => {
    if (value === null) return;
    if (index && values[index - 1] !== null && found.length) found.at(-1)[1].push(value);
    else found.push([index, [value]]);
  });
  return found.filter(([, part]) => part.some(Boolean));
}

function ceiling(value) {
  const magnitude = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].find((each) => each * magnitude >= value) * magnitude;
}

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function label(x, y, text, anchor) {
  const made = shape("text", { x, y, "text-anchor": anchor });
  made.textContent = text;
  return made;
}

// --- words ---

function make(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

const sum = (counts) => Object.values(counts).reduce((total, each) => total + each, 0);

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} d`;
}

function moment(at) {
  const today = at.toDateString() === new Date(last.at).toDateString();
  return `${today ? "" : `${day.format(at)} `}${clockWithSeconds.format(at)}`;
}

function seconds(value) {
  const ms = 1000 * value;
  return value < 1 ? `${ms.toFixed(ms < 99.95 ? 1 : 0)} ms` : `${value.toFixed(2)} s`;
}

// --- events ---

$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, $("key").value);
  ask();
});
addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : ask()));
addEventListener("resize", () => last && showPlots(last));

ask();
