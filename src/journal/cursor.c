/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading. A cursor is only an lsn; where it reads is found anew whenever it leaves a block:
 *
 *        ┌─ the window holds next ──▶ from memory: the window's own block, no copy
 *   next ┤
 *        └─ else ──▶ from the engine: blocks that it reads, verified
 *
 * What the engine shows is durable; the window is read up to the durable lsn. Hence the two agree
 * on every lsn they share, and a cursor may cross over in both directions.
 */
#include "journal/core.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* ---- batches ---- */

struct batch {
    struct journal_batch public; /* first: a batch is one */
    _Atomic uint32_t refs;
    struct block *block;
    struct journal_record records[];
};

static struct batch *batch_of(struct journal_batch *b) {
    return (struct batch *)(void *)b;
}

struct journal_batch *journal_batch_ref(struct journal_batch *b) {
    atomic_fetch_add_explicit(&batch_of(b)->refs, 1, memory_order_relaxed);
    return b;
}

struct journal_batch *journal_batch_unref(struct journal_batch *b) {
    if (!b || atomic_fetch_sub_explicit(&batch_of(b)->refs, 1, memory_order_acq_rel) > 1)
        return NULL;
    block_unref(batch_of(b)->block);
    free(batch_of(b));
    return NULL;
}

int cursor_finish(struct journal_cursor *c, struct block *block, lsn_t next,
                  struct journal_batch **ret_batch) {
    struct batch *b = malloc(sizeof *b + c->n * sizeof b->records[0]);
    if (!b)
        return error_origin(-ENOMEM);
    atomic_init(&b->refs, 1);
    b->block = c->n ? block_ref(block) : NULL;
    if (c->n)
        memcpy(b->records, c->records, c->n * sizeof b->records[0]);
    b->public = (struct journal_batch){.records = b->records, .n = c->n, .next_lsn = next};
    c->next = next;
    *ret_batch = &b->public;
    return 0;
}

void cursor_collect(struct journal_cursor *c, const struct frame *f) {
    c->records[c->n++] = (struct journal_record){
        .lsn = f->lsn,
        .key_hash = f->key_hash,
        .wall_us = f->wall_us,
        .kind = f->kind,
        .flags = f->flags,
        .payload = f->payload,
    };
}

/* ---- from memory ---- */

/* Makes c->block the window's block with the first record at or after next, and says how much of it
 * is filled. False: that record is on disk only. */
static bool window_locate(struct journal_cursor *c, size_t *ret_used) {
    struct journal *j = c->journal;
    mutex_lock(&j->lock);
    struct block *b = c->block;
    if (!b || b->last_lsn < c->next)
        b = window_find(&j->window, c->next, false);
    if (!b && !j->engine->holds(j, c->next))
        b = window_find(&j->window, c->next, true); /* after a gap */
    if (b && b != c->block) {
        block_unref(c->block);
        c->block = block_ref(b);
        c->at = 0;
    }
    *ret_used = b ? b->used : 0;
    mutex_unlock(&j->lock);
    return b != NULL;
}

static int read_window(struct journal_cursor *c, size_t used, lsn_t durable,
                       struct journal_batch **ret_batch) {
    lsn_t next = c->next;
    size_t at = c->at;
    c->n = 0;
    while (at < used && c->n < BATCH_RECORDS_MAX) {
        struct frame f;
        frame_load(c->block->data + at, &f);
        if (f.lsn > durable)
            break;
        if (f.lsn >= c->next) {
            cursor_collect(c, &f);
            next = f.lsn + 1;
        }
        at += frame_bytes(f.payload.size);
    }
    if (c->n == 0)
        return JOURNAL_E_END;
    int r = cursor_finish(c, c->block, next, ret_batch);
    if (!r)
        c->at = at;
    return error_trace(r);
}

/* ---- cursors ---- */

int journal_cursor_new(struct journal *j, lsn_t from, struct journal_cursor **ret_cursor) {
    struct journal_cursor *c = calloc(1, sizeof *c);
    if (!c)
        return error_origin(-ENOMEM);
    c->journal = j;
    c->next = from ? from : 1;
    *ret_cursor = c;
    return 0;
}

struct journal_cursor *journal_cursor_free(struct journal_cursor *c) {
    if (!c)
        return NULL;
    c->journal->engine->leave(c);
    block_unref(c->block);
    free(c);
    return NULL;
}

void journal_cursor_skip(struct journal_cursor *c, lsn_t lsn) {
    if (lsn > c->next)
        c->next = lsn;
}

int journal_read(struct journal_cursor *c, struct journal_batch **ret_batch) {
    lsn_t durable = journal_durable(c->journal);
    size_t used;
    if (c->next > durable)
        return JOURNAL_E_END;
    if (!window_locate(c, &used))
        return error_trace(c->journal->engine->read(c, ret_batch));
    if (c->reader)
        c->journal->engine->leave(c);
    return error_trace(read_window(c, used, durable, ret_batch));
}
