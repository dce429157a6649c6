// Noise layouts 1 to 3 (serving/models/noise.py): the latents, uniforms and label of image i of a seed.
import { Philox } from "./philox.js";

export const INDEX_END = 2n ** 63n - 1n; // where the indices of every stream end, and the largest seed
const TABLE_CHECK = 0xbe7c6ca1; // of the table of quantiles, as `check` computes it

/** Where one model's latents, uniforms and label lie within the words of an image. */
export class NoiseLayout {
  /** `classCounts`: how many images each class had, where that is known. `innerCount`: uniforms of inner neurons. */
  constructor({ latentSize, uniformCount = 0, classCount = 0, classCounts = [], innerCount = 0 }) {
    Object.assign(this, { latentSize, uniformCount, classCount, innerCount });
    let total = 0;
    const counts = classCounts.length ? classCounts : Array(classCount).fill(1);
    this.classEnds = counts.map((count) => (total += Number(count)));
    this.latentWords = Math.ceil(latentSize / 4);
    this.labelWord = this.latentWords + Math.ceil(uniformCount / 2);
    this.innerWord = this.labelWord + (classCount ? 1 : 0);
    this.counters = Math.ceil((this.innerWord + Math.ceil(innerCount / 2)) / 4);
    this.philox = new Philox(this.counters);
    this.halves = new Uint16Array(this.philox.words.buffer);
  }

  /** The noise of `count` images from index `first` on (BigInt): latents and uniforms as Float32Array, labels. */
  draw(seed, first, count, labels = []) {
    const { latentSize, uniformCount, innerCount, latentWords, innerWord, halves } = this;
    const { words } = this.philox;
    const latents = new Float32Array(count * latentSize);
    const uniforms = uniformCount ? new Float32Array(count * uniformCount) : null;
    const inner = innerCount ? new Float32Array(count * innerCount) : null;
    const drawn = this.classCount ? new Int32Array(count) : null;
    const table = quantiles();
    for (let row = 0; row < count; row++) {
      this.philox.draw(seed, (BigInt(first) + BigInt(row)) * BigInt(this.counters));
      for (let i = 0, at = row * latentSize; i < latentSize; i++) latents[at + i] = table[halves[i]];
      for (let i = 0, at = row * uniformCount; i < uniformCount; i++)
        uniforms[at + i] = (words[2 * latentWords + i] >>> 8) * 2 ** -24;
      for (let i = 0, at = row * innerCount; i < innerCount; i++) inner[at + i] = (words[2 * innerWord + i] >>> 8) * 2 ** -24;
      if (drawn) drawn[row] = labels.length ? labelOf(labels, first, row) : this.labelOf(words[2 * this.labelWord]);
    }
    return { latents, uniforms, labels: drawn, inner };
  }

  /** The labels alone, of any number of images; null without classes. */
  labels(seed, first, count, labels = []) {
    if (!this.classCount) return null;
    return Int32Array.from({ length: count }, (_, row) => {
      if (labels.length) return labelOf(labels, first, row);
      this.philox.draw(seed, (BigInt(first) + BigInt(row)) * BigInt(this.counters));
      return this.labelOf(this.philox.words[2 * this.labelWord]);
    });
  }

  labelOf(half) {
    const image = highOfProduct(half, this.classEnds.at(-1));
    return this.classEnds.findIndex((end) => image < end);
  }
}

/** Image i is of the class labels[i mod their number]. */
function labelOf(labels, first, row) {
  return labels[Number((BigInt(first) + BigInt(row)) % BigInt(labels.length))];
}

/** The high half of the product of two unsigned 32-bit integers. */
function highOfProduct(a, b) {
  return Number((BigInt(a) * BigInt(b)) >> 32n);
}

let table = null;

/** The 65,536 normal quantiles of (k + 1/2) / 65536 in float32. Throws where this browser computes other bits. */
export function quantiles() {
  if (table) return table;
  const found = new Float32Array(65536);
  for (let k = 0; k < 32768; k++) found[k] = -(found[65535 - k] = quantile((65535 - k + 0.5) / 65536));
  if (check(new Uint32Array(found.buffer)) !== TABLE_CHECK)
    throw new Error("this browser's arithmetic gives other normal quantiles; it cannot compute the images");
  return (table = found);
}

/** FNV-1a over 32-bit words; pages without https have no SHA-256. */
export function check(words) {
  return words.reduce((hash, word) => Math.imul(hash ^ word, 16777619), 0x811c9dc5 | 0) >>> 0;
}

const CENTRE = [
  [2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
    13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608],
  [5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
    5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0],
];
const NEAR = [
  [7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
    3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734],
  [1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
    0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0],
];
const FAR = [
  [2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
    0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772],
  [2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
    0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0],
];

/** The normal quantile of p, at least 1/2 (Wichura 1988, algorithm AS 241). */
function quantile(p) {
  const q = p - 0.5;
  if (q <= 0.425) return q * ratio(CENTRE, 0.180625 - q * q);
  const r = Math.sqrt(-Math.log(1 - p));
  return r <= 5 ? ratio(NEAR, r - 1.6) : ratio(FAR, r - 5);
}

function ratio([above, below], x) {
  const horner = (coefficients) => coefficients.reduce((sum, each) => sum * x + each, 0);
  return horner(above) / horner(below);
}
