/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One reading of a server: the series of /metrics by a table, and the parts of /healthz.
 */
#include "base/json.h"
#include "cli/status.h"

#include <math.h>
#include <stdlib.h>

enum { HEALTH_MAX_BYTES = 1 << 20 };

/* Where a series goes: its values are added up over the labels that are not looked at. */
enum place {
    IN_SAMPLE,    /* a double of struct status_sample */
    IN_KIND,      /* a double of the struct status_kind that its label "consumer" names */
    IN_HISTOGRAM, /* a bucket of a struct status_histogram */
};
struct field {
    const char *series;
    enum place place;
    size_t offset;
};
static const struct field fields[] = {
    {"process_start_time_seconds", IN_SAMPLE, offsetof(struct status_sample, started)},
    {"millrace_http_requests_total", IN_SAMPLE, offsetof(struct status_sample, requests)},
    {"millrace_http_connections", IN_SAMPLE, offsetof(struct status_sample, connections)},
    {"millrace_journal_durable_lsn", IN_SAMPLE, offsetof(struct status_sample, durable_lsn)},
    {"millrace_journal_disk_bytes", IN_SAMPLE, offsetof(struct status_sample, journal_bytes)},
    {"process_resident_memory_bytes", IN_SAMPLE, offsetof(struct status_sample, resident)},
    {"millrace_memory_limit_bytes", IN_SAMPLE, offsetof(struct status_sample, memory_limit)},
    {"millrace_disk_free_bytes", IN_SAMPLE, offsetof(struct status_sample, disk_free)},
    {"millrace_http_request_seconds_bucket", IN_HISTOGRAM, offsetof(struct status_sample, latency)},
    {"millrace_journal_fsync_seconds_bucket", IN_HISTOGRAM, offsetof(struct status_sample, sync)},
    {"millrace_consumer_appended_records_total", IN_KIND, offsetof(struct status_kind, appended)},
    {"millrace_consumer_applied_records_total", IN_KIND, offsetof(struct status_kind, applied)},
    {"millrace_consumer_lag_records", IN_KIND, offsetof(struct status_kind, lag_records)},
    {"millrace_consumer_lag_seconds", IN_KIND, offsetof(struct status_kind, lag_seconds)},
    {"millrace_consumer_threads", IN_KIND, offsetof(struct status_kind, threads)},
    {"millrace_consumer_busy_threads", IN_KIND, offsetof(struct status_kind, busy)},
    {"millrace_consumer_dead_letters", IN_KIND, offsetof(struct status_kind, dead_letters)},
};

/* A line of /metrics: name{labels} value */
struct line {
    struct bytes name;
    struct bytes labels; /* between the braces */
    double value;
};

static void copy_name(char *out, size_t size, struct bytes text) {
    snprintf(out, size, "%.*s", (int)(text.size < size ? text.size : size - 1),
             (const char *)text.data);
}

/* text ends in a NUL. False: it is a comment, or no such line. */
static bool parse_line(const char *text, struct line *ret_line) {
    size_t name = strcspn(text, "{ \n");
    const char *at = text + name;
    const char *labels = at;
    size_t n_labels = 0;
    char *end;
    if (name == 0 || *text == '#')
        return false;
    if (*at == '{') {
        labels = at + 1;
        at = labels + strcspn(labels, "\n"); /* a route has braces too: the last one ends them */
        while (at > labels && at[-1] != '}')
            at--;
        if (at == labels)
            return false;
        n_labels = (size_t)(at - 1 - labels);
    }
    double value = strtod(at, &end);
    if (end == at)
        return false;
    *ret_line = (struct line){bytes_of(text, name), bytes_of(labels, n_labels), value};
    return true;
}

/* The value of a label, which must not hold an escaped quote; empty when it is not there. */
static struct bytes label_of(const struct line *line, const char *name) {
    const char *at = (const char *)line->labels.data;
    const char *end = at + line->labels.size;
    size_t size = strlen(name);
    for (; at + size + 2 <= end; at++)
        if (memcmp(at, name, size) == 0 && at[size] == '=' && at[size + 1] == '"') {
            const char *value = at + size + 2;
            const char *quote = memchr(value, '"', (size_t)(end - value));
            return bytes_of(value, quote ? (size_t)(quote - value) : 0);
        }
    return bytes_of(NULL, 0);
}

static struct status_kind *kind_of(struct status_sample *s, struct bytes name) {
    for (size_t i = 0; i < s->n_kinds; i++)
        if (bytes_equal(bytes_of_string(s->kinds[i].name), name))
            return &s->kinds[i];
    if (s->n_kinds == STATUS_KINDS_MAX || name.size == 0 || name.size >= STATUS_NAME_MAX)
        return NULL;
    struct status_kind *kind = &s->kinds[s->n_kinds++];
    *kind = (struct status_kind){0};
    copy_name(kind->name, sizeof kind->name, name);
    return kind;
}

