/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening what is there. FORMAT.md argues why this loses nothing acknowledged and serves nothing
 * that was not; in short:
 *
 *  1. The end of every segment but the last is what its successor's header says; it is never looked
 *     for. Segments that a header passes over (numbers between its previous one and itself) are
 *     void: nothing in them ever counted.
 *  2. In the last segment, M is the highest lsn that some whole frame says was synced. A hole at or
 *     below M is damage: what follows it stays. The first hole above M is a torn tail: the journal
 *     is cut after the last whole group before it.
 *  3. What lies between M and the cut is whole, but perhaps only in the page cache, after a sync
 *     that failed: it goes into the window as appended and not yet durable, and is written again,
 *     to a new segment. So the last segment ends at M, and this run's first header will say so.
 */
#include "journal/local/local.h"

#include "base/hash.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* A file segment-N as found. */
struct found {
    uint64_t number;
    struct header header;
    uint64_t file_bytes;
    int good_copies; /* of the header: 0, 1, 2 */
    bool is_void;
    bool sealed; /* the successor's header says where it ends: */
    uint64_t end;
    lsn_t last_lsn;
    bool clean;
};

struct recovery {
    struct journal *j;
    struct found *found; /* by number */
    size_t n;
    struct buffer segments; /* uint64_t: numbers */
    struct buffer spares;
    struct journal_recovery result;
};

static void recovery_deinit(struct recovery *rec) {
    free(rec->found);
    buffer_deinit(&rec->segments);
    buffer_deinit(&rec->spares);
}

/* ---- what files there are ---- */

/* Parses the decimal number after prefix; false when name is something else. */
static bool parse_name(const char *name, const char *prefix, uint64_t *ret_number) {
    size_t size = strlen(prefix);
    uint64_t number = 0;
    if (strncmp(name, prefix, size) != 0 || name[size] == '\0' || strlen(name + size) > 18)
        return false;
    for (const char *p = name + size; *p; p++) {
        if (*p < '0' || *p > '9')
            return false;
        number = number * 10 + (uint64_t)(*p - '0');
    }
    *ret_number = number;
    return true;
}

static void note_name(void *context, const char *name) {
    struct recovery *rec = context;
    uint64_t number;
    if (parse_name(name, "segment-", &number))
        buffer_append_u64(&rec->segments, number);
    else if (parse_name(name, "spare-", &number))
        buffer_append_u64(&rec->spares, number);
}

static int compare_found(const void *a, const void *b) {
    uint64_t x = ((const struct found *)a)->number, y = ((const struct found *)b)->number;
    return x < y ? -1 : x > y;
}

static int list_files(struct recovery *rec) {
    int r = os_list(rec->j->os, rec->j->directory, note_name, rec);
    if (r)
        return error_fold(r);
    if (buffer_check(&rec->segments) || buffer_check(&rec->spares))
        return error_origin(-ENOMEM);
    size_t n = rec->segments.size / sizeof(uint64_t);
    rec->found = calloc(n + 1, sizeof *rec->found);
    if (!rec->found)
        return error_origin(-ENOMEM);
    for (size_t i = 0; i < n; i++)
        rec->found[i].number = load_u64(rec->segments.data + i * sizeof(uint64_t));
    rec->n = n;
    qsort(rec->found, n, sizeof *rec->found, compare_found);
    return 0;
}

static int open_segment(struct journal *j, uint64_t number, struct os_file **ret_file) {
    char path[OS_PATH_MAX];
    int r = journal_segment_path(path, j, number);
    return r ? error_trace(r) : os_open(j->os, path, OS_OPEN_READ, ret_file);
}

/* ---- headers ---- */

