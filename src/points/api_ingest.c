/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /ingest/{collection}: a stream of points of any length in bounded memory. Each record stands
 * alone: a bad one is named in the task and skipped, the good ones go to the journal in groups.
 *
 *            chunk                             chunk, end
 *   sniffing ─────▶ taking ◀────────────────────────────┐
 *                     │ ▲  group full: append            │ after RETRY_MS
 *                     │ └───────────────── refused, or the workers lag: pause the reading
 *                     │
 *                     ├─ end, all appended: the task succeeded (or failed: no record was good), 202
 *                     ├─ broken from here on (an array's syntax, a cut .npy): the rest is thrown
 *                     │  away and the task interrupted, 202; 400 if nothing was taken before
 *                     ├─ the collection is gone: failed, 404
 *                     ├─ refused for REFUSED_MAX_MS: interrupted, 429 or 503
 *                     └─ the client goes away: interrupted
 *
 * Each end is a record of its own, and 202 is answered once that is durable.
 *
 * With task=false, and with a journal that many processes share, no task is left: no record of the
 * end is written, and what would be the task's result is the answer, once the last point is
 * durable. The one answer of such an upload is all that is ever known of it: for those who cut what
 * they have into pieces.
 *
 * Every function that may have to wait returns API_E_BUSY and can be called again: what was encoded
 * and not appended stays in the batch, what was not read stays in the stream.
 */
#include "base/npy.h"
#include "points/api_pass.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum {
    API_E_BUSY = 210, /* paused; call again */
    API_E_BROKEN,     /* nothing further can be read */
};

enum {
    UPLOADS_MAX = 64, /* at a time; each has a batch in memory */
    PIECE_MAX_BYTES = 16 << 20,
    RETRY_MS = 10,
    REFUSED_MAX_MS = 60000,
    LAG_MAX_MS = 500, /* a single write must be visible within a second */
    MEMORY_STEP = 64 << 10,
#ifdef MILLRACE_TINY
    GROUP_POINTS_MAX = 3,
    GROUP_BYTES_MAX = 4 << 10,
    WINDOW_BYTES = 64 << 10,
#else
    GROUP_POINTS_MAX = 1000,
    GROUP_BYTES_MAX = 1 << 20,
    WINDOW_BYTES = 4 << 20, /* of an upload, appended and not yet durable */
#endif
};

enum upload_form { FORM_UNKNOWN, FORM_JSON, FORM_NPY };

/* One upload; the state of its request. */
struct upload {
    struct points_api *api;
    struct points_collection *collection;
    struct bulk_task *task;
    enum upload_form form;
    bool says_lines; /* its Content-Type */
    bool taskless;   /* task=false */
    uint64_t first_id;
    lsn_t last; /* appended */
    struct json_stream stream;
    struct npy npy;
    unsigned vector; /* that a row of the array is */
    struct buffer bytes;
    struct api_batch batch;
    uint64_t accepted;
    uint64_t rejected;
    uint64_t taken_bytes;      /* of the budget for bodies */
    lsn_t marks[2];            /* the last lsns of the two newest halves of the window */
    uint64_t half_bytes;       /* appended since the newer mark */
    uint64_t refused_since_ns; /* 0: not refused */
    int refusal;      /* the journal's condition, or API_E_LETTERS_FULL; 0: the workers lag */
    char broken[128]; /* why nothing further is read */
};

static void upload_free(struct upload *u) {
    atomic_fetch_sub(&u->api->uploads, 1);
    budget_give(u->api->budget, BUDGET_BODIES, u->taken_bytes);
    points_collection_unref(u->collection);
    json_stream_deinit(&u->stream);
    npy_deinit(&u->npy);
    api_batch_deinit(&u->batch);
    buffer_deinit(&u->bytes);
    free(u);
}

