/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bulk tasks, as bulk.h says: one array ordered by id, under one lock. Ids are UUIDs of version 7
 * (milliseconds, then a counter, then chance), made so that each is larger than every one before:
 * the order of ids is the order of age, and the first half alone is a task's key.
 *
 *                      ┌─ encode_end + append + ended ─▶ ended ── settle ──▶ settled
 *   begin ─▶ uploading ┤                                  │
 *                      └─ abandon ─▶ gone                 └─ seen as "running" until then
 *
 * A task that ended well is settled once the workers have applied its last record and its
 * collection is alive ("succeeded"), or when the workers come to the drop of its collection: that
 * record says what was applied at the time, so whether the task is "succeeded" or "failed" follows
 * from the journal. The end of a task that succeeded is appended while its collection is alive, so
 * the record of its end comes before that of the drop. What ended badly is settled at once.
 *
 * A task's bytes, in its POINT_BULK record and in the checkpoint:
 *
 *   u8 version (1), u8 status, u64 × 2 id, u64 created_us, u64 ended_us, u64 incarnation,
 *   u64 first, u64 last, u64 accepted, u64 rejected, then blocks: type, collection, reason, errors
 *   (for each: u64 line, block sentence).
 *
 * first and last are 0 when the points stand in the same group, right before the record: they are
 * then the `accepted` lsns before its own.
 *
 * The checkpoint's piece: u8 version (1), u32 n, then for each: u64 lsn of the record, u8 settled,
 * block task.
 */
#include "points/bulk.h"

#include "base/time_text.h"
#include "base/uuid.h"
#include "os/sync.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum {
    TASK_VERSION = 1,
    ENCODING_VERSION = 1,
    REASON_SIZE = 256,
    SENTENCE_MAX = 256, /* bytes kept of an error's sentence */
    SETTLE_BATCH = 64,  /* collections looked up at a time */
#ifdef MILLRACE_TINY
    TASKS_MAX = 8,
    ERRORS_MAX_BYTES = 4 << 10,
#else
    TASKS_MAX = 10000,
    ERRORS_MAX_BYTES = 32 << 20, /* of all tasks: then the oldest are forgotten earlier */
#endif
};

struct bulk_task {
    struct bulk_tasks *owner;
    struct point_id id; /* a UUID; high is the key */
    char id_text[BULK_ID_SIZE];
    char type[16];
    char collection[POINT_NAME_MAX + 1];
    char reason[REASON_SIZE];
    enum bulk_status status;
    enum bulk_status end; /* what bulk_task_encode_end said, until bulk_task_ended */
    bool settled;
    lsn_t incarnation;
    lsn_t first;
    lsn_t last;
    lsn_t end_lsn; /* of its record; 0 while uploading, and when it could not be journalled */
    uint64_t created_us;
    uint64_t ended_us;
    uint64_t accepted;
    uint64_t rejected;
    size_t n_errors;
    struct buffer errors; /* as on disk */
};

struct bulk_tasks {
    struct os *os;
    struct mutex lock;
    struct bulk_task **tasks; /* by id: the oldest first */
    size_t n;
    size_t capacity;
    size_t n_unsettled;
    size_t errors_bytes;
    uint64_t last_key;
};

static struct bulk_task *task_free(struct bulk_task *task) {
    if (!task)
        return NULL;
    buffer_deinit(&task->errors);
    free(task);
    return NULL;
}

int bulk_tasks_new(struct os *os, struct bulk_tasks **ret_tasks) {
    struct bulk_tasks *t = calloc(1, sizeof *t);
    if (!t)
        return error_origin(-ENOMEM);
    t->os = os;
    mutex_init(&t->lock, LOCK_RANK_BULK);
    *ret_tasks = t;
    return 0;
}

struct bulk_tasks *bulk_tasks_free(struct bulk_tasks *t) {
    if (!t)
        return NULL;
    for (size_t i = 0; i < t->n; i++)
        task_free(t->tasks[i]);
    mutex_deinit(&t->lock);
    free(t->tasks);
    free(t);
    return NULL;
}

/* ---- The array (lock held) ---- */

