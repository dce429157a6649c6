// The gallery: the pickers, the address bar, and what connects the sheet, the panel and the sources of images.
import { INDEX_END } from "./noise.js";
import { countOn, npz, png } from "./pictures.js";
import { Panel } from "./panel.js";
import { Sheet } from "./sheet.js";
import { Computer, ProblemError, Server, Site } from "./source.js";

const $ = (id) => document.getElementById(id);
const MEASURED = 2048; // images by which the speed of computing is shown
const AGAIN_MS = 2000;
const isServer = document.querySelector("meta[name=bgan-source]").content === "server";
const FIRST_SEED = isServer ? 1n : 0n; // a folder has images of seed 0
const says = { waiting: (text) => ($("status").textContent = text), token: askToken };
const source = isServer ? new Server(says) : new Site(says);
const computer = new Computer(source);
const state = { model: null, seed: FIRST_SEED, index: 0n, label: null, image: null };
let models = [];
let finding = null;

const sheet = new Sheet($("sheet"), loadBits, {
  moved(index) {
    state.index = index;
    showIndex();
    keepAddress();
  },
  chosen(index, isOpened) {
    if (!isOpened) speak(index);
    if (isOpened || !$("panel").hidden) openImage(index, isOpened);
  },
  loaded() {
    if (unsaid !== null && sheet.bitsOf(unsaid)) speak(unsaid);
  },
  failed: (error) => failed(error, () => sheet.reload()),
});
const panel = new Panel((model, noise) => (isComputing() ? computer : source).infer(model, noise), {
  changed: keepAddress,
  failed,
  readIndex,
});

/** Whether what the source does not have ready is computed in the page. */
function isComputing() {
  return $("compute").checked || !isServer;
}

/** Packed bits, from the source, or computed where it has none or the switch says so. */
async function loadBits({ model, ...request }, signal) {
  const found = $("compute").checked ? null : await source.bits(model, request, signal);
  if (found) return found;
  const bits = await computer.bits(model, request, signal);
  showSpeed();
  return bits;
}

/** The number that a person typed, 0 to 2^63 - 1; null, with a mark, where it is none. */
function readNumber(id, end) {
  const number = parseNumber($(id).value.replace(/[\s,_]/g, ""), end);
  $(id).setAttribute("aria-invalid", number === null);
  notice(number === null ? `${$(id).value} is no whole number from 0 to ${end - 1n}.` : "");
  return number;
}

function parseNumber(text, end) {
  return /^\d{1,19}$/.test(text) && BigInt(text) < end ? BigInt(text) : null;
}

function readIndex(id) {
  return readNumber(id, INDEX_END);
}

function labels() {
  return state.label === null ? [] : [state.label];
}

/** Shows what `state` says. */
function showAll() {
  const { model } = state;
  $("model").value = models.indexOf(model);
  $("seed").value = state.seed;
  $("class-label").hidden = !model.classes.length;
  $("class").replaceChildren(new Option("any", ""), ...model.classes.map((name, number) => new Option(name, number)));
  $("class").value = state.label ?? "";
  document.title = `${model.title}, seed ${state.seed} · bgan`;
  $("sheet").setAttribute("aria-label", `Images of ${model.title}, seed ${state.seed}`);
  showIndex();
  sheet.show(model, state.seed, labels(), state.index);
  if (state.image === null) closePanel();
  else openImage(state.image);
  keepAddress();
  if ($("compute").checked) compare();
}

function showIndex() {
  if (document.activeElement !== $("index")) $("index").value = state.index;
}

// The address bar

function readAddress() {
  const query = new URLSearchParams(location.search);
  const number = (name, end) => parseNumber(query.get(name) ?? "", end);
  const named = models.filter((each) => each.name === query.get("model"));
  const model = named.find((each) => `${each.version}` === query.get("version")) ?? named[0];
  state.model = model ?? usual();
  state.seed = number("seed", INDEX_END + 1n) ?? FIRST_SEED;
  state.index = number("index", INDEX_END) ?? 0n;
  state.image = number("image", INDEX_END);
  const label = state.model.classes.indexOf(query.get("class"));
  state.label = label < 0 ? null : label;
  panel.target = number("to", INDEX_END);
  panel.step = Math.min(100, Number(number("walk", 101n) ?? 0n));
  $("compute").checked = query.get("compute") === "here";
  const wanted = query.get("revision");
  if (query.has("model") && !model) notice(`There is no model ${query.get("model")}; this is ${state.model.title}.`);
  else if (wanted && !state.model.revision.startsWith(wanted))
    notice("The model has changed since this link was made: it shows other images.");
}

