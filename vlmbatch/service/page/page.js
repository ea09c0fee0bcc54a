// The page of the service. Texts of models and images are untrusted: they reach the page only as textContent.

const $ = (id) => document.getElementById(id);
const copyOf = (template) => $(template).content.firstElementChild.cloneNode(true);

const REASONS = {
  bad_image: "The image cannot be read.",
  too_large: "The image is too large.",
  body_too_large: "The image is too large.",
  not_an_image: "The file is not an image.",
  bad_option: "A field is wrong.",
  rate_limited: "Too many requests were sent.",
  overloaded: "The service is busy.",
  stopping: "The service is stopping.",
  bad_shape: "The image is too narrow or too small.",
  timeout: "The answer took too long.",
  connection: "The connection was lost.",
  down: "The model is not available.",
  busy: "The service is busy.",
  rejected: "The model refused the image.",
  refused: "The model refused the image.",
  context: "The image and the prompt are too long for the model.",
  empty: "The model gave no answer.",
  truncated: "The answer is not complete.",
  degenerate: "The answer is not usable.",
  bad_schema: "The answer is not usable.",
  model_not_found: "The service does not have this model.",
  no_vision: "This model cannot see images.",
};

const KINDS_OF_STATUS = { 413: "body_too_large", 429: "busy", 503: "busy", 504: "timeout" }; // of a proxy
const LONGEST_WAIT_S = 3600;

class Failed extends Error {
  // status: HTTP, 0 without a reply; wait: seconds until the service takes the next request
  constructor({ message, kind = "", status = 0, wait = 0, request = "" }) {
    super(message);
    Object.assign(this, { kind, status, wait, request });
  }
}

// requests

let key = "";
const kept = keptStorage();

function keptStorage() {
  try {
    return window.sessionStorage;
  } catch (error) {
    if (error.name === "SecurityError") return null; // the user's browser blocks storage
    throw error;
  }
}

async function request(path, options = {}) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  let response, text;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", redirect: "error" });
    text = await response.text();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    const message = "The service cannot be reached. Check the network, and try again.";
    throw new Failed({ kind: "connection", message });
  }
  const body = parsed(text);
  if (!response.ok || body === null || body.error) throw failureIn(response, body ?? {});
  return body;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

function failureIn(response, body) {
  const { status, headers } = response;
  const advice = status === 413 ? "Choose a smaller image." : "Try again later.";
  return new Failed({
    message: body.error?.message ?? `A proxy in front of the service sent the status ${status}. ${advice}`,
    kind: body.error?.kind ?? KINDS_OF_STATUS[status] ?? "",
    status,
    wait: Math.min(LONGEST_WAIT_S, Math.max(0, Math.ceil(Number(headers.get("Retry-After")) || 0))),
    request: body.request_id ?? "",
  });
}

// the key and the models

function askForKey(message) {
  if ($("access").hidden) {
    $("access").hidden = false;
    $("key").focus();
  }
  $("forget").hidden = true;
  $("key-message").textContent = message;
}

async function loadModels() {
  let models;
  try {
    models = (await request("v1/models")).data.map((model) => model.id);
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    if (error.status === 401) askForKey(key ? error.message : "The service needs an API key.");
    else $("message").textContent = `The list of models cannot be read. ${error.message}`;
    return;
  }
  $("access").hidden = true;
  $("forget").hidden = !key;
  $("models").hidden = models.length < 2;
  $("model").replaceChildren(new Option("Model of the service", ""), ...models.map((id) => new Option(id, id)));
  sendNext();
}

async function useKey(event) {
  event.preventDefault();
  key = $("key").value.trim();
  $("key").value = "";
  await loadModels();
  if (!$("access").hidden) {
    $("key").focus();
    return;
  }
  if ($("keep").checked) kept?.setItem("key", key);
  $("prompt").focus();
}

function forgetKey() {
  key = "";
  kept?.removeItem("key");
  loadModels();
}

// images to send

const NO_PREVIEW =
  "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 48 48' fill='none' " +
  "stroke='%237c8591' stroke-width='1.5'%3E%3Cpath d='M12 15h24v18H12zM12 29l7-6 6 5 5-4 6 5'/%3E%3C/svg%3E";

const chosen = new Map(); // item of the list -> file

function add(files) {
  const refused = [];
  for (const file of files) {
    if (file.type && !file.type.startsWith("image/")) refused.push(file.name);
    else addItem(file);
  }
  const plural = refused.length > 1 ? "are not images" : "is not an image";
  $("message").textContent = refused.length ? `${refused.join(", ")} ${plural}. Choose another file.` : "";
}

