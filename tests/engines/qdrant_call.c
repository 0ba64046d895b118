/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client of Qdrant (points/qdrant/client.h) as a program, for test_qdrant_client.py: a line of
 * JSON in is a call, a line of JSON out how it went.
 *
 *   qdrant-call '{"host": "127.0.0.1", "port": 6334, "api_key": …, "tls": …, "ca_file": …,
 *                 "connections": …, "timeout_ms": …}'
 *   {"op": "health"}
 *   {"op": "upsert", "collection": "c", "ordering": 0, "vectors": {"": 4},
 *    "points": [{"id": 1, "vectors": {"": [1, 2, 3, 4]}, "payload": "{}"}]}
 *   {"op": "delete", "collection": "c", "ordering": 2, "ids": [1, "…"]}
 *
 * "threads": n makes the call n times at once. Out: {"answers": [[outcome, status, sentence], …],
 * "connections": …, "concurrency": …, "calls": …, "calls_failed": …, "bytes_sent": …}
 */
#include "os/sync.h"
#include "points/qdrant/client.h"

#include <stdio.h>
#include <stdlib.h>

enum { LINE_MAX_BYTES = 8 << 20, THREADS_MAX = 64, POINTS_MAX = 20000, FLOATS_MAX = 1 << 20 };

struct request {
    struct qdrant_client *client;
    struct json_value json;
    struct bytes op;
    struct bytes collection;
    enum qdrant_ordering ordering;
    uint64_t late_ms; /* then it is too late to send; 0: never */
    struct point_config config;
    struct qdrant_point *points;
    struct point_id *ids;
    size_t n;
    float *floats;
    size_t n_floats;
};

struct caller {
    const struct request *request;
    struct os_thread *thread;
    struct qdrant_answer answer;
};

static struct json_value member(struct json_value object, const char *key) {
    struct json_value v = json_empty_object();
    (void)json_find(object, key, &v);
    return v;
}

static uint64_t number(struct json_value object, const char *key) {
    uint64_t n = 0;
    (void)json_get_u64(member(object, key), &n);
    return n;
}

static struct bytes string(struct json_value object, const char *key) {
    struct bytes s = {0};
    (void)json_get_string(member(object, key), &s);
    return s;
}

static char *copy_string(struct json_value object, const char *key) {
    struct bytes s = string(object, key);
    return s.data ? strndup((const char *)s.data, s.size) : NULL;
}

static struct json_value parse(struct json_parser *parser, const char *text) {
    struct json_value root;
    size_t size = strlen(text);
    char *padded = calloc(1, size + JSON_PADDING);
    memcpy(padded, text, size);
    if (json_parse(parser, bytes_of(padded, size), &root)) {
        fprintf(stderr, "qdrant-call: not JSON: %.100s\n", text);
        exit(2);
    }
    free(padded);
    return root;
}

static void read_config(struct request *q) {
    struct json_iterator it = json_iterate(member(q->json, "vectors"));
    struct bytes name;
    struct json_value dimension;
    while (json_next(&it, &name, &dimension)) {
        struct point_vector_config *v = &q->config.vectors[q->config.n_vectors++];
        memcpy(v->name, name.data, name.size);
        uint64_t n = 0;
        (void)json_get_u64(dimension, &n);
        v->dimension = (uint32_t)n;
    }
    point_config_finish(&q->config);
}

static void read_vectors(struct request *q, struct json_value vectors, struct qdrant_point *p) {
    float *start = q->floats + q->n_floats;
    for (uint32_t i = 0; i < q->config.n_vectors; i++) {
        struct json_value vector;
        size_t n = 0;
        if (!json_find(vectors, q->config.vectors[i].name, &vector))
            continue;
        if (json_get_floats(vector, q->floats + q->n_floats, FLOATS_MAX - q->n_floats, &n))
            exit(2);
        p->vector_mask |= (uint64_t)1 << i;
        q->n_floats += n;
    }
    p->vectors = bytes_of(start, (size_t)(q->floats + q->n_floats - start) * sizeof *start);
}

static void read_points(struct request *q) {
    struct json_iterator it = json_iterate(member(q->json, "points"));
    struct json_value point;
    while (json_next(&it, NULL, &point)) {
        struct qdrant_point *p = &q->points[q->n++];
        *p = (struct qdrant_point){.payload = string(point, "payload")};
        if (!point_id_from_json(member(point, "id"), &p->id))
            exit(2);
        read_vectors(q, member(point, "vectors"), p);
    }
    it = json_iterate(member(q->json, "ids"));
    while (json_next(&it, NULL, &point))
        if (!point_id_from_json(point, &q->ids[q->n++]))
            exit(2);
}