/* Takes what the upload holds out of the budget; false when there is no memory for it. */
static bool count_memory(struct upload *u) {
    uint64_t held = u->stream.pending.size + u->npy.pending.size + u->bytes.size +
                    u->batch.records.size + sizeof *u;
    if (held <= u->taken_bytes)
        return true;
    uint64_t more = held - u->taken_bytes + MEMORY_STEP;
    if (!budget_take(u->api->budget, BUDGET_BODIES, more))
        return false;
    u->taken_bytes += more;
    return true;
}

/* Takes the reference to the collection. */
static int upload_new(struct points_api *api, struct points_collection *c,
                      struct upload **ret_upload) {
    struct upload *u = calloc(1, sizeof *u);
    if (!u)
        return error_origin(-ENOMEM);
    u->api = api;
    u->npy = NPY_INIT;
    api_batch_init(&u->batch, c, api->work, &u->bytes);
    if (!count_memory(u)) {
        free(u);
        return error_origin(-ENOMEM);
    }
    int r = bulk_task_begin(api->tasks, "ingest", c->name, c->incarnation, &u->task);
    if (r) {
        budget_give(api->budget, BUDGET_BODIES, u->taken_bytes);
        free(u);
        return error_fold(r);
    }
    u->collection = c;
    *ret_upload = u;
    return 0;
}

/* ---- Groups ---- */

static int busy(struct upload *u, int refusal) {
    u->refusal = refusal;
    if (!u->refused_since_ns)
        u->refused_since_ns = os_monotonic_ns(u->api->os);
    return API_E_BUSY;
}

static bool lagging(struct upload *u) {
    struct work_status status;
    work_status(u->api->work, &status);
    return status.lag_ms > LAG_MAX_MS;
}

/* Others' writes wait behind what is not durable yet, so an upload may not run ahead of the disk.
 */
static bool window_full(const struct upload *u) {
    return u->half_bytes >= WINDOW_BYTES / 2 && journal_durable(u->api->journal) < u->marks[0];
}

static void window_add(struct upload *u, lsn_t last, uint64_t bytes) {
    if (u->half_bytes >= WINDOW_BYTES / 2) {
        u->marks[0] = u->marks[1];
        u->half_bytes = 0;
    }
    u->marks[1] = last;
    u->half_bytes += bytes;
}

/* API_E_BUSY; API_E_GONE. */
static int flush(struct upload *u) {
    lsn_t first, last;
    int condition = 0;
    if (u->batch.n == 0)
        return 0;
    if (window_full(u))
        return busy(u, JOURNAL_E_UNAVAILABLE);
    if (lagging(u))
        return busy(u, 0);
    int r = api_append(u->api, u->collection, &u->batch, &first, &last, &condition);
    if (r == API_E_REFUSED || r == API_E_LETTERS_FULL)
        return busy(u, r == API_E_REFUSED ? condition : r);
    if (r)
        return error_trace(r);
    bulk_task_accepted(u->task, first, last, u->batch.n);
    u->accepted += u->batch.n;
    u->last = last;
    u->refused_since_ns = 0;
    window_add(u, last, u->bytes.size);
    api_batch_clear(&u->batch);
    return 0;
}

static bool full(const struct upload *u) {
    return u->batch.n >= GROUP_POINTS_MAX || u->bytes.size >= GROUP_BYTES_MAX;
}

/* ---- Records ---- */

static void reject(struct upload *u, uint64_t line, const char *sentence) {
    u->rejected++;
    bulk_task_error(u->task, line, sentence);
}

/* 0 also when the record was wrong: it is counted and skipped. */
static int take_json(struct upload *u, struct bytes piece, struct json_parser *parser) {
    struct api_fault f;
    int r = api_batch_point(&u->batch, parser, piece, "the record", &f);
    if (r != API_E_FAULT)
        return error_trace(r);
    reject(u, u->stream.pieces, f.sentence);
    return 0;
}

static int break_off(struct upload *u, const char *sentence) {
    snprintf(u->broken, sizeof u->broken, "%s", sentence);
    return API_E_BROKEN;
}

