// SPDX-License-Identifier: Apache-2.0
// A client made of /openapi.json's types, as a user would write one; it must pass the type checker.
// Argument: the server's URL. Prints "done", or throws.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

declare const process: { argv: string[] };

const client = createClient<paths>({ baseUrl: process.argv[2] });

function expect(found: unknown, wanted: unknown): void {
  if (JSON.stringify(found) !== JSON.stringify(wanted))
    throw new Error(`${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`);
}

const name = "typescript";
const created = await client.PUT("/collections/{name}", {
  params: { path: { name } },
  body: { vectors: { size: 2, distance: "Dot" } },
});
expect(created.data?.result, true);

const point: components["schemas"]["Point"] = { id: 7, vector: [1, 2], payload: { title: "Dune" } };
const written = await client.PUT("/collections/{name}/points", {
  params: { path: { name }, query: { wait: true } },
  body: { points: [point] },
});
expect(written.data?.result?.status, "completed");

const found = await client.POST("/collections/{name}/points/search", {
  params: { path: { name } },
  body: { vector: [1, 2], limit: 1 },
});
expect(found.data?.result?.map((hit) => [hit.id, hit.score]), [[7, 5]]);

const missing = await client.GET("/collections/{name}/points/{id}", {
  params: { path: { name, id: 8 } },
});
expect(missing.response.status, 404);
expect(typeof missing.error?.status.error, "string");

const tag: components["schemas"]["Tag"] = {
  time: "2022-03-22T12:15:00.000Z",
  cookie: "typescript",
  country: "PL",
  device: "PC",
  action: "BUY",
  origin: "campaign-5",
  product_info: { product_id: "p7", brand_id: "b3", category_id: "shoes", price: 199 },
};
expect((await client.POST("/user_tags", { body: tag })).response.status, 204);

const refused = await client.POST("/get_id", {
  body: { collection_name: "brand", element: "never seen", create_missing: false },
});
expect(typeof refused.error?.error.code, "string");

const health = await client.GET("/healthz");
expect(health.data?.status, "ok");
console.log("done");
