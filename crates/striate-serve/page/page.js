"use strict";

const at = (id) => document.getElementById(id);
const KEPT = 12;
let models = [];
let stream = null;
let asked = 0;

/** Asks the server, with the key if there is one. */
async function ask(address, options = {}) {
  const headers = new Headers(options.headers);
  if (at("key").value) headers.set("Authorization", `Bearer ${at("key").value}`);
  let response;
  try {
    response = await fetch(address, { ...options, headers });
  } catch {
    throw new Error("The server can't be reached. Is it still running?");
  }
  if (response.ok) return response;
  if (response.status === 401) {
    at("key-box").hidden = false;
    at("key-box").open = true;
    at("key").focus();
  }
  const problem = await response.json().catch(() => ({}));
  throw new Error(problem.detail ?? `The server answered ${response.status}.`);
}

function say(text, isBad = false) {
  at("state").textContent = text;
  at("state").classList.toggle("bad", isBad);
}

async function loadModels() {
  try {
    models = (await (await ask("/v1/models")).json()).models;
  } catch (error) {
    return say(error.message, true);
  }
  at("key-box").hidden = true;
  say("");
  at("model").replaceChildren(...models.map(({ name }) => new Option(name, name)));
  await showModel();
}

const model = () => models.find(({ name }) => name === at("model").value);

async function showModel() {
  const { name, classes, input, parameters, precision, can_explain } = model();
  const [channels, height, width] = input;
  at("explain-label").hidden = !can_explain;
  const seen = `${height}x${width} ${channels === 1 ? "grey" : "coloured"} pixels`;
  at("network-about").textContent =
    `${name} tells ${classes.length} classes apart. It sees ${seen}, has ${parameters.toLocaleString("en")} parameters and computes in ${precision}.`;
  try {
    const svg = await (await ask(`/v1/models/${encodeURIComponent(name)}/network.svg`)).blob();
    URL.revokeObjectURL(at("drawing").src);
    at("drawing").src = URL.createObjectURL(svg);
    at("drawing").alt = `The layers of ${name}, from top to bottom`;
  } catch (error) {
    say(error.message, true);
  }
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;

function show({ url, name, prediction, milliseconds }) {
  const { top, unknown, times, explanation } = prediction;
  at("answer").hidden = false;
  at("picture").src = url;
  at("picture-name").textContent = name;
  at("heat-box").hidden = !explanation;
  if (explanation) {
    at("heat").src = `data:image/png;base64,${explanation.png}`;
    at("heat").alt = `Where ${explanation.class} shows, over the picture as the network sees it`;
    at("heat-about").textContent = `Red is where ${explanation.class} shows (Grad-CAM of ${explanation.layer}).`;
  }
  const best = top[0];
  at("verdict").textContent = !best ? "None of the classes" : unknown ? `Unknown, likeliest ${best.class}` : best.class;
  const rows = top.map(({ class: text, probability }) => {
    const row = document.createElement("tr");
    const [label, bar, share] = [document.createElement("th"), document.createElement("td"), document.createElement("td")];
    label.scope = "row";
    label.textContent = text;
    const progress = document.createElement("progress");
    progress.max = 1;
    progress.value = probability;
    progress.setAttribute("aria-label", text);
    bar.className = "bar";
    bar.append(progress);
    share.className = "share";
    share.textContent = percent(probability);
    row.append(label, bar, share);
    return row;
  });
  at("bars").tBodies[0].replaceChildren(...rows);
  const { decode_ms, queue_ms, compute_ms } = times;
  const parts = `decoding ${decode_ms.toFixed(1)}, waiting ${queue_ms.toFixed(1)}, computing ${compute_ms.toFixed(1)}`;
  at("times").textContent = `${milliseconds.toFixed(0)} ms in all: ${parts}.`;
}

function remember(shown) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const [image, text, share] = [document.createElement("img"), document.createElement("span"), document.createElement("span")];
  image.src = shown.url;
  image.alt = "";
  const best = shown.prediction.top[0];
  text.textContent = `${best ? best.class : "None of the classes"} (${shown.name})`;
  share.className = "soft";
  share.textContent = best ? percent(best.probability) : "";
  button.type = "button";
  button.append(image, text, share);
  button.addEventListener("click", () => {
    show(shown);
    at("answer").focus();
  });
  item.append(button);
  item.shown = shown;
  at("none").hidden = true;
  at("history").prepend(item);
  while (at("history").children.length > KEPT) {
    const last = at("history").lastElementChild;
    URL.revokeObjectURL(last.shown.url);
    last.remove();
  }
}

async function classify(file, name) {
  if (!model()) return;
  const number = ++asked;
  const url = URL.createObjectURL(file);
  say(`Asking about ${name} ...`);
  const explain = at("explain").checked && model().can_explain;
  const top = Math.max(1, Math.round(Number(at("top").value)) || 5);
  const start = performance.now();
  try {
    const address = `/v1/models/${encodeURIComponent(model().name)}/predict?top=${top}&explain=${explain}`;
    const headers = { "Content-Type": "application/octet-stream" };
    const answer = await (await ask(address, { method: "POST", headers, body: file })).json();
    const shown = { url, name, prediction: answer.predictions[0], milliseconds: performance.now() - start };
    remember(shown);
    // Of several that are asked at a time, the last one is shown.
    if (number !== asked) return;
    show(shown);
    const best = shown.prediction.top[0];
    say(best ? `${name}: ${best.class}, ${percent(best.probability)}.` : `${name}: none of the classes.`);
  } catch (error) {
    URL.revokeObjectURL(url);
    say(`${name}: ${error.message}`, true);
  }
}

async function classifyAll(files) {
  for (const file of files) await classify(file, file.name || "picture");
}

function closeCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  for (const id of ["camera", "take", "close-camera"]) at(id).hidden = true;
  at("open-camera").hidden = false;
}

async function openCamera() {
  // Browsers offer it on pages of this machine and over HTTPS.
  if (!navigator.mediaDevices) return say("The browser offers no camera here: open this page on the server's own machine, or over HTTPS.", true);
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    return say("The camera can't be used: allow it in the browser.", true);
  }
  at("camera").srcObject = stream;
  await at("camera").play();
  for (const id of ["camera", "take", "close-camera"]) at(id).hidden = false;
  at("open-camera").hidden = true;
  at("take").focus();
  say("");
}

function takePicture() {
  const canvas = document.createElement("canvas");
  const video = at("camera");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => classify(blob, "camera"), "image/jpeg", 0.95);
}

at("model").addEventListener("change", showModel);
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  loadModels();
});
at("open-camera").addEventListener("click", openCamera);
at("close-camera").addEventListener("click", closeCamera);
at("take").addEventListener("click", takePicture);
at("file").addEventListener("change", async () => {
  await classifyAll([...at("file").files]);
  at("file").value = "";
});
const drop = at("drop");
drop.addEventListener("click", (event) => event.target === at("file") || at("file").click());
drop.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" && event.key !== " ") return;
  event.preventDefault();
  at("file").click();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
  });
}
document.addEventListener("drop", (event) => classifyAll([...event.dataTransfer.files]));
document.addEventListener("paste", (event) => classifyAll([...event.clipboardData.files]));

loadModels();
