/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The key of a letter is its number (u64, little-endian), the value:
 *
 *   0  u8  version (1)     4  u32 bytes of the reason
 *   1  u8  kind            8  u64 key_hash
 *   2  u8  flags           16 u64 wall_us
 *   3  u8  0               24 the reason; the payload, to the end
 *
 * Where the values lie is followed message by message, and begun anew when too long ago to be sure
 * that every letter that was taken away since is told.
 */
#include "work/kept_letters.h"

#include "os/sync.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define MS_NS UINT64_C(1000000)
enum {
    VERSION = 1,
    HEAD_BYTES = 24,
    NAME_MAX = 64,
    LOOK_MS = 1000,                    /* who keeps letters looks for those of others so often */
    FOLLOWED_MS = KEPT_REMOVED_MS / 2, /* no longer, for what it was begun with */
};

/* Where a letter lies. */
struct row {
    lsn_t number;
    uint64_t offset;
    uint64_t size;
};
struct kept_letters {
    struct os *os;
    struct kept *kept;
    char name[NAME_MAX];
    struct mutex lock;  /* LOCK_RANK_KEPT_LETTERS: what follows */
    struct buffer rows; /* of struct row, by number */
    uint64_t bytes;     /* of their values */
    uint64_t at;        /* where to go on */
    uint64_t begun_ns;
    uint64_t looked_ns;
    uint64_t put; /* kept since, and the bytes */
    uint64_t put_bytes;
};

/* ---- The rows ---- */

static struct row *rows_of(const struct kept_letters *l) {
    return (void *)l->rows.data;
}

static size_t rows_n(const struct kept_letters *l) {
    return l->rows.size / sizeof(struct row);
}