static void call(void *argument) {
    struct caller *caller = argument;
    const struct request *q = caller->request;
    const struct qdrant_update update = {
        .collection = q->collection,
        .ordering = q->ordering,
        .send_by_ns = q->late_ms ? os_monotonic_ns(os_real()) + q->late_ms * 1000000 : 0};
    int r;
    if (bytes_equal(q->op, BYTES_LITERAL("upsert")))
        r = qdrant_upsert(q->client, &update, &q->config, q->points, q->n, &caller->answer);
    else if (bytes_equal(q->op, BYTES_LITERAL("delete")))
        r = qdrant_delete(q->client, &update, q->ids, q->n, &caller->answer);
    else
        r = qdrant_health(q->client, &caller->answer);
    if (r) {
        fprintf(stderr, "qdrant-call: %s\n", strerror(-r));
        exit(1);
    }
}

static void print_answers(const struct request *q, const struct caller *callers, size_t n) {
    static const char *const outcomes[] = {"ok", "retry", "reject", "down"};
    struct buffer out = BUFFER_INIT;
    buffer_append_string(&out, "{\"answers\": [");
    for (size_t i = 0; i < n; i++) {
        const struct qdrant_answer *a = &callers[i].answer;
        buffer_append_format(&out, "%s[\"%s\", %u, ", i ? ", " : "", outcomes[a->outcome],
                             a->grpc_status);
        json_append_cstring(&out, a->sentence);
        buffer_append_string(&out, "]");
    }
    struct qdrant_client_stats s;
    qdrant_client_stats(q->client, &s);
    buffer_append_format(&out,
                         "], \"connections\": %u, \"concurrency\": %u, \"calls\": %llu, "
                         "\"calls_failed\": %llu, \"bytes_sent\": %llu, \"latency_us\": %llu}",
                         s.connections, s.concurrency, (unsigned long long)s.calls,
                         (unsigned long long)s.calls_failed, (unsigned long long)s.bytes_sent,
                         (unsigned long long)s.latency_us);
    printf("%.*s\n", (int)out.size, (const char *)out.data);
    fflush(stdout);
    buffer_deinit(&out);
}

static void serve_line(struct request *q) {
    static struct caller callers[THREADS_MAX];
    q->op = string(q->json, "op");
    q->collection = string(q->json, "collection");
    q->ordering = (enum qdrant_ordering)number(q->json, "ordering");
    q->late_ms = number(q->json, "late_ms");
    read_config(q);
    read_points(q);
    size_t n = number(q->json, "threads");
    n = n == 0 ? 1 : n < THREADS_MAX ? n : THREADS_MAX;
    for (size_t i = 0; i < n; i++) {
        callers[i] = (struct caller){.request = q};
        if (os_thread_start(os_real(), "call", call, &callers[i], &callers[i].thread))
            exit(1);
    }
    for (size_t i = 0; i < n; i++)
        os_thread_join(os_real(), callers[i].thread);
    print_answers(q, callers, n);
}

static struct qdrant_client *connect_as(struct json_value told) {
    struct qdrant_client *client;
    char *host = copy_string(told, "host");
    char *api_key = copy_string(told, "api_key");
    char *ca_file = copy_string(told, "ca_file");
    bool tls = false;
    (void)json_get_bool(member(told, "tls"), &tls);
    const struct qdrant_client_options options = {
        .host = host,
        .port = (uint16_t)number(told, "port"),
        .api_key = api_key,
        .tls = tls,
        .ca_file = ca_file,
        .connections_max = (unsigned)number(told, "connections"),
        .timeout_ms = number(told, "timeout_ms"),
    };
    if (qdrant_client_new(os_real(), &options, &client))
        exit(1);
    free(host);
    free(api_key);
    free(ca_file);
    return client;
}

int main(int argc, char **argv) {
    struct json_parser *parser;
    char *line = malloc(LINE_MAX_BYTES);
    struct request q = {.points = calloc(POINTS_MAX, sizeof *q.points),
                        .ids = calloc(POINTS_MAX, sizeof *q.ids),
                        .floats = calloc(FLOATS_MAX, sizeof *q.floats)};
    if (argc != 2 || !line || json_parser_new(LINE_MAX_BYTES, &parser))
        return 2;
    q.client = connect_as(parse(parser, argv[1]));
    while (fgets(line, LINE_MAX_BYTES, stdin)) {
        q.n = q.n_floats = 0;
        q.config = (struct point_config){0};
        q.json = parse(parser, line);
        serve_line(&q);
    }
    qdrant_client_free(q.client);
    json_parser_free(parser);
    free(q.points);
    free(q.ids);
    free(q.floats);
    free(line);
    return 0;
}
