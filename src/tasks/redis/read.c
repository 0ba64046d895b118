/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks, pages of them, idempotency keys; and the table of functions that the routes and the runner
 * have. A page comes from one range of the lists, or, of a type whatever the status, from one a
 * status: their newest are the page, and the states are read then. A task that changes in between
 * is left out, for an older one, or shown as it is by now. Tasks of one key, which several
 * processes made at the same time, are on one page.
 */
#include "tasks/redis/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* ---- One ---- */

/* A task that is its own. */
struct held {
    struct task_held held;
    uint8_t bytes[]; /* the state, then the arguments */
};

static void release(struct task_held *task_held) {
    free(CONTAINER_OF(task_held, struct held, held));
}

/* Three numbers: attempt, current, total. */
static void take_progress(struct bytes progress, struct task *task) {
    char text[80], *end;
    if (progress.size == 0 || progress.size >= sizeof text || task->status != TASK_RUNNING)
        return;
    memcpy(text, progress.data, progress.size);
    text[progress.size] = '\0';
    uint64_t attempt = strtoull(text, &end, 10);
    uint64_t current = strtoull(end, &end, 10), total = strtoull(end, &end, 10);
    if (attempt != task->attempts || *end)
        return;
    task->current = current;
    task->total = total;
}

int tasks_hold(struct task_id id, struct bytes state, struct bytes args, struct bytes progress,
               struct task_ref *ret_ref) {
    struct task task;
    bool has_args;
    struct held *h = malloc(sizeof *h + state.size + args.size);
    if (!h)
        return error_origin(-ENOMEM);
    if (state.size)
        memcpy(h->bytes, state.data, state.size);
    if (args.size)
        memcpy(h->bytes + state.size, args.data, args.size);
    if (!task_state_decode(id.key, bytes_of(h->bytes, state.size), &task, &has_args) ||
        task.id.low != id.low) {
        free(h);
        return error_origin(-EBADMSG);
    }
    if (has_args)
        task.request.args = bytes_of(h->bytes + state.size, args.size);
    else if (task.status != TASK_SUCCEEDED)
        task.request.args = BYTES_LITERAL("{}");
    take_progress(progress, &task);
    h->held.release = release;
    *ret_ref = (struct task_ref){.task = task, .held = &h->held};
    return 0;
}

/* One field of the states, the arguments, the progress. */
enum { PARTS = 3 };
static int ask_one(struct tasks_shared *s, const char digits[ID_DIGITS + 1], bool with_args,
                   struct redis_command commands[PARTS]) {
    static const enum key keys[PARTS] = {KEY_STATES, KEY_PROGRESS, KEY_ARGS};
    struct bytes words[PARTS][3];
    char why[REDIS_WHY_MAX];
    for (size_t i = 0; i < PARTS; i++) {
        words[i][0] = BYTES_LITERAL("HGET");
        words[i][1] = key_of(s, keys[i]);
        words[i][2] = bytes_of(digits, ID_DIGITS);
        commands[i] = (struct redis_command){.key = words[i][1], .arguments = words[i], .n = 3};
    }
    return tasks_ask(s, commands, with_args ? PARTS : PARTS - 1, false, READ_TIMEOUT_MS, why);
}

static int get_now(struct tasks_shared *s, struct task_id id, bool with_args,
                   struct task_ref *ret_ref) {
    struct redis_command commands[PARTS] = {0};
    char digits[ID_DIGITS + 1];
    id_digits(id, digits);
    int r = ask_one(s, digits, with_args, commands);
    if (!r && commands[0].reply->type == REDIS_REPLY_NIL)
        r = TASKS_E_NOT_FOUND;
    if (!r)
        r = tasks_hold(id, reply_text(commands[0].reply),
                       with_args ? reply_text(commands[2].reply) : (struct bytes){0},
                       reply_text(commands[1].reply), ret_ref);
    redis_commands_free(commands, PARTS);
    return r > 0 ? r : error_trace(r);
}

/* One that was made a moment ago, by its id, may be on its way: its maker was told that it is
 * durable, and not that a worker has applied it. */