/* How many have smaller numbers. */
static size_t place_of(const struct kept_letters *l, lsn_t number) {
    size_t low = 0, high = rows_n(l);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (rows_of(l)[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* NULL: it is not there. */
static struct row *find(const struct kept_letters *l, lsn_t number) {
    size_t at = place_of(l, number);
    return at < rows_n(l) && rows_of(l)[at].number == number ? &rows_of(l)[at] : NULL;
}

static void remove_row(struct kept_letters *l, struct row *row) {
    const struct row *end = rows_of(l) + rows_n(l);
    l->bytes -= row->size;
    memmove(row, row + 1, (size_t)(end - row - 1) * sizeof *row);
    l->rows.size -= sizeof *row;
}

static void add_row(struct kept_letters *l, struct row row) {
    size_t at = place_of(l, row.number), n = rows_n(l);
    buffer_append(&l->rows, &row, sizeof row);
    if (l->rows.failed)
        return;
    memmove(rows_of(l) + at + 1, rows_of(l) + at, (n - at) * sizeof row);
    rows_of(l)[at] = row;
    l->bytes += row.size;
}

static bool decode(lsn_t number, struct bytes value, struct work_letter *ret_letter) {
    if (value.size < HEAD_BYTES || value.data[0] != VERSION)
        return false;
    size_t reason = load_u32(value.data + 4);
    if (reason > value.size - HEAD_BYTES)
        return false;
    const uint8_t *text = value.data + HEAD_BYTES;
    *ret_letter = (struct work_letter){
        .record = {.lsn = number,
                   .key_hash = load_u64(value.data + 8),
                   .wall_us = load_u64(value.data + 16),
                   .kind = value.data[1],
                   .flags = value.data[2],
                   .payload = bytes_of(text + reason, value.size - HEAD_BYTES - reason)},
        .reason = bytes_of(text, reason),
        .changed = WORK_LETTER_NOBODY_KNOWS};
    return true;
}

static void take(void *letters, const struct kept_message *m) {
    struct kept_letters *l = letters;
    struct work_letter letter;
    if (m->key.size != sizeof(lsn_t))
        return; /* somebody else's */
    const struct row row = {load_u64(m->key.data), m->offset, m->value.size};
    struct row *old = find(l, row.number);
    if (old)
        remove_row(l, old);
    if (decode(row.number, m->value, &letter))
        add_row(l, row);
}

/* ---- Following ---- */

static void begin_anew(struct kept_letters *l) {
    buffer_deinit(&l->rows);
    l->rows = BUFFER_INIT;
    l->bytes = l->at = 0;
    l->begun_ns = os_monotonic_ns(l->os);
}

/* Lock held. As kept_follow. */
static int look(struct kept_letters *l, char why[GROUP_WHY_MAX]) {
    uint64_t now_ns = os_monotonic_ns(l->os);
    if (l->at == 0 || now_ns - l->begun_ns > FOLLOWED_MS * MS_NS)
        begin_anew(l);
    int r = kept_follow(l->kept, &l->at, take, l, why);
    if (r == KEPT_E_ANEW) {
        begin_anew(l);
        r = kept_follow(l->kept, &l->at, take, l, why);
    }
    if (r == KEPT_E_ANEW)
        r = 0; /* it is empty */
    int failed = buffer_check(&l->rows);
    if (failed)
        begin_anew(l);
    if (r || failed)
        return r ? r : error_trace(failed);
    l->looked_ns = now_ns;
    l->put = l->put_bytes = 0;
    return 0;
}

static int look_for_box(struct kept_letters *l, char why[WORK_LETTER_WHY_MAX]) {
    char sentence[GROUP_WHY_MAX] = "";
    int r = look(l, sentence);
    if (r > 0)
        snprintf(why, WORK_LETTER_WHY_MAX, "%s", sentence);
    return r > 0 ? WORK_LETTER_E_UNREACHABLE : error_trace(r);
}

/* ---- Keeping ---- */

static int put(struct kept_letters *l, lsn_t number, struct bytes value, char why[GROUP_WHY_MAX]) {
    uint8_t key[sizeof number];
    store_u64(key, number);
    return kept_put(l->kept, bytes_of(key, sizeof key), value, why);
}

static bool is_full(const struct kept_letters *l, size_t size) {
    return rows_n(l) + l->put >= KEPT_LETTERS_MAX ||
           l->bytes + l->put_bytes + size > KEPT_LETTERS_BYTES_MAX;
}

/* Lock held. */
static int put_letter(struct kept_letters *l, lsn_t number, struct bytes value) {
    char why[GROUP_WHY_MAX];
    bool looks = l->at == 0 || is_full(l, value.size) ||
                 os_monotonic_ns(l->os) - l->looked_ns > LOOK_MS * MS_NS;
    int r = looks ? look(l, why) : 0;
    if (r || find(l, number))
        return r;
    if (is_full(l, value.size))
        return WORK_LETTER_E_FULL;
    r = put(l, number, value, why);
    if (!r) {
        l->put++;
        l->put_bytes += value.size;
    }
    return r;
}

int kept_letters_keep(struct kept_letters *l, unsigned partition,
                      const struct journal_record *record, const char *reason) {
    CLEANUP(buffer_deinit) struct buffer value = BUFFER_INIT;
    uint8_t head[HEAD_BYTES] = {VERSION, (uint8_t)record->kind, record->flags};
    store_u32(head + 4, (uint32_t)strlen(reason));
    store_u64(head + 8, record->key_hash);
    store_u64(head + 16, record->wall_us);
    buffer_append(&value, head, sizeof head);
    buffer_append_string(&value, reason);
    buffer_append_bytes(&value, record->payload);
    int r = buffer_check(&value);
    if (r)
        return error_trace(r);
    mutex_lock(&l->lock);
    r = put_letter(l, work_letter_number(record->lsn, partition), buffer_bytes(&value));
    mutex_unlock(&l->lock);
    return r;
}

/* ---- The box ---- */

static int box_page(void *letters, lsn_t below, size_t max, lsn_t *out, size_t *ret_n,
                    char why[WORK_LETTER_WHY_MAX]) {
    struct kept_letters *l = letters;
    mutex_lock(&l->lock);
    int r = look_for_box(l, why);
    size_t left = r ? 0 : below ? place_of(l, below) : rows_n(l), n = 0;
    while (n < max && left > 0)
        out[n++] = rows_of(l)[--left].number;
    mutex_unlock(&l->lock);
    if (!r)
        *ret_n = n;
    return r;
}

static int box_count(void *letters, uint64_t *ret_n, char why[WORK_LETTER_WHY_MAX]) {
    struct kept_letters *l = letters;
    mutex_lock(&l->lock);
    int r = look_for_box(l, why);
    if (!r)
        *ret_n = rows_n(l);
    mutex_unlock(&l->lock);
    return r;
}

struct showing {
    void (*each)(void *context, const struct work_letter *letter);
    void *context;
};

static void show(void *context, const struct kept_message *m) {
    const struct showing *showing = context;
    struct work_letter letter;
    if (m->key.size == sizeof(lsn_t) && decode(load_u64(m->key.data), m->value, &letter))
        showing->each(showing->context, &letter);
}

static int compare_offsets(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Of those that are there. */
static int find_offsets(struct kept_letters *l, const lsn_t *numbers, size_t n, uint64_t *offsets,
                        size_t *ret_n, char why[WORK_LETTER_WHY_MAX]) {
    mutex_lock(&l->lock);
    int r = look_for_box(l, why);
    size_t found = 0;
    for (size_t i = 0; !r && i < n; i++) {
        const struct row *row = find(l, numbers[i]);
        if (row)
            offsets[found++] = row->offset;
    }
    mutex_unlock(&l->lock);
    qsort(offsets, found, sizeof *offsets, compare_offsets);
    *ret_n = found;
    return r;
}

static int box_read(void *letters, const lsn_t *numbers, size_t n,
                    void (*each)(void *context, const struct work_letter *letter), void *context,
                    char why[WORK_LETTER_WHY_MAX]) {
    struct kept_letters *l = letters;
    struct showing showing = {each, context};
    char sentence[GROUP_WHY_MAX] = "";
    size_t found = 0;
    uint64_t *offsets = calloc(n + 1, sizeof *offsets);
    int r = offsets ? find_offsets(l, numbers, n, offsets, &found, why) : error_origin(-ENOMEM);
    if (!r) {
        r = kept_get(l->kept, offsets, found, show, &showing, sentence);
        if (r > 0)
            snprintf(why, WORK_LETTER_WHY_MAX, "%s", sentence);
    }
    free(offsets);
    if (r == KEPT_E_ANEW)
        return 0; /* what was there is gone */
    return r > 0 ? WORK_LETTER_E_UNREACHABLE : error_trace(r);
}

static int take_away(struct kept_letters *l, lsn_t number, char why[WORK_LETTER_WHY_MAX]) {
    char sentence[GROUP_WHY_MAX] = "";
    int r = put(l, number, bytes_of(NULL, 0), sentence);
    if (r > 0)
        snprintf(why, WORK_LETTER_WHY_MAX, "%s", sentence);
    return r > 0 ? WORK_LETTER_E_UNREACHABLE : error_trace(r);
}

static int box_drop(void *letters, lsn_t number, char why[WORK_LETTER_WHY_MAX]) {
    struct kept_letters *l = letters;
    mutex_lock(&l->lock);
    int r = look_for_box(l, why);
    bool there = !r && find(l, number);
    mutex_unlock(&l->lock);
    if (r)
        return r;
    return there ? take_away(l, number, why) : WORK_LETTER_E_GONE;
}

static int box_settle(void *letters, lsn_t number, bool *ret_gone, char why[WORK_LETTER_WHY_MAX]) {
    int r = take_away(letters, number, why);
    if (!r)
        *ret_gone = true;
    return r;
}

struct letter_box kept_letters_box(struct kept_letters *l) {
    static const struct letter_box_ops ops = {.page = box_page,
                                              .read = box_read,
                                              .drop = box_drop,
                                              .count = box_count,
                                              .settle = box_settle,
                                              .overwrites = true};
    return (struct letter_box){.ops = &ops, .store = l};
}

/* ---- Life ---- */

int kept_letters_open(struct os *os, const struct service_url *url, const char *name, bool existing,
                      struct kept_letters **ret_letters, char why[GROUP_WHY_MAX]) {
    struct kept_letters *l = calloc(1, sizeof *l);
    if (!l)
        return error_origin(-ENOMEM);
    l->os = os;
    snprintf(l->name, sizeof l->name, "%s-dead-letters", name);
    mutex_init(&l->lock, LOCK_RANK_KEPT_LETTERS);
    const struct kept_options options = {.url = url, .name = l->name, .existing = existing};
    int r = kept_open(os, &options, &l->kept, why);
    if (r) {
        kept_letters_close(l);
        return r;
    }
    *ret_letters = l;
    return 0;
}

struct kept_letters *kept_letters_close(struct kept_letters *l) {
    if (!l)
        return NULL;
    kept_close(l->kept);
    buffer_deinit(&l->rows);
    mutex_deinit(&l->lock);
    free(l);
    return NULL;
}
