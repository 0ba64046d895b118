/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a point costs in src/base: cutting it out of a long array, parsing it, taking its vector as
 * floats; beside what the memory or the plain way costs in the same run. Prints one JSON line, then
 * a table. Each figure is the best of a few rounds, because the machine is shared.
 */
#include "base/json.h"
#include "base/hash.h"
#include "base/json_scan.h"
#include "base/json_split.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { POINTS = 20000, DIMENSIONS = 100, ROUNDS = 5 };

struct bench {
    struct buffer text;    /* an array of points, their numbers of 9 digits */
    struct buffer doubles; /* of 16 or 17, as Python writes them */
    struct json_parser *parser;
    struct json_value vector; /* of the last point parsed */
    uint64_t sink;            /* keeps the work from being optimised away */
};

static void must(bool good) {
    if (!good)
        abort();
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void make_points(struct buffer *out, bool shortest) {
    for (uint64_t i = 0; i < POINTS; i++) {
        buffer_append_format(out, "%s{\"id\":%u,\"vector\":[", i ? "," : "[", (unsigned)i);
        for (uint64_t j = 0; j < DIMENSIONS; j++) {
            double d = (double)(hash64_u64(i * DIMENSIONS + j) >> 11) * 0x1p-53;
            buffer_append_string(out, j ? "," : "");
            if (shortest)
                json_append_double(out, d);
            else
                buffer_append_format(out, "%.9f", d);
        }
        buffer_append_string(out,
                             "],\"payload\":{\"city\":\"Berlin\",\"location\":\"52.5,13.4\"}}");
    }
    buffer_append_u8(out, ']');
    must(buffer_reserve(out, JSON_PADDING) != NULL);
}

static int parse_nothing(struct json_parser *p, struct bytes text, struct json_value *ret_root) {
    (void)p, (void)text, (void)ret_root;
    return 1;
}

static int parse_vector(struct json_parser *p, struct bytes text, struct json_value *ret_root) {
    return json_parse_vector(p, text, "vector", ret_root);
}

static void walk(struct bench *b, const struct buffer *text,
                 int (*parse)(struct json_parser *, struct bytes, struct json_value *)) {
    struct json_members m;
    struct bytes point;
    struct json_value v;
    float out[DIMENSIONS];
    size_t count;
    must(json_members_init(&m, buffer_bytes(text)) == 0);
    for (int r; (r = json_members_next(&m, NULL, &point)) != JSON_SPLIT_E_END;) {
        must(r == 0);
        b->sink += point.size;
        if (parse(b->parser, point, &v))
            continue;
        must(json_find(v, "vector", &b->vector));
        must(json_get_floats(b->vector, out, DIMENSIONS, &count) == 0);
        b->sink += load_u32(&out[count / 2]);
    }
}

static void split(struct bench *b) {
    walk(b, &b->text, parse_nothing);
}

static void whole(struct bench *b) {
    walk(b, &b->text, json_parse);
}

static void vector(struct bench *b) {
    walk(b, &b->text, parse_vector);
}

static void whole_doubles(struct bench *b) {
    walk(b, &b->doubles, json_parse);
}

static void vector_doubles(struct bench *b) {
    walk(b, &b->doubles, parse_vector);
}

static void scan_portable(struct bench *b) {
    struct json_scan s = {.depth = 1};
    size_t at = 1;
    must(json_scan_nested_portable(&s, buffer_bytes(&b->text), &at));
    b->sink += at;
}

/* Nothing can be cut faster than a byte is looked for. */
static void read_only(struct bench *b) {
    b->sink += memchr(b->text.data, '\0', b->text.size) == NULL;
}

static void checksum(struct bench *b) {
    b->sink += crc32c(0, b->text.data, b->text.size);
}

static void checksum_portable(struct bench *b) {
    b->sink += crc32c_portable(0, b->text.data, b->text.size);
}

static void floats(struct bench *b) {
    float out[DIMENSIONS];
    size_t count;
    for (int i = 0; i < POINTS; i++) {
        must(json_get_floats(b->vector, out, DIMENSIONS, &count) == 0);
        b->sink += load_u32(&out[i % DIMENSIONS]);
    }
}

static void floats_one_by_one(struct bench *b) {
    float out[DIMENSIONS];
    for (int i = 0; i < POINTS; i++) {
        struct json_iterator it = json_iterate(b->vector);
        struct json_value v;
        double d;
        for (size_t n = 0; json_next(&it, NULL, &v) && json_get_double(v, &d); n++)
            out[n] = (float)d;
        b->sink += load_u32(&out[i % DIMENSIONS]);
    }
}

static double best_seconds(struct bench *b, void (*work)(struct bench *)) {
    double best = 1e9;
    for (int i = 0; i < ROUNDS; i++) {
        double start = now();
        work(b);
        double took = now() - start;
        best = took < best ? took : best;
    }
    return best;
}

/* Each beside its peer; the parser comes before what reads its last vector. */
static const struct row {
    const char *name;
    void (*work)(struct bench *);
} ROWS[] = {
    {"split", split},
    {"split_portable", scan_portable},
    {"read_only", read_only},
    {"vector", vector},
    {"vector_doubles", vector_doubles},
    {"whole_doubles", whole_doubles},
    {"whole", whole},
    {"floats", floats},
    {"floats_one_by_one", floats_one_by_one},
    {"crc32c", checksum},
    {"crc32c_portable", checksum_portable},
};

int main(void) {
    struct bench b = {0};
    double seconds[ARRAY_LENGTH(ROWS)];
    make_points(&b.text, false);
    make_points(&b.doubles, true);
    must(json_parser_new(1 << 20, &b.parser) == 0);
    for (size_t i = 0; i < ARRAY_LENGTH(ROWS); i++)
        seconds[i] = best_seconds(&b, ROWS[i].work);
    for (size_t i = 0; i < ARRAY_LENGTH(ROWS); i++)
        printf("%s\"%s_ns_per_point\":%.1f", i ? "," : "{", ROWS[i].name,
               seconds[i] * 1e9 / POINTS);
    printf("}\n%-20s %12s %8s   (%zu bytes a point)\n", "", "ns/point", "GB/s",
           b.text.size / POINTS);
    for (size_t i = 0; i < ARRAY_LENGTH(ROWS); i++)
        printf("%-20s %12.1f %8.2f\n", ROWS[i].name, seconds[i] * 1e9 / POINTS,
               (double)b.text.size / seconds[i] * 1e-9);
    json_parser_free(b.parser);
    buffer_deinit(&b.text);
    buffer_deinit(&b.doubles);
    return b.sink == 0;
}
