/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks in: one, or a batch of which each stands alone. All is parsed before anything is appended:
 * what is refused as a whole leaves no task. The good ones of a batch are one group in the journal,
 * but for those with an idempotency key: each of these is appended under the lock of the keys. The
 * answer waits until the store knows the tasks, so that whoever asks for one next finds it.
 */
#include "tasks/api_parts.h"

#include "base/json_split.h"

#include <assert.h>
#include <errno.h>

enum {
    VISIBLE_TIMEOUT_MS = 2000,
    BATCH_MAX = 100000, /* tasks in a request */
    FIRST_ITEMS = 16,
    BLOCK_ITEMS = 1024,
    ITEM_BYTES = 128, /* what one takes until its answer is made, records aside */
};

static const uint64_t all_lanes = 1; /* the store has one */

/* A task of the request, in order. */
struct item {
    struct task_id id; /* with a key that another task has: that one's */
    struct bytes idempotency_key;
    size_t record_size;
    const char *refusal; /* why it is no task, as JSON; NULL: it is one */
    bool is_new;
};
struct item_block {
    struct item_block *next;
    size_t n;
    size_t n_max;
    struct item items[];
};

/* What is being created by one request. */
struct creation {
    struct tasks_api *api;
    struct http_request *request;
    uint64_t now_us;
    struct buffer args;     /* of the task under way */
    struct buffer *records; /* the thread's scratch: their payloads, one behind the other */
    const uint8_t *claimed; /* the same, once their keys were claimed; NULL: they were not */
    struct item_block *first_block;
    struct item_block *last_block;
    size_t n;          /* items */
    size_t n_accepted; /* tasks among them */
    size_t n_keys;     /* of those, with an idempotency key */
    lsn_t first;
    lsn_t last;
    int condition; /* why the journal took nothing */
    struct task_fault fault;
};

enum { TASKS_API_E_JOURNAL = 151 };

static void creation_init(struct creation *c, struct tasks_api *api, struct http_request *r) {
    *c = (struct creation){
        .api = api, .request = r, .now_us = os_wall_us(api->os), .records = http_scratch(r)};
}

static void creation_deinit(struct creation *c) {
    buffer_deinit(&c->args);
}

/* ---- Parsing ---- */
static int add_block(struct creation *c) {
    size_t n = c->n ? BLOCK_ITEMS : FIRST_ITEMS;
    uint64_t bytes = n * ITEM_BYTES;
    if (c->n && !http_take_memory(c->request, bytes))
        return error_origin(-ENOMEM);
    struct item_block *block =
        arena_alloc(http_arena(c->request), sizeof *block + n * sizeof block->items[0]);
    if (!block)
        return error_origin(-ENOMEM);
    *block = (struct item_block){.n_max = n};
    if (c->last_block)
        c->last_block->next = block;
    else
        c->first_block = block;
    c->last_block = block;
    return 0;
}

static int add_item(struct creation *c, const struct item *item) {
    bool full = !c->last_block || c->last_block->n == c->last_block->n_max;
    int r = full ? add_block(c) : 0;
    if (r)
        return error_trace(r);
    struct item_block *last = c->last_block;
    assert(last);
    last->items[last->n++] = *item;
    c->n++;
    c->n_accepted += !item->refusal;
    c->n_keys += item->idempotency_key.size > 0;
    return 0;
}

/* Checks a task and makes it one of those to be appended. It is as its answer shows it: without
 * what only the parser holds. */
