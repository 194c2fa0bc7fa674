// The page at /: sends an image to v1/cutout and shows the result next to the original.

const $ = (id) => document.getElementById(id);
const form = $("options");
const MEGABYTE = 1024 * 1024;
const DOUBTFUL_BELOW = 0.8; // As in the reports of runs.
const COLOURS = ["#7a2230", "#a4563a", "#c9962f", "#8a8a3f", "#4d7a63", "#3c6478", "#5a4b7d", "#8b5a7c"];
const EXTENSIONS = { png: "png", webp: "webp", jpeg: "jpg" };
const TITLES = {
  unauthenticated: "This server needs an API key",
  image_too_large: "The image is too large",
  unsupported_format: "This file is not a supported image",
  corrupt_image: "The image is damaged",
  empty_image: "The file is empty",
  no_subject: "No subject was found",
  subject_too_small: "The subject is too small",
  overloaded: "The server is busy",
  model_unavailable: "The model is unavailable",
  deadline_exceeded: "The request took too long",
  invalid_recipe: "These options cannot be combined",
};

const HINTS = {
  subject_too_small: "To cut it out anyway, tick “Accept small subjects”.",
};

let image = null; // The chosen File.
let original = null; // Its pixels, or null if this browser cannot decode it.
let running = null; // AbortController of the request in progress.
let resultUrl = null;

// --- the image ---

async function choose(file) {
  if (!file) return;
  image = file;
  original = null;
  clearResult();
  try {
    original = await createImageBitmap(file);
  } catch {
    // The server reads formats that the browser does not, such as TIFF.
  }
  if (image !== file) return;
  if (original) showBefore({ left: 0, top: 0, right: original.width, bottom: original.height });
  $("drop").hidden = original !== null;
  $("compare").hidden = original === null;
  $("run").disabled = false;
  $("again").hidden = false;
  describe();
  await run();
}

function showBefore(box) {
  const canvas = $("before");
  canvas.width = box.right - box.left;
  canvas.height = box.bottom - box.top;
  canvas.getContext("2d").drawImage(
    original, box.left, box.top, canvas.width, canvas.height, 0, 0, canvas.width, canvas.height);
  $("frame").style.setProperty("--aspect", canvas.width / canvas.height);
}

function clearResult() {
  running?.abort();
  if (resultUrl) URL.revokeObjectURL(resultUrl);
  resultUrl = null;
  $("after").removeAttribute("src");
  $("frame").className = "waiting";
  for (const id of ["facts", "download", "problem"]) $(id).hidden = true;
  $("status").textContent = "";
  $("caption").textContent = image ? `${image.name || "pasted image"}, ${size(image.size)}` : "";
}

function reset() {
  image = original = null;
  clearResult();
  $("file").value = "";
  $("drop").hidden = false;
  for (const id of ["compare", "again"]) $(id).hidden = true;
  $("run").disabled = true;
  describe();
  $("file").focus();
}

// --- the request ---

function options() {
  const fields = new URLSearchParams();
  for (const id of ["recipe", "models", "matting", "format"]) {
    if ($(id).value) fields.set(id, $(id).value);
  }
  const background = $("background").value;
  if (background) fields.set("background", background === "colour" ? $("colour").value : background);
  for (const id of ["mask_only", "crop_to_subject"]) if ($(id).checked) fields.set(id, "true");
  if ($("any_size").checked) fields.set("min_subject_px", "1");
  return fields;
}

const credentials = () => ($("key").value ? { "X-API-Key": $("key").value } : {});

async function run() {
  if (!image) return;
  running?.abort();
  const mine = (running = new AbortController());
  const fields = options();
  $("problem").hidden = true;
  $("veil").hidden = false;
  $("stage").setAttribute("aria-busy", "true");
  say("Removing the background …");
  const since = performance.now();
  try {
    const response = await fetch(`v1/cutout?${fields}`, {
      method: "POST", body: image, headers: credentials(), signal: mine.signal,
    });
    if (!response.ok) throw await problemOf(response);
    const blob = await response.blob();
    if (mine.signal.aborted) return;
    await show(response.headers, blob, performance.now() - since, fields);
  } catch (error) {
    if (!mine.signal.aborted) fail(error);
  } finally {
    if (running === mine) {
      running = null;
      $("veil").hidden = true;
      $("stage").removeAttribute("aria-busy");
    }
  }
}

async function problemOf(response) {
  try {
    return await response.json();
  } catch {
    return { title: `The server answered ${response.status}`, detail: response.statusText };
  }
}

function fail(error) {
  clearResult();
  const known = error instanceof Error
    ? { title: "The server cannot be reached", detail: "It did not answer, or the connection was interrupted." }
    : error;
  $("problem-title").textContent = TITLES[known.code] ?? known.title;
  $("problem-detail").textContent = [known.detail, HINTS[known.code]].filter(Boolean).join(". ");
  $("problem-code").textContent = known.code ? `${known.status} ${known.code}` : "";
  $("problem").hidden = false;
  say("");
  if (known.code === "unauthenticated") askForKey();
}

function askForKey() {
  $("key-field").hidden = false;
  $("key").focus();
}

// --- the result ---

