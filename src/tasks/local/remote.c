/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store whose tasks a remote keeps (tasks/remote.h). The remote is always first: a checkpoint is
 * finished there before the database here takes the same in, so that the database never has what
 * the remote has not; and an opening takes what the remote has, whatever the directory had.
 *
 *   remote n, here n        between
 *   remote n or n+1, here n a finish that nobody answered: the same checkpoint is made again
 *   remote n+1, here n      the ingest failed: likewise
 *   remote n-1, here n      it has lost one: it gets all that is here, as checkpoint n
 */
#include "tasks/local/internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
#ifdef MILLRACE_TINY
    FILE_BYTES = 4 << 10,
#else
    FILE_BYTES = 16 << 20,
#endif
};

/* ---- What is known of it ---- */
static void say(struct tasks_store *s, bool reachable, const char *why) {
    mutex_lock(&s->lock);
    s->remote.reachable = reachable;
    snprintf(s->remote.why, sizeof s->remote.why, "%s", why);
    mutex_unlock(&s->lock);
}

/* Its result as one of the store's: what is wrong is said in the status. */
static int heard(struct tasks_store *s, int r) {
    say(s, r == 0, r == 0 ? "" : r == -ENOMEM ? "out of memory" : s->options.remote->why);
    return r > 0 ? error_origin(-EIO) : error_trace(r);
}

bool tasks_store_remote_status(struct tasks_store *s, struct tasks_remote_status *ret_status) {
    if (!s->options.remote)
        return false;
    mutex_lock(&s->lock);
    *ret_status = s->remote;
    mutex_unlock(&s->lock);
    return true;
}

bool tasks_remote_is_away(struct tasks_store *s) {
    struct tasks_remote_status status = {.reachable = true};
    return tasks_store_remote_status(s, &status) && !status.reachable;
}

/* ---- Opening: the directory ---- */
struct emptying {
    struct tasks_store *s;
    const char *directory;
    int result;
};

static void remove_one(void *context, const char *name) {
    struct emptying *e = context;
    char path[OS_PATH_MAX];
    int r = os_path_join(path, e->directory, "%s", name);
    if (r == 0)
        r = os_remove(e->s->os, path);
    e->result = e->result ? e->result : error_fold(r);
}

static int empty_database(struct tasks_store *s) {
    char path[OS_PATH_MAX];
    struct emptying e = {.s = s, .directory = path};
    int r = os_path_join(path, s->directory, "rocksdb");
    if (r == 0)
        r = os_list(s->os, path, remove_one, &e);
    return r == OS_E_NOT_FOUND ? 0 : r ? error_fold(r) : e.result;
}

/* The copies first: a database that has some is not made anew (copies_exist). */
static int empty_directory(struct tasks_store *s) {
    static const char *const names[] = {"STATE.copy", "MANIFEST.copy", "ingest.sst"};
    struct emptying e = {.s = s, .directory = s->directory};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
        remove_one(&e, names[i]);
    return e.result ? e.result : empty_database(s);
}

static int opened(struct tasks_store *s, int r, char *why, size_t why_size) {
    if (r > 0)
        snprintf(why, why_size, "%s", s->options.remote->why);
    return r == TASKS_REMOTE_E_UNAVAILABLE ? TASKS_E_UNAVAILABLE
           : r > 0                         ? TASKS_E_REFUSED
                                           : error_trace(r);
}

int tasks_remote_own(struct tasks_store *s, uint64_t *ret_number, char *why, size_t why_size) {
    struct tasks_remote *remote = s->options.remote;
    *ret_number = 0;
    if (!remote)
        return 0;
    int r = remote->ops->own(remote, ret_number);
    if (r)
        return opened(s, r, why, why_size);
    if (*ret_number == 0 && copies_exist(s->os, s->directory)) {
        snprintf(why, why_size,
                 "it has no tasks, and once had those of which %s is a copy: was it emptied? "
                 "Remove that directory to go on without them",
                 s->directory);
        return TASKS_E_REFUSED;
    }
    say(s, true, "");
    return error_trace(empty_directory(s));
}

/* ---- Opening: what the remote has ---- */
/* Some of it, in the order in which it came. */
struct filling {
    struct tasks_store *s;
    struct buffer pairs; /* blocks: key, value, key, … */
    size_t n;
};

struct pair_view {
    struct bytes key;
    struct bytes value;
};

static int compare_pairs(const void *a, const void *b) {
    const struct pair_view *x = a, *y = b;
    size_t size = x->key.size < y->key.size ? x->key.size : y->key.size;
    int order = memcmp(x->key.data, y->key.data, size);
    return order ? order : (x->key.size > y->key.size) - (x->key.size < y->key.size);
}

static int write_pairs(const struct pair_view *pairs, size_t n, struct database *d) {
    struct ingest ingest;
    int r = ingest_begin(&ingest, d);
    if (r < 0)
        return error_trace(r);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || !bytes_equal(pairs[i].key, pairs[i - 1].key))
            ingest_put(&ingest, pairs[i].key, pairs[i].value);
    r = ingest_finish(&ingest);
    ingest_deinit(&ingest);
    return error_trace(r);
}

