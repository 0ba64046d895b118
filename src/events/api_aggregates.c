/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts and sums of minutes. The answer's columns are the bucket, the action, the filters that are
 * given (in the order of schema.def), and the aggregates (in the order of the query); every value
 * is a string.
 */
#include "events/api_parts.h"

#include "base/error.h"
#include "base/time_text.h"

#include <errno.h>
#include <inttypes.h>

enum { AGGREGATES_MAX = 16, BUCKET_BYTES = 19 };

enum aggregate_kind {
    AGGREGATE_COUNT,
#define EVENT_FIELD(id, parent, name, role, collection, sentence)                                  \
    EVENT_MEASURE_##role(AGGREGATE_SUM, )
#include "events/schema.def"
    AGGREGATE_KINDS
};
static const struct {
    const char *parameter;
    const char *column;
} kinds[AGGREGATE_KINDS] = {
    [AGGREGATE_COUNT] = {"COUNT", "count"},
#define EVENT_FIELD(id, parent, name, role, collection, sentence)                                  \
    EVENT_MEASURE_##role([AGGREGATE_SUM] = {"SUM_" #id, "sum_" name}, )
#include "events/schema.def"
};

/* For sentences. */
static const char aggregates_right[] = "COUNT"
#define EVENT_FIELD(id, parent, name, role, collection, sentence)                                  \
    EVENT_MEASURE_##role(" or SUM_" #id)
#include "events/schema.def"
    ;
static const char action_right[] = ""
#define EVENT_FIELD(id, parent, name, role, collection, sentence) ACTION_##role(sentence)
#define ACTION_TIME(sentence)
#define ACTION_KEY(sentence)
#define ACTION_DICTIONARY(sentence)
#define ACTION_DIMENSION(sentence)
#define ACTION_DEVICE(sentence)
#define ACTION_ACTION(sentence) sentence
#define ACTION_OPAQUE(sentence)
#define ACTION_MEASURE(sentence)
#include "events/schema.def"
    ;

static const char *const filter_names[EVENT_FILTERS] = {
#define EVENT_FIELD(id, parent, name, role, collection, sentence) EVENT_DIMENSION_##role(name, )
#include "events/schema.def"
};

struct query {
    struct event_aggregate_query store;
    bool filtered[EVENT_FILTERS];
    struct bytes filters[EVENT_FILTERS];
    bool unseen; /* a filter's value is of no tag */
    enum aggregate_kind aggregates[AGGREGATES_MAX];
    size_t n_aggregates;
};

/* ---- In ---- */

static int parse_range(const struct http_request *r, struct query *q, struct event_fault *f) {
    struct bytes text;
    int result = event_api_parameter(r, "time_range", "<datetime>_<datetime>", &text, f);
    if (result)
        return error_trace(result);
    return event_parse_minutes(text, &q->store.first_minute, &q->store.minutes, f);
}

static int parse_action(const struct http_request *r, struct query *q, struct event_fault *f) {
    struct bytes text;
    int result = event_api_parameter(r, "action", action_right, &text, f);
    if (result)
        return error_trace(result);
    if (event_parse_action(text, &q->store.action))
        return 0;
    return event_fault_set(f, EVENT_FAULT_INVALID, "action", "`action` must be %s", action_right);
}

static int add_aggregate(struct query *q, struct bytes text, struct event_fault *f) {
    unsigned kind = 0;
    while (kind < AGGREGATE_KINDS && !bytes_equal(text, bytes_of_string(kinds[kind].parameter)))
        kind++;
    if (kind == AGGREGATE_KINDS || q->n_aggregates == AGGREGATES_MAX)
        return event_fault_set(f, EVENT_FAULT_INVALID, "aggregates",
                               "`aggregates` must be %s, given once for each, at most %d times",
                               aggregates_right, AGGREGATES_MAX);
    q->aggregates[q->n_aggregates++] = (enum aggregate_kind)kind;
    return 0;
}

static int parse_aggregates(const struct http_request *r, struct query *q, struct event_fault *f) {
    struct bytes text;
    int result = event_api_parameter(r, "aggregates", aggregates_right, &text, f);
    while (!result && http_query_parameter_at(r, "aggregates", q->n_aggregates, &text))
        result = add_aggregate(q, text, f);
    return error_trace(result);
}

/* The ids of the filters' values, where ids are kept. */
static int find_filters(const struct events_api *api, struct query *q) {
    for (size_t i = 0; !api->redis && i < EVENT_FILTERS; i++) {
        if (!q->filtered[i])
            continue;
        uint32_t id = event_dictionary_find(api->dictionary, event_filter_collections[i],
                                            q->filters[i], NULL);
        q->store.ids[i] = id;
        q->unseen = q->unseen || id == 0;
    }
    /* It may be one that was seen: its element is among those lost to damage. */
    if (q->unseen && event_dictionary_lost(api->dictionary) > 0)
        return error_origin(-EBADMSG);
    return 0;
}

