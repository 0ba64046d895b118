/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks in: one, or a batch of which each stands alone. All is parsed before anything is appended:
 * what is refused as a whole leaves no task. The good ones of a batch are one group in the journal,
 * but for those with an idempotency key: each of these is appended under the lock of the keys. The
 * answer waits until the store knows the tasks, so that whoever asks for one next finds it.
 */
#include "tasks/api_parts.h"

#include "base/json_split.h"

#include <errno.h>

enum {
    VISIBLE_TIMEOUT_MS = 2000,
    FIRST_BIRTHS = 16,
    BATCH_MAX = 100000, /* tasks in a request */
};

static const uint64_t all_lanes = 1; /* the store has one */

/* A task to be: its record, as part of the bytes until the append. */
struct birth {
    struct journal_record record;
    struct task_id id;
    struct bytes idempotency_key;
    bool is_new; /* false: another has its key, and `id` is that one's */
};

/* What is being created by one request. */
struct creation {
    struct tasks_api *api;
    struct http_request *request;
    uint64_t now_us;
    struct buffer args;   /* of the task under way */
    struct buffer *bytes; /* the thread's scratch: records, one behind the other */
    struct birth *births;
    size_t n;
    size_t n_max;
    lsn_t first;
    lsn_t last;
    int condition; /* why the journal took nothing */
    struct task_fault fault;
};

enum { TASKS_API_E_JOURNAL = 151 };

static void creation_init(struct creation *c, struct tasks_api *api, struct http_request *r) {
    *c = (struct creation){
        .api = api, .request = r, .now_us = os_wall_us(api->os), .bytes = http_scratch(r)};
}

static void creation_deinit(struct creation *c) {
    buffer_deinit(&c->args);
}

/* ---- Parsing ---- */
static int reserve_birth(struct creation *c) {
    if (c->n < c->n_max)
        return 0;
    size_t max = c->n_max ? 2 * c->n_max : FIRST_BIRTHS;
    struct birth *births = arena_calloc(http_arena(c->request), max, sizeof *births);
    if (!births)
        return error_origin(-ENOMEM);
    if (c->n)
        memcpy(births, c->births, c->n * sizeof *births);
    c->births = births;
    c->n_max = max;
    return 0;
}

static int add_birth(struct creation *c, struct task_id id, const struct task_request *q) {
    const struct task_record record = {.op = TASK_OP_CREATE, .id = id, .request = *q};
    size_t start = c->bytes->size;
    const char *key = arena_copy_string(http_arena(c->request), q->idempotency_key);
    int r = key ? reserve_birth(c) : error_origin(-ENOMEM);
    if (r)
        return r;
    task_record_encode(c->bytes, &record);
    c->births[c->n++] = (struct birth){
        .record = {.key_hash = id.key,
                   .kind = JOURNAL_KIND_TASKS,
                   .payload.size = c->bytes->size - start},
        .id = id,
        .idempotency_key = bytes_of(key, q->idempotency_key.size),
        .is_new = true,
    };
    return buffer_check(c->bytes);
}

/* Checks a task and makes it one of those to be appended. It is as its answer shows it: without
 * what only the parser holds. */
static int create(struct creation *c, struct json_value v, struct task *ret_task) {
    struct task_request q;
    buffer_clear(&c->args);
    int r = task_parse_request(v, c->now_us, &c->args, &q, &c->fault);
    if (r)
        return error_trace(r);
    struct task_id id = tasks_store_new_id(c->api->store, c->now_us);
    r = add_birth(c, id, &q);
    q.args = q.idempotency_key = BYTES_LITERAL("");
    *ret_task = (struct task){.id = id,
                              .request = q,
                              .status = TASK_QUEUED,
                              .created_us = c->now_us,
                              .due_us = q.run_at_us ? q.run_at_us : c->now_us};
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
    struct birth *birth;
};

static int append_keyed(void *context) {
    struct keyed *k = context;
    return append(k->creation, &k->birth->record, 1);
}

static int append_once(struct creation *c, struct birth *b) {
    struct keyed k = {.creation = c, .birth = b};
    int r = tasks_store_once(c->api->store, b->idempotency_key, b->id, append_keyed, &k, &b->id,
                             &b->is_new);
    if (r == 0 && !b->is_new) {
        /* Who created it may not be durable yet: what there is now covers it. */
        lsn_t newest = journal_newest(c->api->journal, JOURNAL_KIND_TASKS);
        awaits(c, newest, newest);
    }
    return error_trace(r);
}

