/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking the frames of one segment, with every checksum verified. The lsns of a segment are
 * consecutive, so the walk always knows what it must find next:
 *
 *   - at the offset after the last frame, or at the next sector boundary (each sync starts a new
 *     sector), a whole frame with the expected lsn: an item WALK_FRAME;
 *   - else it searches forward, at every 8 bytes, for a whole frame with a later lsn that the bytes
 *     in between can account for (a frame has at least 40): what it skipped is a WALK_HOLE;
 *   - else, when it is known which lsn must be the last, the rest is a hole; when it is not known
 *     the segment ends here: WALK_END.
 *
 * What a hole means (damage or a torn tail) is for the caller to judge.
 */
#include "journal/local/local.h"

#include <assert.h>
#include <errno.h>

void walk_deinit(struct walk *w) {
    w->block = block_unref(w->block);
}

/* A block of that capacity: the one at hand when nobody else reads it. */
static struct block *walk_block(struct walk *w, size_t capacity) {
    struct block *b = w->block;
    if (!b || b->capacity < capacity || atomic_load(&b->refs) > 1) {
        block_unref(b);
        b = block_new(w->budget, capacity);
    }
    w->block = b;
    return b;
}

static int walk_read(struct walk *w, uint64_t offset, size_t need) {
    size_t want = need > READ_BYTES ? need : READ_BYTES;
    if (want > w->end - offset)
        want = (size_t)(w->end - offset);
    struct block *b = walk_block(w, want);
    if (!b)
        return error_origin(-ENOMEM);
    b->used = 0;
    w->block_offset = offset;
    int r = os_read_all(w->os, w->file, b->data, want, offset, &b->used);
    if (!r && b->used < want)
        w->end = offset + b->used; /* the file was cut short */
    return error_trace(r);
}

/* Points ret_at at need bytes from offset; NULL when the segment or its file ends before. */
static int walk_bytes(struct walk *w, uint64_t offset, size_t need, bool may_read,
                      const uint8_t **ret_at) {
    *ret_at = NULL;
    if (offset > w->end || need > w->end - offset)
        return 0;
    if (!w->block || offset < w->block_offset || offset + need > w->block_offset + w->block->used) {
        if (!may_read)
            return WALK_E_MORE;
        int r = walk_read(w, offset, need);
        if (r)
            return error_trace(r);
        if (w->block->used < need)
            return 0;
    }
    *ret_at = w->block->data + (offset - w->block_offset);
    return 0;
}

/* Points ret_at at the whole frame at offset with low ≤ lsn ≤ high; NULL when there is none. */
static int walk_frame_at(struct walk *w, uint64_t offset, bool may_read, lsn_t low, lsn_t high,
                         const uint8_t **ret_at) {
    const uint8_t *at;
    *ret_at = NULL;
    int r = walk_bytes(w, offset, FRAME_HEADER_BYTES, may_read, &at);
    if (r || !at)
        return r;
    if (frame_lsn(at) < low || frame_lsn(at) > high || !frame_header_ok(at, w->salt))
        return 0;
    r = walk_bytes(w, offset, frame_stated_bytes(at), may_read, &at);
    if (!r && at && frame_ok(at, w->salt))
        *ret_at = at;
    return r;
}

/* The next whole frame after offset that may follow what is expected. */
static int walk_search(struct walk *w, uint64_t *ret_offset, const uint8_t **ret_at) {
    *ret_at = NULL;
    for (uint64_t o = w->offset + 8; o + FRAME_HEADER_BYTES <= w->end; o += 8) {
        lsn_t high = w->expected + (o - w->offset) / FRAME_HEADER_BYTES;
        if (w->last_lsn && high > w->last_lsn + 1)
            high = w->last_lsn + 1; /* a mark after the last record */
        int r = walk_frame_at(w, o, true, w->expected, high, ret_at);
        if (r)
            return error_trace(r);
        if (*ret_at) {
            *ret_offset = o;
            return 0;
        }
    }
    return 0;
}

static void walk_set_hole(struct walk *w, uint64_t to, lsn_t next_lsn, struct walk_item *item) {
    *item = (struct walk_item){
        .what = WALK_HOLE,
        .offset = w->offset,
        .bytes = to - w->offset,
        .first_lsn = w->expected,
        .lost = next_lsn - w->expected,
    };
    w->offset = to;
    w->expected = next_lsn;
}

static int walk_past_damage(struct walk *w, struct walk_item *ret_item) {
    const uint8_t *at;
    uint64_t offset = 0;
    int r = walk_search(w, &offset, &at);
    if (r)
        return error_trace(r);
    if (at)
        walk_set_hole(w, offset, frame_lsn(at), ret_item);
    else if (w->last_lsn)
        walk_set_hole(w, w->end > w->offset ? w->end : w->offset, w->last_lsn + 1, ret_item);
    else
        *ret_item = (struct walk_item){.what = WALK_END, .offset = w->offset};
    return 0;
}

static void walk_set_frame(struct walk *w, uint64_t offset, const uint8_t *at,
                           struct walk_item *item) {
    *item = (struct walk_item){
        .what = WALK_FRAME, .offset = offset, .bytes = frame_stated_bytes(at), .data = at};
    frame_load(at, &item->frame);
    w->offset = offset + item->bytes;
    if (!frame_is_mark(&item->frame))
        w->expected++;
}

int walk_next(struct walk *w, bool may_read, struct walk_item *ret_item) {
    if (w->last_lsn && w->expected > w->last_lsn) {
        *ret_item = (struct walk_item){.what = WALK_END, .offset = w->offset};
        return 0;
    }
    const uint64_t offsets[] = {w->offset, align_up(w->offset, SECTOR_BYTES)};
    for (size_t i = 0; i < ARRAY_LENGTH(offsets); i++) {
        const uint8_t *at;
        int r = walk_frame_at(w, offsets[i], may_read, w->expected, w->expected, &at);
        if (r)
            return r == WALK_E_MORE ? r : error_trace(r);
        if (at) {
            walk_set_frame(w, offsets[i], at, ret_item);
            return 0;
        }
    }
    return may_read ? error_trace(walk_past_damage(w, ret_item)) : WALK_E_MORE;
}

int walk_find_first(struct walk *w, lsn_t *ret_lsn) {
    *ret_lsn = 0;
    for (uint64_t o = w->offset; o + FRAME_HEADER_BYTES <= w->end; o += 8) {
        const uint8_t *at;
        int r = walk_frame_at(w, o, true, 1, UINT64_MAX, &at);
        if (r)
            return error_trace(r);
        if (at) {
            *ret_lsn = frame_lsn(at);
            return 0;
        }
    }
    return 0;
}
