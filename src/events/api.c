/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of routes. Queries go by GET and by POST, whose body (load platforms send the answer
 * that they expect) is read and ignored.
 */
#include "events/api_parts.h"

static const struct http_schema schemas[] = {
#define EVENT_DOCUMENT(id, text) {#id, text},
#include "events/schema.def"
    {"RejectedLine", "{line!: uint, error!: string = \"time is missing\"}"},
};

static const char profile_summary[] =
    "A user's latest tags, newest first. `time_range` is as "
    "2022-03-22T12:00:00_2022-03-22T13:00:00.500 (UTC, the end excluded); `limit` (0 to 200, "
    "default 200) is of each list";
static const char aggregates_summary[] =
    "Counts and sums, a row a minute. `time_range` is of at most 10 whole minutes, `aggregates` "
    "COUNT"
#define EVENT_FIELD(id, parent, name, role, collection, sentence)                                  \
    EVENT_MEASURE_##role(" or SUM_" #id)
#include "events/schema.def"
    ", given once for each; what follows it filters. Every value is a string";

static const char profile_parameters[] =
    "cookie: string = \"c1\", "
    "time_range!: string = \"2022-03-22T12:00:00.000_2022-03-22T13:00:00.000\", limit: uint = 200";
#define EVENT_PROSE(id, text) static const char id[] = text;
#include "events/schema.def"

static const struct http_route routes[] = {
    {.method = HTTP_POST,
     .path = "/user_tags",
     .handler = event_post_tag,
     .flags = HTTP_ROUTE_WRITES,
     .tag = "Events",
     .summary = "Takes a tag: 204 once it is durable. With an "
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
     .answer = profile_answer,
     .query = profile_parameters},
    {.method = HTTP_GET,
     .path = "/user_profiles/{cookie}",
     .handler = event_get_profile,
     .flags = HTTP_ROUTE_ANY_BODY,
     .tag = "Events",
     .summary = profile_summary,
     .answer = profile_answer,
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
     .request = element_asked,
     .answer = "{id!: uint}",
     .query = ""},
};

struct http_route_table events_routes(struct events_api *api) {
    return (struct http_route_table){.routes = routes,
                                     .n = ARRAY_LENGTH(routes),
                                     .context = api,
                                     .journal = api->journal,
                                     .schemas = schemas,
                                     .n_schemas = ARRAY_LENGTH(schemas)};
}
