// A model's file run by onnxruntime-web: the same images as a server's.
import { NoiseLayout } from "./noise.js";

const ROWS = 128; // of one inference

/** The noise layout of a model, as `source.js` describes it. */
export function layoutOf(model) {
  return new NoiseLayout({
    latentSize: model.latentSize,
    uniformCount: model.isStochastic ? model.pixels : 0,
    classCount: model.classes.length,
    classCounts: model.classCounts,
    innerCount: model.innerCount,
  });
}

/** Images as packed bits: one bit a pixel, the most significant first, each image padded to a whole byte. */
export function pack(images, rows) {
  const pixels = images.length / rows;
  const width = Math.ceil(pixels / 8);
  const bits = new Uint8Array(rows * width);
  for (let row = 0, at = 0; row < rows; row++)
    for (let pixel = 0; pixel < pixels; pixel++, at++) bits[row * width + (pixel >> 3)] |= images[at] << (7 - (pixel & 7));
  return bits;
}

export class Generator {
  constructor(ort, session, model) {
    Object.assign(this, { ort, session, model, layout: layoutOf(model), noiseMs: 0 });
  }

  /** `ort`: the package; `content`: the bytes of the model's file. */
  static async open(ort, content, model) {
    const session = await ort.InferenceSession.create(content, { executionProviders: ["wasm"] });
    return new Generator(ort, session, model);
  }

  /** Packed images `first` (BigInt) and those after it of a seed. */
  async bits({ seed, first, count, labels = [] }) {
    const parts = new Uint8Array(count * this.model.bytes);
    for (let done = 0; done < count; done += ROWS) {
      const rows = Math.min(ROWS, count - done);
      const started = performance.now();
      const noise = this.layout.draw(seed, first + BigInt(done), rows, labels);
      this.noiseMs += performance.now() - started;
      const { images } = await this.run(noise, ["images"]);
      parts.set(pack(images.data, rows), done * this.model.bytes);
    }
    return parts;
  }

  /** The graph's images and probabilities of given noise, and where it has gates, which parts ran. */
  async infer(noise) {
    const outputs = ["images", "probabilities", ...(this.model.parts ? ["gates"] : [])];
    const found = await this.run(noise, outputs);
    return Object.fromEntries(outputs.map((name) => [name, found[name].data]));
  }

  run({ latents, uniforms, labels, inner }, outputs) {
    const { Tensor } = this.ort;
    const rows = latents.length / this.model.latentSize;
    const feeds = { latents: new Tensor("float32", latents, [rows, this.model.latentSize]) };
    if (uniforms) feeds.uniforms = new Tensor("float32", uniforms, [rows, ...this.model.shape]);
    if (labels) feeds.labels = new Tensor("int64", BigInt64Array.from(labels, BigInt), [rows]);
    if (inner) feeds.inner_uniforms = new Tensor("float32", inner, [rows, this.model.innerCount]);
    return this.session.run(feeds, outputs);
  }
}