static int load_header(struct recovery *rec, struct found *f) {
    struct journal *j = rec->j;
    uint8_t bytes[HEADER_BYTES] = {0};
    struct os_file *file;
    size_t got = 0;
    int r = open_segment(j, f->number, &file);
    if (r == OS_E_NOT_FOUND && j->options.read_only) {
        f->is_void = true; /* a running server has just released it */
        return 0;
    }
    if (r)
        return error_fold(r);
    r = os_read_all(j->os, file, bytes, sizeof bytes, 0, &got);
    if (!r)
        r = os_size(j->os, file, &f->file_bytes);
    os_close(j->os, file);
    if (r)
        return error_fold(r);
    f->good_copies = header_load(bytes, &f->header);
    if (f->good_copies && f->header.version > FORMAT_VERSION)
        return JOURNAL_E_VERSION;
    if (f->good_copies && f->header.number != f->number)
        f->good_copies = 0;
    return 0;
}

/* ---- the salt ----
 * Without it not one frame can be checked, and a young journal has one header: so it also stands in
 * a file of its own: u32 salt, u32 crc32c of that. Headers are believed first. */
enum { SALT_BYTES = 8 };

static void salt_encode(uint8_t bytes[SALT_BYTES], uint32_t salt) {
    store_u32(bytes, salt);
    store_u32(bytes + 4, crc32c(0, bytes, 4));
}

static bool load_salt(struct journal *j, uint32_t *ret_salt) {
    CLEANUP(buffer_deinit) struct buffer file = BUFFER_INIT;
    char path[OS_PATH_MAX];
    uint8_t expected[SALT_BYTES];
    if (os_path_join(path, j->directory, "salt") || os_load(j->os, path, SALT_BYTES, &file) ||
        file.size != SALT_BYTES)
        return false;
    uint32_t salt = load_u32(file.data);
    salt_encode(expected, salt);
    if (memcmp(file.data, expected, SALT_BYTES) != 0)
        return false;
    *ret_salt = salt;
    return true;
}

/* Not being able to is no error: the headers have it. */
static void keep_salt(struct journal *j) {
    char path[OS_PATH_MAX];
    uint8_t bytes[SALT_BYTES];
    uint32_t kept;
    if ((load_salt(j, &kept) && kept == j->salt) || os_path_join(path, j->directory, "salt"))
        return;
    salt_encode(bytes, j->salt);
    ignore_error(os_replace(j->os, path, bytes_of(bytes, sizeof bytes)));
}

/* Reads all headers, and the journal's salt from any of them. */
static int load_headers(struct recovery *rec) {
    bool salted = rec->n == 0;
    for (size_t i = 0; i < rec->n; i++) {
        struct found *f = &rec->found[i];
        int r = load_header(rec, f);
        if (r)
            return error_trace(r);
        if (f->good_copies) {
            rec->j->salt = f->header.salt;
            salted = true;
        }
        if (!f->is_void && f->good_copies < 2)
            rec->j->local->segments.damaged_bytes +=
                (uint64_t)(2 - f->good_copies) * HEADER_COPY_BYTES;
    }
    if (!salted)
        salted = load_salt(rec->j, &rec->j->salt);
    return salted ? 0 : error_origin(-EBADMSG);
}

static void walk_init(struct walk *w, const struct journal *j, struct os_file *file, uint64_t end,
                      lsn_t base_lsn) {
    *w = (struct walk){.os = j->os,
                       .budget = j->options.budget,
                       .file = file,
                       .salt = j->salt,
                       .offset = HEADER_BYTES,
                       .end = end,
                       .expected = base_lsn};
}

/* A segment without a header begins with the first whole frame there is. */
static int find_base(struct recovery *rec, struct found *f) {
    struct os_file *file;
    struct walk w CLEANUP(walk_deinit) = {0};
    int r = open_segment(rec->j, f->number, &file);
    if (r)
        return error_fold(r);
    walk_init(&w, rec->j, file, f->file_bytes, 1);
    r = walk_find_first(&w, &f->header.base_lsn);
    os_close(rec->j->os, file);
    if (!r && f->header.base_lsn == 0)
        f->is_void = true;
    return error_trace(r);
}

