#!/usr/bin/env node
// Samples binary images from a bgan server into a picture. It needs nothing but the files under proto/.

import { renameSync, rmSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const USAGE = `Usage: node sample.mjs [options] FILE.pbm

Samples binary images from a bgan server into one black and white picture, a square grid of them.
The same seed and index always give the same image.

  --server HOST:PORT   the server's address        (default: localhost:50051)
  --model NAME         the model's name            (default: the server's default)
  --count N            how many images, to 10000   (default: 64)
  --seed N             0 to 2^63 - 1               (default: drawn by the server)
  --first-index N      the first image's index     (default: 0)
  --help               show this

Example: node sample.mjs --count 64 --seed 1 digits.pbm`;

const PROTO_ROOT = fileURLToPath(new URL("../../proto", import.meta.url));
const INT64_END = 2n ** 63n;
const MAX_COUNT = 10_000n;
const ATTEMPTS = 5; // in a row, without a new batch
const GAP = 2; // pixels around each image

class UsageError extends Error {}

function readOptions() {
  const text = (value) => ({ type: "string", default: value });
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      server: text("localhost:50051"),
      model: text(""),
      count: text("64"),
      seed: { type: "string" },
      "first-index": text("0"),
      help: { type: "boolean" },
    },
  });
  if (values.help) return null;
  if (positionals.length !== 1 || !positionals[0].endsWith(".pbm")) throw new UsageError("name one FILE.pbm");
  return {
    file: positionals[0],
    server: values.server,
    model: values.model,
    count: readInteger("--count", values.count, 1n, MAX_COUNT),
    seed: values.seed === undefined ? undefined : readInteger("--seed", values.seed, 0n, INT64_END - 1n),
    firstIndex: readInteger("--first-index", values["first-index"], 0n, INT64_END - 1n),
  };
}

// BigInt, since a JavaScript number holds integers to 2^53 only.
function readInteger(name, text, least, most) {
  const value = /^\d+$/.test(text) ? BigInt(text) : -1n;
  if (value < least || value > most) throw new UsageError(`${name} is ${text}; use ${least} to ${most}`);
  return value;
}

function connect(server) {
  const definition = loadSync("bgan/v1/sampling.proto", {
    includeDirs: [PROTO_ROOT],
    longs: String,
    defaults: true, // a field that is 0 is not on the wire
  });
  const { SamplingService } = grpc.loadPackageDefinition(definition).bgan.v1;
  return new SamplingService(server, grpc.credentials.createInsecure());
}

// The batches of a stream, in order. When the server goes away, the stream resumes at its next index.
async function* sample(client, { model, count, seed, firstIndex }) {
  const end = firstIndex + count;
  let next = firstIndex;
  let failures = 0;
  let revision;
  while (next < end) {
    // 64-bit integers are sent as strings; an undefined seed is not sent.
    const request = { model, seed: seed?.toString(), firstIndex: `${next}`, imageCount: `${end - next}` };
    try {
      for await (const batch of client.sampleBinaryImages(request)) {
        revision ??= batch.revision;
        if (batch.revision !== revision) throw new Error("the model changed while it was sampled; start again");
        ({ model, seed } = batch);
        next += BigInt(batch.imageCount);
        failures = 0;
        yield batch;
      }
      if (next < end) throw new Error(`the server ended the stream before image ${next}`);
    } catch (error) {
      if (error.code !== grpc.status.UNAVAILABLE || ++failures === ATTEMPTS) throw error;
      console.error(`sample: ${describe(error)}; trying again from image ${next}`);
      await sleep(250 * 2 ** failures);
    }
  }
}

// A PBM picture (P4): one bit a pixel, 1 is black, each row padded to a whole byte. Channels lie side by side.
function makePicture(packed, count, { channels, height, width }) {
  const columns = Math.ceil(Math.sqrt(count));
  const cellWidth = channels * width + GAP;
  const cellHeight = height + GAP;
  const pictureWidth = columns * cellWidth + GAP;
  const pictureHeight = Math.ceil(count / columns) * cellHeight + GAP;
  const rowBytes = Math.ceil(pictureWidth / 8);
  const imageBytes = Math.ceil((channels * height * width) / 8); // each image is padded to a whole byte too
  const picture = Buffer.alloc(rowBytes * pictureHeight);
  for (let image = 0; image < count; image++) {
    const left = GAP + (image % columns) * cellWidth;
    const top = GAP + Math.floor(image / columns) * cellHeight;
    let bit = 8 * image * imageBytes;
    for (let channel = 0; channel < channels; channel++) {
      for (let row = 0; row < height; row++) {
        for (let column = 0; column < width; column++, bit++) {
          const x = left + channel * width + column;
          const on = (packed[bit >> 3] >> (7 - (bit & 7))) & 1; // the most significant bit comes first
          picture[(top + row) * rowBytes + (x >> 3)] |= on << (7 - (x & 7));
        }
      }
    }
  }
  return Buffer.concat([Buffer.from(`P4\n${pictureWidth} ${pictureHeight}\n`), picture]);
}

// Writes the file whole or not at all.
function writeWhole(file, content) {
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    writeFileSync(temporary, content);
    renameSync(temporary, file);
  } finally {
    rmSync(temporary, { force: true });
  }
}

function describe(error) {
  return error.details === undefined ? error.message : `${grpc.status[error.code]}: ${error.details.trim()}`;
}

async function main() {
  const options = readOptions();
  if (options === null) return console.log(USAGE);
  const client = connect(options.server);
  const batches = [];
  try {
    for await (const batch of sample(client, options)) batches.push(batch);
  } finally {
    client.close();
  }
  const { model, seed, imageShape } = batches[0];
  const packed = Buffer.concat(batches.map((batch) => batch.packedImages));
  writeWhole(options.file, makePicture(packed, Number(options.count), imageShape));
  console.log(`${options.file}: ${options.count} images of ${model}, seed ${seed}, from index ${options.firstIndex}`);
}

main().catch((error) => {
  const wrongUse = error instanceof UsageError || error.code?.startsWith?.("ERR_PARSE_ARGS");
  console.error(`sample: ${describe(error)}${wrongUse ? "; see --help" : ""}`);
  process.exitCode = wrongUse ? 2 : 1;
});