static bool may_come(struct tasks_shared *s, struct task_id id) {
    enum { COMES_WITHIN_MS = 2000, MS_SHIFT = 16 };
    uint64_t made_ms = id.key >> MS_SHIFT, now_ms = os_wall_us(s->os) / 1000;
    return made_ms <= now_ms + COMES_WITHIN_MS && now_ms <= made_ms + COMES_WITHIN_MS;
}

static int get(void *store, struct task_id id, bool with_args, struct task_ref *ret_ref) {
    enum { AGAIN_NS = 5000000 };
    struct tasks_shared *s = store;
    int r;
    while ((r = get_now(s, id, with_args, ret_ref)) == TASKS_E_NOT_FOUND && may_come(s, id))
        os_sleep_ns(s->os, AGAIN_NS);
    return r > 0 ? r : error_trace(r);
}

/* ---- A page ---- */

enum {
    RANGES_MAX = TASK_STATUSES,
    EQUALS_MAX = 64, /* beyond a page: its last key's others */
};

/* The names of ids in the lists are turned around: ~id, behind what they are of. */
struct found {
    char turned[ID_DIGITS + 1];
};

struct page {
    struct arena arena;
    struct redis_command commands[RANGES_MAX];
    size_t n_ranges;
    struct found *found;
    size_t n;
    bool more; /* there may be */
};

static void page_deinit(struct page *p) {
    redis_commands_free(p->commands, p->n_ranges);
    arena_deinit(&p->arena);
}

/* "[" or "(", the head, and the end. A type has no NUL in its range's head but behind it. */
static struct bytes bound(struct arena *a, char edge, int status, struct bytes type,
                          const char *end) {
    CLEANUP(buffer_deinit) struct buffer b = BUFFER_INIT;
    buffer_append_u8(&b, (uint8_t)edge);
    if (status < 0)
        buffer_append_string(&b, "a:");
    else
        buffer_append_format(&b, "%d%c", status, type.size ? '/' : ':');
    buffer_append_bytes(&b, type);
    if (type.size)
        buffer_append_u8(&b, 0);
    buffer_append_string(&b, end);
    char *copy = b.failed ? NULL : arena_copy_string(a, buffer_bytes(&b));
    return bytes_of(copy, copy ? b.size : 0);
}

static int add_range(struct tasks_shared *s, struct page *p, int status,
                     const struct tasks_filter *filter) {
    struct bytes *words = arena_calloc(&p->arena, 7, sizeof *words);
    char *above = arena_format(&p->arena, "%016" PRIx64 "g", ~filter->below);
    char *limit = arena_format(&p->arena, "%zu", filter->limit + EQUALS_MAX);
    if (!words || !above || !limit)
        return error_origin(-ENOMEM);
    words[0] = BYTES_LITERAL("ZRANGEBYLEX");
    words[1] = key_of(s, KEY_LISTS);
    words[2] = bound(&p->arena, '[', status, filter->type, filter->below ? above : "");
    words[3] = bound(&p->arena, '(', status, filter->type, "g");
    words[4] = BYTES_LITERAL("LIMIT");
    words[5] = BYTES_LITERAL("0");
    words[6] = bytes_of_string(limit);
    if (!words[2].data || !words[3].data)
        return error_origin(-ENOMEM);
    p->commands[p->n_ranges++] =
        (struct redis_command){.key = words[1], .arguments = words, .n = 7};
    return 0;
}

static int add_ranges(struct tasks_shared *s, struct page *p, const struct tasks_filter *filter) {
    unsigned all = (1U << TASK_STATUSES) - 1;
    unsigned statuses = filter->statuses & all;
    if ((statuses == 0 || statuses == all) && filter->type.size == 0)
        return add_range(s, p, -1, filter);
    int r = 0;
    for (int status = 0; !r && status < TASK_STATUSES; status++)
        if (statuses == 0 || statuses & 1U << status)
            r = add_range(s, p, status, filter);
    return error_trace(r);
}

static int newest_first(const void *a, const void *b) {
    return strcmp(((const struct found *)a)->turned, ((const struct found *)b)->turned);
}