/* Follows the headers from the newest segment back: marks what is sealed and what is void. */
static int follow_chain(struct recovery *rec) {
    const struct found *next = NULL;
    for (size_t i = rec->n; i-- > 0;) {
        struct found *f = &rec->found[i];
        if (next && next->good_copies && f->number > next->header.previous_number)
            f->is_void = true;
        if (!f->is_void && !f->good_copies) {
            int r = find_base(rec, f);
            if (r)
                return error_trace(r);
        }
        if (f->is_void)
            continue;
        if (next && next->good_copies && f->number == next->header.previous_number) {
            f->sealed = true;
            f->end = next->header.previous_end;
            f->last_lsn = next->header.previous_last_lsn;
            f->clean = next->header.previous_clean;
        }
        next = f;
    }
    return 0;
}

/* ---- segments whose end nobody states ---- */

/* Not the last, but its successor's header is damaged or its successor is gone: all that is whole
 * and older than the successor stays. */
static int find_end(struct recovery *rec, struct found *f, lsn_t next_base_lsn) {
    struct os_file *file;
    struct walk w CLEANUP(walk_deinit) = {0};
    struct walk_item item;
    int r = open_segment(rec->j, f->number, &file);
    if (r)
        return error_fold(r);
    walk_init(&w, rec->j, file, f->file_bytes, f->header.base_lsn);
    f->end = HEADER_BYTES;
    f->last_lsn = f->header.base_lsn - 1;
    while ((r = walk_next(&w, true, &item)) == 0 && item.what != WALK_END) {
        if (item.what == WALK_FRAME && item.frame.lsn >= next_base_lsn)
            break;
        if (item.what == WALK_FRAME && !frame_is_mark(&item.frame)) {
            f->end = item.offset + item.bytes;
            f->last_lsn = item.frame.lsn;
        }
    }
    os_close(rec->j->os, file);
    if (!r && next_base_lsn > f->last_lsn + 1)
        rec->j->local->segments.damaged_records += next_base_lsn - 1 - f->last_lsn;
    return error_trace(r);
}

static int add_row(struct recovery *rec, const struct found *f) {
    return error_trace(segments_add(rec->j, &(struct segment){.number = f->number,
                                                              .base_lsn = f->header.base_lsn,
                                                              .last_lsn = f->last_lsn,
                                                              .end = f->end,
                                                              .file_bytes = f->file_bytes,
                                                              .created_us = f->header.created_us,
                                                              .clean = f->clean}));
}

/* ---- the last segment ---- */

/* Where the judgement of the last segment stands. */
struct judgement {
    lsn_t synced_lsn;    /* M */
    uint64_t synced_end; /* offset after record M, or the last whole one below */
    uint64_t cut;        /* offset after the last whole group that stays */
    lsn_t cut_lsn;       /* its last record */
    uint64_t seen_end;   /* offset after the last whole frame anywhere */
    struct buffer group; /* the frames above M of a group whose end was not seen yet */
};

static void judgement_deinit(struct judgement *g) {
    buffer_deinit(&g->group);
}

/* First pass: M. */
static int find_synced(struct walk *w, struct judgement *g) {
    struct walk_item item;
    int r;
    while ((r = walk_next(w, true, &item)) == 0 && item.what != WALK_END) {
        if (item.what == WALK_HOLE)
            continue;
        if (item.frame.synced_lsn > g->synced_lsn)
            g->synced_lsn = item.frame.synced_lsn;
        g->seen_end = item.offset + item.bytes;
    }
    return error_trace(r);
}

/* A group above M is whole: it is appended to the window, to be written again. */
static int keep_group(struct journal *j, struct judgement *g, lsn_t last_lsn) {
    uint8_t *at;
    size_t bytes = g->group.size;
    int r = buffer_check(&g->group);
    if (!r)
        r = window_reserve(&j->window, bytes, &at);
    if (r)
        return error_trace(r);
    memcpy(at, g->group.data, bytes);
    window_extend(&j->window, bytes, frame_lsn(at), last_lsn);
    j->pending_bytes += bytes;
    buffer_clear(&g->group);
    return 0;
}