static int parse_filters(const struct events_api *api, const struct http_request *r,
                         struct query *q, struct event_fault *f) {
    for (size_t i = 0; i < EVENT_FILTERS; i++) {
        q->filtered[i] = http_query_parameter(r, filter_names[i], &q->filters[i]);
        if (!q->filtered[i])
            continue;
        if (!json_is_utf8(q->filters[i]))
            return event_fault_set(f, EVENT_FAULT_INVALID, filter_names[i],
                                   "`%s` must be UTF-8, percent-encoded", filter_names[i]);
    }
    return error_trace(find_filters(api, q));
}

static int parse_query(const struct events_api *api, const struct http_request *r, struct query *q,
                       struct event_fault *f) {
    *q = (struct query){.n_aggregates = 0};
    int result = parse_range(r, q, f);
    if (!result)
        result = parse_action(r, q, f);
    if (!result)
        result = parse_aggregates(r, q, f);
    if (!result)
        result = parse_filters(api, r, q, f);
    return error_trace(result);
}

/* ---- Out ---- */

static void append_columns(struct buffer *out, const struct query *q) {
    buffer_append_string(out, "{\"columns\":[\"1m_bucket\",\"action\"");
    for (size_t i = 0; i < EVENT_FILTERS; i++)
        if (q->filtered[i])
            buffer_append_format(out, ",\"%s\"", filter_names[i]);
    for (size_t i = 0; i < q->n_aggregates; i++)
        buffer_append_format(out, ",\"%s\"", kinds[q->aggregates[i]].column);
    buffer_append_string(out, "],\"rows\":[");
}

static void append_value(struct buffer *out, enum aggregate_kind kind,
                         const struct event_aggregate *value) {
    if (kind == AGGREGATE_COUNT)
        buffer_append_format(out, ",\"%" PRIu64 "\"", value->count);
    else
        buffer_append_format(out, ",\"%" PRId64 "\"", value->sum);
}

static void append_row(struct buffer *out, const struct query *q, unsigned i,
                       const struct event_aggregate *value) {
    char bucket[TIME_TEXT_BYTES + 1];
    time_text((q->store.first_minute + i) * EVENT_MINUTE_MS * 1000, bucket);
    buffer_append_format(out, "%s[\"%.*s\",\"%s\"", i > 0 ? "," : "", BUCKET_BYTES, bucket,
                         event_action_names[q->store.action]);
    for (size_t f = 0; f < EVENT_FILTERS; f++) {
        if (!q->filtered[f])
            continue;
        buffer_append_u8(out, ',');
        json_append_string(out, q->filters[f]);
    }
    for (size_t a = 0; a < q->n_aggregates; a++)
        append_value(out, q->aggregates[a], value);
    buffer_append_u8(out, ']');
}

static int aggregate(struct events_api *api, const struct query *q, struct event_aggregate *values,
                     struct event_failure *failure) {
    struct events_redis_query asked = {.first_minute = q->store.first_minute,
                                       .minutes = q->store.minutes,
                                       .action = q->store.action};
    if (q->unseen)
        return 0;
    if (!api->redis)
        return events_store_aggregate(api->store, &q->store, values);
    memcpy(asked.filtered, q->filtered, sizeof asked.filtered);
    memcpy(asked.filters, q->filters, sizeof asked.filters);
    return events_redis_aggregate(api->redis, &asked, values, failure->why);
}

static int answer(struct events_api *api, struct http_request *r, const struct query *q,
                  struct event_failure *failure) {
    struct event_aggregate values[EVENT_RANGE_MINUTES_MAX] = {0};
    struct buffer *out = http_scratch(r);
    int result = aggregate(api, q, values, failure);
    if (result)
        return error_trace(result);
    append_columns(out, q);
    for (unsigned i = 0; i < q->store.minutes; i++)
        append_row(out, q, i, &values[i]);
    buffer_append_string(out, "]}");
    result = buffer_check(out);
    if (result)
        return error_trace(result);
    http_respond(r, 200, NULL, buffer_bytes(out));
    return 0;
}

/* On a query thread. */
static void aggregates_job(void *context, struct http_request *r) {
    struct query q;
    struct event_failure failure;
    failure.result = parse_query(context, r, &q, &failure.fault);
    if (!failure.result)
        failure.result = answer(context, r, &q, &failure);
    if (failure.result)
        event_api_fail(r, &failure);
}

void event_get_aggregates(void *api, struct http_request *r) {
    event_api_offload(api, r, aggregates_job);
}