function address() {
  const { model, seed, index, label, image } = state;
  const query = new URLSearchParams({ model: model.name });
  if (model.version && models.find((each) => each.name === model.name) !== model) query.set("version", model.version);
  query.set("revision", model.revision.slice(0, 8));
  query.set("seed", seed);
  if (label !== null) query.set("class", model.classes[label]);
  if (index) query.set("index", index);
  if (image !== null) {
    query.set("image", image);
    if (panel.step) query.set("to", panel.target);
    if (panel.step) query.set("walk", panel.step);
  }
  if ($("compute").checked) query.set("compute", "here");
  return `?${query}`;
}

let addressTimer = null; // browsers refuse more than some hundred changes a minute

function keepAddress() {
  addressTimer ??= setTimeout(() => {
    addressTimer = null;
    history.replaceState(null, "", address());
    showTaking();
  }, 250);
}

// One image

let unsaid = null; // an image whose bits were not there when its number was said

function speak(index) {
  const bits = sheet.bitsOf(index);
  unsaid = bits ? null : index;
  $("spoken").textContent = `Image ${index}${bits ? `, ${countOn(bits)} pixels on` : ""}`;
}

function openImage(index, isFocused = false) {
  state.image = sheet.cursor = index;
  const { model, seed } = state;
  const own = sheet.bitsOf(index) ?? loadBits({ model, seed, first: index, count: 1, labels: labels() });
  panel.show(model, seed, labels(), index, own);
  if (isFocused) $("title").focus();
  keepAddress();
  sheet.draw();
}

function closePanel() {
  state.image = panel.index = null;
  $("panel").hidden = true;
}

// Taking images along

function wanted() {
  const most = Math.min(100_000, state.model.mostImages, Number(INDEX_END - state.image));
  const count = Math.min(Math.max(1, Math.floor(Number($("count").value)) || 1), most);
  return { seed: state.seed, first: state.image, count, labels: labels() };
}