static int create(struct creation *c, struct json_value v, struct task *ret_task) {
    struct task_record record = {.op = TASK_OP_CREATE};
    struct task_request *q = &record.request;
    size_t start = c->records->size;
    buffer_clear(&c->args);
    const struct task_settings *settings = c->api->settings;
    int r = task_parse_request(v, c->now_us, settings, &c->args, q, &c->fault);
    if (r)
        return error_trace(r);
    record.id = c->api->tasks.ops->new_id(c->api->tasks.store, c->now_us);
    task_record_encode(c->records, &record);
    const char *key = arena_copy_string(http_arena(c->request), q->idempotency_key);
    const struct item item = {.id = record.id,
                              .idempotency_key = bytes_of(key, q->idempotency_key.size),
                              .record_size = c->records->size - start,
                              .is_new = true};
    r = key ? buffer_check(c->records) : error_origin(-ENOMEM);
    if (r == 0)
        r = add_item(c, &item);
    q->args = q->idempotency_key = BYTES_LITERAL("");
    *ret_task = (struct task){.id = record.id,
                              .request = *q,
                              .status = TASK_QUEUED,
                              .created_us = c->now_us,
                              .due_us = q->run_at_us ? q->run_at_us : c->now_us};
    return error_trace(r);
}

/* ---- Appending ---- */
static void awaits(struct creation *c, lsn_t first, lsn_t last) {
    c->first = c->first && c->first < first ? c->first : first;
    c->last = c->last > last ? c->last : last;
}

static int append(struct creation *c, struct journal_record *records, size_t n) {
    int r = journal_append(c->api->journal, records, n);
    if (r > 0) {
        c->condition = r;
        return TASKS_API_E_JOURNAL;
    }
    if (r == 0)
        awaits(c, records[0].lsn, records[n - 1].lsn);
    return error_trace(r);
}

/* The one record of a task with a key, under the lock of the keys. */
struct keyed {
    struct creation *creation;
    struct journal_record *record;
};

static int append_keyed(void *context) {
    struct keyed *k = context;
    return append(k->creation, k->record, 1);
}

static int append_once(struct creation *c, struct item *item, struct journal_record *record) {
    struct keyed k = {.creation = c, .record = record};
    int r = c->api->tasks.ops->once(c->api->tasks.store, item->idempotency_key, item->id,
                                    append_keyed, &k, &item->id, &item->is_new);
    if (r == 0 && !item->is_new) {
        /* Who created it may not be durable yet: what there is now covers it. */
        lsn_t newest = journal_newest(c->api->journal, JOURNAL_KIND_TASKS);
        awaits(c, newest, newest);
    }
    return error_trace(r);
}

/* Appends those with a key, each alone, and notes the others in the group: with them, those whose
 * key was claimed before. */
static int append_items(struct creation *c, struct journal_record *group, size_t *ret_n) {
    const uint8_t *at = c->claimed ? c->claimed : c->records->data;
    size_t n = 0;
    int r = 0;
    for (struct item_block *b = c->first_block; b; b = b->next)
        for (size_t i = 0; r == 0 && i < b->n; i++) {
            struct item *item = &b->items[i];
            struct journal_record record = {.key_hash = item->id.key,
                                            .kind = JOURNAL_KIND_TASKS,
                                            .payload = bytes_of(at, item->record_size)};
            at += item->record_size;
            if (item->idempotency_key.size && !c->claimed)
                r = append_once(c, item, &record);
            else if (!item->refusal && item->is_new)
                group[n++] = record;
        }
    *ret_n = n;
    return error_trace(r);
}

/* The group goes last: should it be refused, the request can be sent again, as those with a key are
 * found then. */
static int append_all(struct creation *c) {
    struct journal_record *group =
        arena_calloc(http_arena(c->request), c->n_accepted, sizeof *group);
    size_t n = 0;
    if (!c->n_accepted)
        return 0;
    if (!group)
        return error_origin(-ENOMEM);
    int r = append_items(c, group, &n);
    return r == 0 && n ? append(c, group, n) : error_trace(r);
}

static void fail(struct creation *c, int result) {
    if (result == TASKS_API_E_JOURNAL)
        http_fail_journal(c->request, c->condition);
    else
        task_fail(c->request, result, &c->fault);
}

static void await(struct creation *c,
                  unsigned (*render)(struct http_request *r, enum http_write_outcome outcome,
                                     struct buffer *body)) {
    const struct http_write write = {.first = c->first,
                                     .last = c->last,
                                     .lane_mask = all_lanes,
                                     .work = c->api->work,
                                     .wait_visible = c->api->work != NULL,
                                     .timeout_ms = VISIBLE_TIMEOUT_MS,
                                     .render = render};
    http_await_write(c->request, &write);
}