/* 0: went on by one record. JSON_SPLIT_E_MORE, _END; API_E_BROKEN. */
static int next_json(struct upload *u, struct json_parser *parser) {
    struct bytes piece;
    int r = json_stream_next(&u->stream, &piece);
    if (r == 0)
        return error_trace(take_json(u, piece, parser));
    if (r == JSON_SPLIT_E_TOO_LARGE) {
        reject(u, u->stream.pieces, "the record is longer than 16 MiB");
        return 0;
    }
    if (r == JSON_SPLIT_E_SYNTAX)
        return break_off(u, "from there on it is not a JSON array");
    if (r == JSON_SPLIT_E_MORE && u->stream.ended)
        return break_off(u, "the JSON ends too early");
    return r;
}

static int take_row(struct upload *u, struct bytes row) {
    struct api_fault f;
    int r = api_batch_begin(&u->batch);
    if (r)
        return error_trace(r);
    r = api_batch_floats(&u->batch, u->vector, row.data, &f);
    if (r == 0)
        r = api_batch_end(&u->batch, (struct point_id){.low = u->first_id + u->npy.row - 1}, &f);
    if (r)
        api_batch_take_back(&u->batch);
    if (r != API_E_FAULT)
        return error_trace(r);
    reject(u, u->npy.row, f.sentence);
    return 0;
}

/* A row is the collection's only vector. */
static int check_header(struct upload *u) {
    const struct point_config *config = &u->collection->config;
    if (config->n_vectors != 1)
        return break_off(u, "an array needs a collection of exactly one vector");
    if (u->npy.dimension == config->vectors[0].dimension)
        return 0;
    snprintf(u->broken, sizeof u->broken, "Vector dimension error: expected dim: %u, got %llu",
             config->vectors[0].dimension, (unsigned long long)u->npy.dimension);
    return API_E_BROKEN;
}

/* As next_json. */
static int next_row(struct upload *u) {
    struct bytes row;
    bool checked = u->npy.header_read;
    int r = npy_header(&u->npy);
    if (r == 0 && !checked)
        r = check_header(u);
    if (r == API_E_BROKEN)
        return r;
    if (r == 0)
        r = npy_next(&u->npy, &row);
    if (r == NPY_E_BROKEN)
        return break_off(u, u->npy.sentence);
    if (r == NPY_E_MORE || r == NPY_E_END)
        return r == NPY_E_MORE ? JSON_SPLIT_E_MORE : JSON_SPLIT_E_END;
    return error_trace(take_row(u, row));
}

/* Takes all that can be taken now: JSON_SPLIT_E_MORE or _END then; API_E_BUSY, _BROKEN, _GONE. */
static int take_all(struct upload *u, struct json_parser *parser) {
    int r = 0;
    if (u->broken[0])
        return API_E_BROKEN;
    while (r == 0) {
        if (full(u))
            r = flush(u);
        if (r == 0)
            r = u->form == FORM_NPY ? next_row(u) : next_json(u, parser);
    }
    return error_trace(r);
}

/* ---- Forms ---- */

/* By the first byte that is not white space; what is said to be lines is. */
static void sniff(struct upload *u, struct bytes chunk) {
    size_t i = 0;
    while (i < chunk.size && strchr(" \t\r\n", chunk.data[i]) && chunk.data[i])
        i++;
    if (i == chunk.size)
        return;
    u->form = chunk.data[i] == 0x93 && !u->says_lines ? FORM_NPY : FORM_JSON;
    bool array = chunk.data[i] == '[' && !u->says_lines;
    if (u->form == FORM_JSON)
        json_stream_init(&u->stream, array ? JSON_STREAM_ARRAY : JSON_STREAM_LINES,
                         PIECE_MAX_BYTES);
}

static int feed(struct upload *u, struct bytes chunk) {
    if (u->form == FORM_UNKNOWN)
        sniff(u, chunk);
    if (u->form == FORM_JSON)
        return error_trace(json_stream_feed(&u->stream, chunk));
    return u->form == FORM_NPY ? error_trace(npy_feed(&u->npy, chunk)) : 0;
}

static void finish_stream(struct upload *u) {
    if (u->form == FORM_JSON)
        json_stream_finish(&u->stream);
    npy_finish(&u->npy);
}

