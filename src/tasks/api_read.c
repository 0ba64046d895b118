/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at tasks: one, a page, the queue. They may read the disk, so they run on query threads.
 * Bulk uploads are shown among the tasks, by their keys, which are made in the same way.
 */
#include "tasks/api_parts.h"

#include <errno.h>
#include <stdlib.h>

enum {
    LIMIT_DEFAULT = 100,
    LIMIT_MAX = 1000,
    FREE_BYTES = 64 << 10, /* a smaller page is not counted */
    STEP_BYTES = 256 << 10,
};

static void answer(struct http_request *r, int result, struct buffer *out) {
    if (!result)
        result = buffer_check(out);
    if (result)
        task_fail(r, result, NULL);
    else
        http_respond(r, 200, NULL, buffer_bytes(out));
}

/* ---- One ---- */
int task_describe(struct tasks_api *api, struct bytes id_text, struct buffer *out,
                  bool *ret_ended) {
    struct task_id id;
    struct task_ref ref;
    if (!task_parse_id(id_text, &id))
        return TASKS_E_NOT_FOUND;
    int result = task_find(api, id, false, &ref);
    if (result == TASKS_E_NOT_FOUND && api->foreign.describe)
        return api->foreign.describe(api->foreign.context, id_text, out, ret_ended);
    if (result)
        return error_trace(result);
    task_append_json(out, &ref.task, api->runner);
    *ret_ended = task_status_is_end(ref.task.status);
    task_unref(&ref);
    return 0;
}

void task_offload(struct tasks_api *api, struct http_request *r, http_handler job) {
    if (api->shared)
        http_offload_waiting(r, job, api);
    else
        http_offload(r, job, api);
}

static void get_job(void *api, struct http_request *r) {
    struct buffer *out = http_scratch(r);
    bool ended;
    int result = task_describe(api, http_path_parameter(r, "id"), out, &ended);
    answer(r, result, out);
}

void task_get(void *api, struct http_request *r) {
    task_offload(api, r, get_job);
}

/* ---- A page ---- */
enum { PAGE_E_FULL = 1 }; /* condition: there is no memory for it now */

/* The tasks of a page, ours first, each with where its JSON ends; then sorted by key. */
struct entry {
    uint64_t key;
    size_t at;
    size_t size;
};
struct page {
    struct tasks_api *api;
    struct buffer json;
    struct buffer entries;
    bool full;            /* there is no memory for more */
    uint64_t taken_bytes; /* of the budget, until the answer is counted itself */
};

static void page_deinit(struct page *p) {
    budget_give(p->api->budget, BUDGET_ANSWERS, p->taken_bytes);
    buffer_deinit(&p->json);
    buffer_deinit(&p->entries);
}

static void page_add(struct page *p, uint64_t key, size_t at) {
    const struct entry e = {.key = key, .at = at, .size = p->json.size - at};
    buffer_append(&p->entries, &e, sizeof e);
}

/* Whether there is memory for what it has, once more when it is put in order, and once as an
 * answer.
 */
static bool page_fits(struct page *p) {
    while (3 * p->json.size > p->taken_bytes + FREE_BYTES) {
        if (!budget_take(p->api->budget, BUDGET_ANSWERS, STEP_BYTES))
            return false;
        p->taken_bytes += STEP_BYTES;
    }
    return true;
}

static bool add_ours(void *context, const struct task *task) {
    struct page *p = context;
    size_t at = p->json.size;
    task_append_json(&p->json, task, p->api->runner);
    page_add(p, task->id.key, at);
    p->full = !page_fits(p);
    return !p->json.failed && !p->full;
}

static void add_foreign(void *context, uint64_t key, struct bytes json) {
    struct page *p = context;
    size_t at = p->json.size;
    buffer_append_bytes(&p->json, json);
    page_add(p, key, at);
}

static int newer_first(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    return (x->key < y->key) - (x->key > y->key);
}

/* A number of a query parameter; false, after an answer, when it is something else. */
static bool query_number(struct http_request *r, const char *name, uint64_t most, uint64_t *ret) {
    struct bytes text;
    uint64_t number = 0;
    if (!http_query_parameter(r, name, &text))
        return true;
    bool good = text.size > 0 && text.size < 20;
    for (size_t i = 0; good && i < text.size; i++) {
        good = (uint8_t)(text.data[i] - '0') <= 9;
        number = number * 10 + (uint64_t)(text.data[i] - '0');
    }
    if (good && number >= 1 && number <= most) {
        *ret = number;
        return true;
    }
    http_fail(r, HTTP_ERROR_INVALID_FIELD, name, "`%s` must be a number from 1 to %llu", name,
              (unsigned long long)most);
    return false;
}

/* What one page shows: filter, and the texts as they came, for the others' list. */
struct query {
    struct tasks_filter filter;
    struct bytes status;
};

static bool parse_query(struct http_request *r, struct query *q) {
    uint64_t limit = LIMIT_DEFAULT;
    enum task_status status;
    *q = (struct query){0};
    if (!query_number(r, "limit", LIMIT_MAX, &limit) ||
        !query_number(r, "cursor", UINT64_MAX, &q->filter.below))
        return false;
    q->filter.limit = (size_t)limit + 1; /* one more says whether there is a next page */
    (void)http_query_parameter(r, "type", &q->filter.type);
    if (!http_query_parameter(r, "status", &q->status) || q->status.size == 0)
        return true;
    if (!task_status_from_name(q->status, &status)) {
        http_fail(r, HTTP_ERROR_INVALID_FIELD, "status",
                  "`status` must be queued, running, succeeded, failed or cancelled");
        return false;
    }
    q->filter.statuses = 1u << status;
    return true;
}

