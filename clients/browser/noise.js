// Noise layouts 1 and 2 (serving/models/noise.py): the latents, uniforms and label of image i of a seed.
// Philox 4x64-10 (Salmon et al. 2011) in 32-bit limbs; BigInt would take ten times as long.

export const INDEX_END = 2n ** 63n - 1n; // where the indices of every stream end, and the largest seed
const ROUNDS = 10;
const TABLE_CHECK = 0xbe7c6ca1; // of the table of quantiles, as `check` computes it
const TWO_32 = 2 ** 32;
// The multipliers of Philox, high and low half.
const [A1, A0, B1, B0] = Int32Array.of(0xd2e7470e, 0xe14c6c93, 0xca5a8263, 0x95121157);
const WEYL = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn];

/** Where one model's latents, uniforms and label lie within the words of an image. */
export class NoiseLayout {
  /** `classCounts`: how many images each class had, where that is known. */
  constructor({ latentSize, uniformCount = 0, classCount = 0, classCounts = [] }) {
    this.latentSize = latentSize;
    this.uniformCount = uniformCount;
    this.classCount = classCount;
    let total = 0;
    const counts = classCounts.length ? classCounts : Array(classCount).fill(1);
    this.classEnds = counts.map((count) => (total += Number(count)));
    this.latentWords = Math.ceil(latentSize / 4);
    this.labelWord = this.latentWords + Math.ceil(uniformCount / 2);
    this.counters = Math.ceil((this.labelWord + (classCount ? 1 : 0)) / 4);
    this.words = new Uint32Array(8 * this.counters);
    this.halves = new Uint16Array(this.words.buffer);
  }

  /** The noise of `count` images from index `first` on (BigInt): latents and uniforms as Float32Array, labels. */
  draw(seed, first, count, labels = []) {
    const { latentSize, uniformCount, latentWords, words, halves } = this;
    const latents = new Float32Array(count * latentSize);
    const uniforms = uniformCount ? new Float32Array(count * uniformCount) : null;
    const drawn = this.classCount ? new Int32Array(count) : null;
    const table = quantiles();
    const philox = new Philox(seed, BigInt(first) * BigInt(this.counters));
    for (let row = 0; row < count; row++) {
      philox.fill(words);
      for (let i = 0, at = row * latentSize; i < latentSize; i++) latents[at + i] = table[halves[i]];
      for (let i = 0, at = row * uniformCount; i < uniformCount; i++)
        uniforms[at + i] = (words[2 * latentWords + i] >>> 8) * 2 ** -24;
      if (drawn) drawn[row] = labels.length ? labelOf(labels, first, row) : this.labelOf(words[2 * this.labelWord]);
    }
    return { latents, uniforms, labels: drawn };
  }

  labelOf(half) {
    const image = high(half, this.classEnds.at(-1)) >>> 0;
    return this.classEnds.findIndex((end) => image < end);
  }
}

/** Image i is of the class labels[i mod their number]. */
function labelOf(labels, first, row) {
  return labels[Number((BigInt(first) + BigInt(row)) % BigInt(labels.length))];
}

/** The words of a seed from a counter on, each as its low and its high half; integers are signed 32-bit ones. */
class Philox {
  constructor(seed, counter) {
    this.keys = new Int32Array(4 * ROUNDS);
    for (let round = 0; round < ROUNDS; round++)
      [BigInt(seed), 0n].forEach((key, i) => {
        const value = BigInt.asUintN(64, key + BigInt(round) * WEYL[i]);
        this.keys[4 * round + 2 * i] = Number(value & 0xffffffffn);
        this.keys[4 * round + 2 * i + 1] = Number(value >> 32n);
      });
    this.counter = Int32Array.from({ length: 4 }, (_, i) => Number((counter >> BigInt(32 * i)) & 0xffffffffn));
  }

  fill(words) {
    const { keys, counter } = this;
    for (let at = 0; at < words.length; at += 8) {
      for (let i = 0; i < 4 && !(counter[i] += 1, counter[i]); i++); // numpy advances it first
      let [x0, x1, y0, y1] = counter;
      let z0 = 0, z1 = 0, w0 = 0, w1 = 0;
      for (let k = 0; k < 4 * ROUNDS; k += 4) {
        // The 128-bit products of x and A, and of z and B, in four limbs: p0 to p3 and q0 to q3.
        const p0 = Math.imul(x0, A0), a = high(x0, A0), b = Math.imul(x0, A1), c = Math.imul(x1, A0);
        const ab = (a + b) | 0, p1 = (ab + c) | 0, d = high(x0, A1), e = high(x1, A0), f = Math.imul(x1, A1);
        const g = carry(a, b, ab) + carry(ab, c, p1), de = (d + e) | 0, def = (de + f) | 0, p2 = (def + g) | 0;
        const p3 = high(x1, A1) + carry(d, e, de) + carry(de, f, def) + carry(def, g, p2);
        const q0 = Math.imul(z0, B0), h = high(z0, B0), i = Math.imul(z0, B1), j = Math.imul(z1, B0);
        const hi = (h + i) | 0, q1 = (hi + j) | 0, l = high(z0, B1), m = high(z1, B0), n = Math.imul(z1, B1);
        const o = carry(h, i, hi) + carry(hi, j, q1), lm = (l + m) | 0, lmn = (lm + n) | 0, q2 = (lmn + o) | 0;
        const q3 = high(z1, B1) + carry(l, m, lm) + carry(lm, n, lmn) + carry(lmn, o, q2);
        x0 = q2 ^ y0 ^ keys[k]; x1 = q3 ^ y1 ^ keys[k + 1]; y0 = q0; y1 = q1;
        z0 = p2 ^ w0 ^ keys[k + 2]; z1 = p3 ^ w1 ^ keys[k + 3]; w0 = p0; w1 = p1;
      }
      words[at] = x0; words[at + 1] = x1; words[at + 2] = y0; words[at + 3] = y1;
      words[at + 4] = z0; words[at + 5] = z1; words[at + 6] = w0; words[at + 7] = w1;
    }
  }
}

/** The high half of the product of two unsigned integers: floats have all of it but some of the low bits. */
function high(a, b) {
  return (((a >>> 0) * (b >>> 0) - (Math.imul(a, b) >>> 0)) / TWO_32 + 0.5) | 0;
}

/** What a + b, whose low half is `sum`, carries. */
function carry(a, b, sum) {
  return ((a & b) | ((a | b) & ~sum)) >>> 31;
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