/* ---- Ends ---- */

/* A good end is appended only while the collection is alive: that of a drop comes behind it. */
static int append_end_record(struct upload *u, enum bulk_status status,
                             struct journal_record *record) {
    struct points_api *api = u->api;
    int condition = 0;
    if (status != BULK_SUCCEEDED)
        return error_trace(journal_append(api->journal, record, 1));
    int r = points_catalog_append(api->catalog, api->journal, u->collection, record, 1, &condition);
    if (r == POINTS_E_JOURNAL)
        return condition;
    return r == POINTS_E_GONE ? API_E_GONE : error_trace(r);
}

/* Appends the record of the end; *ret_lsn is its own. JOURNAL_E_…, API_E_GONE: nothing has changed.
 */
static int append_end(struct upload *u, enum bulk_status status, const char *reason,
                      lsn_t *ret_lsn) {
    CLEANUP(buffer_deinit) struct buffer payload = BUFFER_INIT;
    bulk_task_encode_end(u->task, status, reason, &payload);
    int r = buffer_check(&payload);
    if (r)
        return error_trace(r);
    struct journal_record record = {
        .kind = JOURNAL_KIND_POINTS, .flags = JOURNAL_CONTROL, .payload = buffer_bytes(&payload)};
    r = append_end_record(u, status, &record);
    if (r)
        return error_trace(r);
    bulk_task_ended(u->task, record.lsn);
    *ret_lsn = record.lsn;
    return 0;
}

/* Ends the task without an answer that depends on it. When the journal refuses even this, the task
 * is known until the server stops. */
static void end_anyway(struct upload *u, enum bulk_status status, const char *why) {
    char reason[256];
    lsn_t lsn;
    uint64_t seen = u->accepted + u->rejected;
    snprintf(reason, sizeof reason, "after record %" PRIu64 ": %s", seen, why);
    if (seen == 0 || u->taskless)
        bulk_task_abandon(u->task);
    else if (append_end(u, status, reason, &lsn) != 0)
        bulk_task_ended(u->task, 0);
}

static void leave(struct upload *u, struct http_request *r) {
    http_set_state(r, NULL);
    upload_free(u);
}

/* The upload ends here with an error; what was durable stays. */
static void fail(struct upload *u, struct http_request *r, int result) {
    enum bulk_status status = result == API_E_GONE ? BULK_FAILED : BULK_INTERRUPTED;
    if (result == API_E_GONE) {
        end_anyway(u, status, "the collection was dropped");
        api_fail_collection(r, bytes_of_string(u->collection->name));
    } else if (result == API_E_BUSY && u->refusal == API_E_LETTERS_FULL) {
        end_anyway(u, status, "too many records are dead letters");
        api_fail_letters(r);
    } else if (result == API_E_BUSY && u->refusal) {
        end_anyway(u, status, "the journal refused to go on");
        http_fail_journal(r, u->refusal);
    } else if (result == API_E_BUSY) {
        end_anyway(u, status, "the store is too far behind");
        http_fail(r, HTTP_ERROR_TOO_FAR_BEHIND, NULL, NULL);
    } else {
        end_anyway(u, status, "the server met an error");
        api_fail(r, result, NULL);
    }
    leave(u, r);
}

/* Pauses the reading, or gives up: when it was refused for too long, and at once where it takes a
 * person to end that. */
static void pause_or_fail(struct upload *u, struct http_request *r) {
    uint64_t now = os_monotonic_ns(u->api->os);
    if (u->refusal == API_E_LETTERS_FULL ||
        now - u->refused_since_ns > (uint64_t)REFUSED_MAX_MS * 1000000)
        fail(u, r, API_E_BUSY);
    else
        http_pause_body_ms(r, RETRY_MS);
}

static unsigned render_task(struct http_request *r, enum http_write_outcome outcome,
                            struct buffer *body) {
    const struct api_written *written = http_state(r);
    (void)outcome;
    buffer_append_format(body, "{\"task_id\":\"%s\"}", written->text);
    return 202;
}