/* What is there becomes a file. */
static int flush(struct filling *f) {
    struct reader r = reader_of(buffer_bytes(&f->pairs));
    struct pair_view *pairs = calloc(f->n + 1, sizeof *pairs);
    if (!pairs)
        return error_origin(-ENOMEM);
    for (size_t i = 0; i < f->n; i++) {
        pairs[i].key = reader_block(&r);
        pairs[i].value = reader_block(&r);
    }
    if (f->n > 1)
        qsort(pairs, f->n, sizeof *pairs, compare_pairs);
    int result = f->n > 0 ? write_pairs(pairs, f->n, &f->s->database) : 0;
    free(pairs);
    buffer_clear(&f->pairs);
    f->n = 0;
    return error_trace(result);
}

/* Of values the readers judge, as of those on a disk. */
static bool is_key(struct bytes key) {
    switch (key.size > 0 ? key.data[0] : 0) {
    case KEY_ARGS:
    case KEY_TASK:
        return key.size == KEY_TASK_SIZE;
    case KEY_FINISHED:
        return key.size == KEY_FINISHED_SIZE;
    case KEY_INDEX:
        return key.size == KEY_INDEX_SIZE;
    case KEY_ONCE:
        return key.size == KEY_ONCE_SIZE;
    case KEY_LETTER:
        return key.size == 1 + sizeof(lsn_t);
    case KEY_STATE:
        return key.size == 1;
    default:
        return false;
    }
}

static int fill_pair(void *context, struct bytes key, struct bytes value) {
    struct filling *f = context;
    if (!is_key(key)) {
        atomic_fetch_add_explicit(&f->s->damages, 1, memory_order_relaxed);
        return 0;
    }
    buffer_append_block(&f->pairs, key);
    buffer_append_block(&f->pairs, value);
    f->n++;
    int r = buffer_check(&f->pairs);
    return r < 0 ? error_trace(r) : f->pairs.size >= FILE_BYTES ? flush(f) : 0;
}

/* Nobody else may have written meanwhile. */
int tasks_remote_fill(struct tasks_store *s, uint64_t number, char *why, size_t why_size) {
    struct tasks_remote *remote = s->options.remote;
    struct filling f = {.s = s};
    if (!remote)
        return 0;
    int r = remote->ops->read(remote, fill_pair, &f);
    if (r == 0)
        r = remote->ops->look(remote, number);
    r = r ? opened(s, r, why, why_size) : flush(&f);
    buffer_deinit(&f.pairs);
    return error_trace(r);
}

int tasks_remote_remember(struct tasks_store *s) {
    struct bytes state = buffer_bytes(&s->persisted.state);
    return copies_write_state(&s->copies, database_sequence(&s->database), state, state);
}

/* ---- Checkpoints ---- */
static struct tasks_remote *remote_of(struct ingest_witness *w) {
    return CONTAINER_OF(w, struct tasks_store, witness)->options.remote;
}

static void tell_put(struct ingest_witness *w, struct bytes key, struct bytes value) {
    struct tasks_remote *remote = remote_of(w);
    remote->ops->put(remote, key, value);
}

static void tell_removed(struct ingest_witness *w, struct bytes key) {
    struct tasks_remote *remote = remote_of(w);
    remote->ops->remove(remote, key);
}

/* All that the base has, as the checkpoint that it is. */
static int restore(struct tasks_store *s) {
    struct tasks_remote *remote = s->options.remote;
    struct base_cursor cursor;
    struct bytes key, value;
    int error = 0;
    int r = remote->ops->begin(remote, s->persisted.number, true);
    if (r)
        return r;
    base_cursor_init(&cursor, s->base, true); /* only a checkpoint changes it */
    for (base_cursor_seek(&cursor, bytes_of("", 0)); base_cursor_at(&cursor, &key, &value, &error);
         base_cursor_advance(&cursor))
        remote->ops->put(remote, key, value);
    base_cursor_deinit(&cursor);
    return error ? error : remote->ops->finish(remote);
}

int tasks_remote_begin(struct tasks_store *s) {
    struct tasks_remote *remote = s->options.remote;
    uint64_t number = s->persisted.number + 1;
    if (!remote)
        return 0;
    s->witness = (struct ingest_witness){.put = tell_put, .remove = tell_removed};
    int r = remote->ops->begin(remote, number, false);
    if (r == TASKS_REMOTE_E_LOST) {
        r = restore(s);
        r = r ? r : remote->ops->begin(remote, number, false);
    }
    return r ? heard(s, r) : 0;
}

int tasks_remote_finish(struct tasks_store *s) {
    struct tasks_remote *remote = s->options.remote;
    return remote ? heard(s, remote->ops->finish(remote)) : 0;
}

int tasks_remote_look(struct tasks_store *s) {
    struct tasks_remote *remote = s->options.remote;
    int r = remote ? remote->ops->look(remote, s->persisted.number) : 0;
    if (r == TASKS_REMOTE_E_LOST)
        r = restore(s);
    return remote ? heard(s, r) : 0;
}
