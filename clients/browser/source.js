// Where images come from: a server, a folder of files without one, or the page's own worker.
import { INDEX_END } from "./noise.js";

const RETRY_MS = [500, 1000, 2000, 5000];
const TRANSIENT = new Set([429, 502, 503, 504]);
const PART = 128; // images that are compared at once, so that others, which are looked at, come between
const REFERENCE = 1024; // images whose bits a folder has, and which a computation is compared with

/** An answer that is an error, in the words of the server. */
export class ProblemError extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** A served model's manifest and revision, as the page needs them. */
function describe({ model, revision, version = "0", is_default: isDefault = false }, limits) {
  const { channels, height, width } = model.image_shape;
  const pixels = channels * height * width;
  const number = Number(version);
  return {
    name: model.name, revision, version: number, isDefault, pixels,
    title: number ? `${model.name}, version ${number}` : model.name,
    shape: [channels, height, width],
    bytes: Math.ceil(pixels / 8),
    latentSize: model.latent_size,
    isStochastic: model.binarization === "BINARIZATION_BERNOULLI",
    isInteger: model.arithmetic === "ARITHMETIC_INTEGER",
    classes: model.classes ?? [],
    classCounts: (model.class_counts ?? []).map(Number),
    parts: model.gates?.count ?? 0, // which gates turn on for each image
    innerCount: model.inner_uniform_count ?? 0,
    mostImages: Number(limits?.max_image_count ?? 1e9),
  };
}

/** Fetches, with the token that the person gave, and again while the server does not answer. */
class Fetcher {
  /** `says.waiting(text)`: why nothing comes; "" once it does. `says.token()`: asks for one. */
  constructor(says) {
    this.says = says;
    this.token = sessionStorage.getItem("bgan-token");
  }

  async get(path, { signal, ...options } = {}) {
    for (let tries = 0; ; tries++) {
      const headers = { ...options.headers };
      const { token } = this;
      if (token) headers.authorization = `Bearer ${token}`;
      let wait = RETRY_MS[Math.min(tries, RETRY_MS.length - 1)];
      try {
        const response = await fetch(path, { ...options, headers, signal });
        if (response.ok) {
          const body = await response.arrayBuffer(); // whose end may be missing, too
          this.says.waiting("");
          return { headers: response.headers, body };
        }
        const text = await problemOf(response);
        if (response.status === 401) {
          if (this.token === token) this.keep(await this.says.token(text, token !== null));
          continue; // or with the token that was given meanwhile
        }
        if (!TRANSIENT.has(response.status)) throw new ProblemError(response.status, text);
        wait = Math.max(wait, 1000 * Number(response.headers.get("retry-after") ?? 0));
        this.says.waiting(`${text}. Trying again.`);
      } catch (error) {
        if (error instanceof ProblemError || error.name === "AbortError") throw error;
        this.says.waiting("The server does not answer. Trying again.");
      }
      await pause(wait, signal);
    }
  }

  /** `token`: "" where the person gave none. */
  keep(token) {
    this.token = token || null;
    if (token) sessionStorage.setItem("bgan-token", token);
    else sessionStorage.removeItem("bgan-token");
  }
}