/* Bounds come in their order, the same for every series of a histogram. */
static void add_bucket(struct status_histogram *h, const struct line *line) {
    struct bytes le = label_of(line, "le");
    char text[32];
    copy_name(text, sizeof text, le);
    double bound = strcmp(text, "+Inf") == 0 ? (double)INFINITY : strtod(text, NULL);
    for (size_t i = 0; i < h->n; i++)
        if (h->bounds[i] >= bound) {
            h->counts[i] += line->value;
            return;
        }
    if (h->n == STATUS_BUCKETS_MAX)
        return;
    h->bounds[h->n] = bound;
    h->counts[h->n++] = line->value;
}

static void add_to(void *base, size_t offset, double value) {
    double *field = (double *)(void *)((char *)base + offset);
    *field += value;
}

static void take_line(struct status_sample *s, const struct line *line) {
    for (size_t i = 0; i < ARRAY_LENGTH(fields); i++) {
        const struct field *f = &fields[i];
        if (!bytes_equal(bytes_of_string(f->series), line->name))
            continue;
        struct status_kind *kind =
            f->place == IN_KIND ? kind_of(s, label_of(line, "consumer")) : NULL;
        if (f->place == IN_SAMPLE)
            add_to(s, f->offset, line->value);
        else if (f->place == IN_HISTOGRAM)
            add_bucket((struct status_histogram *)(void *)((char *)s + f->offset), line);
        else if (kind)
            add_to(kind, f->offset, line->value);
    }
    struct bytes status = label_of(line, "status");
    if (status.size == 3 && status.data[0] == '5' &&
        bytes_equal(line->name, BYTES_LITERAL("millrace_http_requests_total")))
        s->errors += line->value;
}

/* By name, as /metrics lists them in the order in which they were first counted. */
static int compare_kinds(const void *a, const void *b) {
    const struct status_kind *left = a;
    const struct status_kind *right = b;
    return strcmp(left->name, right->name);
}

void status_read_metrics(struct status_sample *s, struct bytes text) {
    struct buffer copy CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct line line;
    buffer_append_bytes(&copy, text);
    buffer_append_u8(&copy, 0);
    if (buffer_check(&copy))
        return;
    for (const char *at = (const char *)copy.data; *at;) {
        if (parse_line(at, &line))
            take_line(s, &line);
        at += strcspn(at, "\n");
        at += *at == '\n';
    }
    qsort(s->kinds, s->n_kinds, sizeof s->kinds[0], compare_kinds);
}

/* ---- Health ---- */

static bool read_text(struct json_value object, const char *key, char *out, size_t size) {
    struct json_value value;
    struct bytes text;
    if (!json_find(object, key, &value) || !json_get_string(value, &text))
        return false;
    copy_name(out, size, text);
    return true;
}

static void read_part(struct status_part *part, struct bytes name, struct json_value value) {
    struct json_value ready, reachable;
    *part = (struct status_part){.ready = false};
    copy_name(part->name, sizeof part->name, name);
    if (json_find(value, "ready", &ready))
        (void)json_get_bool(ready, &part->ready);
    (void)read_text(value, "reason", part->reason, sizeof part->reason);
    (void)read_text(value, "url", part->url, sizeof part->url);
    (void)read_text(value, "warning", part->warning, sizeof part->warning);
    if (json_find(value, "reachable", &reachable))
        (void)json_get_bool(reachable, &part->reachable);
}

static bool read_health(struct status_sample *s, struct json_value root) {
    struct json_value parts;
    struct json_value value;
    struct bytes name;
    if (!read_text(root, "status", s->state, sizeof s->state) ||
        !read_text(root, "version", s->version, sizeof s->version) ||
        !json_find(root, "parts", &parts))
        return false;
    struct json_iterator it = json_iterate(parts);
    for (s->n_parts = 0; s->n_parts < STATUS_PARTS_MAX && json_next(&it, &name, &value);)
        read_part(&s->parts[s->n_parts++], name, value);
    return true;
}

bool status_read_health(struct status_sample *s, struct bytes text) {
    struct buffer copy CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct json_parser *parser;
    struct json_value root;
    buffer_append_bytes(&copy, text);
    if (!buffer_reserve(&copy, JSON_PADDING) || json_parser_new(HEALTH_MAX_BYTES, &parser))
        return false;
    bool good = json_parse(parser, buffer_bytes(&copy), &root) == 0 && read_health(s, root);
    json_parser_free(parser);
    return good;
}
