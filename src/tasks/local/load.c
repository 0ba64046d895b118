/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a store reads when it opens: its state, and the index of the tasks that are queued or
 * running. Damage stops none of it (invariant 7):
 *
 *   state   comes from its copy; without one, only then, the store does not open
 *   index   comes from the states of the tasks, past those that are damaged too
 */
#include "tasks/local/internal.h"

#include <errno.h>

/* ---- The state ---- */
static int state_from_copy(struct tasks_store *s, struct state *state,
                           struct tasks_store_report *report, const char **ret_why) {
    CLEANUP(buffer_deinit) struct buffer copy = BUFFER_INIT;
    int r = copies_read_state(s->os, s->directory, database_sequence(&s->database), &copy);
    if (r == 0)
        r = tasks_state_decode(buffer_bytes(&copy), state);
    if (r == COPIES_E_NONE || r == -EBADMSG) {
        *ret_why = "the state is damaged, and so is its copy";
        return error_origin(-EBADMSG);
    }
    report->mended += r == 0;
    return error_fold(r);
}

/* What is written first is the copy: so a copy that begins with a later checkpoint than the
 * database's says that the database has lost one. */
static int check_not_older(struct tasks_store *s, uint64_t number, const char **ret_why) {
    CLEANUP(buffer_deinit) struct buffer copy = BUFFER_INIT;
    struct state before = {0};
    int r = copies_read_state(s->os, s->directory, 0, &copy);
    if (r < 0)
        return error_trace(r);
    if (r == COPIES_E_NONE || tasks_state_decode(buffer_bytes(&copy), &before) != 0 ||
        before.number <= number)
        return 0;
    *ret_why = "it has lost its latest checkpoint";
    return error_origin(-EBADMSG);
}

/* Fills in the state of a store that is there; a new one keeps what it was given. */
static int load_state(struct tasks_store *s, struct state *state, struct tasks_store_report *report,
                      const char **ret_why) {
    CLEANUP(pinned_deinit) rocksdb_pinnableslice_t *slice = NULL;
    struct key key;
    key_begin(&key, KEY_STATE);
    int r = base_get(s->base, key_view(&key), &slice);
    if (r == 0 && slice)
        r = tasks_state_decode(pinned_bytes(slice), state);
    if (r == -EBADMSG)
        return state_from_copy(s, state, report, ret_why);
    if (r == -EPROTONOSUPPORT)
        *ret_why = "it was written by a newer version";
    return r < 0 ? error_trace(r) : check_not_older(s, state->number, ret_why);
}

/* ---- What is queued ---- */
static void damaged(struct tasks_store *s) {
    atomic_fetch_add_explicit(&s->damages, 1, memory_order_relaxed);
}

static int load_queued(struct tasks_store *s, uint64_t key, uint64_t due_us, unsigned priority,
                       uint64_t now_us) {
    if (!queue_reserve(&s->queue))
        return error_origin(-ENOMEM);
    queue_push(&s->queue, key, due_us, priority, now_us);
    return 0;
}

/* One of the index: queued, or running, which is only counted. */
static int load_indexed(struct tasks_store *s, struct bytes key, struct bytes value,
                        uint64_t now_us) {
    uint64_t due_us;
    uint8_t priority;
    enum task_status status = key.data[1];
    if (key.size != KEY_INDEX_SIZE || key.data[2] >= s->types.n ||
        (status == TASK_QUEUED && !index_decode(value, &due_us, &priority))) {
        damaged(s);
        return 0;
    }
    s->counts[status]++;
    return status == TASK_QUEUED ? load_queued(s, key_task_of(key), due_us, priority, now_us) : 0;
}

static int load_index(struct tasks_store *s, struct base *base, uint64_t now_us) {
    struct base_cursor cursor;
    struct bytes key, value;
    struct key first;
    int r = 0, error = 0;
    key_begin(&first, KEY_INDEX);
    base_cursor_init(&cursor, base, true);
    for (base_cursor_seek(&cursor, key_view(&first));
         r == 0 && base_cursor_at(&cursor, &key, &value, &error) && key.data[0] == KEY_INDEX &&
         key.size > 1 && key.data[1] <= TASK_RUNNING;
         base_cursor_advance(&cursor))
        r = load_indexed(s, key, value, now_us);
    base_cursor_deinit(&cursor);
    return r != 0 ? r : error;
}

/* The same from the states, where the index is damaged: slower, and all there is. */
static int load_states(struct tasks_store *s, struct base *base, uint64_t now_us) {
    struct base_cursor cursor;
    struct bytes key, value;
    struct key first;
    struct task t;
    bool has_args;
    int r = 0, error = 0;
    s->counts[TASK_QUEUED] = s->counts[TASK_RUNNING] = 0;
    queue_deinit(&s->queue);
    key_begin(&first, KEY_TASK);
    base_cursor_init(&cursor, base, true);
    for (base_cursor_seek(&cursor, key_view(&first));
         r == 0 && base_cursor_at(&cursor, &key, &value, &error) && key.data[0] == KEY_TASK;
         base_cursor_advance(&cursor)) {
        if (key.size != KEY_TASK_SIZE ||
            !task_state_decode(key_task_of(key), value, &t, &has_args)) {
            damaged(s);
            continue;
        }
        s->counts[t.status] += !task_status_is_end(t.status);
        if (t.status == TASK_QUEUED)
            r = load_queued(s, t.id.key, t.due_us, t.request.priority, now_us);
    }
    base_cursor_deinit(&cursor);
    if (error == -EBADMSG)
        damaged(s);
    return r != 0 ? r : error == -EBADMSG ? 0 : error;
}

/* Those that cannot be read are left out. */
static int load_letters(struct tasks_store *s) {
    int r = letters_load(s->base, &s->letters);
    if (r != -EBADMSG)
        return error_trace(r);
    damaged(s);
    return 0;
}

/* ---- The whole ---- */
int tasks_load(struct tasks_store *s, struct tasks_store_report *report, const char **ret_why) {
    struct state state = {0};
    uint64_t now_us = os_wall_us(s->os);
    int r = load_state(s, &state, report, ret_why);
    if (r == 0 && state.number > 0)
        r = tasks_state_encode(&state, &s->persisted.state);
    if (r < 0)
        return error_trace(r);
    s->position = s->last_persisted = state.position;
    s->newest = state.newest;
    s->types = state.types;
    s->persisted.number = state.number;
    s->persisted.letters = state.letters;
    memcpy(s->counts, state.counts, sizeof s->counts);
    s->counts[TASK_QUEUED] = s->counts[TASK_RUNNING] = 0; /* counted anew */
    task_ids_seen(&s->ids, state.newest);
    r = load_index(s, s->base, now_us);
    if (r == -EBADMSG) {
        damaged(s);
        r = load_states(s, s->base, now_us);
    }
    atomic_store(&s->queued, s->counts[TASK_QUEUED]);
    return r < 0 ? error_trace(r) : load_letters(s);
}
