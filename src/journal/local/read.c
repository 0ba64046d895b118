/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading from the segments what the window does not hold: blocks of about READ_BYTES, verified.
 *
 * What is in the table of segments is synced, so it is durable. A segment whose file is recycled
 * under a cursor has left the table before: bytes that make no sense are damage only if the segment
 * is still there.
 */
#include "journal/local/local.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { READER_E_RECYCLED = 1100 }; /* the segment was released while it was read */

struct segment_reader {
    struct walk walk; /* of the segment number */
    uint64_t number;  /* 0: none is open */
};

static struct segment_reader *segment_reader_of(const struct journal_cursor *c) {
    return c->reader;
}

static void leave_segment(struct journal_cursor *c) {
    struct segment_reader *reader = segment_reader_of(c);
    os_close(c->journal->os, reader->walk.file);
    walk_deinit(&reader->walk);
    *reader = (struct segment_reader){0};
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
    *segment_reader_of(c) = (struct segment_reader){.walk = {.os = j->os,
                                                             .budget = j->options.budget,
                                                             .file = file,
                                                             .salt = j->salt,
                                                             .offset = HEADER_BYTES,
                                                             .expected = segment->base_lsn},
                                                    .number = segment->number};
    return 0;
}

/* Finds the segment that holds next, and places the walk in it at or before next. */
static int locate(struct journal_cursor *c) {
    struct segment_reader *reader = segment_reader_of(c);
    struct segment segment;
    for (;;) {
        if (!segments_find(c->journal, c->next, &segment))
            return JOURNAL_E_END;
        int r = 0;
        if (reader->number != segment.number || reader->walk.expected > c->next)
            r = enter_segment(c, &segment);
        if (r == OS_E_NOT_FOUND && !segments_has(c->journal, segment.number))
            continue; /* released in this moment */
        if (r)
            return error_fold(r);
        reader->walk.end = segment.end;
        reader->walk.last_lsn = segment.last_lsn;
        return 0;
    }
}

/* Collects from the walk's present block; reads another only while there is nothing to hand out. */
static int collect(struct journal_cursor *c, lsn_t *next) {
    struct segment_reader *reader = segment_reader_of(c);
    struct walk_item item;
    while (c->n < BATCH_RECORDS_MAX) {
        int r = walk_next(&reader->walk, c->n == 0, &item);
        if (r == WALK_E_MORE)
            return 0;
        if (r)
            return error_fold(r);
        if (item.what == WALK_END)
            return 0;
        if (item.what == WALK_HOLE) {
            if (!segments_damaged(c->journal, reader->number, reader->walk.file, item.offset,
                                  item.bytes, item.lost))
                return READER_E_RECYCLED;
            if (item.first_lsn + item.lost > *next)
                *next = item.first_lsn + item.lost;
        } else if (!frame_is_mark(&item.frame) && item.frame.lsn >= c->next) {
            cursor_collect(c, &item.frame);
            *next = item.frame.lsn + 1;
        }
    }
    return 0;
}

int local_read(struct journal_cursor *c, struct journal_batch **ret_batch) {
    if (!c->reader)
        c->reader = calloc(1, sizeof(struct segment_reader));
    if (!c->reader)
        return error_origin(-ENOMEM);
    for (;;) {
        int r = locate(c);
        if (r)
            return error_trace(r);
        lsn_t next = c->next;
        c->n = 0;
        r = collect(c, &next);
        assert(r || next > c->next);
        if (!r)
            r = cursor_finish(c, segment_reader_of(c)->walk.block, next, ret_batch);
        if (!r)
            return 0;
        leave_segment(c); /* the walk may be past next */
        if (r != READER_E_RECYCLED)
            return error_trace(r);
    }
}

void local_leave(struct journal_cursor *c) {
    if (!c->reader)
        return;
    leave_segment(c);
    free(c->reader);
    c->reader = NULL;
}

bool local_holds(struct journal *j, lsn_t lsn) {
    struct segment segment;
    return segments_find(j, lsn, &segment);
}
