// Philox 4x64-10 (Salmon et al. 2011) in WebAssembly, which multiplies integers of 64 bits: JavaScript, which has none,
// takes five times as long. The module is put together here, from the opcodes of its one function.
const MULTIPLIERS = [0xd2e7470ee14c6c93n, 0xca5a826395121157n];
const WEYL = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn];
const ROUNDS = 10;
const BLOCK_BYTES = 32; // four words
const PAGE_BYTES = 65536;

const [I32, I64] = [0x7f, 0x7e];
const [ADD, MUL, AND, XOR, SHIFT, IS_ZERO, WIDEN] = [0x7c, 0x7e, 0x83, 0x85, 0x88, 0x50, 0xad]; // of I64
// Parameters: the counter's halves and the key, then where the words end. Then locals: the state, the running keys and
// what a product needs; then where the next words go.
const [COUNTER_LOW, COUNTER_HIGH, KEY, END, X, Y, Z, W, K0, K1, LOW, HIGH, FIRST, AT] = Array(14).keys();
const get = (local) => [0x20, local];
const set = (local) => [0x21, local];
const tee = (local) => [0x22, local];
const constant = (value) => [0x42, ...leb(BigInt.asIntN(64, value))];
const lowHalf = [...constant(0xffffffffn), AND];
const highHalf = [...constant(32n), SHIFT];

/** An integer as signed LEB128. */
function leb(value) {
  const [bits, rest] = [Number(value & 0x7fn), value >> 7n];
  return rest === (bits & 0x40 ? -1n : 0n) ? [bits] : [bits | 0x80, ...leb(rest)];
}

/** Leaves the high word of the 128-bit product of a local and a constant. */
function highOfProduct(local, factor) {
  const [factorLow, factorHigh] = [constant(factor & 0xffffffffn), constant(factor >> 32n)];
  return [
    get(local), lowHalf, tee(LOW), factorLow, MUL, highHalf,
    get(LOW), factorHigh, MUL, ADD, set(FIRST),
    get(local), highHalf, tee(HIGH), factorLow, MUL, get(FIRST), lowHalf, ADD, highHalf,
    get(HIGH), factorHigh, MUL, ADD, get(FIRST), highHalf, ADD,
  ];
}

function round() {
  const [a, b] = MULTIPLIERS;
  return [
    highOfProduct(Z, b), get(Y), XOR, get(K0), XOR, highOfProduct(X, a), get(W), XOR, get(K1), XOR,
    get(Z), constant(b), MUL, set(Y), get(X), constant(a), MUL, set(W), set(Z), set(X),
    [K0, K1].map((key, i) => [get(key), constant(WEYL[i]), ADD, set(key)]),
  ];
}

/** The words of the counters after the given one, four each, up to END. */
function body() {
  const begin = [
    get(COUNTER_LOW), constant(1n), ADD, tee(COUNTER_LOW), tee(X), IS_ZERO, WIDEN,
    get(COUNTER_HIGH), ADD, tee(COUNTER_HIGH), set(Y),
    constant(0n), tee(Z), tee(W), set(K1), get(KEY), set(K0),
  ];
  const rounds = Array.from({ length: ROUNDS }, round);
  const store = [X, Y, Z, W].map((word, i) => [get(AT), get(word), 0x37, 3, 8 * i]);
  const advance = [get(AT), 0x41, BLOCK_BYTES, 0x6a, tee(AT), get(END), 0x49];
  const loop = [0x03, 0x40, begin, rounds, store, advance, 0x0d, 0, 0x0b];
  return [2, AT - X, I64, 1, I32, loop, 0x0b].flat(Infinity);
}

function compile() {
  const sized = (bytes) => [...leb(BigInt(bytes.length)), ...bytes];
  const section = (id, bytes) => [id, ...sized(bytes)];
  const name = (text) => sized([...new TextEncoder().encode(text)]);
  return new WebAssembly.Module(
    Uint8Array.of(
      0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0, // magic and version
      ...section(1, [1, 0x60, 4, I64, I64, I64, I32, 0]),
      ...section(2, [1, ...name(""), ...name("memory"), 2, 0, 1]),
      ...section(3, [1, 0]),
      ...section(7, [1, ...name("fill"), 0, 0]),
      ...section(10, [1, ...sized(body())]),
    ),
  );
}

let module = null;

/** Draws the words of some counters, again and again into the same memory. */
export class Philox {
  /** `counters`: how many at a time. */
  constructor(counters) {
    this.end = counters * BLOCK_BYTES;
    const memory = new WebAssembly.Memory({ initial: Math.ceil(this.end / PAGE_BYTES) });
    this.fill = new WebAssembly.Instance((module ??= compile()), { "": { memory } }).exports.fill;
    /** The words, each as its low and its high half. */
    this.words = new Uint32Array(memory.buffer, 0, this.end / 4);
  }

  /** Fills `words` with those of the counters after `counter` (BigInt), as numpy counts. */
  draw(seed, counter) {
    this.fill(BigInt.asIntN(64, counter), counter >> 64n, BigInt(seed), this.end);
  }
}
