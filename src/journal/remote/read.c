/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading from the log what the window does not hold.
 *
 *   message ─▶ whole groups ──────────────────────▶ frames with the cursor's lsn or a later one
 *          └─▶ part 1, 2, … of a group ─ complete ─┘
 *
 * What has come before is passed: a message that was appended again after an unknown outcome. Parts
 * whose last one never comes are what is left of a process that ended: nothing of them was
 * acknowledged, their lsns are not given again, and they are dropped when other records follow.
 */
#include "journal/remote/remote.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { READ_WAIT_MS = 5000 };

struct remote_reader {
    struct log_reader *log;
    struct block *block;   /* whole groups, verified as far as `at` */
    size_t at;             /* of the next frame in it; block->used: read another message */
    struct block *partial; /* the parts of a group that came so far */
    struct message head;   /* of them */
    uint32_t next_part;
    bool entered; /* the cursor's next record, or what is after a gap, was seen */
};

static struct remote_reader *remote_reader_of(const struct journal_cursor *c) {
    return c->reader;
}

static void count_damage(struct journal *j, uint64_t bytes) {
    mutex_lock(&j->remote->lock);
    j->remote->damaged_bytes += bytes;
    mutex_unlock(&j->remote->lock);
}

/* ---- from messages to groups ---- */

/* A new block in its place; NULL when memory is out. */
static struct block *keep_block(struct journal_cursor *c, struct block **block, size_t capacity) {
    block_unref(*block);
    *block = block_new(c->journal->options.budget, capacity);
    return *block;
}

static int take_whole(struct journal_cursor *c, struct bytes body) {
    struct remote_reader *reader = remote_reader_of(c);
    struct block *b = keep_block(c, &reader->block, body.size);
    if (!b)
        return error_origin(-ENOMEM);
    memcpy(b->data, body.data, body.size);
    b->used = body.size;
    reader->at = 0;
    return 0;
}

/* Another group's part drops what was there. */
static int take_part(struct journal_cursor *c, const struct message *m, struct bytes body) {
    struct remote_reader *reader = remote_reader_of(c);
    bool same = reader->partial && reader->head.last_lsn == m->last_lsn;
    if (same && m->part < reader->next_part)
        return 0; /* it came again */
    if (m->part == 0) {
        if (m->body_bytes > JOURNAL_GROUP_MAX_BYTES)
            return 0;
        if (!keep_block(c, &reader->partial, m->body_bytes))
            return error_origin(-ENOMEM);
        reader->head = *m;
        reader->next_part = 0;
    } else if (!same || m->part != reader->next_part) {
        return 0; /* its beginning is not there: dropped too */
    }
    struct block *b = reader->partial;
    if (body.size > b->capacity - b->used)
        return 0;
    memcpy(b->data + b->used, body.data, body.size);
    b->used += body.size;
    if (++reader->next_part < m->parts || b->used < b->capacity)
        return 0;
    block_unref(reader->block);
    reader->block = b;
    reader->at = 0;
    reader->partial = NULL;
    return 0;
}

/* The first message that is read may lie behind what the cursor wants: that is gone. */
static void note_entry(struct journal_cursor *c, const struct message *m) {
    struct remote_reader *reader = remote_reader_of(c);
    struct journal *j = c->journal;
    if (reader->entered)
        return;
    reader->entered = true;
    if (m->first_lsn <= c->next)
        return;
    mutex_lock(&j->remote->lock);
    j->remote->lost_records += m->first_lsn - c->next;
    mutex_unlock(&j->remote->lock);
}

static int take_message(struct journal_cursor *c, struct bytes message) {
    struct message m;
    struct bytes body;
    if (!message_load(message, &m, &body) || m.salt != c->journal->salt) {
        count_damage(c->journal, message.size);
        return 0;
    }
    note_entry(c, &m);
    if (m.last_lsn < c->next)
        return 0;
    return error_trace(m.parts == 1 ? take_whole(c, body) : take_part(c, &m, body));
}

/* ---- from groups to records ---- */

/* The frame there, or false: damage, and the rest of the block is passed. */
static bool next_frame(struct journal_cursor *c, struct frame *ret_frame) {
    struct remote_reader *reader = remote_reader_of(c);
    const uint8_t *at = reader->block->data + reader->at;
    size_t left = reader->block->used - reader->at;
    uint32_t salt = c->journal->salt;
    if (left < FRAME_HEADER_BYTES || !frame_header_ok(at, salt) || frame_stated_bytes(at) > left ||
        !frame_ok(at, salt)) {
        count_damage(c->journal, left);
        reader->at = reader->block->used;
        return false;
    }
    frame_load(at, ret_frame);
    reader->at += frame_stated_bytes(at);
    return true;
}

static bool has_frames(const struct remote_reader *reader) {
    return reader->block && reader->at < reader->block->used;
}

/* Frames that are not durable yet wait for the next call; next passes what is missing before them.
 */
static void collect(struct journal_cursor *c, lsn_t *next) {
    struct remote_reader *reader = remote_reader_of(c);
    lsn_t durable = journal_durable(c->journal);
    struct frame f;
    while (c->n < BATCH_RECORDS_MAX && has_frames(reader)) {
        size_t at = reader->at;
        if (!next_frame(c, &f) || f.lsn < *next)
            continue;
        if (f.lsn > durable) {
            reader->at = at;
            *next = durable + 1;
            return;
        }
        cursor_collect(c, &f);
        *next = f.lsn + 1;
    }
}

/* ---- the cursor's functions ---- */

static int enter(struct journal_cursor *c) {
    struct remote *remote = c->journal->remote;
    struct remote_reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        return error_origin(-ENOMEM);
    c->reader = reader;
    mutex_lock(&remote->lock);
    struct place_mark mark = place_index_find(&remote->index, c->next - 1);
    mutex_unlock(&remote->lock);
    return error_trace(remote->driver->reader_new(remote->log, mark.position, &reader->log));
}

void remote_leave(struct journal_cursor *c) {
    struct remote_reader *reader = remote_reader_of(c);
    if (!reader)
        return;
    c->journal->remote->driver->reader_free(reader->log);
    block_unref(reader->block);
    block_unref(reader->partial);
    free(reader);
    c->reader = NULL;
}

/* Reads until there are frames. What is durable must come: that nothing does is an error. */
static int read_frames(struct journal_cursor *c) {
    struct remote_reader *reader = remote_reader_of(c);
    struct remote *remote = c->journal->remote;
    while (!has_frames(reader)) {
        struct bytes message;
        uint64_t position;
        int r = remote->driver->read(reader->log, READ_WAIT_MS, &message, &position);
        if (r)
            return r < 0 ? error_trace(r) : error_origin(-EIO);
        r = take_message(c, message);
        if (r)
            return error_trace(r);
    }
    return 0;
}

int remote_read(struct journal_cursor *c, struct journal_batch **ret_batch) {
    lsn_t next = c->next;
    int r = c->reader ? 0 : enter(c);
    c->n = 0;
    while (!r && next == c->next) {
        r = read_frames(c);
        if (!r)
            collect(c, &next);
    }
    if (!r)
        r = cursor_finish(c, remote_reader_of(c)->block, next, ret_batch);
    if (r)
        remote_leave(c); /* it may be past what was to be handed out */
    return error_trace(r);
}