async function problemOf(response) {
  try {
    return (await response.json()).detail;
  } catch {
    return `The server answers with status ${response.status}`;
  }
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** A `bgan serve`, on the port that the page itself comes from. */
export class Server {
  constructor(says) {
    this.fetcher = new Fetcher(says);
  }

  /** Those that it serves, once there are some. */
  async models() {
    for (;;) {
      const pages = [];
      for (let token = ""; token !== undefined; token = pages.at(-1).next_page_token || undefined) {
        const { body } = await this.fetcher.get(`v1/models${token && `?${new URLSearchParams({ page_token: token })}`}`);
        pages.push(JSON.parse(new TextDecoder().decode(body)));
      }
      const models = pages.flatMap(({ models = [], limits }) => models.map((each) => describe(each, limits)));
      if (models.length) return models;
      this.fetcher.says.waiting("The server has no models. Trying again.");
      await pause(RETRY_MS.at(-1));
    }
  }

  /** The address of images. They never change, so that browsers keep them. */
  address(model, { seed, first, count, labels = [] }, format) {
    const query = new URLSearchParams({ seed, first_index: first, count, format });
    for (const label of labels) query.append("label", model.classes[label]);
    return `v1/revisions/${model.revision}/images?${query}`;
  }

  async bits(model, request, signal) {
    return new Uint8Array((await this.fetcher.get(this.address(model, request, "bits"), { signal })).body);
  }

  /** The graph's images and probabilities of given noise, and where it has gates, which parts ran. */
  async infer(model, { latents, uniforms, labels, inner }, signal) {
    const rows = latents.length / model.latentSize;
    const tensors = [["latents", "FP32", [rows, model.latentSize], latents]];
    if (uniforms) tensors.push(["uniforms", "FP32", [rows, ...model.shape], uniforms]);
    if (labels) tensors.push(["labels", "INT64", [rows], BigInt64Array.from(labels, BigInt)]);
    if (inner) tensors.push(["inner_uniforms", "FP32", [rows, model.innerCount], inner]);
    const inputs = tensors.map(([name, datatype, shape, { byteLength }]) =>
      ({ name, datatype, shape, parameters: { binary_data_size: byteLength } }));
    const head = new TextEncoder().encode(JSON.stringify({ inputs, parameters: { binary_data_output: true } }));
    const { headers, body } = await this.fetcher.get(`v2/models/${model.name}/versions/${model.revision}/infer`, {
      method: "POST",
      headers: { "inference-header-content-length": head.length },
      body: new Blob([head, ...tensors.map((tensor) => tensor[3])]),
      signal,
    });
    return readTensors(body, Number(headers.get("inference-header-content-length")));
  }

  async file(model, signal) {
    return (await this.fetcher.get(`v1/revisions/${model.revision}/file`, { signal })).body;
  }

  /** A file of images, as the server writes it. */
  async download(model, request, format) {
    return new Blob([(await this.fetcher.get(this.address(model, request, format))).body]);
  }

  /** Images that what the page computes is compared with. */
  async reference(model, request) {
    const wanted = { ...request, count: Math.min(REFERENCE, model.mostImages, Number(INDEX_END - request.first)) };
    return { ...wanted, bits: await this.bits(model, wanted) };
  }
}

function readTensors(body, length) {
  const { outputs } = JSON.parse(new TextDecoder().decode(body.slice(0, length)));
  const found = {};
  for (const { name, datatype, parameters } of outputs) {
    const bytes = body.slice(length, (length += parameters.binary_data_size));
    found[name] = datatype === "FP32" ? new Float32Array(bytes) : new Uint8Array(bytes);
  }
  return found;
}

/** A folder that `bgan gallery` wrote: models, and the first images of seed 0 of each. All else is computed here. */
export class Site {
  constructor(says) {
    this.fetcher = new Fetcher(says);
    this.first = new Map();
  }

  async models() {
    const { models } = JSON.parse(new TextDecoder().decode((await this.fetcher.get("models.json")).body));
    return models.map((each) => describe(each));
  }

  /** Null where it has to be computed. */
  async bits(model, { seed, first, count, labels = [] }) {
    if (BigInt(seed) || labels.length || first + BigInt(count) > REFERENCE) return null;
    const { bits } = await this.reference(model);
    return bits.slice(Number(first) * model.bytes, (Number(first) + count) * model.bytes);
  }

  async file(model, signal) {
    return (await this.fetcher.get(`models/${model.revision}.onnx`, { signal })).body;
  }

  async reference(model) {
    const { revision } = model;
    if (!this.first.has(revision)) this.first.set(revision, this.fetcher.get(`models/${revision}.bits`));
    return { seed: 0n, first: 0n, count: REFERENCE, bits: new Uint8Array((await this.first.get(revision)).body) };
  }
}

/** Computes in a worker, which is started, with its WebAssembly, when it is first asked for something. */
export class Computer {
  constructor(source) {
    this.source = source;
    this.opened = new Map(); // promises, by revision
    this.pending = new Map();
    this.last = Promise.resolve();
    this.images = this.ms = this.noiseMs = 0;
  }

  async bits(model, request, signal) {
    await this.open(model);
    const { bits, ms, noiseMs } = await this.call("bits", { model, request }, signal);
    this.images += request.count;
    this.ms += ms;
    this.noiseMs += noiseMs;
    return bits;
  }

  async infer(model, noise) {
    await this.open(model);
    return this.call("infer", { model, noise });
  }

  open(model) {
    if (!this.opened.has(model.revision)) {
      const opening = this.source.file(model).then((content) => this.call("open", { model, content: new Uint8Array(content) }));
      this.opened.set(model.revision, opening);
      opening.catch(() => this.opened.delete(model.revision));
    }
    return this.opened.get(model.revision);
  }

  /** Asks the worker, which does one thing at a time: what is no longer wanted when its turn comes is left out. */
  call(call, more, signal) {
    const answer = this.last.then(() => {
      signal?.throwIfAborted();
      return this.post(call, more);
    });
    this.last = answer.catch(() => {});
    return answer;
  }

  post(call, more) {
    this.worker ??= this.start();
    const id = crypto.getRandomValues(new Uint32Array(2)).join("-");
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve, reject });
      this.worker.postMessage({ id, call, ...more });
    });
  }

  start() {
    const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data: { id, value, error } }) => {
      const { resolve, reject } = this.pending.get(id);
      this.pending.delete(id);
      if (error === undefined) resolve(value);
      else reject(new Error(error));
    };
    worker.onerror = () => {
      const error = new Error("onnxruntime-web is not here; `make browser` fetches it, or --http-runtime names it to the server");
      for (const { reject } of this.pending.values()) reject(error);
      this.pending.clear();
      this.opened.clear();
      this.worker = null;
    };
    return worker;
  }

  /** Compares what the page computes with images from elsewhere: {count, digest, expected, pixels, differing}. */
  async compare(model, request) {
    const reference = await this.source.reference(model, request);
    const { seed, first, count, labels, bits: expected } = reference;
    const found = new Uint8Array(expected.length);
    for (let done = 0; done < count; done += PART) {
      const part = { seed, first: first + BigInt(done), count: Math.min(PART, count - done), labels };
      found.set(await this.bits(model, part), done * model.bytes);
    }
    let differing = 0;
    for (let i = 0; i < found.length; i++)
      for (let bits = found[i] ^ expected[i]; bits; bits &= bits - 1) differing++;
    const [digest, other] = await Promise.all([digestOf(found), digestOf(expected)]);
    return { seed, first, count, digest, expected: other, differing, pixels: count * model.pixels };
  }
}

/** SHA-256 in hexadecimal; null on pages without https, which have none. */
async function digestOf(bytes) {
  if (!globalThis.crypto?.subtle) return null;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
