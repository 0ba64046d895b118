/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of routes. Queries go by GET and by POST, whose body (load platforms send the answer
 * that they expect) is read and ignored.
 */
#include "events/api_parts.h"

static const struct http_schema schemas[] = {
    {"Product", "{product_id!: string | integer = \"p7\", brand_id!: string = \"b3\", "
                "category_id!: string = \"shoes\", price!: integer = 199}"},
    {"Tag", "{time!: time = \"2022-03-22T12:15:00.000Z\", cookie!: string = \"c1\", "
            "country!: string = \"PL\", device!: 'PC' | 'MOBILE' | 'TV', "
            "action!: 'VIEW' | 'BUY', origin!: string = \"campaign-5\", product_info!: Product}"},
    {"RejectedLine", "{line!: uint, error!: string = \"time is missing\"}"},
};

static const char profile_summary[] =
    "A user's latest tags, newest first. `time_range` is as "
    "2022-03-22T12:00:00_2022-03-22T13:00:00.500 (UTC, the end excluded); `limit` (0 to 200, "
    "default 200) is of each list";
static const char aggregates_summary[] =
    "Counts and sums of prices, a row a minute. `time_range` is of at most 10 whole minutes, "
    "`action` VIEW or BUY, `aggregates` COUNT or SUM_PRICE, given once for each; the others "
    "filter. Every value is a string";

static const char profile_parameters[] =
    "cookie: string = \"c1\", "
    "time_range!: string = \"2022-03-22T12:00:00.000_2022-03-22T13:00:00.000\", limit: uint = 200";
static const char aggregates_parameters[] =
    "time_range!: string = \"2022-03-22T12:10:00_2022-03-22T12:20:00\", "
    "action!: 'VIEW' | 'BUY', aggregates!: ['COUNT' | 'SUM_PRICE'] = [\"COUNT\"], "
    "origin: string = \"campaign-5\", brand_id: string = \"b3\", category_id: string = \"shoes\"";
static const char aggregates_answer[] =
    "{columns!: [string] = [\"1m_bucket\",\"action\",\"count\"], "
    "rows!: [[string]] = [[\"2022-03-22T12:15:00\",\"BUY\",\"3\"]]}";

static const struct http_route routes[] = {
    {.method = HTTP_POST,
     .path = "/user_tags",
     .handler = event_post_tag,
     .flags = HTTP_ROUTE_WRITES,
     .tag = "Events",
     .summary = "Takes a tag, a view or a purchase: 204 once it is durable. With an "
                "Idempotency-Key it counts once, however often it is sent",
     .request = "Tag",
     .query = ""},
    {.method = HTTP_POST,
     .path = "/user_tags/batch",
     .handler = event_post_tags,
     .flags = HTTP_ROUTE_WRITES,
     .tag = "Events",
     .summary = "Takes tags, one a line (NDJSON, also gzip or zstd): the good lines are taken, "
                "all of them or none, and each bad line is named",
     .request = "Tag",
     .answer = "{accepted!: uint, rejected!: [RejectedLine], rejected_unlisted: uint}",
     .query = ""},
    {.method = HTTP_POST,
     .path = "/user_profiles/{cookie}",
     .handler = event_get_profile,
     .flags = HTTP_ROUTE_ANY_BODY,
     .tag = "Events",
     .summary = profile_summary,
     .answer = "{cookie!: string = \"c1\", views!: [Tag], buys!: [Tag]}",
     .query = profile_parameters},
    {.method = HTTP_GET,
     .path = "/user_profiles/{cookie}",
     .handler = event_get_profile,
     .flags = HTTP_ROUTE_ANY_BODY,
     .tag = "Events",
     .summary = profile_summary,
     .answer = "{cookie!: string = \"c1\", views!: [Tag], buys!: [Tag]}",
     .query = profile_parameters},
    {.method = HTTP_DELETE,
     .path = "/user_profiles/{cookie}",
     .handler = event_delete_profile,
     .flags = HTTP_ROUTE_WRITES | HTTP_ROUTE_ANY_BODY,
     .tag = "Events",
     .summary = "Forgets a user: 204 once that is durable and the profile is gone",
     .query = "cookie: string = \"c1\""},
    {.method = HTTP_POST,
     .path = "/aggregates",
     .handler = event_get_aggregates,
     .flags = HTTP_ROUTE_ANY_BODY,
     .tag = "Events",
     .summary = aggregates_summary,
     .answer = aggregates_answer,
     .query = aggregates_parameters},
    {.method = HTTP_GET,
     .path = "/aggregates",
     .handler = event_get_aggregates,
     .flags = HTTP_ROUTE_ANY_BODY,
     .tag = "Events",
     .summary = aggregates_summary,
     .answer = aggregates_answer,
     .query = aggregates_parameters},
    {.method = HTTP_POST,
     .path = "/get_id",
     .handler = event_post_id,
     .flags = HTTP_ROUTE_WRITES,
     .tag = "Events",
     .summary = "The id of an element: 1, 2, 3, … in each collection, the same for ever; 404 when "
                "it is absent and not to be created",
     .request = "{collection_name!: string = \"brand\", element!: string = \"b3\", "
                "create_missing!: boolean = true}",
     .answer = "{id!: uint}",
     .query = ""},
};

struct http_route_table events_routes(struct events_api *api) {
    return (struct http_route_table){.routes = routes,
                                     .n = ARRAY_LENGTH(routes),
                                     .context = api,
                                     .schemas = schemas,
                                     .n_schemas = ARRAY_LENGTH(schemas)};
}
