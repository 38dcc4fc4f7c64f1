// Prints what the SDK sends for the calls of each vector: how tests/streams/vectors/sdk.json is written anew.

import { readFileSync } from "node:fs";
import { bodyOf } from "./calls.mjs";

const vectors = JSON.parse(readFileSync(process.argv[2], "utf8"));
for (const vector of vectors) if (vector.calls) vector.body = await bodyOf(vector.calls);
console.log(JSON.stringify(vectors, null, 2));
