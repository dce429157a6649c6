// As run_model.py, with onnxruntime-web: WebAssembly in Node.js. It is started in the folder that has the package.
import { readFileSync, readSync, writeSync } from "node:fs";
import { createRequire } from "node:module";

const ort = createRequire(`${process.cwd()}/`)("onnxruntime-web");
const KINDS = { float32: [Float32Array, 4], int64: [BigInt64Array, 8] };

function read(bytes) {
  const content = new Uint8Array(bytes);
  for (let at = 0; at < bytes; ) {
    const count = readSync(0, content, at, bytes - at);
    if (!count) return null;
    at += count;
  }
  return content;
}

function write(content) {
  for (let at = 0; at < content.length; ) at += writeSync(1, content, at);
}

function packed(images, rows) {
  const pixels = images.length / rows;
  const width = Math.ceil(pixels / 8);
  const bits = new Uint8Array(rows * width);
  for (let row = 0; row < rows; row++)
    for (let pixel = 0; pixel < pixels; pixel++)
      bits[row * width + (pixel >> 3)] |= images[row * pixels + pixel] << (7 - (pixel & 7));
  return bits;
}

const task = JSON.parse(process.argv[2]);
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "fatal";
const session = await ort.InferenceSession.create(readFileSync(task.path), {
  executionProviders: ["wasm"],
  ...task.settings,
});
write(Buffer.from(`onnxruntime-web ${ort.env.versions.web} node ${process.versions.node}\n`));
for (let header; (header = read(4)); ) {
  const rows = new Uint32Array(header.buffer)[0];
  const inputs = {};
  for (const [name, [dtype, ...shape]] of Object.entries(task.inputs)) {
    const [Values, size] = KINDS[dtype];
    const content = read(shape.reduce((a, b) => a * b, rows * size));
    inputs[name] = new ort.Tensor(dtype, new Values(content.buffer), [rows, ...shape]);
  }
  const { images } = await session.run(inputs, ["images"]);
  write(packed(images.data, rows));
}
process.exit(0);