/* Nothing of it needs a place in the journal: its answer waits for what there is. */
static void await_nothing(struct creation *c) {
    if (c->last == 0)
        c->last = journal_durable(c->api->journal);
}

/* ---- One ---- */
struct created {
    struct tasks_api *api;
    struct task task;
    bool is_new;
    struct bytes shown; /* one that was there before its key was claimed, as it is; else empty */
};

/* A new task is answered as it was created, though it may run by now; another's as it is. */
static unsigned render_one(struct http_request *r, enum http_write_outcome outcome UNUSED,
                           struct buffer *body) {
    const struct created *c = http_state(r);
    struct task_ref ref;
    if (c->shown.size) {
        buffer_append_bytes(body, c->shown);
    } else if (c->is_new || task_find(c->api, c->task.id, false, &ref) != 0) {
        task_append_json(body, &c->task, NULL);
    } else {
        task_append_json(body, &ref.task, c->api->runner);
        task_unref(&ref);
    }
    return 202;
}

static int parse_one(struct creation *c, struct created *created) {
    struct json_value v;
    int r = json_parse(http_json_parser(c->request), http_body(c->request), &v);
    return r ? task_fault_json(&c->fault, r) : create(c, v, &created->task);
}

static void answer_one(struct creation *c, struct created *created) {
    char location[sizeof "/tasks/" + TASK_ID_SIZE] = "/tasks/";
    assert(c->first_block);
    created->task.id = c->first_block->items[0].id;
    created->is_new = c->first_block->items[0].is_new;
    task_id_text(created->task.id, location + strlen(location));
    http_set_header(c->request, "Location", location);
    http_set_state(c->request, created);
    await_nothing(c);
    await(c, render_one);
}

/* ---- A batch ---- */
/* A task that cannot be: the others go on. */
static int refuse(struct creation *c) {
    CLEANUP(buffer_deinit) struct buffer json = BUFFER_INIT;
    const struct task_fault *f = &c->fault;
    buffer_append_format(
        &json, "{\"error\":{\"code\":\"%s\",\"message\":", http_error_rows[f->error].code);
    json_append_cstring(&json, f->sentence);
    buffer_append_string(&json, ",\"field\":");
    if (f->field)
        json_append_cstring(&json, f->field);
    else
        buffer_append_string(&json, "null");
    buffer_append_string(&json, "}}");
    int r = buffer_check(&json);
    const char *refusal = r ? NULL : arena_copy_string(http_arena(c->request), buffer_bytes(&json));
    return refusal ? add_item(c, &(struct item){.refusal = refusal}) : error_origin(-ENOMEM);
}

/* 0 also when it was refused: its item says so. */
static int take_task(struct creation *c, struct bytes text) {
    struct json_value v;
    struct task task;
    if (c->n == BATCH_MAX)
        return task_fault_set(&c->fault, HTTP_ERROR_TOO_LARGE, "tasks",
                              "a batch takes at most %d tasks", BATCH_MAX);
    int r = json_parse(http_json_parser(c->request), text, &v);
    r = r ? task_fault_json(&c->fault, r) : create(c, v, &task);
    return r == TASKS_API_E_FAULT ? refuse(c) : error_trace(r);
}