static int judge_frame(struct journal *j, struct judgement *g, const struct walk_item *item) {
    const struct frame *f = &item->frame;
    uint64_t after = item->offset + item->bytes;
    if (frame_is_mark(f)) {
        if (g->group.size == 0)
            g->cut = after;
        return 0;
    }
    if (f->lsn <= g->synced_lsn)
        g->synced_end = after;
    else if (!j->options.read_only)
        buffer_append(&g->group, item->data, item->bytes);
    if ((f->flags & JOURNAL_MORE) && f->lsn > g->synced_lsn)
        return 0;
    g->cut = after;
    g->cut_lsn = f->lsn;
    return g->group.size ? error_trace(keep_group(j, g, f->lsn)) : 0;
}

/* What is lost of a hole up to M was acknowledged, so it is damage. False: it goes on above M, and
 * the journal is cut here. */
static bool judge_hole(struct recovery *rec, uint64_t number, const struct walk *w,
                       const struct judgement *g, const struct walk_item *hole) {
    uint64_t below = hole->first_lsn <= g->synced_lsn ? g->synced_lsn - hole->first_lsn + 1 : 0;
    uint64_t damaged = below < hole->lost ? below : hole->lost;
    if (damaged > 0 || hole->lost == 0)
        segments_damaged(rec->j, number, w->file, hole->offset, hole->bytes, damaged);
    return damaged == hole->lost;
}

/* Second pass: what stays, what is damage, where to cut. */
static int judge_items(struct recovery *rec, uint64_t number, struct walk *w, struct judgement *g) {
    struct walk_item item;
    int r;
    while ((r = walk_next(w, true, &item)) == 0 && item.what != WALK_END) {
        if (item.what == WALK_FRAME)
            r = judge_frame(rec->j, g, &item);
        else if (!judge_hole(rec, number, w, g, &item))
            break;
        if (r)
            break;
    }
    return error_trace(r);
}

/* The frame that was being written when the power went, if its header made it to the disk. */
static uint64_t torn_end(struct walk *w, const struct judgement *g) {
    uint8_t at[FRAME_HEADER_BYTES];
    size_t got = 0;
    uint64_t offset = align_up(g->cut, 8);
    if (os_read_all(w->os, w->file, at, sizeof at, offset, &got) || got < sizeof at ||
        frame_lsn(at) != g->cut_lsn + 1 || !frame_header_ok(at, w->salt))
        return g->cut;
    return offset + frame_stated_bytes(at);
}

static void finish_last(struct recovery *rec, const struct found *f, const struct judgement *g,
                        struct walk *w) {
    struct journal *j = rec->j;
    struct segment *row = &j->local->segments.table[j->local->segments.n - 1];
    lsn_t top = g->cut_lsn > g->synced_lsn ? g->cut_lsn : g->synced_lsn;
    uint64_t torn = torn_end(w, g) > g->seen_end ? torn_end(w, g) : g->seen_end;
    if (torn > g->cut)
        rec->result.torn_bytes = torn - g->cut;
    row->end = j->options.read_only ? g->cut : g->synced_end;
    row->last_lsn = j->options.read_only ? top : g->synced_lsn;
    j->next_lsn = top + 1;
    if (f->good_copies && f->file_bytes < f->header.file_bytes)
        j->local->segments.damaged_bytes += f->header.file_bytes - f->file_bytes;
}

static int judge_last(struct recovery *rec, struct found *f) {
    struct journal *j = rec->j;
    struct os_file *file;
    struct walk w CLEANUP(walk_deinit) = {0};
    struct judgement g CLEANUP(judgement_deinit) = {
        .synced_lsn = f->header.base_lsn - 1,
        .cut_lsn = f->header.base_lsn - 1,
        .synced_end = HEADER_BYTES,
        .cut = HEADER_BYTES,
    };
    f->end = HEADER_BYTES;
    f->last_lsn = f->header.base_lsn - 1;
    int r = add_row(rec, f);
    if (r)
        return error_trace(r);
    r = open_segment(j, f->number, &file);
    if (r)
        return error_fold(r);
    walk_init(&w, j, file, f->file_bytes, f->header.base_lsn);
    r = find_synced(&w, &g);
    if (!r) {
        struct block *block = w.block;
        walk_init(&w, j, file, f->file_bytes, f->header.base_lsn);
        w.block = block_unref(block);
        r = judge_items(rec, f->number, &w, &g);
    }
    if (!r)
        finish_last(rec, f, &g, &w);
    os_close(j->os, file);
    return error_trace(r);
}