static void answer(struct upload *u, struct http_request *r, struct api_written *written,
                   api_render render) {
    struct points_api *api = u->api;
    lsn_t lsn = written->lsn;
    leave(u, r);
    http_set_state(r, written);
    api_await(api, r, lsn, lsn, 0, false, 0, render);
}

static void answer_task(struct upload *u, struct http_request *r, enum bulk_status status,
                        const char *reason) {
    lsn_t lsn = 0;
    struct api_written *written = arena_calloc(http_arena(r), 1, sizeof *written);
    const char *id = arena_copy_string(http_arena(r), bytes_of_string(bulk_task_id(u->task)));
    if (!written || !id) {
        fail(u, r, -ENOMEM);
        return;
    }
    int result = append_end(u, status, reason, &lsn);
    if (result < 0 || result == API_E_GONE) {
        fail(u, r, result);
        return;
    }
    if (result) {
        busy(u, result);
        pause_or_fail(u, r);
        return;
    }
    *written = (struct api_written){.lsn = lsn, .text = id};
    answer(u, r, written, render_task);
}

static unsigned render_result(struct http_request *r, enum http_write_outcome outcome,
                              struct buffer *body) {
    const struct api_written *written = http_state(r);
    (void)outcome;
    buffer_append_string(body, written->text);
    return 200;
}

static void answer_result(struct upload *u, struct http_request *r, const char *reason) {
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct api_written *written = arena_calloc(http_arena(r), 1, sizeof *written);
    buffer_append_string(&out, "{\"result\":");
    bulk_task_append_result(u->task, &out);
    buffer_append_string(&out, ",\"error\":");
    if (*reason)
        json_append_cstring(&out, reason);
    else
        buffer_append_string(&out, "null");
    buffer_append_string(&out, "}");
    const char *text = out.failed ? NULL : arena_copy_string(http_arena(r), buffer_bytes(&out));
    if (!written || !text) {
        fail(u, r, -ENOMEM);
        return;
    }
    bulk_task_abandon(u->task);
    *written = (struct api_written){.lsn = u->last, .text = text};
    answer(u, r, written, render_result);
}

/* All that could be read is appended. */
static void conclude(struct upload *u, struct http_request *r) {
    char reason[256] = "";
    uint64_t records = u->accepted + u->rejected;
    if (records == 0) {
        bulk_task_abandon(u->task);
        http_fail(r, HTTP_ERROR_BAD_REQUEST, NULL, "%s",
                  u->broken[0] ? u->broken : "the body holds no points");
        leave(u, r);
        return;
    }
    if (u->broken[0])
        snprintf(reason, sizeof reason, "after record %llu: %s", (unsigned long long)records,
                 u->broken);
    else if (u->accepted == 0)
        snprintf(reason, sizeof reason, "none of the %llu records was good",
                 (unsigned long long)records);
    if (u->taskless) {
        answer_result(u, r, reason);
        return;
    }
    answer_task(u, r,
                u->broken[0]       ? BULK_INTERRUPTED
                : u->accepted == 0 ? BULK_FAILED
                                   : BULK_SUCCEEDED,
                reason);
}

/* ---- Handlers ---- */

static bool parse_first_id(const struct http_request *r, uint64_t *ret_id) {
    struct bytes text;
    uint64_t id = 0;
    bool given = http_query_parameter(r, "first_id", &text);
    for (size_t i = 0; given && i < text.size; i++)
        if (text.data[i] < '0' || text.data[i] > '9' || __builtin_mul_overflow(id, 10, &id) ||
            __builtin_add_overflow(id, text.data[i] - '0', &id))
            return false;
    *ret_id = id;
    return id <= INT64_MAX && (!given || text.size > 0);
}

