/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The records that are sent. A record is made from the seed and its number alone, so the same seed
 * gives the same records however they are spread over connections. Numbers are written two groups
 * of four digits at a time from a table: a million points of 100 numbers cost about half a second.
 */
#include "cli/load_records.h"

#include "base/hash.h"
#include "base/json.h"
#include "cli/load_collection.h"
#include "serve/assets.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum { DIGIT_GROUPS = 10000, NUMBER_MAX = 12 /* "-0.12345678," */ };

struct city {
    const char *name;
    int lat; /* degrees * 10,000 */
    int lon;
};
static const struct city cities[] = {
    {"Amsterdam", 523676, 49041}, {"Athens", 379838, 237275},
    {"Berlin", 525200, 134050},   {"Buenos Aires", -346037, -583816},
    {"Cairo", 300444, 312357},    {"Delhi", 286139, 772090},
    {"Jakarta", -62088, 1068456}, {"Lagos", 65244, 33792},
    {"Lima", -120464, -770428},   {"London", 515072, -1276},
    {"Madrid", 404168, -37038},   {"Mexico City", 194326, -991332},
    {"Mumbai", 190760, 728777},   {"New York", 407128, -740060},
    {"Oslo", 599139, 107522},     {"Paris", 488566, 23522},
    {"Sydney", -338688, 1512093}, {"Tokyo", 356762, 1396503},
    {"Toronto", 436532, -793832}, {"Warsaw", 522297, 210122},
};

static const struct load_ops record_ops;
static const struct load_ops movie_ops;

/* ---- Random numbers as text ---- */

static int make_digits(struct record_source *source) {
    source->digits = malloc(sizeof(char[DIGIT_GROUPS][4]));
    if (!source->digits)
        return error_origin(-ENOMEM);
    for (unsigned i = 0; i < DIGIT_GROUPS; i++) {
        source->digits[i][0] = (char)('0' + i / 1000);
        source->digits[i][1] = (char)('0' + i / 100 % 10);
        source->digits[i][2] = (char)('0' + i / 10 % 10);
        source->digits[i][3] = (char)('0' + i % 10);
    }
    return 0;
}

static void append_vector(const struct record_source *source, uint64_t seed, struct buffer *out) {
    uint8_t *start = buffer_reserve(out, (size_t)source->dimension * NUMBER_MAX);
    if (!start)
        return; /* the buffer remembers */
    uint8_t *at = start;
    for (unsigned i = 0; i < source->dimension; i++) {
        uint64_t random = hash64_u64(seed + i);
        *at = '-';
        at += random & 1;
        memcpy(at, "0.", 2);
        memcpy(at + 2, source->digits[((random >> 32) * DIGIT_GROUPS) >> 32], 4);
        memcpy(at + 6, source->digits[((random & UINT32_MAX) * DIGIT_GROUPS) >> 32], 4);
        at[10] = ',';
        at += 11;
    }
    out->size += (size_t)(at - start) - 1; /* without the last comma */
}

/* Where the random numbers of a record start; 2^20 apart, so that no two records share any. */
static uint64_t record_seed(const struct record_source *source, uint64_t id) {
    return hash64_u64(source->base.seed) + (id << 20);
}

/* ---- records ---- */

static void append_degrees(struct buffer *out, int degrees) {
    unsigned size = (unsigned)abs(degrees);
    buffer_append_format(out, "%s%u.%04u", degrees < 0 ? "-" : "", size / 10000, size % 10000);
}

static void append_record(const struct record_source *source, uint64_t id, struct buffer *out) {
    uint64_t seed = record_seed(source, id);
    uint64_t random = hash64_u64(~seed);
    const struct city *city = &cities[random % ARRAY_LENGTH(cities)];
    buffer_append_string(out, "{\"id\":");
    json_append_u64(out, id);
    buffer_append_string(out, ",\"payload\":{\"city\":\"");
    buffer_append_string(out, city->name);
    buffer_append_string(out, "\",\"location\":{\"lat\":");
    append_degrees(out, city->lat + (int)(random >> 32 & 1023) - 512);
    buffer_append_string(out, ",\"lon\":");
    append_degrees(out, city->lon + (int)(random >> 48 & 1023) - 512);
    buffer_append_string(out, "}},\"vector\":[");
    append_vector(source, seed, out);
    buffer_append_string(out, "]}");
}