/* ---- all together ---- */

static struct found *next_not_void(struct recovery *rec, size_t i) {
    while (++i < rec->n)
        if (!rec->found[i].is_void)
            return &rec->found[i];
    return NULL;
}

static int fill_table(struct recovery *rec) {
    for (size_t i = 0; i < rec->n; i++) {
        struct found *f = &rec->found[i];
        if (f->is_void)
            continue;
        const struct found *next = next_not_void(rec, i);
        if (!next)
            return error_trace(judge_last(rec, f));
        int r = f->sealed ? 0 : find_end(rec, f, next->header.base_lsn);
        if (!r)
            r = add_row(rec, f);
        if (r)
            return error_trace(r);
    }
    return 0;
}

/* A void segment never counted; without a header it may be what is left of one that did. */
static void clear_void(struct recovery *rec) {
    char from[OS_PATH_MAX], to[OS_PATH_MAX];
    struct journal *j = rec->j;
    for (size_t i = 0; i < rec->n; i++) {
        const struct found *f = &rec->found[i];
        if (!f->is_void || journal_segment_path(from, j, f->number))
            continue;
        if (f->good_copies) {
            ignore_error(os_remove(j->os, from)); /* tried again at the next open */
        } else if (os_path_join(to, j->directory, "damaged") == 0) {
            ignore_error(os_mkdir(j->os, to));
            if (os_path_join(to, j->directory, "damaged/segment-%012llu",
                             (unsigned long long)f->number) == 0)
                ignore_error(os_rename(j->os, from, to));
        }
    }
}

/* Spares of the last run are not taken over: one may have been on its way to become a segment, and
 * hold records that were never acknowledged with lsns that are given out again now. */
static void clear_spares(struct recovery *rec) {
    struct journal *j = rec->j;
    char path[OS_PATH_MAX];
    for (size_t i = 0; i < rec->spares.size; i += sizeof(uint64_t)) {
        uint64_t number = load_u64(rec->spares.data + i);
        if (number >= j->local->segments.next_spare)
            j->local->segments.next_spare = number + 1;
        if (spare_path(path, j, number) == 0)
            ignore_error(os_remove(j->os, path)); /* its number is not used again */
    }
}

static void fill_result(struct recovery *rec, struct journal_recovery *ret_recovery) {
    const struct journal *j = rec->j;
    const struct segments *s = &j->local->segments;
    rec->result.next_lsn = j->next_lsn;
    rec->result.first_lsn = j->next_lsn;
    for (size_t i = s->n; i-- > 0;)
        if (s->table[i].last_lsn >= s->table[i].base_lsn)
            rec->result.first_lsn = s->table[i].base_lsn;
    if (j->window.first && j->window.first->first_lsn < rec->result.first_lsn)
        rec->result.first_lsn = j->window.first->first_lsn;
    rec->result.segments = s->n;
    rec->result.damaged_records = s->damaged_records;
    rec->result.damaged_bytes = s->damaged_bytes;
    *ret_recovery = rec->result;
}

static int start_salt(struct journal *j) {
    return error_trace(os_random(j->os, &j->salt, sizeof j->salt));
}

int journal_recover(struct journal *j, struct journal_recovery *ret_recovery) {
    struct recovery rec CLEANUP(recovery_deinit) = {.j = j};
    j->next_lsn = 1;
    int r = list_files(&rec);
    if (!r)
        r = load_headers(&rec);
    if (!r && rec.n == 0)
        r = start_salt(j);
    if (!r)
        r = follow_chain(&rec);
    if (!r)
        r = fill_table(&rec);
    if (r)
        return error_trace(r);
    j->local->segments.next_number = rec.n ? rec.found[rec.n - 1].number + 1 : 1;
    j->local->segments.next_spare = 1;
    if (!j->options.read_only) {
        clear_void(&rec);
        clear_spares(&rec);
        keep_salt(j);
    }
    fill_result(&rec, ret_recovery);
    return 0;
}