static bool equal(const struct found *a, const struct found *b, size_t digits) {
    return memcmp(a->turned, b->turned, digits) == 0;
}

/* A task that changed between two ranges is in both. */
static void cut(struct page *p, size_t limit) {
    enum { KEY_DIGITS = ID_DIGITS / 2 };
    size_t n = 0;
    if (p->n)
        qsort(p->found, p->n, sizeof *p->found, newest_first);
    for (size_t i = 0; i < p->n; i++)
        if (n == 0 || !equal(&p->found[n - 1], &p->found[i], ID_DIGITS))
            p->found[n++] = p->found[i];
    p->n = n < limit ? n : limit;
    while (p->n > 0 && p->n < n && equal(&p->found[p->n - 1], &p->found[p->n], KEY_DIGITS))
        p->n++;
    p->more = p->n < n;
}

/* The newest of all ranges, as many as are wanted. */
static int take_found(struct page *p, size_t limit) {
    size_t n = 0;
    for (size_t i = 0; i < p->n_ranges; i++)
        n += p->commands[i].reply->type == REDIS_REPLY_ARRAY ? p->commands[i].reply->elements : 0;
    p->found = arena_calloc(&p->arena, n + 1, sizeof *p->found);
    if (!p->found)
        return error_origin(-ENOMEM);
    for (size_t i = 0; i < p->n_ranges; i++) {
        const redisReply *reply = p->commands[i].reply;
        for (size_t j = 0; reply->type == REDIS_REPLY_ARRAY && j < reply->elements; j++) {
            struct bytes name = reply_text(reply->element[j]);
            if (name.size >= ID_DIGITS)
                memcpy(p->found[p->n++].turned, name.data + name.size - ID_DIGITS, ID_DIGITS);
        }
    }
    cut(p, limit);
    return 0;
}

static bool turn(const struct found *found, struct task_id *ret_id) {
    if (!id_of_digits(bytes_of(found->turned, ID_DIGITS), ret_id))
        return false;
    *ret_id = (struct task_id){.key = ~ret_id->key, .low = ~ret_id->low};
    return true;
}

int tasks_read_some(struct tasks_shared *s, const struct task_id *ids, size_t n,
                    struct redis_command commands[2]) {
    struct bytes words[2][2 + READ_SOME];
    char digits[READ_SOME][ID_DIGITS + 1], why[REDIS_WHY_MAX];
    for (size_t i = 0; i < 2; i++) {
        words[i][0] = BYTES_LITERAL("HMGET");
        words[i][1] = key_of(s, i ? KEY_PROGRESS : KEY_STATES);
        for (size_t j = 0; j < n; j++) {
            id_digits(ids[j], digits[j]);
            words[i][2 + j] = bytes_of(digits[j], ID_DIGITS);
        }
        commands[i] = (struct redis_command){.key = words[i][1], .arguments = words[i], .n = 2 + n};
    }
    int r = tasks_ask(s, commands, 2, false, READ_TIMEOUT_MS, why);
    bool good = !r && commands[0].reply->type == REDIS_REPLY_ARRAY &&
                commands[1].reply->type == REDIS_REPLY_ARRAY && commands[0].reply->elements == n &&
                commands[1].reply->elements == n;
    return r ? r : good ? 0 : tasks_odd(why);
}

static bool is_wanted(const struct tasks_filter *filter, const struct task *task) {
    return filter->statuses == 0 || filter->statuses & 1U << task->status;
}

struct show {
    const struct tasks_filter *filter;
    bool (*each)(void *context, const struct task *task);
    void *context;
    size_t n; /* shown */
    bool enough;
};

static int show_some(struct tasks_shared *s, const struct task_id *ids, size_t n,
                     struct show *show) {
    struct redis_command commands[2] = {0};
    int r = tasks_read_some(s, ids, n, commands);
    for (size_t i = 0; !r && !show->enough && i < n; i++) {
        struct task_ref ref;
        struct bytes state = reply_text(commands[0].reply->element[i]);
        if (state.size == 0 || tasks_hold(ids[i], state, (struct bytes){0},
                                          reply_text(commands[1].reply->element[i]), &ref))
            continue;
        if (is_wanted(show->filter, &ref.task)) {
            show->enough = !show->each(show->context, &ref.task);
            show->n++;
        }
        task_unref(&ref);
    }
    redis_commands_free(commands, 2);
    return r;
}