function addItem(file) {
  const item = copyOf("chosen-item");
  const remove = item.querySelector("button");
  preview(item.querySelector("img"), file);
  item.querySelector(".name").textContent = file.name;
  remove.setAttribute("aria-label", `Remove ${file.name}`);
  remove.addEventListener("click", () => {
    const next = item.nextElementSibling ?? item.previousElementSibling;
    URL.revokeObjectURL(item.querySelector("img").src);
    take(item);
    (next?.querySelector("button") ?? $("choose")).focus();
  });
  chosen.set(item, file);
  $("chosen").append(item);
  $("chosen").hidden = false;
}

function take(item) {
  chosen.delete(item);
  item.remove();
  $("chosen").hidden = chosen.size === 0;
}

function preview(image, file) {
  image.addEventListener("error", () => (image.src = NO_PREVIEW), { once: true }); // most browsers cannot show HEIC
  image.src = URL.createObjectURL(file);
}

function pasted(event) {
  const { files, types } = event.clipboardData;
  const isText = types.includes("text/plain") && document.activeElement.matches("input, textarea");
  if (!files.length || isText) return;
  event.preventDefault();
  add(files);
}

function draggedOver(event) {
  if (!event.dataTransfer.types.includes("Files")) return; // such as text for the prompt
  event.preventDefault();
  document.body.classList.add("over");
}

function draggedAway(event) {
  if (!event.relatedTarget) document.body.classList.remove("over");
}

function dropped(event) {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  document.body.classList.remove("over");
  add(event.dataTransfer.files);
}

// sending, one image after the other

const line = []; // the answers that wait, in the order of sending
let isSending = false;
let heldUntil = 0; // the service takes no request before this time, in milliseconds

function send(event) {
  event.preventDefault();
  if (!chosen.size) {
    $("message").textContent = "Choose an image first.";
    $("choose").focus();
    return;
  }
  const fields = [...new FormData($("question"))].filter(([, value]) => value !== "");
  const answers = [...chosen].map(([item, file]) => {
    URL.revokeObjectURL(item.querySelector("img").src);
    take(item);
    return new Answer(file, fields);
  });
  $("message").textContent = answers.length > 1 ? `${answers.length} images are sent one after the other.` : "";
  answers.at(-1).node.scrollIntoView({ block: "nearest" });
  sendNext();
}

async function sendNext() {
  if (isSending || !line.length) return;
  const wait = heldUntil - performance.now();
  if (wait > 0) {
    setTimeout(sendNext, wait);
    return;
  }
  isSending = true;
  try {
    await line.shift().send();
  } finally {
    isSending = false;
  }
  if ($("access").hidden) sendNext();
}

class Answer {
  constructor(file, fields) {
    Object.assign(this, { file, fields, node: copyOf("answer"), stop: null, timer: 0 });
    const title = this.part(".name");
    title.textContent = file.name;
    title.id = `answer-${$("answers").childElementCount}`;
    preview(this.part("img"), file);
    this.part(".asked").textContent = Object.fromEntries(fields).prompt;
    for (const button of this.node.querySelectorAll("button")) {
      button.setAttribute("aria-describedby", title.id);
      button.addEventListener("click", () => this[button.dataset.does](button));
    }
    $("answers").prepend(this.node);
    $("none").hidden = true;
    this.wait();
  }

  part(selector) {
    return this.node.querySelector(selector);
  }

  // shows one state, and the buttons that belong to it
  show({ state = "", text = "", isBad = false, facts = [], warnings = [] }, ...buttons) {
    clearInterval(this.timer);
    const hadFocus = this.node.contains(document.activeElement);
    this.part(".state").textContent = state;
    this.part(".state").classList.toggle("bad", isBad);
    this.part(".text").textContent = text;
    this.part(".facts").textContent = facts.filter(Boolean).join(" · ");
    this.part(".warnings").replaceChildren(...warnings.map(listed));
    for (const button of this.node.querySelectorAll("button")) {
      button.hidden = !buttons.includes(button.dataset.does);
    }
    if (hadFocus && document.activeElement.hidden) this.part("button:not([hidden])").focus();
  }

  wait() {
    this.show({ state: "Waiting in line." }, "cancel");
    line.push(this);
  }

  async send() {
    this.stop = new AbortController();
    this.show({ state: "Waiting for the answer." }, "cancel");
    this.each((seconds) => (this.part(".facts").textContent = `${seconds} s`));
    try {
      await this.check();
      const options = { method: "POST", body: this.body(), signal: this.stop.signal };
      this.answered(await request("analyze/upload", options));
    } catch (error) {
      if (error.name === "AbortError") this.cancelled();
      else if (error instanceof Failed) this.failed(error);
      else throw error;
    } finally {
      this.stop = null;
    }
  }

