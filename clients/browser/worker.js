// Runs generators off the page's own thread. Each message is {id, call, model, ...}; its answer {id, value} or {id, error}.
import * as ort from "./onnxruntime-web/ort.wasm.min.mjs";
import { Generator } from "./generator.js";

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("./onnxruntime-web/", import.meta.url).href;
ort.env.logLevel = "fatal";

const generators = new Map(); // by revision
const calls = {
  open: async ({ model, content }) => void generators.set(model.revision, await Generator.open(ort, content, model)),
  bits: async ({ model, request }) => {
    const generator = generators.get(model.revision);
    const started = performance.now();
    const noiseBefore = generator.noiseMs;
    const bits = await generator.bits(request);
    return { bits, ms: performance.now() - started, noiseMs: generator.noiseMs - noiseBefore };
  },
  infer: ({ model, noise }) => generators.get(model.revision).infer(noise),
};

// One at a time, for which `source.js` waits: onnxruntime-web runs one inference at a time.
self.onmessage = async ({ data }) => {
  try {
    self.postMessage({ id: data.id, value: await calls[data.call](data) });
  } catch (error) {
    self.postMessage({ id: data.id, error: String(error.message ?? error) });
  }
};