/* Those below a key; it becomes the last one's, or 0 when there are no more. */
static int show_page(struct tasks_shared *s, struct tasks_filter *filter, struct show *show) {
    CLEANUP(page_deinit) struct page p = {.arena = ARENA_INIT(ARENA_BYTES_MAX)};
    char why[REDIS_WHY_MAX];
    int r = add_ranges(s, &p, filter);
    if (!r)
        r = tasks_ask(s, p.commands, p.n_ranges, false, READ_TIMEOUT_MS, why);
    if (!r)
        r = take_found(&p, filter->limit);
    filter->below = 0;
    for (size_t at = 0; !r && !show->enough && at < p.n;) {
        struct task_id ids[READ_SOME];
        size_t n = 0;
        for (; at < p.n && n < READ_SOME; at++)
            n += turn(&p.found[at], &ids[n]);
        if (n)
            r = show_some(s, ids, n, show);
        if (n && p.more)
            filter->below = ids[n - 1].key;
    }
    return r;
}

static int list(void *store, const struct tasks_filter *filter,
                bool (*each)(void *context, const struct task *task), void *context) {
    struct show show = {.filter = filter, .each = each, .context = context};
    struct tasks_filter rest = *filter;
    int r;
    do {
        rest.limit = filter->limit - show.n;
        r = show_page(store, &rest, &show);
    } while (!r && !show.enough && rest.below && show.n < filter->limit);
    return r > 0 ? r : error_trace(r);
}

/* ---- For writing ---- */

static struct task_id new_id(void *store, uint64_t wall_us) {
    return task_ids_new(&((struct tasks_shared *)store)->ids, wall_us);
}

static int admit(void *store, uint64_t n) {
    struct tasks_shared *s = store;
    mutex_lock(&s->lock);
    uint64_t queued = s->seen.by_status[TASK_QUEUED];
    mutex_unlock(&s->lock);
    return n > s->options.queued_max || queued > s->options.queued_max - n ? TASKS_E_FULL : 0;
}

static int claim_some(struct tasks_shared *s, struct tasks_claim *claims, size_t n) {
    CLEANUP(call_deinit) struct call c;
    call_init(&c, s, SCRIPT_CLAIM);
    for (size_t i = 0; i < n; i++) {
        call_add(&c, claims[i].key);
        call_add_id(&c, claims[i].id);
    }
    int r = call_run(&c, s, true, READ_TIMEOUT_MS);
    const redisReply *reply = c.command.reply;
    if (!r && (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 * n))
        r = tasks_odd(c.why);
    for (size_t i = 0; !r && i < n; i++) {
        claims[i].is_new = reply->element[2 * i + 1]->integer == 1;
        if (!id_of_digits(reply_text(reply->element[2 * i]), &claims[i].id))
            r = tasks_odd(c.why);
    }
    return r;
}

static int claim(void *store, struct tasks_claim *claims, size_t n) {
    enum { CLAIM_SOME = 1000 };
    int r = 0;
    for (size_t at = 0; !r && at < n; at += CLAIM_SOME)
        r = claim_some(store, claims + at, n - at < CLAIM_SOME ? n - at : CLAIM_SOME);
    return r;
}

/* ---- The table ---- */

static void listen_to(void *store, struct tasks_listener *listener) {
    ((struct tasks_shared *)store)->listener = listener;
}

struct tasks_backend tasks_shared_backend(struct tasks_shared *s) {
    static const struct tasks_backend_ops ops = {
        .new_id = new_id,
        .admit = admit,
        .get = get,
        .list = list,
        .take = shared_take,
        .give_back = shared_give_back,
        .next_due_us = shared_next_due_us,
        .listen = listen_to,
        .claim = claim,
        .renew = shared_renew,
        .each_expired = shared_each_expired,
    };
    return (struct tasks_backend){.ops = &ops, .store = s};
}
