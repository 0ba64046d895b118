/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MANIFEST, little-endian (FORMAT.md says what each means):
 *
 *   8 "MRPOINTS"  u32 version (3)  u32 lanes  u64 sequence
 *   lanes × u64 position
 *   u32 generation, u64 bytes   of the dead letters   u64 0
 *   block catalog   block tasks                  (a block: u32 length, bytes)
 *   u32 number of segments, for each:
 *     u64 incarnation  u32 lane  u32 number  u32 generation
 *     u32 rows  u32 rows_max  u32 row_bytes  u8 full
 *     3 × u64 length of the file   block deleted
 *   u32 crc32c of all before it
 *
 * In version 1 the numbers of a lane's segments of a collection began at 0 without a gap; now they
 * are those of the store, and segments that were merged leave gaps.
 *
 * Up to version 2 the last of those of the dead letters was the next number of one (dead.c).
 *
 * To change it: raise VERSION, keep decoding the older ones, add a test with an old one's bytes.
 */
#include "points/local/manifest.h"

#include "base/hash.h"
#include "os/file.h"
#include "points/local/segment.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { VERSION = 3, VERSION_OLDEST = 1 };
static const char magic[8] = {'M', 'R', 'P', 'O', 'I', 'N', 'T', 'S'};
static const char *const copies[] = {"MANIFEST", "MANIFEST.copy"};
static const size_t MANIFEST_BYTES_MAX = (size_t)1 << 32;

int segment_key_compare(const struct segment_key *a, const struct segment_key *b) {
    if (a->incarnation != b->incarnation)
        return a->incarnation < b->incarnation ? -1 : 1;
    if (a->lane != b->lane)
        return a->lane < b->lane ? -1 : 1;
    if (a->number != b->number)
        return a->number < b->number ? -1 : 1;
    return (a->generation > b->generation) - (a->generation < b->generation);
}

void manifest_deinit(struct manifest *m) {
    free(m->segments);
    buffer_deinit(&m->raw);
    *m = (struct manifest){0};
}

/* ---- Encoding ---- */

static void encode_segment(struct buffer *out, const struct manifest_segment *s) {
    buffer_append_u64(out, s->key.incarnation);
    buffer_append_u32(out, s->key.lane);
    buffer_append_u32(out, s->key.number);
    buffer_append_u32(out, s->key.generation);
    buffer_append_u32(out, s->rows);
    buffer_append_u32(out, s->rows_max);
    buffer_append_u32(out, s->row_bytes);
    buffer_append_u8(out, s->full);
    for (unsigned c = 0; c < COLUMNS; c++)
        buffer_append_u64(out, s->lengths[c]);
    buffer_append_block(out, s->deleted);
}

int manifest_encode(const struct manifest *m, struct buffer *out) {
    buffer_append(out, magic, sizeof magic);
    buffer_append_u32(out, VERSION);
    buffer_append_u32(out, m->lanes);
    buffer_append_u64(out, m->sequence);
    for (unsigned i = 0; i < m->lanes; i++)
        buffer_append_u64(out, m->positions[i]);
    buffer_append_u32(out, m->dead_generation);
    buffer_append_u64(out, m->dead_bytes);
    buffer_append_u64(out, 0);
    buffer_append_block(out, m->catalog);
    buffer_append_block(out, m->tasks);
    buffer_append_u32(out, (uint32_t)m->n_segments);
    for (size_t i = 0; i < m->n_segments; i++)
        encode_segment(out, &m->segments[i]);
    buffer_append_u32(out, crc32c(0, out->data, out->size));
    return error_trace(buffer_check(out));
}

/* ---- Decoding ---- */

static void decode_header(struct reader *r, struct manifest *m) {
    struct bytes found = reader_bytes(r, sizeof magic);
    uint32_t version = reader_u32(r);
    m->lanes = reader_u32(r);
    m->sequence = reader_u64(r);
    if (r->failed || memcmp(found.data, magic, sizeof magic) != 0 || version < VERSION_OLDEST ||
        version > VERSION || m->lanes == 0 || m->lanes > WORK_LANES_MAX) {
        r->failed = true;
        return;
    }
    for (unsigned i = 0; i < m->lanes; i++)
        m->positions[i] = reader_u64(r);
    m->dead_generation = reader_u32(r);
    m->dead_bytes = reader_u64(r);
    reader_u64(r);
    m->catalog = reader_block(r);
    m->tasks = reader_block(r);
}

/* What the rest of the store takes for granted. */
static bool segment_plausible(const struct manifest *m, const struct manifest_segment *s) {
    if (s->key.lane >= m->lanes || s->rows_max == 0 || s->rows > s->rows_max ||
        s->lengths[COLUMN_ROWS] != (uint64_t)s->rows * sizeof(struct row_entry) ||
        s->lengths[COLUMN_VECTORS] != (uint64_t)s->rows * s->row_bytes)
        return false;
    return s->deleted.size == 0 || s->deleted.size == segment_words(s->rows) * sizeof(uint64_t);
}

