// Lists the models of a bgan server, samples images, and shows what an error says:
// node build/sample.js http://localhost:50051
// It prints one JSON object. `npm install && npm run build` makes the stubs and compiles it.

import { ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { SamplingService } from "./generated/bgan/v1/sampling_pb.js";
import { ErrorInfoSchema } from "./generated/google/rpc/error_details_pb.js";

const [baseUrl = "http://localhost:50051", count = "100"] = process.argv.slice(2);
const client = createClient(SamplingService, createGrpcTransport({ baseUrl }));

const names: string[] = [];
let pageToken = "";
do {
  const page = await client.listModels({ pageSize: 1, pageToken });
  names.push(...page.models.map(({ model }) => model!.name));
  pageToken = page.nextPageToken;
} while (pageToken);

const batches: Uint8Array[] = [];
for await (const batch of client.sampleBinaryImages({ imageCount: BigInt(count), seed: 1n, model: names[0] })) {
  batches.push(batch.packedImages);
}

let error = "";
try {
  await client.getModel({ name: "no-such-model" });
} catch (failure) {
  const [info] = ConnectError.from(failure).findDetails(ErrorInfoSchema);
  error = `${info?.domain}/${info?.reason}`;
}
console.log(JSON.stringify({ names, images: Buffer.concat(batches).toString("hex"), error }));