static void append_records(const struct record_source *source, uint64_t first, uint64_t n,
                           struct buffer *out) {
    buffer_append_string(out, "{\"points\":[");
    for (uint64_t i = 0; i < n; i++) {
        if (i > 0)
            buffer_append_u8(out, ',');
        append_record(source, first + i, out);
    }
    buffer_append_string(out, "]}");
}

static int copy_path(struct record_source *source, struct buffer *path) {
    buffer_append_u8(path, 0);
    int r = buffer_check(path);
    if (r)
        return error_trace(r);
    assert(path->size <=
           sizeof source->path); /* a name is at most 255 bytes, three times encoded */
    memcpy(source->path, path->data, path->size);
    return 0;
}

int record_source_records(struct record_source *source, const char *collection, bool wait) {
    struct buffer path CLEANUP(buffer_deinit) = BUFFER_INIT;
    source->base.ops = &record_ops;
    snprintf(source->collection, sizeof source->collection, "%s", collection);
    buffer_append_string(&path, "/collections/");
    url_append_segment(&path, collection);
    buffer_append_string(&path, wait ? "/points?wait=true" : "/points?wait=false");
    int r = copy_path(source, &path);
    return r ? r : make_digits(source);
}

/* ---- movies ---- */

/* Lays the payloads one behind the other, each as JSON. */
static int take_movies(struct record_source *source, struct json_value movies) {
    size_t n = json_size(movies);
    struct json_iterator it = json_iterate(movies);
    struct json_value movie;
    source->movie_ends = calloc(n, sizeof *source->movie_ends);
    if (!source->movie_ends)
        return error_origin(-ENOMEM);
    while (source->n_movies < n && json_next(&it, NULL, &movie)) {
        json_append_value(&source->movies, movie);
        source->movie_ends[source->n_movies++] = (uint32_t)source->movies.size;
    }
    return buffer_check(&source->movies);
}

static int parse_movies(struct record_source *source, const struct asset *asset) {
    struct buffer text CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct json_parser *parser;
    struct json_value movies;
    int r = asset_decompress(asset, &text);
    if (!r && !buffer_reserve(&text, JSON_PADDING))
        r = error_origin(-ENOMEM);
    if (r)
        return error_trace(r);
    r = json_parser_new(text.size, &parser);
    if (r)
        return error_trace(r);
    r = json_parse(parser, buffer_bytes(&text), &movies);
    assert(r <= 0); /* our own build made the text */
    if (!r)
        r = take_movies(source, movies);
    json_parser_free(parser);
    return r ? error_trace(r) : 0;
}

int record_source_movies(struct record_source *source, const char *collection) {
    const struct asset *asset = asset_find(BYTES_LITERAL("movies.json"));
    if (!asset)
        return LOAD_E_NO_MOVIES;
    source->base.ops = &movie_ops;
    snprintf(source->collection, sizeof source->collection, "%s", collection);
    snprintf(source->path, sizeof source->path, "/alioth/ingest");
    int r = parse_movies(source, asset);
    return r ? r : make_digits(source);
}

static struct bytes movie_payload(const struct record_source *source, uint64_t number) {
    uint32_t i = (uint32_t)(number % source->n_movies);
    uint32_t start = i > 0 ? source->movie_ends[i - 1] : 0;
    return bytes_of(source->movies.data + start, source->movie_ends[i] - start);
}

static void append_movies(const struct record_source *source, uint64_t first, uint64_t n,
                          struct buffer *out) {
    buffer_append_string(out, "{\"collection_name\":");
    json_append_cstring(out, source->collection);
    buffer_append_string(out, ",\"batch\":{\"ids\":[");
    for (uint64_t i = 0; i < n; i++)
        buffer_append_format(out, i ? ",%" PRIu64 : "%" PRIu64, first + i);
    buffer_append_string(out, "],\"vectors\":[");
    for (uint64_t i = 0; i < n; i++) {
        buffer_append_string(out, i ? ",[" : "[");
        append_vector(source, record_seed(source, first + i), out);
        buffer_append_u8(out, ']');
    }
    buffer_append_string(out, "],\"payloads\":[");
    for (uint64_t i = 0; i < n; i++) {
        if (i > 0)
            buffer_append_u8(out, ',');
        buffer_append_bytes(out, movie_payload(source, first + i));
    }
    buffer_append_string(out, "]}}");
}