/* The place of the first task whose key is not below `key`. */
static size_t place(const struct bulk_tasks *t, uint64_t key) {
    size_t low = 0, high = t->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->tasks[middle]->id.high < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct bulk_task *find(const struct bulk_tasks *t, struct point_id id) {
    size_t at = place(t, id.high);
    return at < t->n && point_id_compare(t->tasks[at]->id, id) == 0 ? t->tasks[at] : NULL;
}

static int reserve_one(struct bulk_tasks *t) {
    if (t->n < t->capacity)
        return 0;
    size_t capacity = t->capacity ? 2 * t->capacity : 16;
    void *grown = realloc(t->tasks, capacity * sizeof(*t->tasks));
    if (!grown)
        return error_origin(-ENOMEM);
    t->tasks = grown;
    t->capacity = capacity;
    return 0;
}

static void remove_at(struct bulk_tasks *t, size_t at) {
    struct bulk_task *task = t->tasks[at];
    t->n_unsettled -= !task->settled;
    t->errors_bytes -= task->errors.size;
    memmove(t->tasks + at, t->tasks + at + 1, (t->n - at - 1) * sizeof(*t->tasks));
    t->n--;
    task_free(task);
}

/* Forgets the oldest that ended; uploads under way stay (connections bound their number). */
static void evict(struct bulk_tasks *t) {
    size_t at = 0;
    while (at < t->n && (t->n > TASKS_MAX || t->errors_bytes > ERRORS_MAX_BYTES)) {
        if (t->tasks[at]->status == BULK_UPLOADING)
            at++;
        else
            remove_at(t, at);
    }
}

/* There must be room (reserve_one). */
static void insert(struct bulk_tasks *t, struct bulk_task *task) {
    size_t at = place(t, task->id.high);
    memmove(t->tasks + at + 1, t->tasks + at, (t->n - at) * sizeof(*t->tasks));
    t->tasks[at] = task;
    t->n++;
    t->n_unsettled += !task->settled;
    t->errors_bytes += task->errors.size;
    if (task->id.high > t->last_key)
        t->last_key = task->id.high;
}

/* ---- An upload under way ---- */

/* A version 7 UUID whose first half is above every one before: 48 bits of milliseconds, the
 * version, 12 bits that count within a millisecond. */
static struct point_id next_id(struct bulk_tasks *t, uint64_t wall_us, uint64_t chance) {
    uint64_t key = (wall_us / 1000) << 16 | 0x7000;
    if (key <= t->last_key)
        key = (t->last_key & 0xfff) == 0xfff ? ((t->last_key >> 16) + 1) << 16 | 0x7000
                                             : t->last_key + 1;
    return (struct point_id){.high = key, .low = chance >> 2 | 1ull << 63, .uuid = true};
}

static void set_id(struct bulk_task *task, struct point_id id) {
    task->id = id;
    uuid_format(id.high, id.low, task->id_text);
}

/* Copies text, cut at size - 1 bytes. */
static void copy_text(char *out, size_t size, struct bytes text) {
    size_t n = text.size < size ? text.size : size - 1;
    if (n)
        memcpy(out, text.data, n);
    out[n] = '\0';
}

static int begin_locked(struct bulk_tasks *t, struct bulk_task *task, uint64_t chance) {
    int r = reserve_one(t);
    if (r)
        return error_trace(r);
    set_id(task, next_id(t, task->created_us, chance));
    insert(t, task);
    evict(t);
    return 0;
}

int bulk_task_begin(struct bulk_tasks *t, const char *type, const char *collection,
                    lsn_t incarnation, struct bulk_task **ret_task) {
    uint64_t chance;
    int r = os_random(t->os, &chance, sizeof chance);
    if (r)
        return error_fold(r);
    struct bulk_task *task = calloc(1, sizeof *task);
    if (!task)
        return error_origin(-ENOMEM);
    task->owner = t;
    task->status = BULK_UPLOADING;
    task->incarnation = incarnation;
    task->created_us = os_wall_us(t->os);
    copy_text(task->type, sizeof task->type, bytes_of_string(type));
    copy_text(task->collection, sizeof task->collection, bytes_of_string(collection));
    mutex_lock(&t->lock);
    r = begin_locked(t, task, chance);
    mutex_unlock(&t->lock);
    if (r) {
        task_free(task);
        return error_trace(r);
    }
    *ret_task = task;
    return 0;
}

const char *bulk_task_id(const struct bulk_task *task) {
    return task->id_text;
}

void bulk_task_accepted(struct bulk_task *task, lsn_t first, lsn_t last, uint64_t n) {
    mutex_lock(&task->owner->lock);
    if (!task->first)
        task->first = first;
    task->last = last;
    task->accepted += n;
    mutex_unlock(&task->owner->lock);
}

void bulk_task_error(struct bulk_task *task, uint64_t line, const char *sentence) {
    struct bulk_tasks *t = task->owner;
    struct bytes text = bytes_of_string(sentence);
    if (text.size > SENTENCE_MAX)
        text.size = SENTENCE_MAX;
    mutex_lock(&t->lock);
    task->rejected++;
    if (task->n_errors < BULK_ERRORS_MAX) {
        size_t before = task->errors.size;
        buffer_append_u64(&task->errors, line);
        buffer_append_block(&task->errors, text);
        if (task->errors.failed) /* the error is counted all the same */
            task->errors.size = before, task->errors.failed = false;
        else
            task->n_errors++;
        t->errors_bytes += task->errors.size - before;
        evict(t);
    }
    mutex_unlock(&t->lock);
}

static void encode_task(const struct bulk_task *task, enum bulk_status status, struct buffer *out) {
    buffer_append_u8(out, TASK_VERSION);
    buffer_append_u8(out, (uint8_t)status);
    const uint64_t numbers[] = {task->id.high,  task->id.low,      task->created_us,
                                task->ended_us, task->incarnation, task->first,
                                task->last,     task->accepted,    task->rejected};
    buffer_append(out, numbers, sizeof numbers);
    buffer_append_block(out, bytes_of_string(task->type));
    buffer_append_block(out, bytes_of_string(task->collection));
    buffer_append_block(out, bytes_of_string(task->reason));
    buffer_append_block(out, buffer_bytes(&task->errors));
}

void bulk_task_encode_end(struct bulk_task *task, enum bulk_status status, const char *reason,
                          struct buffer *out) {
    assert(status != BULK_UPLOADING);
    CLEANUP(buffer_deinit) struct buffer body = BUFFER_INIT;
    mutex_lock(&task->owner->lock);
    task->end = status;
    task->ended_us = os_wall_us(task->owner->os);
    copy_text(task->reason, sizeof task->reason, bytes_of_string(reason ? reason : ""));
    encode_task(task, status, &body);
    mutex_unlock(&task->owner->lock);
    out->failed |= body.failed;
    point_record_encode_bulk(out, buffer_bytes(&body));
}

/* The lsns of points that stand right before the task's record. */
static void resolve_group(struct bulk_task *task, lsn_t lsn) {
    if (task->accepted == 0 || task->last != 0 || lsn <= task->accepted)
        return;
    task->first = lsn - task->accepted;
    task->last = lsn - 1;
}

static void mark_settled(struct bulk_tasks *t, struct bulk_task *task) {
    t->n_unsettled -= !task->settled;
    task->settled = true;
}

void bulk_task_ended(struct bulk_task *task, lsn_t lsn) {
    struct bulk_tasks *t = task->owner;
    mutex_lock(&t->lock);
    assert(task->end != BULK_UPLOADING);
    task->status = task->end;
    task->end_lsn = lsn;
    resolve_group(task, lsn);
    if (task->status != BULK_SUCCEEDED)
        mark_settled(t, task);
    evict(t);
    mutex_unlock(&t->lock);
}

void bulk_task_abandon(struct bulk_task *task) {
    struct bulk_tasks *t = task->owner;
    mutex_lock(&t->lock);
    size_t at = place(t, task->id.high);
    assert(at < t->n && t->tasks[at] == task && task->status == BULK_UPLOADING);
    remove_at(t, at);
    mutex_unlock(&t->lock);
}

/* ---- Replay and checkpoint ---- */

static bool errors_valid(struct bytes errors, size_t *ret_n) {
    struct reader r = reader_of(errors);
    size_t n = 0;
    for (; r.at < r.end && !r.failed; n++) {
        reader_u64(&r);
        reader_block(&r);
    }
    *ret_n = n;
    return !r.failed;
}

/* The fixed part: sets status and the numbers. */
static bool decode_numbers(struct reader *r, struct bulk_task *task) {
    uint8_t version = reader_u8(r);
    uint8_t status = reader_u8(r);
    struct point_id id = {.uuid = true};
    id.high = reader_u64(r);
    id.low = reader_u64(r);
    task->created_us = reader_u64(r);
    task->ended_us = reader_u64(r);
    task->incarnation = reader_u64(r);
    task->first = reader_u64(r);
    task->last = reader_u64(r);
    task->accepted = reader_u64(r);
    task->rejected = reader_u64(r);
    if (r->failed || version != TASK_VERSION || status == BULK_UPLOADING ||
        status > BULK_INTERRUPTED)
        return false;
    task->status = task->end = status;
    task->settled = status != BULK_SUCCEEDED;
    set_id(task, id);
    return true;
}

static bool decode_task(struct bytes body, struct bulk_task *task) {
    struct reader r = reader_of(body);
    if (!decode_numbers(&r, task))
        return false;
    copy_text(task->type, sizeof task->type, reader_block(&r));
    copy_text(task->collection, sizeof task->collection, reader_block(&r));
    copy_text(task->reason, sizeof task->reason, reader_block(&r));
    struct bytes errors = reader_block(&r);
    if (r.failed || r.at != r.end || !errors_valid(errors, &task->n_errors))
        return false;
    buffer_append_bytes(&task->errors, errors);
    return true;
}

/* -EPROTO when the bytes are not a task. */
static int task_decode(struct bulk_tasks *t, struct bytes body, lsn_t lsn,
                       struct bulk_task **ret_task) {
    struct bulk_task *task = calloc(1, sizeof *task);
    if (!task)
        return error_origin(-ENOMEM);
    task->owner = t;
    int r = decode_task(body, task) ? buffer_check(&task->errors) : error_origin(-EPROTO);
    if (r) {
        task_free(task);
        return error_trace(r);
    }
    task->end_lsn = lsn;
    resolve_group(task, lsn);
    *ret_task = task;
    return 0;
}

static int replay_locked(struct bulk_tasks *t, struct bulk_task *task) {
    struct bulk_task *known = find(t, task->id);
    if (known) {
        known->end_lsn = task->end_lsn; /* its owner may have yet to call bulk_task_ended */
        task_free(task);
        return 0;
    }
    int r = reserve_one(t);
    if (r) {
        task_free(task);
        return error_trace(r);
    }
    insert(t, task);
    evict(t);
    return 0;
}

int bulk_tasks_replay(struct bulk_tasks *t, lsn_t lsn, const struct point_record *record) {
    assert(record->op == POINT_BULK);
    struct bulk_task *task;
    int r = task_decode(t, record->body, lsn, &task);
    if (r)
        return error_trace(r);
    mutex_lock(&t->lock);
    r = replay_locked(t, task);
    mutex_unlock(&t->lock);
    return error_trace(r);
}

/* What it is to be after a restart. A record of the end may have passed through the workers before
 * bulk_task_ended was called: with end_lsn, replay has said so. */
static enum bulk_status lasting_status(const struct bulk_task *task) {
    bool ended = task->status != BULK_UPLOADING || task->end_lsn == 0;
    return ended ? task->status : task->end;
}

static bool in_checkpoint(const struct bulk_task *task, lsn_t upto) {
    return lasting_status(task) != BULK_UPLOADING && task->end_lsn <= upto;
}

void bulk_tasks_encode(struct bulk_tasks *t, lsn_t upto, struct buffer *out) {
    CLEANUP(buffer_deinit) struct buffer body = BUFFER_INIT;
    uint32_t n = 0;
    mutex_lock(&t->lock);
    for (size_t i = 0; i < t->n; i++)
        n += in_checkpoint(t->tasks[i], upto);
    buffer_append_u8(out, ENCODING_VERSION);
    buffer_append_u32(out, n);
    for (size_t i = 0; i < t->n; i++) {
        if (!in_checkpoint(t->tasks[i], upto))
            continue;
        buffer_clear(&body);
        encode_task(t->tasks[i], lasting_status(t->tasks[i]), &body);
        buffer_append_u64(out, t->tasks[i]->end_lsn);
        buffer_append_u8(out, t->tasks[i]->settled);
        buffer_append_block(out, buffer_bytes(&body));
        out->failed |= body.failed;
    }
    mutex_unlock(&t->lock);
}

static int decode_one(struct bulk_tasks *t, struct reader *reader) {
    lsn_t lsn = reader_u64(reader);
    uint8_t settled = reader_u8(reader);
    struct bytes body = reader_block(reader);
    if (reader->failed || settled > 1)
        return error_origin(-EPROTO);
    struct bulk_task *task;
    int r = task_decode(t, body, lsn, &task);
    if (r)
        return error_trace(r);
    task->settled |= settled;
    mutex_lock(&t->lock);
    r = replay_locked(t, task);
    mutex_unlock(&t->lock);
    return error_trace(r);
}

int bulk_tasks_decode(struct bulk_tasks *t, struct bytes encoded) {
    struct reader reader = reader_of(encoded);
    uint8_t version = reader_u8(&reader);
    uint32_t n = reader_u32(&reader);
    if (reader.failed || version != ENCODING_VERSION)
        return error_origin(-EPROTO);
    for (uint32_t i = 0; i < n; i++) {
        int r = decode_one(t, &reader);
        if (r)
            return error_trace(r);
    }
    return reader.at == reader.end ? 0 : error_origin(-EPROTO);
}

/* ---- Settling ---- */

static bool is_applied(const struct bulk_task *task, lsn_t visible) {
    return !task->settled && task->status != BULK_UPLOADING && visible >= task->last;
}

/* The collections of tasks that are applied and not settled. */
static size_t find_applied(const struct bulk_tasks *t, lsn_t visible, lsn_t *ret_incarnations) {
    size_t n = 0;
    for (size_t i = t->n, left = t->n_unsettled; i-- > 0 && left > 0 && n < SETTLE_BATCH;) {
        const struct bulk_task *task = t->tasks[i];
        left -= !task->settled;
        if (is_applied(task, visible))
            ret_incarnations[n++] = task->incarnation;
    }
    return n;
}

static void settle_collection(struct bulk_tasks *t, lsn_t visible, lsn_t incarnation) {
    for (size_t i = 0; i < t->n; i++)
        if (t->tasks[i]->incarnation == incarnation && is_applied(t->tasks[i], visible))
            mark_settled(t, t->tasks[i]);
}

/* A collection that is alive now will, if it is dropped, be dropped with at least `visible`
 * applied; the tasks of one that is not wait for the record of its drop. The catalog's lock ranks
 * before ours, so it is asked in between. */
static void settle(struct bulk_tasks *t, lsn_t visible, struct points_catalog *catalog) {
    lsn_t incarnations[SETTLE_BATCH];
    mutex_lock(&t->lock);
    size_t n = find_applied(t, visible, incarnations);
    mutex_unlock(&t->lock);
    for (size_t i = 0; i < n; i++) {
        struct points_collection *c = points_catalog_find_incarnation(catalog, incarnations[i]);
        if (!c)
            continue;
        points_collection_unref(c);
        mutex_lock(&t->lock);
        settle_collection(t, visible, incarnations[i]);
        mutex_unlock(&t->lock);
    }
}

static void fail_dropped(struct bulk_task *task) {
    task->end = BULK_FAILED;
    if (task->status != BULK_UPLOADING)
        task->status = BULK_FAILED;
    copy_text(task->reason, sizeof task->reason,
              BYTES_LITERAL("the collection was dropped before all was applied"));
}

/* Settled ones too: while the journal is replayed the collection may look alive for longer than it
 * was. */
void bulk_tasks_dropped(struct bulk_tasks *t, const struct point_record *record) {
    assert(record->op == POINT_DROP);
    mutex_lock(&t->lock);
    for (size_t i = 0; i < t->n; i++) {
        struct bulk_task *task = t->tasks[i];
        if (task->incarnation != record->incarnation || lasting_status(task) != BULK_SUCCEEDED)
            continue;
        resolve_group(task, task->end_lsn);
        if (task->last > record->applied)
            fail_dropped(task);
        mark_settled(t, task);
    }
    mutex_unlock(&t->lock);
}

/* ---- As JSON ---- */

static const char *status_text(const struct bulk_task *task) {
    static const char *const texts[] = {
        [BULK_UPLOADING] = "running",
        [BULK_SUCCEEDED] = "succeeded",
        [BULK_FAILED] = "failed",
        [BULK_INTERRUPTED] = "failed",
    };
    return task->settled ? texts[task->status] : texts[BULK_UPLOADING];
}

/* How many of the accepted are applied. Others' records may stand between a task's own, so in the
 * middle this is an estimate; at both ends it is exact. */
static uint64_t applied(const struct bulk_task *task, lsn_t visible) {
    if (visible >= task->last || (task->settled && task->status == BULK_SUCCEEDED))
        return task->accepted;
    if (visible < task->first)
        return 0;
    double part = (double)(visible - task->first + 1) / (double)(task->last - task->first + 1);
    return (uint64_t)(part * (double)task->accepted);
}

static void append_time(struct buffer *out, const char *key, uint64_t wall_us) {
    char text[TIME_TEXT_BYTES + 1];
    time_text((int64_t)wall_us, text);
    if (wall_us)
        buffer_append_format(out, ",\"%s\":\"%s\"", key, text);
    else
        buffer_append_format(out, ",\"%s\":null", key);
}

static void append_errors(struct buffer *out, const struct bulk_task *task) {
    struct reader r = reader_of(buffer_bytes(&task->errors));
    const char *comma = "";
    buffer_append_string(out, ",\"errors\":[");
    while (r.at < r.end && !r.failed) {
        uint64_t line = reader_u64(&r);
        struct bytes sentence = reader_block(&r);
        buffer_append_format(out, "%s{\"line\":%llu,\"error\":", comma, (unsigned long long)line);
        json_append_string(out, sentence);
        buffer_append_string(out, "}");
        comma = ",";
    }
    buffer_append_string(out, "]");
}

static void append_result(struct buffer *out, const struct bulk_task *task) {
    buffer_append_format(out, "{\"accepted\":%llu,\"rejected\":%llu",
                         (unsigned long long)task->accepted, (unsigned long long)task->rejected);
    append_errors(out, task);
    buffer_append_u8(out, '}');
}

void bulk_task_append_result(struct bulk_task *task, struct buffer *out) {
    mutex_lock(&task->owner->lock);
    append_result(out, task);
    mutex_unlock(&task->owner->lock);
}

static void append_task(struct buffer *out, const struct bulk_task *task, lsn_t visible) {
    uint64_t current = applied(task, visible);
    bool uploading = task->status == BULK_UPLOADING;
    double progress = uploading ? 0 : 1;
    if (!uploading && task->accepted)
        progress = (double)current / (double)task->accepted;
    buffer_append_format(out, "{\"id\":\"%s\",\"type\":\"%s\",\"collection\":", task->id_text,
                         task->type);
    json_append_cstring(out, task->collection);
    buffer_append_format(out, ",\"status\":\"%s\",\"progress\":", status_text(task));
    json_append_double(out, progress);
    buffer_append_format(out, ",\"current\":%llu,\"total\":", (unsigned long long)current);
    if (uploading)
        buffer_append_string(out, "null");
    else
        json_append_u64(out, task->accepted);
    append_time(out, "created_at", task->created_us);
    append_time(out, "started_at", task->created_us);
    append_time(out, "finished_at", task->settled ? task->ended_us : 0);
    buffer_append_string(out, ",\"attempts\":1,\"worker\":null,\"result\":");
    append_result(out, task);
    buffer_append_string(out, ",\"error\":");
    if (task->reason[0])
        json_append_cstring(out, task->reason);
    else
        buffer_append_string(out, "null");
    buffer_append_string(out, "}");
}

int bulk_tasks_describe(struct bulk_tasks *t, struct bytes id, lsn_t visible,
                        struct points_catalog *catalog, struct buffer *out, bool *ret_ended) {
    struct point_id key;
    if (!point_id_from_text(id, &key))
        return POINTS_E_NOT_FOUND;
    settle(t, visible, catalog);
    mutex_lock(&t->lock);
    struct bulk_task *task = find(t, key);
    if (task) {
        append_task(out, task, visible);
        *ret_ended = task->settled;
    }
    mutex_unlock(&t->lock);
    return task ? 0 : POINTS_E_NOT_FOUND;
}

static bool wanted(const struct bulk_task *task, struct bytes status, struct bytes type) {
    return (status.size == 0 || bytes_equal(status, bytes_of_string(status_text(task)))) &&
           (type.size == 0 || bytes_equal(type, bytes_of_string(task->type)));
}

int bulk_tasks_each(struct bulk_tasks *t, struct bytes status, struct bytes type, uint64_t below,
                    size_t limit, lsn_t visible, struct points_catalog *catalog,
                    void (*each)(void *context, uint64_t key, struct bytes json), void *context) {
    CLEANUP(buffer_deinit) struct buffer json = BUFFER_INIT;
    size_t n = 0;
    settle(t, visible, catalog);
    mutex_lock(&t->lock);
    for (size_t i = below ? place(t, below) : t->n; i-- > 0 && n < limit;) {
        if (!wanted(t->tasks[i], status, type))
            continue;
        buffer_clear(&json);
        append_task(&json, t->tasks[i], visible);
        if (json.failed)
            break;
        each(context, t->tasks[i]->id.high, buffer_bytes(&json));
        n++;
    }
    mutex_unlock(&t->lock);
    return buffer_check(&json);
}