async function download(format) {
  const { model } = state;
  const request = wanted();
  try {
    const file = isComputing() ? await makeFile(model, request, format) : await source.download(model, request, format);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = `${model.name}-seed-${request.seed}-${request.first}-${request.first + BigInt(request.count) - 1n}.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    failed(error);
  }
}

async function makeFile(model, request, format) {
  const bits = await loadBits({ model, ...request });
  if (format === "png") return png(bits, request.count, model);
  return npz(bits, request, model, panel.layout.labels(request.seed, request.first, request.count, request.labels));
}

function showTaking() {
  if (state.image === null) return;
  const { model } = state;
  const request = wanted();
  const name = state.label === null ? "" : model.classes[state.label];
  if (isServer) {
    const base = new URL(".", location.href);
    const url = (format) => new URL(source.address(model, request, format), base).href.replaceAll("'", "%27");
    const isClosed = source.fetcher.token !== null;
    $("curl").textContent = `curl ${isClosed ? '-H "Authorization: Bearer $BGAN_TOKEN" ' : ""}-o images.png '${url("png")}'`;
    const opened = isClosed
      ? `urllib.request.Request("${url("npy")}", headers={"Authorization": "Bearer " + os.environ["BGAN_TOKEN"]})`
      : `"${url("npy")}"`;
    $("python").textContent = `import io, ${isClosed ? "os, " : ""}urllib.request, numpy as np\n` +
      `images = np.load(io.BytesIO(urllib.request.urlopen(${opened}).read()))`;
  } else {
    const file = new URL(`models/${model.revision}.onnx`, location.href);
    const label = name === "" ? "" : ` --label '${name.replaceAll("'", "'\\''")}'`;
    $("curl").textContent = `curl -o ${model.name}.onnx '${file}'`;
    $("python").textContent = `bgan generate ${model.name}.onnx --seed ${request.seed} --first-index ${request.first} -n ${request.count}${label} -o images.npz`;
  }
}

// Computing in the page

function showSpeed() {
  const { images, ms, noiseMs } = computer;
  if (images < MEASURED) return;
  const rate = Math.round((1000 * images) / ms).toLocaleString("en");
  $("computed").textContent = `${computedText} ${rate} images/s; noise takes ${Math.round((100 * noiseMs) / ms)} % of the time.`;
}

let computedText = "";

/** Compares what the page computes with what the server, or the folder, has. */
async function compare() {
  const { model } = state;
  computedText = "";
  $("computed").textContent = "Loading onnxruntime-web and the model …";
  try {
    const found = await computer.compare(model, { seed: state.seed, first: state.index, labels: labels() });
    if (state.model !== model || !$("compute").checked) return;
    const which = `images ${found.first} to ${found.first + BigInt(found.count) - 1n} of seed ${found.seed}`;
    const where = isServer ? "the server's" : "the model's";
    const digest = found.digest ? `, SHA-256 ${found.digest.slice(0, 16)}…,` : "";
    computedText = found.differing
      ? `Computed here: ${which} differ from ${where} in ${found.differing} of ${found.pixels} pixels` +
        (model.isInteger ? "." : ", as those of a model of floats may.")
      : `Computed here: ${which}${digest} are ${where}, bit for bit.`;
    $("computed").textContent = computedText;
    Object.assign($("computed").dataset, { digest: found.digest, expected: found.expected, differing: found.differing });
    showSpeed();
  } catch (error) {
    $("computed").textContent = "";
    failed(error);
    if (!isServer) return;
    $("compute").checked = false;
    sheet.reload();
  }
}

// What goes wrong

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

/** Says so, and shows another model where the one that is shown is gone. `again`: what to do where it is back. */
async function failed(error, again = null) {
  if (error.name === "AbortError") return;
  const { model } = state;
  if (error instanceof ProblemError && error.status === 404 && isServer) {
    await findModels(); // the revision is served no longer
    if (state.model !== model) return; // which another failure has seen to
    if (!models.some((each) => each.revision === model.revision)) return showInstead(model);
    if (again) return setTimeout(again, AGAIN_MS);
  }
  notice(`${error.message}.`.replace(/\.\.$/, "."));
}

function showInstead({ name, classes }) {
  const newer = models.find((each) => each.name === name);
  state.model = newer ?? usual();
  const label = state.model.classes.indexOf(classes[state.label]);
  state.label = label < 0 ? null : label;
  showAll();
  notice(newer
    ? "The model has changed: these are images of its new revision."
    : `There is no model ${name} any more; this is ${state.model.title}.`);
}

let asking = null;

/** Asks the person for a token, once for all who want one. */
function askToken(text, isWrong) {
  asking ??= new Promise((resolve) => {
    $("token-text").textContent = isWrong ? `This token does not open it: ${text}` : "This server asks for a token. Who runs it makes one by: bgan token";
    $("token-dialog").showModal();
    $("token-dialog").onclose = () => {
      asking = null;
      resolve($("token").value.trim());
    };
  });
  return asking;
}

function findModels() {
  return (finding ??= listModels().finally(() => (finding = null)));
}

async function listModels() {
  models = await source.models();
  $("model").replaceChildren(...models.map((each, number) => new Option(each.title, number)));
}

/** The model that is shown where none is asked for. */
function usual() {
  return models.find((each) => each.isDefault) ?? models[0];
}

/** Changes what is shown. */
function change(fields) {
  Object.assign(state, fields);
  showAll();
}

function listen() {
  $("pickers").onsubmit = (event) => event.preventDefault();
  $("model").onchange = () => change({ model: models[$("model").value], label: null, image: null });
  $("class").onchange = () => change({ label: $("class").value === "" ? null : Number($("class").value) });
  $("another-seed").onclick = () => change({ seed: BigInt(crypto.getRandomValues(new Uint32Array(1))[0]) });
  $("seed").onchange = () => {
    const seed = readNumber("seed", INDEX_END + 1n);
    if (seed !== null) change({ seed });
  };
  $("index").onchange = () => {
    const index = readIndex("index");
    if (index === null) return;
    state.index = index;
    sheet.jump(index);
    sheet.choose(index);
    keepAddress();
  };
  $("smaller").onclick = () => sheet.zoom(-1);
  $("larger").onclick = () => sheet.zoom(1);
  $("compute").onchange = () => {
    $("computed").textContent = "";
    notice("");
    if ($("compute").checked) compare();
    sheet.reload();
    keepAddress();
  };
  $("previous").onclick = () => sheet.choose(state.image - 1n);
  $("next").onclick = () => sheet.choose(state.image + 1n);
  $("close").onclick = () => {
    closePanel();
    keepAddress();
    $("sheet").focus();
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !$("panel").hidden && !$("token-dialog").open) $("close").click();
  });
  $("count").oninput = showTaking;
  $("png").onclick = () => download("png");
  $("npz").onclick = () => download("npz");
  $("link").onclick = async () => {
    history.replaceState(null, "", address());
    const isCopied = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
    $("status").textContent = isCopied ? "The link is copied." : "The address bar has the link.";
  };
  matchMedia("(prefers-color-scheme: dark)").onchange = () => {
    sheet.repaint();
    if (state.image !== null) openImage(state.image);
  };
}

$("start").hidden = true;
listen();
try {
  await findModels();
  readAddress();
  showAll();
} catch (error) {
  notice(error.message);
}
