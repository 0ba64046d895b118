/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking a store that is not open, without changing a byte: every copy of the manifest, every row
 * of every segment, every dead letter. Files are read, not mapped, a segment at a time.
 */
#include "points/local/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

struct verifier {
    struct os *os;
    const char *directory;
    void (*each)(void *context, const char *sentence);
    void *context;
    struct points_store_report report;
};

static void PRINTF_LIKE(2, 3) say(struct verifier *v, const char *format, ...) {
    char sentence[OS_PATH_MAX + 256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    if (n > 0 && v->each)
        v->each(v->context, sentence);
}

/* Makes a column what opening would make it: as long as the manifest says. */
static int fit_column(struct buffer *column, uint64_t length) {
    if (column->size < length) {
        size_t lack = (size_t)length - column->size;
        uint8_t *room = buffer_reserve(column, lack);
        if (!room)
            return error_origin(-ENOMEM);
        memset(room, 0, lack);
    }
    column->size = (size_t)length;
    return 0;
}

static int load_column(struct verifier *v, const struct manifest_segment *m, enum column column,
                       struct buffer *out) {
    char path[OS_PATH_MAX];
    if (m->lengths[column] == 0)
        return 0;
    int r = segment_file_path(path, v->directory, &m->key, column);
    if (!r)
        r = os_load(v->os, path, SIZE_MAX, out);
    if (r && r != OS_E_NOT_FOUND)
        return error_trace(r);
    if (out->size < m->lengths[column])
        say(v, "%s: %" PRIu64 " bytes are missing at its end", path,
            m->lengths[column] - out->size);
    else
        v->report.cut_bytes += out->size - m->lengths[column];
    return error_trace(fit_column(out, m->lengths[column]));
}

static bool row_sound(const struct buffer columns[COLUMNS], const struct manifest_segment *m,
                      uint32_t row, enum column *ret_damaged) {
    struct row_entry e;
    memcpy(&e, columns[COLUMN_ROWS].data + row * sizeof e, sizeof e);
    *ret_damaged = COLUMN_ROWS;
    if (row_entry_crc(&e) != e.entry_crc)
        return false;
    uint64_t payloads = columns[COLUMN_PAYLOAD].size;
    *ret_damaged = COLUMN_VECTORS;
    if (e.payload_offset > payloads || e.payload_size > payloads - e.payload_offset)
        return false;
    struct bytes payload = {.size = e.payload_size};
    if (e.payload_size)
        payload.data = columns[COLUMN_PAYLOAD].data + e.payload_offset;
    const uint8_t *vectors =
        m->row_bytes ? columns[COLUMN_VECTORS].data + (size_t)row * m->row_bytes : NULL;
    return row_data_crc(vectors, m->row_bytes, payload) == e.data_crc;
}

/* Names the file: of the entry, or of the vectors (the crc covers them and the payload together).
 */
static void say_row(struct verifier *v, const struct manifest_segment *m, uint32_t row,
                    enum column column) {
    char path[OS_PATH_MAX];
    if (segment_file_path(path, v->directory, &m->key, column))
        path[0] = 0;
    say(v, "%s: row %" PRIu32 ": its %s damaged", path, row,
        column == COLUMN_ROWS ? "entry is" : "vectors, or its payload beside them, are");
}

static void verify_rows(struct verifier *v, const struct manifest_segment *m,
                        const struct buffer columns[COLUMNS]) {
    for (uint32_t row = 0; row < m->rows; row++) {
        enum column damaged;
        if (row_sound(columns, m, row, &damaged))
            continue;
        v->report.damaged_rows++;
        say_row(v, m, row, damaged);
    }
}

static int verify_segment(struct verifier *v, const struct manifest_segment *m) {
    struct buffer columns[COLUMNS] = {BUFFER_INIT, BUFFER_INIT, BUFFER_INIT};
    int r = 0;
    for (unsigned c = 0; c < COLUMNS && !r; c++)
        r = load_column(v, m, c, &columns[c]);
    if (!r)
        verify_rows(v, m, columns);
    for (unsigned c = 0; c < COLUMNS; c++)
        buffer_deinit(&columns[c]);
    uint64_t deleted = 0;
    for (size_t i = 0; i < m->deleted.size; i++)
        deleted += (unsigned)__builtin_popcount(m->deleted.data[i]);
    v->report.segments++;
    v->report.points += m->rows - (deleted < m->rows ? deleted : m->rows);
    return error_trace(r);
}

static int verify(struct verifier *v) {
    CLEANUP(manifest_deinit) struct manifest m = {0};
    struct manifest_condition condition = {0};
    int r = manifest_load(v->os, v->directory, &m, &condition);
    if (r == MANIFEST_E_NONE) {
        say(v, "%s: there is no manifest", v->directory);
        return 0;
    }
    if (r == -EPROTO)
        say(v, "%s: both copies of the manifest are damaged", v->directory);
    if (r)
        return error_trace(r);
    v->report.damaged_manifests = condition.damaged;
    if (condition.damaged)
        say(v, "%s: one of the two copies of the manifest is damaged", v->directory);
    for (size_t i = 0; i < m.n_segments && !r; i++)
        r = verify_segment(v, &m.segments[i]);
    if (!r)
        r = dead_file_verify(v->os, v->directory, m.dead_generation, m.dead_bytes,
                             &v->report.damaged_letters);
    if (!r && v->report.damaged_letters)
        say(v, "%s: dead letters are damaged in %" PRIu64 " places", v->directory,
            v->report.damaged_letters);
    return error_trace(r);
}

int points_store_verify(struct os *os, const char *directory,
                        void (*each)(void *context, const char *sentence), void *context,
                        struct points_store_report *ret_found) {
    struct verifier v = {.os = os, .directory = directory, .each = each, .context = context};
    int r = verify(&v);
    if (r)
        return r > 0 ? error_fold(r) : error_trace(r);
    *ret_found = v.report;
    return 0;
}