/* The bytes move no more. The group goes last: should it be refused, the request can be sent again,
 * as those with a key are found then. */
static int append_all(struct creation *c) {
    struct journal_record *group = arena_calloc(http_arena(c->request), c->n, sizeof *group);
    size_t at = 0, n_group = 0;
    if (!group && c->n)
        return error_origin(-ENOMEM);
    for (size_t i = 0; i < c->n; i++) {
        struct birth *b = &c->births[i];
        b->record.payload.data = c->bytes->data + at;
        at += b->record.payload.size;
        if (!b->idempotency_key.size)
            group[n_group++] = b->record;
    }
    int r = 0;
    for (size_t i = 0; r == 0 && i < c->n; i++)
        if (c->births[i].idempotency_key.size)
            r = append_once(c, &c->births[i]);
    return r == 0 && n_group ? append(c, group, n_group) : error_trace(r);
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
                                     .wait_visible = true,
                                     .timeout_ms = VISIBLE_TIMEOUT_MS,
                                     .render = render};
    http_await_write(c->request, &write);
}

/* ---- One ---- */
struct created {
    struct tasks_api *api;
    struct task task;
    bool is_new;
};

/* A new task is answered as it was created, though it may run by now; another's as it is. */
static unsigned render_one(struct http_request *r, enum http_write_outcome outcome UNUSED,
                           struct buffer *body) {
    const struct created *c = http_state(r);
    struct task_ref ref;
    if (c->is_new || tasks_store_get(c->api->store, c->task.id, false, &ref) != 0) {
        task_append_json(body, &c->task, NULL);
    } else {
        task_append_json(body, &ref.task, c->api->runner);
        task_unref(&ref);
    }
    return 202;
}

static int create_one(struct creation *c, struct created *created) {
    struct json_value v;
    int r = json_parse(http_json_parser(c->request), http_body(c->request), &v);
    if (r)
        return task_fault_json(&c->fault, r);
    r = create(c, v, &created->task);
    if (r == 0)
        r = append_all(c);
    if (r)
        return error_trace(r);
    created->task.id = c->births[0].id;
    created->is_new = c->births[0].is_new;
    return 0;
}

static void answer_one(struct creation *c, struct created *created) {
    char location[sizeof "/tasks/" + TASK_ID_SIZE] = "/tasks/";
    task_id_text(created->task.id, location + strlen(location));
    http_set_header(c->request, "Location", location);
    http_set_state(c->request, created);
    await(c, render_one);
}

void task_post(void *api, struct http_request *r) {
    CLEANUP(creation_deinit) struct creation c;
    creation_init(&c, api, r);
    struct created *created = arena_calloc(http_arena(r), 1, sizeof *created);
    int result = created ? tasks_store_admit(c.api->store, 1) : -ENOMEM;
    if (!result)
        result = create_one(&c, created);
    if (result) {
        fail(&c, result);
        return;
    }
    created->api = c.api;
    answer_one(&c, created);
}

/* ---- A batch ---- */
struct batch {
    struct creation creation;
    struct buffer list; /* of the answer, without the brackets */
    struct buffer ids;  /* where in it the id of each birth stands: size_t */
    size_t n;
    char *answer;
};

static void batch_deinit(struct batch *b) {
    creation_deinit(&b->creation);
    buffer_deinit(&b->list);
    buffer_deinit(&b->ids);
}

static const char answer_head[] = "{\"tasks\":[";

static void list_task(struct batch *b, const struct task *task) {
    char id[TASK_ID_SIZE];
    task_id_text(task->id, id);
    buffer_append_string(&b->list, "{\"id\":\"");
    size_t at = strlen(answer_head) + b->list.size;
    buffer_append(&b->ids, &at, sizeof at);
    buffer_append_format(&b->list, "%s\",\"status\":\"%s\"}", id, task_status_names[task->status]);
}

static void list_fault(struct batch *b, const struct task_fault *f) {
    buffer_append_format(
        &b->list, "{\"error\":{\"code\":\"%s\",\"message\":", http_error_rows[f->error].code);
    json_append_cstring(&b->list, f->sentence);
    buffer_append_string(&b->list, ",\"field\":");
    if (f->field)
        json_append_cstring(&b->list, f->field);
    else
        buffer_append_string(&b->list, "null");
    buffer_append_string(&b->list, "}}");
}

