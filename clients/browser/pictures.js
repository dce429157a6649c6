// Packed images as pixels of a canvas, as a PNG and as an .npz.

/** Width and height of an image on the screen: three channels are colours, others lie side by side. */
export function tileSize({ shape: [channels, height, width] }) {
  return [channels === 3 ? width : channels * width, height];
}

/** The colours of pixels that are on and off, from the page's style, as a canvas's 32-bit words. */
export function inks() {
  const style = getComputedStyle(document.documentElement);
  const word = (name) => parseInt(style.getPropertyValue(name).trim().slice(1).replace(/(..)(..)(..)/, "$3$2$1"), 16) - 2 ** 24;
  return { on: word("--on") >>> 0, off: word("--off") >>> 0 };
}

/** How many pixels of packed images are on. */
export function countOn(bits) {
  return bits.reduce((sum, byte) => sum + byte.toString(2).replaceAll("0", "").length, 0);
}

/** What `grid` takes of packed images: whether pixel i of an image is on. */
export function bitsOf(bits, { bytes }) {
  return (image, i) => (bits[image * bytes + (i >> 3)] >> (7 - (i & 7))) & 1;
}

/** A canvas of images, `columns` in a row with `gap` pixels around each; `value(image, i)`: pixel i, 0 to 1. */
export function grid(value, count, model, columns, gap, colours, gapColour = 0) {
  const [width, height] = tileSize(model);
  const canvas = document.createElement("canvas");
  canvas.width = columns * (width + gap) + gap;
  canvas.height = Math.ceil(count / columns) * (height + gap) + gap;
  const data = new ImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(data.data.buffer).fill(gapColour);
  for (let image = 0; image < count; image++) {
    const [left, top] = [gap + (image % columns) * (width + gap), gap + Math.floor(image / columns) * (height + gap)];
    paint(pixels, canvas.width, top * canvas.width + left, (i) => value(image, i), model.shape, colours);
  }
  canvas.getContext("2d").putImageData(data, 0, 0);
  return canvas;
}

/** Writes one image into the 32-bit words of a picture, from the place `start` on. */
function paint(pixels, pictureWidth, start, value, [channels, height, width], { on, off }) {
  for (let channel = 0, i = 0; channel < channels; channel++)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++, i++) {
        const share = value(i);
        const at = start + y * pictureWidth + x;
        if (channels === 3) pixels[at] = (channel ? pixels[at] : 0xff000000) | ((255 * share) << (8 * channel));
        else pixels[at + channel * width] = share === 1 ? on : share === 0 ? off : mix(off, on, share);
      }
}

function mix(a, b, share) {
  const byte = (word, place) => (word >>> (8 * place)) & 255;
  return [0, 1, 2, 3].reduce((sum, i) => sum | (Math.round(byte(a, i) + (byte(b, i) - byte(a, i)) * share) << (8 * i)), 0);
}

/** A picture as the server draws it: white on black, gaps grey. Rejects where a canvas cannot hold it. */
export function png(bits, count, model) {
  const columns = Math.min(100, Math.ceil(Math.sqrt(count)));
  const canvas = grid(bitsOf(bits, model), count, model, columns, count > 1 ? 2 : 0, { on: 0xffffffff, off: 0xff000000 }, 0xff5a5a5a);
  const error = new Error("This is more than one picture holds here; take fewer images, or .npz");
  return new Promise((resolve, reject) => canvas.toBlob((blob) => (blob ? resolve(blob) : reject(error)), "image/png"));
}

/** The arrays that `bgan sample` writes, as an .npz: a zip that is not compressed. */
export function npz(bits, { seed, first, count }, model, labels) {
  const text = (values, shape) => {
    const width = Math.max(1, ...values.map((value) => [...value].length));
    const points = new Uint32Array(width * values.length);
    values.forEach((value, i) => [...value].forEach((sign, j) => (points[i * width + j] = sign.codePointAt(0))));
    return npy(`<U${width}`, shape, points);
  };
  const integers = (values, shape) => npy("<i8", shape, BigInt64Array.from(values, BigInt));
  const arrays = {
    packed_images: npy("|u1", [count, model.bytes], bits),
    ...(labels && { labels: npy("<i4", [count], labels), classes: text(model.classes, [model.classes.length]) }),
    image_shape: integers(model.shape, [3]),
    seed: integers([seed], []),
    first_index: integers([first], []),
    model: text([model.name], []),
    revision: text([model.revision], []),
    description: text([description(model, labels)], []),
  };
  return zip(Object.entries(arrays).map(([name, content]) => [`${name}.npy`, content]));
}

/** What the others are, in the words of `bgan sample`. */
function description({ shape, bytes }, labels) {
  const pixels = shape.reduce((product, size) => product * size);
  return `Binary images of a bgan generator.
packed_images: uint8 [n, ${bytes}], one bit a pixel, 1 = on, row-major (channel, row, column), most significant bit first, \
each image padded with zeros to a whole byte
image_shape: (${shape.join(", ")}), the channels, height and width of each image
seed, first_index: the seed of the stream, and the index of the first image in it
model, revision: the generator's name, and the digest of all that decides its bits: image i of a revision and a seed is \
always the same${labels ? "\nlabels: int32 [n], the class of each image\nclasses: the names of the classes, by label" : ""}
To read them: bgan.clients.load_images(path).images, or
np.unpackbits(packed_images, axis=1, count=${pixels}).reshape(-1, ${shape.join(", ")})`;
}

function npy(descr, shape, values) {
  const dims = shape.map((size) => `${size},`).join(" ");
  const head = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${dims}), }`;
  const length = Math.ceil((head.length + 11) / 64) * 64 - 10;
  const bytes = new Uint8Array(10 + length + values.byteLength);
  bytes.set([0x93, 78, 85, 77, 80, 89, 1, 0, length & 255, length >> 8]);
  bytes.set(new TextEncoder().encode(`${head.padEnd(length - 1)}\n`), 10);
  bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), 10 + length);
  return bytes;
}

function zip(files) {
  const [parts, directory] = [[], []];
  let at = 0, directorySize = 0;
  for (const [name, content] of files) {
    const label = new TextEncoder().encode(name);
    const size = content.length;
    // Version needed, flags, stored, 1 January 1980; check and sizes; lengths of the name and of what is extra.
    const common = [Uint16Array.of(20, 0, 0, 0, 0x21), Uint32Array.of(crc32(content), size, size), Uint16Array.of(label.length, 0)];
    parts.push(Uint32Array.of(0x04034b50), ...common, label, content);
    directory.push(Uint32Array.of(0x02014b50), Uint16Array.of(20), ...common, Uint16Array.of(0, 0, 0), Uint32Array.of(0, at), label);
    directorySize += 46 + label.length;
    at += 30 + label.length + size;
  }
  const counts = Uint16Array.of(0, 0, files.length, files.length);
  const end = [Uint32Array.of(0x06054b50), counts, Uint32Array.of(directorySize, at), Uint16Array.of(0)];
  return new Blob([...parts, ...directory, ...end], { type: "application/zip" });
}

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let k = 0; k < 8; k++) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1));
  }
  return ~crc >>> 0;
}
