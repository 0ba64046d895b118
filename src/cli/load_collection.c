/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each question is a path, a body, and one value out of the answer.
 *
 * When is everything visible? Movies: their tasks have ended. Records into a collection that was
 * empty: so many points are counted. Else the last records are sent once more with wait=true: they
 * are behind all others in their lanes.
 */
#include "cli/load_collection.h"

enum {
    DRAIN_TURN_MS = 10,    /* between looks at how much is visible */
    DRAIN_STUCK_MS = 60000 /* without progress: it will not become visible */
};

static struct record_source *source_of(const struct admin *a) {
    return (struct record_source *)a->plan->source;
}

/* path holds the text of a path of the collection, NUL-terminated. */
static int collection_path(struct admin *a, struct buffer *path, const char *rest) {
    buffer_append_string(path, "/collections/");
    url_append_segment(path, source_of(a)->collection);
    buffer_append_string(path, rest);
    buffer_append_u8(path, 0);
    return buffer_check(path) ? admin_fail(a, "out of memory") : 0;
}

static int create(struct admin *a, const char *path) {
    char body[128];
    struct client_answer answer;
    snprintf(body, sizeof body, "{\"vectors\":{\"size\":%u,\"distance\":\"Cosine\"}}",
             source_of(a)->dimension);
    int r = admin_ask(a, "PUT", path, bytes_of_string(body), &answer);
    if (r)
        return r;
    bool there = answer.status == 200 || answer.status == 409; /* another was faster */
    return there ? 0 : admin_unexpected(a, "creating the collection", &answer);
}

static int ensure_collection(struct admin *a) {
    struct buffer path CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct client_answer answer;
    int r = collection_path(a, &path, "");
    if (!r)
        r = admin_ask(a, "GET", (const char *)path.data, bytes_of(NULL, 0), &answer);
    if (r)
        return r;
    if (answer.status == 404)
        return create(a, (const char *)path.data);
    return answer.status == 200 ? 0 : admin_unexpected(a, "looking for the collection", &answer);
}

static int count_points(struct admin *a, uint64_t *ret_count) {
    struct buffer path CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct client_answer answer;
    struct json_value value;
    int r = collection_path(a, &path, "/points/count");
    if (!r)
        r = admin_ask(a, "POST", (const char *)path.data, BYTES_LITERAL("{\"exact\":true}"),
                      &answer);
    if (r)
        return r;
    if (answer.status != 200)
        return admin_unexpected(a, "counting the points", &answer);
    r = admin_parse(a, &answer, &value);
    if (r)
        return r;
    if (!json_find(value, "result", &value) || !json_find(value, "count", &value) ||
        !json_get_u64(value, ret_count))
        return admin_unexpected(a, "counting the points", &answer);
    return 0;
}

static int repeat(struct admin *a, uint64_t first, uint64_t n) {
    struct buffer path CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct buffer body CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct client_answer answer;
    int r = collection_path(a, &path, "/points?wait=true");
    record_append_body(source_of(a), first, n, &body);
    if (!r && buffer_check(&body))
        r = admin_fail(a, "out of memory");
    if (!r)
        r = admin_ask(a, "PUT", (const char *)path.data, buffer_bytes(&body), &answer);
    if (r)
        return r;
    bool visible =
        answer.status == 200 && memmem(answer.body.data, answer.body.size, "\"completed\"", 11);
    return visible ? 0 : admin_unexpected(a, "waiting until all is visible", &answer);
}

static int task_ended(struct admin *a, const char *id, bool *ret_ended) {
    char path[128];
    struct client_answer answer;
    struct json_value value;
    struct bytes status;
    snprintf(path, sizeof path, "/tasks/%.80s", id);
    int r = admin_ask(a, "GET", path, bytes_of(NULL, 0), &answer);
    if (r)
        return r;
    if (answer.status ==
        404) { /* forgotten: there are 10,000 newer ones, which are looked at next */
        *ret_ended = true;
        return 0;
    }
    if (answer.status != 200)
        return admin_unexpected(a, "looking for a task", &answer);
    r = admin_parse(a, &answer, &value);
    if (r)
        return r;
    if (!json_find(value, "status", &value) || !json_get_string(value, &status))
        return admin_unexpected(a, "looking for a task", &answer);
    bool ended = bytes_equal(status, BYTES_LITERAL("succeeded"));
    if (!ended && !bytes_equal(status, BYTES_LITERAL("running")) &&
        !bytes_equal(status, BYTES_LITERAL("queued")))
        return admin_unexpected(a, "a task did not succeed", &answer);
    *ret_ended = ended;
    return 0;
}

int collection_begin(struct admin *a) {
    int r = ensure_collection(a);
    return r ? r : count_points(a, &source_of(a)->points_before);
}

/* ---- Until all is visible ---- */

struct drain {
    struct admin *admin;
    const struct load_report *report;
    uint64_t wanted;  /* points that there will be; 0: cannot be told from their number */
    const char *task; /* the first that has not ended */
};

/* One look. ret_seen grows as long as there is progress. */
static int look(struct drain *d, bool *ret_done, uint64_t *ret_seen) {
    const struct buffer *tasks = &d->report->result->tasks;
    const struct record_source *source = source_of(d->admin);
    bool ended = true;
    int r = 0;
    if (source->n_movies > 0) {
        const char *end = (const char *)tasks->data + tasks->size;
        while (ended && d->task < end && !(r = task_ended(d->admin, d->task, &ended)))
            if (ended)
                d->task += strlen(d->task) + 1;
        *ret_seen = tasks->size - (uint64_t)(end - d->task);
        *ret_done = !r && d->task >= end;
    } else if (d->wanted > 0) {
        r = count_points(d->admin, ret_seen);
        *ret_done = !r && *ret_seen >= d->wanted;
    } else {
        uint64_t n =
            source->base.batch < source->base.count ? source->base.batch : source->base.count;
        r = repeat(d->admin, source->base.count - n, n);
        *ret_done = !r;
    }
    return r;
}

static int drain(struct drain *d, const struct load_plan *plan) {
    uint64_t moved_ns = os_monotonic_ns(plan->os);
    uint64_t before = 0;
    for (;;) {
        bool done = false;
        uint64_t seen = before;
        int r = look(d, &done, &seen);
        if (r || done)
            return r;
        uint64_t now = os_monotonic_ns(plan->os);
        if (seen != before)
            moved_ns = now;
        if (now - moved_ns > (uint64_t)DRAIN_STUCK_MS * 1000000) {
            return admin_fail(d->admin, "what was acknowledged has not become visible for %d s",
                              DRAIN_STUCK_MS / 1000);
        }
        before = seen;
        os_sleep_ns(plan->os, (uint64_t)DRAIN_TURN_MS * 1000000);
    }
}

int collection_end(struct admin *a, struct load_report *report) {
    uint64_t acknowledged = atomic_load(&report->progress->acknowledged);
    struct drain d = {.admin = a,
                      .report = report,
                      .wanted = source_of(a)->points_before == 0 ? acknowledged : 0,
                      .task = (const char *)report->result->tasks.data};
    if (acknowledged == 0)
        return 0;
    int r = drain(&d, report->plan);
    if (r)
        return r;
    report->applied_s = load_seconds(report->progress, os_monotonic_ns(report->plan->os));
    return 0;
}