static int gather(struct page *p, const struct query *q) {
    const struct tasks_foreign *foreign = &p->api->foreign;
    const struct tasks_backend *tasks = &p->api->tasks;
    int r = tasks->ops->list(tasks->store, &q->filter, add_ours, p);
    if (!r && p->full)
        return PAGE_E_FULL;
    if (!r && foreign->list)
        r = foreign->list(foreign->context, q->status, q->filter.type, q->filter.below,
                          q->filter.limit, add_foreign, p);
    if (!r)
        r = buffer_check(&p->json);
    if (!r)
        r = buffer_check(&p->entries);
    return error_trace(r);
}

static void append_page(const struct page *p, size_t limit, struct buffer *out) {
    struct entry *entries = (void *)p->entries.data;
    size_t n = p->entries.size / sizeof *entries;
    if (n > 1)
        qsort(entries, n, sizeof *entries, newer_first);
    size_t shown = n < limit ? n : limit;
    /* Keys of several processes may be equal, and the next page begins below the last one's. */
    while (shown > 0 && shown < n && entries[shown].key == entries[shown - 1].key)
        shown++;
    buffer_append_string(out, "{\"tasks\":[");
    for (size_t i = 0; i < shown; i++) {
        if (i > 0)
            buffer_append_u8(out, ',');
        buffer_append(out, p->json.data + entries[i].at, entries[i].size);
    }
    buffer_append_string(out, "],\"next\":");
    if (n > limit)
        buffer_append_format(out, "\"%llu\"}", (unsigned long long)entries[shown - 1].key);
    else
        buffer_append_string(out, "null}");
}

static void refuse_page(struct http_request *r) {
    http_fail(r, HTTP_ERROR_OVERLOADED, "limit",
              "there is no memory for so large an answer now; ask for fewer tasks at a time");
}

static void list_job(void *api, struct http_request *r) {
    CLEANUP(page_deinit) struct page page = {.api = api};
    struct buffer *out = http_scratch(r);
    struct query q;
    if (!parse_query(r, &q))
        return;
    int result = gather(&page, &q);
    if (result == PAGE_E_FULL) {
        refuse_page(r);
        return;
    }
    if (!result)
        append_page(&page, q.filter.limit - 1, out);
    answer(r, result, out);
}

void task_list(void *api, struct http_request *r) {
    task_offload(api, r, list_job);
}

/* ---- The queue ---- */
static void append_queue(struct tasks_api *api, const struct tasks_store_stats *stats,
                         const struct tasks_at_work *at_work, struct buffer *out) {
    uint64_t now_us = os_wall_us(api->os), due_us = stats->oldest_due_us;
    uint64_t oldest_us = due_us && due_us < now_us ? now_us - due_us : 0;
    buffer_append_format(
        out,
        "{\"queued\":%llu,\"running\":%llu,\"oldest_seconds\":%.3f,\"workers\":%u,\"busy\":%u}",
        (unsigned long long)stats->by_status[TASK_QUEUED],
        (unsigned long long)stats->by_status[TASK_RUNNING], (double)oldest_us / 1e6,
        at_work->workers, at_work->busy);
}

static void queue_job(void *context, struct http_request *r) {
    struct tasks_api *api = context;
    struct tasks_store_stats stats;
    struct tasks_at_work at_work;
    struct buffer *out = http_scratch(r);
    int result = tasks_shared_look(api->shared);
    tasks_shared_stats(api->shared, &stats);
    tasks_shared_runners(api->shared, &at_work);
    append_queue(api, &stats, &at_work, out);
    answer(r, result, out);
}

/* For autoscalers: what KEDA's metrics-api scaler and others read. */
void task_get_queue(void *context, struct http_request *r) {
    struct tasks_api *api = context;
    struct tasks_store_stats stats;
    struct tasks_runner_status runner;
    struct buffer *out = http_scratch(r);
    if (api->shared) {
        task_offload(api, r, queue_job);
        return;
    }
    tasks_store_stats(api->tasks.store, &stats);
    tasks_runner_status(api->runner, &runner);
    append_queue(api, &stats, &(struct tasks_at_work){runner.workers, runner.busy}, out);
    answer(r, 0, out);
}

/* ---- The types ---- */
void task_get_types(void *context, struct http_request *r) {
    const struct tasks_api *api = context;
    struct buffer *out = http_scratch(r);
    bool first = true;
    buffer_append_string(out, "{\"types\":[");
    for (size_t i = 0; i < task_handlers_n; i++) {
        const struct task_handler *h = task_handlers[i];
        if (!task_handler_is_offered(h, api->settings))
            continue;
        buffer_append_string(out, first ? "{\"type\":" : ",{\"type\":");
        first = false;
        json_append_cstring(out, h->type);
        buffer_append_string(out, ",\"summary\":");
        json_append_cstring(out, h->summary);
        buffer_append_string(out, ",\"args\":");
        http_schema_append(out, h->args);
        buffer_append_u8(out, '}');
    }
    buffer_append_string(out, "]}");
    answer(r, 0, out);
}