async function show(headers, blob, roundTrip, fields) {
  if (resultUrl) URL.revokeObjectURL(resultUrl);
  resultUrl = URL.createObjectURL(blob);
  const after = $("after");
  after.src = resultUrl;
  await after.decode();
  const [left, top, right, bottom] = headers.get("Foreedge-Subject").split(",").map(Number);
  const crop = headers.get("Foreedge-Crop")?.split(",").map(Number)
    ?? [0, 0, original?.width, original?.height];
  if (original) {
    showBefore({ left: crop[0], top: crop[1], right: crop[2], bottom: crop[3] });
  } else {
    $("frame").style.setProperty("--aspect", after.naturalWidth / after.naturalHeight);
  }
  $("frame").className = original ? "" : "alone";
  $("drop").hidden = true;
  $("compare").hidden = false;

  const stages = (headers.get("Server-Timing") ?? "").split(", ").filter(Boolean)
    .map((item) => item.split(";dur=")).map(([name, ms]) => ({ name, ms: Number(ms) }));
  const total = stages.reduce((sum, stage) => sum + stage.ms, 0);
  $("fact-model").textContent = headers.get("Foreedge-Model");
  $("fact-subject").textContent = right > left ? `${right - left} × ${bottom - top} px` : "none";
  const kind = blob.type.split("/")[1].toUpperCase();
  $("fact-result").textContent = `${after.naturalWidth} × ${after.naturalHeight} px ${kind}, ${size(blob.size)}`;
  const confidence = Number(headers.get("Foreedge-Mask-Confidence"));
  $("fact-confidence").value = confidence;
  $("fact-confidence-text").textContent = `${Math.round(confidence * 100)}%`;
  $("bar").replaceChildren(...stages.map((stage, index) => {
    const part = document.createElement("i");
    part.style.flexGrow = stage.ms;
    part.style.background = colour(index);
    part.title = `${stage.name}: ${milliseconds(stage.ms)} ms`;
    return part;
  }));
  $("stages").replaceChildren(...stages.map((stage, index) => {
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = stage.name;
    name.style.setProperty("--swatch", colour(index));
    const time = document.createElement("td");
    time.textContent = milliseconds(stage.ms);
    row.append(name, time);
    return row;
  }));
  $("total").textContent = milliseconds(total);
  $("round-trip").textContent = milliseconds(roundTrip);
  const stem = (image.name || "image").replace(/\.[^.]*$/, "");
  $("download").href = resultUrl;
  $("download").download = `${stem}-${fields.get("recipe")}.${EXTENSIONS[kind.toLowerCase()]}`;
  for (const id of ["facts", "download"]) $(id).hidden = false;
  const doubt = confidence < DOUBTFUL_BELOW ? "The model is unsure about this mask. " : "";
  say(`Done in ${milliseconds(roundTrip)} ms. ${doubt}${original ? "Move the slider to compare." : ""}`);
  slide();
}

const colour = (index) => COLOURS[index % COLOURS.length];

function milliseconds(ms) {
  const digits = ms < 100 ? 1 : 0;
  return ms.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function size(bytes) {
  return bytes < MEGABYTE ? `${Math.max(1, Math.round(bytes / 1024))} KiB` : `${(bytes / MEGABYTE).toFixed(1)} MiB`;
}

function say(text) {
  $("status").textContent = text;
}

function slide() {
  const { value } = $("slider");
  $("frame").style.setProperty("--cut", `${value}%`);
  $("slider").setAttribute("aria-valuetext", `${value}% original, ${100 - value}% result`);
}

function describe() {
  const key = $("key-field").hidden ? [] : ["-H 'X-API-Key: KEY'"];
  const url = new URL(`v1/cutout?${options()}`, location.href);
  const name = (image?.name || "image.jpg").replaceAll("'", "'\\''");
  const output = `-o result.${EXTENSIONS[$("format").value]}`;
  const parts = [`curl ${output}`, ...key, `--data-binary @'${name}'`, `'${url}'`];
  $("curl").textContent = parts.join(" \\\n");
}

// --- models ---

async function loadModels() {
  try {
    const response = await fetch("v1/models", { headers: credentials() });
    if (response.status === 401) return askForKey();
    if (!response.ok) return;
    const { models } = await response.json();
    const first = $("models").options[0];
    first.textContent = `Default: ${models[0].name}`;
    $("models").replaceChildren(first, ...models.map(({ name }) => new Option(name, name)));
  } catch {
    // The first image reports that the server cannot be reached.
  }
}

// --- events ---

$("file").addEventListener("change", (event) => choose(event.target.files[0]));
$("again").addEventListener("click", reset);
$("slider").addEventListener("input", slide);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
form.addEventListener("change", (event) => {
  if (event.target === $("key")) {
    if ($("models").options.length === 1) loadModels();
    return;
  }
  $("colour").hidden = $("background").value !== "colour";
  if ($("format").value === "jpeg" && ["", "transparent"].includes($("background").value)
      && $("recipe").value !== "catalog" && !$("mask_only").checked && $("recipe").value !== "mask") {
    $("background").value = "white";
  }
  describe();
  run();
});
addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files][0];
  if (file) choose(file);
  else if (event.target !== $("key")) say("The clipboard has no image.");
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const file = event.dataTransfer.files[0];
  if (file) choose(file);
  else say("Only files can be dropped here.");
});

describe();
loadModels();
