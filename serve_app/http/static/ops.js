// The page at /ops: asks v1/ops every few seconds and shows what it says.

const $ = (id) => document.getElementById(id);
const EVERY_MS = 5000;
const KEY = "foreedge.key"; // Of the session storage, which ends with the page.
const [WIDTH, HEIGHT, LEFT, BOTTOM] = [540, 150, 44, 18];
const number = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hour12: false });
const clockWithSeconds = new Intl.DateTimeFormat(
  "en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

let timer = null;

async function ask() {
  clearTimeout(timer);
  const key = sessionStorage.getItem(KEY);
  try {
    const answer = await fetch("v1/ops", { headers: key ? { "X-API-Key": key } : {} });
    const found = await answer.json();
    if (answer.status === 401) return askForKey(found.detail);
    if (!answer.ok) throw new Error(found.detail ?? found.title);
    $("access").hidden = true;
    show(found);
  } catch (error) {
    judge("The server cannot be reached", [error.message]);
  }
  timer = setTimeout(ask, EVERY_MS);
}

function askForKey(reason) {
  judge("This server needs an API key", sessionStorage.getItem(KEY) ? [reason] : []);
  $("facts-now").hidden = true;
  $("access").hidden = false;
  $("key").focus();
}

// --- what it says ---

function show(found) {
  $("facts-now").hidden = false;
  const backlog = found.backlog;
  const failed = Object.values(found.failures_by_code).reduce((sum, each) => sum + each, 0);
  $("rate").textContent = number.format(found.images_per_s);
  $("waiting").textContent = backlog ? number.format(backlog.waiting) : "–";
  $("in-flight").textContent = backlog ? number.format(backlog.in_flight) : "–";
  $("oldest").textContent = backlog ? duration(backlog.oldest_s) : "–";
  $("drained").textContent = !backlog ? "–"
    : backlog.drained_in_s === null ? "not draining" : duration(backlog.drained_in_s);
  const policy = backlog?.policy_drained_in_s ?? null;
  $("policy").textContent = policy === null ? "–" : duration(policy);
  $("failed").textContent = number.format(failed);
  $("failed").className = failed ? "missing" : "";
  fill("stages", found.stages, ({ name, images, median_s, p95_s }) =>
    [name, number.format(images), milliseconds(median_s), milliseconds(p95_s)]);
  fill("replicas", found.replicas, ({ deployment, running, wanted, states }) => [
    deployment, number.format(running), number.format(wanted),
    Object.entries(states).filter(([state]) => state !== "RUNNING")
      .map(([state, count]) => `${count} ${state.toLowerCase()}`).join(", ") || "–"]);
  fill("outcomes", Object.entries(found.outcomes), ([name, count]) => [name, number.format(count)]);
  fill("codes", Object.entries(found.failures_by_code),
    ([name, count]) => [name, number.format(count)]);
  fill("failures", found.last_failures, ({ at, way_in, code, subject, job_id, message }) =>
    [clockWithSeconds.format(new Date(at)), way_in, code, subject || job_id, message]);
  const times = found.history.map(({ at }) => new Date(at));
  // The last moment is not over, so that its rate would fall.
  const whole = found.history.slice(0, -1);
  draw("rates", times, [
    { values: whole.map(({ done }) => done), name: "area" },
    { values: whole.map(({ failed: each }) => each), name: "area bad" },
  ]);
  draw("backlog", times, [
    { values: found.history.map(({ waiting }) => waiting), name: "area" },
    { values: found.history.map(({ in_flight }) => in_flight), name: "line" },
  ]);
  assess(found);
}

function assess(found) {
  const reasons = [];
  if (found.ingest && !found.ingest.healthy) reasons.push(found.ingest.reason);
  for (const { deployment, running, wanted } of found.replicas) {
    if (!running) reasons.push(`${deployment} has no running replica.`);
    else if (running < wanted) reasons.push(`${deployment}: ${running} of ${wanted} replicas run.`);
  }
  const stuck = found.backlog?.drained_in_s === null;
  if (stuck) reasons.push("Messages wait, and none was processed in the last minute.");
  judge(reasons.length ? "Needs attention" : "Everything is healthy", reasons);
}

function judge(verdict, reasons) {
  const good = verdict === "Everything is healthy";
  $("health").className = good ? "" : "bad";
  // Written only if it changes, so that a screen reader does not repeat it.
  if ($("verdict").textContent !== verdict) $("verdict").textContent = verdict;
  const said = reasons.filter(Boolean);
  if ([...$("reasons").children].map((each) => each.textContent).join() === said.join()) return;
  $("reasons").replaceChildren(...said.map((reason) => make("li", reason)));
}

function fill(id, rows, cells) {
  const made = rows.map((row) => {
    const [first, ...others] = cells(row);
    const line = make("tr");
    const head = make("th", first);
    head.scope = "row";
    line.append(head, ...others.map((text) => make("td", text)));
    return line;
  });
  if (!made.length) {
    const line = make("tr");
    line.append(make("th", "none"));
    made.push(line);
  }
  $(id).replaceChildren(...made);
}

// --- plots ---

function draw(id, times, series) {
  const most = Math.max(1, ...series.flatMap(({ values }) => values.map((each) => each ?? 0)));
  const top = ceiling(most);
  const x = (index) => LEFT + ((WIDTH - LEFT) * index) / (times.length - 1);
  const y = (value) => (HEIGHT - BOTTOM) * (1 - value / top) + 4;
  const shapes = [];
  for (const share of [0, 0.5, 1]) {
    const height = y(top * share);
    shapes.push(shape("line", { x1: LEFT, x2: WIDTH, y1: height, y2: height }));
    shapes.push(label(LEFT - 6, height + 4, number.format(top * share), "end"));
  }
  for (const [index, anchor] of [[0, "start"], [(times.length - 1) / 2, "middle"], [times.length - 1, "end"]]) {
    shapes.push(label(x(index), HEIGHT, clock.format(times[Math.round(index)]), anchor));
  }
  for (const { values, name } of series) {
    for (const [from, part] of parts(values)) {
      const points = part.map((value, index) => `${x(from + index).toFixed(1)},${y(value).toFixed(1)}`);
      const closed = name === "line" ? "" : ` L${x(from + part.length - 1).toFixed(1)},${y(0)} L${x(from).toFixed(1)},${y(0)} Z`;
      shapes.push(shape("path", { d: `M${points.join(" L")}${closed}`, class: name }));
    }
  }
  $(id).replaceChildren(...shapes);
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

function make(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} d`;
}

const milliseconds = (seconds) => `${number.format(Math.round(seconds * 10000) / 10)} ms`;

// --- events ---

$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, $("key").value);
  ask();
});
addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : ask()));

ask();