static bool is_space(uint8_t c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct bytes trim(struct bytes b) {
    while (b.size && is_space(b.data[0]))
        b = bytes_of(b.data + 1, b.size - 1);
    while (b.size && is_space(b.data[b.size - 1]))
        b.size--;
    return b;
}

static int take_lines(struct creation *c, struct bytes body) {
    const uint8_t *at = body.data, *end = at + body.size;
    int r = 0;
    while (r == 0 && at < end) {
        const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
        const uint8_t *line_end = newline ? newline : end;
        struct bytes line = trim(bytes_of(at, (size_t)(line_end - at)));
        if (line.size)
            r = take_task(c, line);
        at = newline ? newline + 1 : end;
    }
    return error_trace(r);
}

static int fault_punctuation(struct creation *c) {
    return task_fault_set(&c->fault, HTTP_ERROR_MALFORMED_JSON, NULL,
                          "the body is not valid JSON; send {\"tasks\":[…]}, or a task a line");
}

static int take_array(struct creation *c, struct bytes text) {
    struct json_members m;
    struct bytes key, value;
    int r = json_members_init(&m, text);
    if (r == 0 && m.object)
        return task_fault_set(&c->fault, HTTP_ERROR_INVALID_FIELD, "tasks",
                              "`tasks` must be an array");
    while (r == 0 && (r = json_members_next(&m, &key, &value)) == 0)
        r = take_task(c, value);
    if (r == JSON_SPLIT_E_END)
        return 0;
    return r == JSON_SPLIT_E_SYNTAX || r == JSON_SPLIT_E_MORE ? fault_punctuation(c)
                                                              : error_trace(r);
}

/* The member `tasks` of a body that is one object as a whole; false when it is none, or has none.
 */
static bool find_tasks(struct bytes body, struct bytes *ret_tasks) {
    struct json_members m;
    struct bytes key, value;
    bool found = false;
    if (json_members_init(&m, body) != 0 || !m.object)
        return false;
    int r;
    while ((r = json_members_next(&m, &key, &value)) == 0) {
        if (!bytes_equal(key, BYTES_LITERAL("tasks")))
            continue;
        *ret_tasks = value;
        found = true;
    }
    return found && r == JSON_SPLIT_E_END;
}

static int take_body(struct creation *c, struct bytes body) {
    struct bytes tasks;
    int r = find_tasks(body, &tasks) ? take_array(c, tasks) : take_lines(c, body);
    if (r == 0 && c->n == 0)
        return task_fault_set(&c->fault, HTTP_ERROR_MISSING_FIELD, "tasks",
                              "there is no task in the body; send {\"tasks\":[…]}, or a task a "
                              "line");
    return error_trace(r);
}

static unsigned render_batch(struct http_request *r, enum http_write_outcome outcome UNUSED,
                             struct buffer *body) {
    const char *separator = "{\"tasks\":[";
    for (const struct item_block *b = http_state(r); b; b = b->next)
        for (size_t i = 0; i < b->n; i++) {
            char id[TASK_ID_SIZE];
            task_id_text(b->items[i].id, id);
            buffer_append_string(body, separator);
            if (b->items[i].refusal)
                buffer_append_string(body, b->items[i].refusal);
            else
                buffer_append_format(body, "{\"id\":\"%s\",\"status\":\"queued\"}", id);
            separator = ",";
        }
    buffer_append_string(body, "]}");
    return 202;
}

static void answer_batch(struct creation *c) {
    http_set_state(c->request, c->first_block);
    await_nothing(c);
    await(c, render_batch);
}

/* ---- Keys that other processes may have, too ---- */
/*
 * They are claimed from the store of all processes before anything is appended, by a thread that
 * may wait. A key that has an id whose task is not there yet is somebody's who may have appended it
 * and may not: a CREATE of that id is appended again, and changes nothing if there was one.
 */
struct claiming {
    struct tasks_api *api;
    struct item_block *first_block;
    size_t n_accepted;
    size_t n_keys;
    uint8_t *records;    /* copied: the scratch is the loop's */
    struct created *one; /* NULL: a batch */
};

static void append_claimed(void *context, struct http_request *r) {
    CLEANUP(creation_deinit) struct creation c;
    struct claiming *claiming = context;
    creation_init(&c, claiming->api, r);
    c.first_block = claiming->first_block;
    c.n_accepted = claiming->n_accepted;
    c.claimed = claiming->records;
    int result = append_all(&c);
    if (result)
        fail(&c, result);
    else if (claiming->one)
        answer_one(&c, claiming->one);
    else
        answer_batch(&c);
}

/* As it is now, for the answer: reading it is not for the loop. */
static int show_known(const struct claiming *c, struct http_request *r) {
    CLEANUP(buffer_deinit) struct buffer json = BUFFER_INIT;
    struct task_ref ref;
    assert(c->first_block);
    const struct item *item = &c->first_block->items[0];
    if (!c->one || item->is_new)
        return 0;
    int result = task_find(c->api, item->id, false, &ref);
    if (result)
        return error_trace(result);
    task_append_json(&json, &ref.task, NULL);
    task_unref(&ref);
    result = buffer_check(&json);
    const char *copy = result ? NULL : arena_copy_string(http_arena(r), buffer_bytes(&json));
    c->one->shown = bytes_of(copy, copy ? json.size : 0);
    return copy ? 0 : error_origin(-ENOMEM);
}

static int claim_keys(const struct claiming *c, struct http_request *r) {
    struct tasks_claim *claims = arena_calloc(http_arena(r), c->n_keys, sizeof *claims);
    uint8_t *record = c->records;
    size_t n = 0;
    if (!claims)
        return error_origin(-ENOMEM);
    for (const struct item_block *b = c->first_block; b; b = b->next)
        for (size_t i = 0; i < b->n; i++)
            if (b->items[i].idempotency_key.size)
                claims[n++] =
                    (struct tasks_claim){.key = b->items[i].idempotency_key, .id = b->items[i].id};
    int result = c->api->tasks.ops->claim(c->api->tasks.store, claims, n);
    if (result)
        return error_trace(result);
    const struct tasks_claim *claim = claims;
    for (struct item_block *b = c->first_block; b; b = b->next)
        for (size_t i = 0; i < b->n; record += b->items[i].record_size, i++) {
            struct item *item = &b->items[i];
            if (item->idempotency_key.size == 0)
                continue;
            item->id = claim->id;
            item->is_new = claim->is_new;
            task_record_set_id(record, claim->id);
            claim++;
        }
    return show_known(c, r);
}

static void claim_job(void *context, struct http_request *r) {
    struct claiming *c = context;
    int result = claim_keys(c, r);
    if (result)
        task_fail(r, result, NULL);
    else
        http_resume(r, append_claimed, c);
}

static int begin_claiming(struct creation *c, struct created *one) {
    struct arena *a = http_arena(c->request);
    struct claiming *claiming = arena_calloc(a, 1, sizeof *claiming);
    uint8_t *records = arena_alloc(a, c->records->size);
    if (!claiming || !records)
        return error_origin(-ENOMEM);
    memcpy(records, c->records->data, c->records->size);
    *claiming = (struct claiming){.api = c->api,
                                  .first_block = c->first_block,
                                  .n_accepted = c->n_accepted,
                                  .n_keys = c->n_keys,
                                  .records = records,
                                  .one = one};
    http_offload_waiting(c->request, claim_job, claiming);
    return 0;
}

/* ---- The handlers ---- */
void task_post(void *api, struct http_request *r) {
    CLEANUP(creation_deinit) struct creation c;
    creation_init(&c, api, r);
    struct created *created = arena_calloc(http_arena(r), 1, sizeof *created);
    int result = created ? c.api->tasks.ops->admit(c.api->tasks.store, 1) : -ENOMEM;
    if (!result)
        result = parse_one(&c, created);
    bool claims = c.n_keys > 0 && c.api->shared;
    if (!result)
        result = claims ? begin_claiming(&c, created) : append_all(&c);
    if (result) {
        fail(&c, result);
        return;
    }
    created->api = c.api;
    if (!claims)
        answer_one(&c, created);
}

void task_post_batch(void *api, struct http_request *r) {
    CLEANUP(creation_deinit) struct creation c;
    creation_init(&c, api, r);
    int result = take_body(&c, http_body(r));
    if (!result)
        result = c.api->tasks.ops->admit(c.api->tasks.store, c.n_accepted);
    bool claims = c.n_keys > 0 && c.api->shared;
    if (!result)
        result = claims ? begin_claiming(&c, NULL) : append_all(&c);
    if (result)
        fail(&c, result);
    else if (!claims)
        answer_batch(&c);
}