void record_append_body(const struct record_source *source, uint64_t first, uint64_t n,
                        struct buffer *out) {
    if (source->n_movies > 0)
        append_movies(source, first, n, out);
    else
        append_records(source, first, n, out);
}

void record_source_deinit(struct record_source *source) {
    buffer_deinit(&source->movies);
    free(source->movie_ends);
    free(source->digits);
}

/* ---- Requests ---- */

static const struct record_source *source_of(const struct load_worker *w) {
    return (const struct record_source *)w->plan->source;
}

/* Takes the next records that nobody has. */
static bool take(struct load_worker *w, struct load_request *request) {
    const struct record_source *source = source_of(w);
    const struct load_source *base = &source->base;
    uint64_t first = atomic_fetch_add(&w->progress->next, base->batch);
    if (first >= base->count)
        return false;
    request->method = base->ops == &movie_ops ? "POST" : "PUT";
    memcpy(request->path, source->path, sizeof request->path);
    request->items = base->count - first < base->batch ? base->count - first : base->batch;
    request->repeatable = true; /* the same ids get the same contents */
    request->timed = base->rate > 0;
    if (request->timed)
        request->due_ns = (uint64_t)((double)first * 1e9 / (double)base->rate);
    record_append_body(source, first, request->items, &request->text);
    return true;
}

/* "task_id":"…" of an answer; the server's own JSON, so looking for it is enough. */
static const char *take_task(struct load_worker *w, struct load_request *request UNUSED,
                             const struct client_answer *answer) {
    static const char key[] = "\"task_id\":\"";
    const uint8_t *at = memmem(answer->body.data, answer->body.size, key, sizeof key - 1);
    if (!at)
        return NULL;
    at += sizeof key - 1;
    const uint8_t *end = memchr(at, '"', (size_t)(answer->body.data + answer->body.size - at));
    if (!end)
        return NULL;
    buffer_append(&w->result->tasks, at, (size_t)(end - at));
    buffer_append_u8(&w->result->tasks, 0);
    return NULL;
}

static const char *take_acknowledgement(struct load_worker *w UNUSED,
                                        struct load_request *request UNUSED,
                                        const struct client_answer *answer UNUSED) {
    return NULL;
}

/* ---- What is told ---- */

/* One task is enough to look at; --json lists them all. */
static void print(FILE *out, const struct load_report *report) {
    const struct record_source *source = (const struct record_source *)report->plan->source;
    const struct buffer *tasks = &report->result->tasks;
    const char *last = NULL;
    size_t n = 0;
    const char *end = (const char *)tasks->data + tasks->size;
    for (const char *at = (const char *)tasks->data; at < end; at += strlen(at) + 1, n++)
        last = at;
    if (last)
        fprintf(out, "tasks         %zu, the last %s\n", n, last);
    fprintf(out, "collection    %s\n", source->collection);
}

static void append_json(struct buffer *out, const struct load_report *report) {
    const struct record_source *source = (const struct record_source *)report->plan->source;
    const struct buffer *tasks = &report->result->tasks;
    const char *at = (const char *)tasks->data;
    const char *end = at + tasks->size;
    buffer_append_string(out, "\"collection\":");
    json_append_cstring(out, source->collection);
    buffer_append_string(out, ",\"tasks\":[");
    for (const char *separator = ""; at < end; at += strlen(at) + 1) {
        buffer_append_string(out, separator);
        json_append_cstring(out, at);
        separator = ",";
    }
    buffer_append_string(out, "],");
}

static const struct load_ops record_ops = {
    .name = "records",
    .items = "records",
    .kinds = {"records"},
    .n_kinds = 1,
    .worker_size = sizeof(struct load_worker),
    .begin = collection_begin,
    .take = take,
    .answered = take_acknowledgement,
    .end = collection_end,
    .print = print,
    .append_json = append_json,
};

static const struct load_ops movie_ops = {
    .name = "movies",
    .items = "records",
    .kinds = {"movies"},
    .n_kinds = 1,
    .worker_size = sizeof(struct load_worker),
    .begin = collection_begin,
    .take = take,
    .answered = take_task,
    .end = collection_end,
    .print = print,
    .append_json = append_json,
};
