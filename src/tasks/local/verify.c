/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking a store that is not open: every block of every key, by RocksDB's checksums, and what we
 * make of each value; and that arguments, index and states agree. Where RocksDB finds damage it
 * goes no further, so the check goes on behind it: at the next of 256 stretches of the keys of that
 * kind.
 */
#include "tasks/local/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

struct verifier {
    void (*each)(void *context, const char *sentence);
    void *context;
    struct tasks_store_report report;
    /* What there is, and what the states say there is. */
    uint64_t args, args_wanted;
    uint64_t indexed;
    uint64_t finished, finished_wanted;
};

static void PRINTF_LIKE(2, 3) damaged(struct verifier *v, const char *format, ...) {
    char sentence[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    v->report.damages++;
    if (n > 0 && v->each)
        v->each(v->context, sentence);
}

/* ---- Values ---- */
static bool check_task(struct verifier *v, struct bytes key, struct bytes value) {
    struct task task;
    bool has_args;
    if (key.size != KEY_TASK_SIZE || !task_state_decode(key_task_of(key), value, &task, &has_args))
        return false;
    v->report.tasks++;
    v->report.queued += task.status == TASK_QUEUED;
    v->report.running += task.status == TASK_RUNNING;
    v->args_wanted += has_args && task.status != TASK_SUCCEEDED;
    v->finished_wanted += task_status_is_end(task.status);
    return true;
}

static bool index_is_sound(struct bytes key, struct bytes value) {
    uint64_t due_us;
    uint8_t priority;
    if (key.size != KEY_INDEX_SIZE || key.data[1] >= TASK_STATUSES || key.data[2] >= TYPES_MAX)
        return false;
    return key.data[1] == TASK_QUEUED ? index_decode(value, &due_us, &priority) : value.size == 0;
}

static bool value_is_sound(struct verifier *v, struct bytes key, struct bytes value) {
    struct task_id id;
    struct state state;
    struct work_letter letter;
    switch (key.data[0]) {
    case KEY_ARGS:
        v->args++;
        return key.size == KEY_TASK_SIZE;
    case KEY_FINISHED:
        v->finished++;
        return key.size == KEY_FINISHED_SIZE && value.size == 0;
    case KEY_INDEX:
        v->indexed++;
        return index_is_sound(key, value);
    case KEY_ONCE:
        return key.size == KEY_ONCE_SIZE && tasks_once_decode(value, &id);
    case KEY_TASK:
        return check_task(v, key, value);
    case KEY_LETTER:
        return letter_decode(value, &letter);
    case KEY_STATE:
        return tasks_state_decode(value, &state) == 0;
    default:
        return false;
    }
}

static void check_value(struct verifier *v, struct bytes key, struct bytes value) {
    char name[2 * KEY_ONCE_SIZE + 1] = "";
    if (value_is_sound(v, key, value))
        return;
    for (size_t i = 1; i < key.size && i < KEY_ONCE_SIZE; i++)
        snprintf(name + 2 * (i - 1), 3, "%02x", key.data[i]);
    if (key.data[0] == KEY_TASK && key.size == KEY_TASK_SIZE)
        damaged(v, "the state of the task with the key %016" PRIx64 " does not decode",
                key_task_of(key));
    else
        damaged(v, "the value of %c %s does not decode", key.data[0], name);
}

/* ---- Stretches ---- */
/* The keys that begin with these two bytes. */
static int check_stretch(struct verifier *v, struct base *base, const uint8_t first[2]) {
    struct base_cursor cursor;
    struct bytes key, value;
    int error = 0;
    base_cursor_init(&cursor, base, true);
    for (base_cursor_seek(&cursor, bytes_of(first, first[0] == KEY_STATE ? 1 : 2));
         base_cursor_at(&cursor, &key, &value, &error) && key.data[0] == first[0] &&
         (key.size < 2 || key.data[1] == first[1]);
         base_cursor_advance(&cursor))
        check_value(v, key, value);
    base_cursor_deinit(&cursor);
    if (error == -EBADMSG)
        damaged(v, "damage among the keys of kind %c that begin with %02x", first[0], first[1]);
    return error == -EBADMSG ? 0 : error_trace(error);
}

static int check_all(struct verifier *v, struct base *base) {
    static const uint8_t kinds[] = {KEY_ARGS, KEY_FINISHED, KEY_INDEX, KEY_ONCE,
                                    KEY_TASK, KEY_LETTER,   KEY_STATE};
    int r = 0;
    for (size_t i = 0; i < sizeof kinds; i++)
        for (unsigned second = 0; r == 0 && second < (kinds[i] == KEY_STATE ? 1 : 256); second++)
            r = check_stretch(v, base, (uint8_t[]){kinds[i], (uint8_t)second});
    return r;
}

/* Where all can be read, the parts must agree. An end may be there of a task that was tried again.
 */
static void check_numbers(struct verifier *v) {
    if (v->report.damages > 0)
        return;
    if (v->args != v->args_wanted)
        damaged(v, "%" PRIu64 " tasks should have arguments, and %" PRIu64 " do", v->args_wanted,
                v->args);
    if (v->indexed != v->report.tasks)
        damaged(v, "%" PRIu64 " tasks are there, and %" PRIu64 " in the index", v->report.tasks,
                v->indexed);
    if (v->finished < v->finished_wanted)
        damaged(v, "%" PRIu64 " tasks have ended, and the time of %" PRIu64 " is known",
                v->finished_wanted, v->finished);
}

static void damaged_copy(void *context, const char *sentence) {
    damaged(context, "%s", sentence);
}

static int check_copies(struct verifier *v, struct os *os, const char *directory) {
    const struct copies_report report = {damaged_copy, v};
    return copies_verify(os, directory, &report);
}

int tasks_store_verify(struct os *os, const char *directory,
                       void (*each)(void *context, const char *sentence), void *context,
                       struct tasks_store_report *ret_found) {
    struct verifier v = {.each = each, .context = context};
    struct database database;
    struct base *base = NULL;
    char why[256];
    int r = tasks_database_open(&database, os, directory, 8 << 20, true, why, sizeof why);
    if (r == -EBADMSG) {
        damaged(&v, "the database does not open: %s", why);
        r = check_copies(&v, os, directory);
        if (r == 0)
            *ret_found = v.report;
        return error_trace(r);
    }
    if (r == 0)
        r = base_new(&database, &base);
    if (r == 0) {
        base_take(base);
        r = check_all(&v, base);
        if (r == 0)
            check_numbers(&v);
    }
    if (r == 0)
        r = check_copies(&v, os, directory);
    base_unref(base);
    database_close(&database);
    if (r == 0)
        *ret_found = v.report;
    return error_trace(r);
}