static void decode_segment(struct reader *r, const struct manifest *m, struct manifest_segment *s) {
    s->key.incarnation = reader_u64(r);
    s->key.lane = reader_u32(r);
    s->key.number = reader_u32(r);
    s->key.generation = reader_u32(r);
    s->rows = reader_u32(r);
    s->rows_max = reader_u32(r);
    s->row_bytes = reader_u32(r);
    s->full = reader_u8(r);
    for (unsigned c = 0; c < COLUMNS; c++)
        s->lengths[c] = reader_u64(r);
    s->deleted = reader_block(r);
    if (!r->failed && !segment_plausible(m, s))
        r->failed = true;
}

static int decode_segments(struct reader *r, struct manifest *m) {
    size_t n = reader_u32(r);
    if (r->failed || n > (size_t)(r->end - r->at) / sizeof(uint64_t))
        return error_origin(-EPROTO);
    m->segments = calloc(n ? n : 1, sizeof *m->segments);
    if (!m->segments)
        return error_origin(-ENOMEM);
    for (m->n_segments = 0; m->n_segments < n && !r->failed; m->n_segments++) {
        struct manifest_segment *s = &m->segments[m->n_segments];
        decode_segment(r, m, s);
        if (m->n_segments > 0 && segment_key_compare(&s[-1].key, &s->key) >= 0)
            r->failed = true;
    }
    return r->failed || r->at != r->end ? error_origin(-EPROTO) : 0;
}

static int decode(struct manifest *m) {
    struct bytes all = buffer_bytes(&m->raw);
    if (all.size < sizeof(uint32_t))
        return error_origin(-EPROTO);
    all.size -= sizeof(uint32_t);
    if (load_u32(all.data + all.size) != crc32c(0, all.data, all.size))
        return error_origin(-EPROTO);
    struct reader r = reader_of(all);
    decode_header(&r, m);
    return r.failed ? error_origin(-EPROTO) : error_trace(decode_segments(&r, m));
}

int manifest_decode(struct buffer *raw, struct manifest *ret_manifest) {
    struct manifest m = {.raw = *raw};
    *raw = BUFFER_INIT;
    int r = decode(&m);
    if (r) {
        manifest_deinit(&m);
        return error_trace(r);
    }
    *ret_manifest = m;
    return 0;
}

/* ---- Files ---- */

int manifest_save(struct os *os, const char *directory, const struct manifest *m) {
    CLEANUP(buffer_deinit) struct buffer encoded = BUFFER_INIT;
    int r = manifest_encode(m, &encoded);
    for (unsigned i = 0; i < ARRAY_LENGTH(copies) && !r; i++) {
        char path[OS_PATH_MAX];
        r = os_path_join(path, directory, "%s", copies[i]);
        if (!r)
            r = os_replace(os, path, buffer_bytes(&encoded));
    }
    return error_trace(r);
}

static int load_copy(struct os *os, const char *directory, const char *name,
                     struct manifest *ret_manifest) {
    char path[OS_PATH_MAX];
    CLEANUP(buffer_deinit) struct buffer raw = BUFFER_INIT;
    int r = os_path_join(path, directory, "%s", name);
    if (!r)
        r = os_load(os, path, MANIFEST_BYTES_MAX, &raw);
    if (r == OS_E_NOT_FOUND)
        return MANIFEST_E_NONE;
    if (!r)
        r = manifest_decode(&raw, ret_manifest);
    return r > 0 ? error_fold(r) : error_trace(r);
}

/* Which of the sound copies is the newest; ARRAY_LENGTH(copies) when none is sound. */
static size_t choose(const struct manifest loaded[], struct manifest_condition *condition) {
    size_t best = ARRAY_LENGTH(copies);
    for (size_t i = 0; i < ARRAY_LENGTH(copies); i++) {
        if (loaded[i].lanes == 0 || loaded[i].sequence != loaded[0].sequence)
            condition->uneven = true;
        if (loaded[i].lanes != 0 &&
            (best == ARRAY_LENGTH(copies) || loaded[i].sequence > loaded[best].sequence))
            best = i;
    }
    return best;
}

int manifest_load(struct os *os, const char *directory, struct manifest *ret_manifest,
                  struct manifest_condition *ret_condition) {
    struct manifest loaded[ARRAY_LENGTH(copies)] = {{0}}; /* lanes 0: not there, or not sound */
    struct manifest_condition condition = {0};
    int r = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(copies) && !r; i++) {
        r = load_copy(os, directory, copies[i], &loaded[i]);
        condition.damaged += r == -EPROTO;
        if (r == -EPROTO || r == MANIFEST_E_NONE)
            r = 0;
    }
    size_t best = choose(loaded, &condition);
    if (!r && best == ARRAY_LENGTH(copies))
        r = condition.damaged ? error_origin(-EPROTO) : MANIFEST_E_NONE;
    if (!r) {
        *ret_manifest = loaded[best];
        *ret_condition = condition;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(copies); i++)
        if (r || i != best)
            manifest_deinit(&loaded[i]);
    return r == MANIFEST_E_NONE ? r : error_trace(r);
}