/* 0 also when it was refused: the list says so. */
static int take_task(struct batch *b, struct bytes text) {
    struct creation *c = &b->creation;
    struct json_value v;
    struct task task;
    if (b->n == BATCH_MAX)
        return task_fault_set(&c->fault, HTTP_ERROR_TOO_LARGE, "tasks",
                              "a batch takes at most %d tasks", BATCH_MAX);
    if (b->n++ > 0)
        buffer_append_u8(&b->list, ',');
    int r = json_parse(http_json_parser(c->request), text, &v);
    r = r ? task_fault_json(&c->fault, r) : create(c, v, &task);
    if (r == 0)
        list_task(b, &task);
    else if (r == TASKS_API_E_FAULT)
        list_fault(b, &c->fault);
    else
        return error_trace(r);
    r = buffer_check(&b->ids);
    return r ? r : buffer_check(&b->list);
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

static int take_lines(struct batch *b, struct bytes body) {
    const uint8_t *at = body.data, *end = at + body.size;
    int r = 0;
    while (r == 0 && at < end) {
        const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
        const uint8_t *line_end = newline ? newline : end;
        struct bytes line = trim(bytes_of(at, (size_t)(line_end - at)));
        if (line.size)
            r = take_task(b, line);
        at = newline ? newline + 1 : end;
    }
    return error_trace(r);
}

static int fault_punctuation(struct batch *b) {
    return task_fault_set(&b->creation.fault, HTTP_ERROR_MALFORMED_JSON, NULL,
                          "the body is not valid JSON; send {\"tasks\":[…]}, or a task a line");
}

static int take_array(struct batch *b, struct bytes text) {
    struct json_members m;
    struct bytes key, value;
    int r = json_members_init(&m, text);
    if (r == 0 && m.object)
        return task_fault_set(&b->creation.fault, HTTP_ERROR_INVALID_FIELD, "tasks",
                              "`tasks` must be an array");
    while (r == 0 && (r = json_members_next(&m, &key, &value)) == 0)
        r = take_task(b, value);
    if (r == JSON_SPLIT_E_END)
        return 0;
    return r == JSON_SPLIT_E_SYNTAX || r == JSON_SPLIT_E_MORE ? fault_punctuation(b)
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

static int take_body(struct batch *b, struct bytes body) {
    struct bytes tasks;
    int r = find_tasks(body, &tasks) ? take_array(b, tasks) : take_lines(b, body);
    if (r == 0 && b->n == 0)
        return task_fault_set(&b->creation.fault, HTTP_ERROR_MISSING_FIELD, "tasks",
                              "there is no task in the body; send {\"tasks\":[…]}, or a task a "
                              "line");
    return error_trace(r);
}

static unsigned render_batch(struct http_request *r, enum http_write_outcome outcome UNUSED,
                             struct buffer *body) {
    buffer_append_string(body, http_state(r));
    return 202;
}

/* The answer is ready before anything is appended: it must not fail afterwards. */
static int prepare_answer(struct batch *b) {
    struct http_request *r = b->creation.request;
    b->answer = arena_format(http_arena(r), "%s%.*s]}", answer_head, (int)b->list.size,
                             (const char *)b->list.data);
    http_set_state(r, b->answer);
    return b->answer ? 0 : error_origin(-ENOMEM);
}

/* Those whose key another task has: all ids are of one length. */
static void correct_ids(struct batch *b) {
    const size_t *places = (const void *)b->ids.data;
    for (size_t i = 0; i < b->creation.n; i++) {
        const struct birth *birth = &b->creation.births[i];
        char id[TASK_ID_SIZE];
        if (birth->is_new)
            continue;
        task_id_text(birth->id, id);
        memcpy(b->answer + places[i], id, TASK_ID_SIZE - 1);
    }
}

/* Nothing of it needs a place in the journal: its answer waits for what there is. */
static void await_nothing(struct creation *c) {
    if (c->last == 0)
        c->first = c->last = journal_durable(c->api->journal);
}

void task_post_batch(void *api, struct http_request *r) {
    CLEANUP(batch_deinit) struct batch b = {.list = BUFFER_INIT};
    struct creation *c = &b.creation;
    creation_init(c, api, r);
    int result = take_body(&b, http_body(r));
    if (!result)
        result = tasks_store_admit(c->api->store, c->n);
    if (!result)
        result = prepare_answer(&b);
    if (!result)
        result = append_all(c);
    if (result) {
        fail(c, result);
        return;
    }
    correct_ids(&b);
    await_nothing(c);
    await(c, render_batch);
}
