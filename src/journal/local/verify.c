/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verifying a journal that nobody has open: recovery as a reader does it, then a walk over every
 * segment. Changes nothing.
 */
#include "journal/local/local.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

struct verification {
    struct journal *j;
    void (*each)(void *context, const char *sentence);
    void *context;
};

static void say(const struct verification *v, const char *format, ...) PRINTF_LIKE(2, 3);
static void say(const struct verification *v, const char *format, ...) {
    char sentence[256];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    if (v->each)
        v->each(v->context, sentence);
}

static void say_hole(const struct verification *v, uint64_t number, const struct walk_item *item) {
    unsigned long long first = item->first_lsn, last = item->first_lsn + item->lost - 1;
    if (item->lost == 0)
        say(v, "Segment %llu is damaged at offset %llu (%llu bytes), no record is lost",
            (unsigned long long)number, (unsigned long long)item->offset,
            (unsigned long long)item->bytes);
    else
        say(v, "Segment %llu is damaged at offset %llu (%llu bytes): records %llu to %llu",
            (unsigned long long)number, (unsigned long long)item->offset,
            (unsigned long long)item->bytes, first, last);
}

static int verify_frames(const struct verification *v, const struct segment *segment,
                         struct os_file *file) {
    struct walk_item item;
    struct walk w CLEANUP(walk_deinit) = {.os = v->j->os,
                                          .file = file,
                                          .salt = v->j->salt,
                                          .offset = HEADER_BYTES,
                                          .end = segment->end,
                                          .expected = segment->base_lsn,
                                          .last_lsn = segment->last_lsn};
    for (;;) {
        int r = walk_next(&w, true, &item);
        if (r)
            return error_trace(r);
        if (item.what == WALK_END)
            return 0;
        if (item.what != WALK_HOLE)
            continue;
        say_hole(v, segment->number, &item);
        segments_damaged(v->j, segment->number, file, item.offset, item.bytes, item.lost);
    }
}

static int verify_header(const struct verification *v, const struct segment *segment,
                         struct os_file *file) {
    uint8_t bytes[HEADER_BYTES] = {0};
    struct header header;
    size_t got;
    int r = os_read_all(v->j->os, file, bytes, sizeof bytes, 0, &got);
    if (r)
        return error_trace(r);
    int good = header_load(bytes, &header);
    if (good < 2)
        say(v, "Segment %llu has a damaged header, %d of its 2 copies is good",
            (unsigned long long)segment->number, good);
    return 0;
}

static int verify_segment(const struct verification *v, const struct segment *segment) {
    char path[OS_PATH_MAX];
    struct os_file *file;
    int r = journal_segment_path(path, v->j, segment->number);
    if (!r)
        r = os_open(v->j->os, path, OS_OPEN_READ, &file);
    if (r)
        return error_fold(r);
    r = verify_header(v, segment, file);
    if (!r && segment->last_lsn >= segment->base_lsn)
        r = verify_frames(v, segment, file);
    os_close(v->j->os, file);
    return r ? error_fold(r) : 0;
}

static void journal_closep(struct journal **j) {
    journal_close(*j);
}

int journal_verify(struct os *os, const char *directory,
                   void (*each)(void *context, const char *sentence), void *context,
                   struct journal_recovery *ret_found) {
    struct journal *j CLEANUP(journal_closep) = NULL;
    struct journal_recovery found;
    const struct journal_options options = {.read_only = true};
    int r = journal_open(os, directory, &options, &j, &found);
    if (r)
        return error_trace(r);
    struct verification v = {.j = j, .each = each, .context = context};
    if (found.torn_bytes)
        say(&v, "The last segment ends in a torn write of %llu bytes, as after a power cut",
            (unsigned long long)found.torn_bytes);
    for (size_t i = 0; i < j->local->segments.n; i++) {
        r = verify_segment(&v, &j->local->segments.table[i]);
        if (r)
            return error_trace(r);
    }
    found.damaged_records = j->local->segments.damaged_records;
    found.damaged_bytes = j->local->segments.damaged_bytes;
    *ret_found = found;
    return 0;
}