  // calls this function now and then once a second, until the next state
  each(tell) {
    let seconds = 0;
    const start = performance.now();
    tell(seconds);
    this.timer = setInterval(() => {
      const now = Math.floor((performance.now() - start) / 1000);
      if (now !== seconds) tell((seconds = now));
    }, 100);
  }

  async check() {
    try {
      await this.file.slice(0, 1).arrayBuffer();
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
      const message = "The browser cannot read the file: it is a folder, or it has changed. Choose it again.";
      throw new Failed({ kind: "bad_image", message });
    }
  }

  body() {
    const body = new FormData();
    for (const [name, value] of this.fields) body.append(name, value);
    body.append("file", this.file, this.file.name);
    return body;
  }

  answered({ result, model, duration_s: seconds, image, usage, warnings, cached }) {
    const text = result || "";
    const facts = [
      model,
      Number.isFinite(seconds) && `${seconds.toFixed(1)} s`,
      sizes(image ?? {}),
      usage?.output_tokens && `${usage.output_tokens} tokens`,
      cached && "answer of an earlier request",
    ];
    const state = text ? "" : "The answer is empty.";
    this.show({ state, text, facts, warnings: warnings ?? [] }, ...(text ? ["copy", "reuse"] : ["reuse"]));
  }

  failed(error) {
    const isKey = error.status === 401;
    const state = isKey ? "The service needs an API key." : REASONS[error.kind] ?? "The image has no answer.";
    const facts = [error.kind && `kind: ${error.kind}`, error.request && `request: ${error.request}`];
    this.show({ state, text: error.message, isBad: true, facts }, "retry", isKey ? "cancel" : "reuse");
    if (isKey) {
      line.unshift(this);
      askForKey(key ? error.message : "The service needs an API key.");
    } else if (error.wait) {
      this.hold(error.wait);
    }
  }

  // keeps all images of the line back for this many seconds
  hold(wait) {
    const retry = this.part('[data-does="retry"]');
    heldUntil = performance.now() + wait * 1000;
    this.each((seconds) => {
      const isOver = seconds >= wait;
      retry.ariaDisabled = String(!isOver); // it keeps the focus, which a disabled button would lose
      retry.textContent = isOver ? "Try again" : `Try again in ${wait - seconds} s`;
      if (isOver) clearInterval(this.timer);
    });
  }

  cancelled() {
    this.show({ state: "Cancelled." }, "retry", "reuse");
  }

  cancel() {
    if (this.stop) this.stop.abort();
    else {
      line.splice(line.indexOf(this), 1);
      this.cancelled();
    }
  }

  retry(button) {
    if (button.ariaDisabled === "true") return;
    if (!line.includes(this)) this.wait();
    sendNext();
  }

  reuse() {
    add([this.file]);
    $("prompt").focus();
  }

  async copy(button) {
    const text = this.part(".text");
    getSelection().selectAllChildren(text);
    const isCopied = await copied(text.textContent);
    button.textContent = isCopied ? "Copied" : "Press Ctrl+C";
    $("message").textContent = isCopied ? "The answer is copied." : "Press Ctrl+C to copy the answer.";
    setTimeout(() => (button.textContent = "Copy"), 3000);
  }
}

async function copied(text) {
  if (!navigator.clipboard) return document.execCommand("copy"); // a page over plain HTTP has no clipboard
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch (error) {
    if (error.name === "NotAllowedError") return false;
    throw error;
  }
}

function listed(text) {
  const item = document.createElement("li");
  item.textContent = text;
  return item;
}

function sizes({ width, height, sent_width: sentWidth, sent_height: sentHeight }) {
  if (!sentWidth) return "";
  const isSmaller = width && (width !== sentWidth || height !== sentHeight);
  return `sent as ${sentWidth} × ${sentHeight}` + (isSmaller ? ` instead of ${width} × ${height}` : "");
}

function pressed(event) {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.target.closest("#access")) return;
  event.preventDefault();
  $("question").requestSubmit();
}

function openAround(event) {
  const details = event.target.closest("details");
  if (details) details.open = true; // so that the browser can show what is wrong with the field
}

// events

for (const id of ["choose", "camera"]) {
  $(id).addEventListener("change", () => {
    add($(id).files);
    $(id).value = "";
  });
}
$("access").addEventListener("submit", useKey);
$("forget").addEventListener("click", forgetKey);
$("question").addEventListener("submit", send);
$("question").addEventListener("invalid", openAround, true);
document.addEventListener("paste", pasted);
document.addEventListener("drop", dropped);
document.addEventListener("dragover", draggedOver);
document.addEventListener("dragleave", draggedAway);
document.addEventListener("keydown", pressed);

key = kept?.getItem("key") ?? "";
loadModels();