static void ingest_begin(void *context, struct http_request *r) {
    struct points_api *api = context;
    struct bytes name = http_path_parameter(r, "collection");
    const char *type = http_header(r, "Content-Type");
    struct upload *u = NULL;
    uint64_t first_id;
    if (!parse_first_id(r, &first_id)) {
        http_fail(r, HTTP_ERROR_INVALID_FIELD, "first_id", "first_id must be a whole number");
        return;
    }
    if (atomic_fetch_add(&api->uploads, 1) >= UPLOADS_MAX) {
        atomic_fetch_sub(&api->uploads, 1);
        http_fail(r, HTTP_ERROR_OVERLOADED, NULL, "%d uploads are under way; try again later",
                  UPLOADS_MAX);
        return;
    }
    struct points_collection *c = api_find_collection(api, name);
    int result = c ? upload_new(api, c, &u) : 0;
    if (!u) {
        atomic_fetch_sub(&api->uploads, 1);
        points_collection_unref(c);
        if (result)
            api_fail(r, result, NULL);
        else
            api_unknown_collection(api, r, name, ingest_begin);
        return;
    }
    u->says_lines = type && strcasestr(type, "ndjson");
    u->taskless = api->follow || !http_query_flag(r, "task", true);
    u->first_id = first_id;
    http_set_state(r, u);
}

static void ingest_chunk(void *context, struct http_request *r, struct bytes chunk) {
    struct upload *u = http_state(r);
    (void)context;
    if (!u)
        return;
    int result = u->broken[0] ? 0 : feed(u, chunk);
    if (result == 0 && !count_memory(u))
        result = error_origin(-ENOMEM);
    if (result == 0)
        result = u->form == FORM_UNKNOWN ? JSON_SPLIT_E_MORE : take_all(u, http_json_parser(r));
    if (result == API_E_BROKEN) { /* what follows is read and thrown away: 202 comes at the end */
        result = flush(u);
        if (result == 0 && u->accepted + u->rejected == 0) {
            conclude(u, r);
            return;
        }
    }
    if (result == API_E_BUSY)
        pause_or_fail(u, r);
    else if (result < 0 || result == API_E_GONE)
        fail(u, r, result);
}

static void ingest_end(void *context, struct http_request *r) {
    struct upload *u = http_state(r);
    (void)context;
    if (!u)
        return;
    finish_stream(u);
    int result = u->form == FORM_UNKNOWN ? 0 : take_all(u, http_json_parser(r));
    if (result == JSON_SPLIT_E_END || result == API_E_BROKEN || result == JSON_SPLIT_E_MORE)
        result = flush(u);
    if (result == API_E_BUSY)
        pause_or_fail(u, r);
    else if (result)
        fail(u, r, result);
    else
        conclude(u, r);
}

static void ingest_closed(void *context, struct http_request *r) {
    struct upload *u = http_state(r);
    (void)context;
    if (!u)
        return;
    /* What is encoded is good; but if it cannot be taken now, it was never acknowledged. */
    if (flush(u) == API_E_GONE)
        end_anyway(u, BULK_FAILED, "the collection was dropped");
    else
        end_anyway(u, BULK_INTERRUPTED, "the client went away");
    leave(u, r);
}

static const struct http_route routes[] = {
    {.method = HTTP_POST,
     .path = "/ingest/{collection}",
     .handler = ingest_begin,
     .flags = HTTP_ROUTE_WRITES | HTTP_ROUTE_STREAM,
     .style = HTTP_STYLE_MILLRACE,
     .tag = "Bulk ingest",
     .summary = "Points as NDJSON, a JSON array, or a float32 .npy (ids from first_id), of any "
                "length; GET /tasks/{id} says what became of them, or, with task=false, the answer",
     .request = "[Point]",
     .answer = "{task_id!: string} | {result!: {accepted!: uint, rejected!: uint, errors!: "
               "[{line!: uint, error!: string}]}, error!: string?}",
     .query = "collection: string = \"movies\", task: boolean, first_id: uint",
     .chunk = ingest_chunk,
     .end = ingest_end,
     .closed = ingest_closed},
};

struct http_route_table api_ingest_routes(struct points_api *api) {
    return (struct http_route_table){
        .routes = routes, .n = ARRAY_LENGTH(routes), .context = api, .journal = api->journal};
}
