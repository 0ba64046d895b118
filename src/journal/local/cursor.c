/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading. A cursor is only an lsn; where it reads is found anew whenever it leaves a block:
 *
 *        ┌─ the window holds next ──▶ from memory: the window's own block, no copy
 *   next ┤
 *        └─ else ──▶ from the segment that holds it: blocks of about READ_BYTES, verified
 *
 * What is on disk in the table of segments is synced, so it is durable; the window is read up to
 * the durable lsn. Hence the two agree on every lsn they share, and a cursor may cross over in both
 * directions. A segment whose file is recycled under a cursor has left the table before: bytes that
 * make no sense are damage only if the segment is still there.
 */
#include "journal/local/local.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { CURSOR_E_RECYCLED = 1100 }; /* the segment was released while it was read */

struct journal_cursor {
    struct journal *journal;
    lsn_t next;
    struct block *block; /* of the window, read last */
    size_t at;           /* of the record next in it */
    struct walk walk;    /* of the segment number */
    uint64_t number;     /* 0: none is open */
    size_t n;            /* records collected for the batch at work */
    struct journal_record records[BATCH_RECORDS_MAX];
};

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

/* Hands out what the cursor collected, and moves it to next. */
static int batch_finish(struct journal_cursor *c, struct block *block, lsn_t next,
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

static void collect(struct journal_cursor *c, const struct frame *f) {
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
    struct segment segment;
    mutex_lock(&j->lock);
    struct block *b = c->block;
    if (!b || b->last_lsn < c->next)
        b = window_find(&j->window, c->next, false);
    if (!b && !segments_find(j, c->next, &segment))
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
            collect(c, &f);
            next = f.lsn + 1;
        }
        at += frame_bytes(f.payload.size);
    }
    if (c->n == 0)
        return JOURNAL_E_END;
    int r = batch_finish(c, c->block, next, ret_batch);
    if (!r)
        c->at = at;
    return error_trace(r);
}

/* ---- from disk ---- */

static void leave_segment(struct journal_cursor *c) {
    os_close(c->journal->os, c->walk.file);
    walk_deinit(&c->walk);
    c->walk = (struct walk){0};
    c->number = 0;
}

static int enter_segment(struct journal_cursor *c, const struct segment *segment) {
    struct journal *j = c->journal;
    char path[OS_PATH_MAX];
    struct os_file *file;
    leave_segment(c);
    int r = journal_segment_path(path, j, segment->number);
    if (!r)
        r = os_open(j->os, path, OS_OPEN_READ, &file);
    if (r)
        return error_trace(r);
    c->walk = (struct walk){.os = j->os,
                            .budget = j->options.budget,
                            .file = file,
                            .salt = j->salt,
                            .offset = HEADER_BYTES,
                            .expected = segment->base_lsn};
    c->number = segment->number;
    return 0;
}

/* Finds the segment that holds next, and places the walk in it at or before next. */
static int locate_on_disk(struct journal_cursor *c) {
    struct segment segment;
    for (;;) {
        if (!segments_find(c->journal, c->next, &segment))
            return JOURNAL_E_END;
        int r = 0;
        if (c->number != segment.number || c->walk.expected > c->next)
            r = enter_segment(c, &segment);
        if (r == OS_E_NOT_FOUND && !segments_has(c->journal, segment.number))
            continue; /* released in this moment */
        if (r)
            return error_fold(r);
        c->walk.end = segment.end;
        c->walk.last_lsn = segment.last_lsn;
        return 0;
    }
}

/* Collects from the walk's present block; reads another only while there is nothing to hand out. */
static int collect_from_disk(struct journal_cursor *c, lsn_t *next) {
    struct journal *j = c->journal;
    struct walk_item item;
    while (c->n < BATCH_RECORDS_MAX) {
        int r = walk_next(&c->walk, c->n == 0, &item);
        if (r == WALK_E_MORE)
            return 0;
        if (r)
            return error_fold(r);
        if (item.what == WALK_END)
            return 0;
        if (item.what == WALK_HOLE) {
            if (!segments_damaged(j, c->number, c->walk.file, item.offset, item.bytes, item.lost))
                return CURSOR_E_RECYCLED;
            if (item.first_lsn + item.lost > *next)
                *next = item.first_lsn + item.lost;
        } else if (!frame_is_mark(&item.frame) && item.frame.lsn >= c->next) {
            collect(c, &item.frame);
            *next = item.frame.lsn + 1;
        }
    }
    return 0;
}

static int read_disk(struct journal_cursor *c, struct journal_batch **ret_batch) {
    for (;;) {
        int r = locate_on_disk(c);
        if (r)
            return error_trace(r);
        lsn_t next = c->next;
        c->n = 0;
        r = collect_from_disk(c, &next);
        assert(r || next > c->next);
        if (!r)
            r = batch_finish(c, c->walk.block, next, ret_batch);
        if (!r)
            return 0;
        leave_segment(c); /* the walk may be past next */
        if (r != CURSOR_E_RECYCLED)
            return error_trace(r);
    }
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
    leave_segment(c);
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
        return error_trace(read_disk(c, ret_batch));
    if (c->number)
        leave_segment(c);
    return error_trace(read_window(c, used, durable, ret_batch));
}
