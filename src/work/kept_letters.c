/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The key of a letter is its number (u64, little-endian), the value:
 *
 *   0  u8  version (1)     4  u32 bytes of the reason
 *   1  u8  kind            8  u64 key_hash
 *   2  u8  flags           16 u64 wall_us
 *   3  u8  0               24 the reason; the payload, to the end
 */
#include "work/kept_letters.h"

#include "os/sync.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { VERSION = 1, HEAD_BYTES = 24, NAME_MAX = 64 };

struct letters {
    struct buffer rows;  /* of struct row, by number */
    struct buffer bytes; /* their values */
};
struct kept_letters {
    struct kept *kept;
    char name[NAME_MAX];
    struct mutex lock; /* LOCK_RANK_KEPT_LETTERS: what follows, as it was read last */
    struct work_letters index;
    struct letters letters;
};
struct row {
    lsn_t number;
    uint64_t key_hash;
    size_t at;
    size_t size;
};

static lsn_t number_of(unsigned partition, lsn_t lsn) {
    return lsn * GROUP_PARTITIONS_MAX + partition;
}

/* ---- Keeping ---- */

static int put(struct kept_letters *l, lsn_t number, struct bytes value, char why[GROUP_WHY_MAX]) {
    uint8_t key[sizeof number];
    store_u64(key, number);
    return kept_put(l->kept, bytes_of(key, sizeof key), value, why);
}

int kept_letters_keep(struct kept_letters *l, unsigned partition,
                      const struct journal_record *record, const char *reason) {
    CLEANUP(buffer_deinit) struct buffer value = BUFFER_INIT;
    char why[GROUP_WHY_MAX];
    uint8_t head[HEAD_BYTES] = {VERSION, (uint8_t)record->kind, record->flags};
    store_u32(head + 4, (uint32_t)strlen(reason));
    store_u64(head + 8, record->key_hash);
    store_u64(head + 16, record->wall_us);
    buffer_append(&value, head, sizeof head);
    buffer_append_string(&value, reason);
    buffer_append_bytes(&value, record->payload);
    int r = buffer_check(&value);
    return r ? error_trace(r)
             : put(l, number_of(partition, record->lsn), buffer_bytes(&value), why);
}

int kept_letters_drop(struct kept_letters *l, lsn_t number, char why[GROUP_WHY_MAX]) {
    return put(l, number, bytes_of(NULL, 0), why);
}

/* ---- Reading ---- */

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
        .reason = bytes_of(text, reason)};
    return true;
}

static void letters_deinit(struct letters *l) {
    buffer_deinit(&l->rows);
    buffer_deinit(&l->bytes);
}

static struct row *rows_of(const struct letters *l) {
    return (void *)l->rows.data;
}

static size_t rows_n(const struct letters *l) {
    return l->rows.size / sizeof(struct row);
}

static int compare(const void *a, const void *b) {
    const struct row *x = a, *y = b;
    return (x->number > y->number) - (x->number < y->number);
}

/* NULL: it is not there. */
static const struct row *find(const struct letters *l, lsn_t number) {
    const struct row wanted = {.number = number};
    return rows_n(l) ? bsearch(&wanted, rows_of(l), rows_n(l), sizeof wanted, compare) : NULL;
}

static void take(void *letters, struct bytes key, struct bytes value) {
    struct letters *l = letters;
    struct work_letter letter;
    if (key.size != sizeof(lsn_t) || !decode(load_u64(key.data), value, &letter))
        return; /* somebody else's */
    const struct row row = {letter.record.lsn, letter.record.key_hash, l->bytes.size, value.size};
    buffer_append(&l->rows, &row, sizeof row);
    buffer_append_bytes(&l->bytes, value);
}

static void remove_others(struct work_letters *index, const struct letters *from,
                          const struct letters *but) {
    const struct row *rows = rows_of(from);
    for (size_t i = 0; i < rows_n(from); i++)
        if (!find(but, rows[i].number))
            work_letters_remove(index, rows[i].number, rows[i].key_hash);
}

/* Others look at the index meanwhile: what was there and still is never leaves it. */
static int become(struct kept_letters *l, struct letters *read) {
    const struct row *rows = rows_of(read);
    int r = 0;
    if (rows)
        qsort(rows_of(read), rows_n(read), sizeof *rows, compare);
    for (size_t i = 0; rows && i < rows_n(read) && !r; i++)
        r = work_letters_add(&l->index, rows[i].number, rows[i].key_hash);
    if (r) {
        remove_others(&l->index, read, &l->letters);
        return error_trace(r);
    }
    remove_others(&l->index, &l->letters, read);
    letters_deinit(&l->letters);
    l->letters = *read;
    *read = (struct letters){BUFFER_INIT, BUFFER_INIT};
    return 0;
}

int kept_letters_refresh(struct kept_letters *l, char why[GROUP_WHY_MAX]) {
    CLEANUP(letters_deinit) struct letters read = {BUFFER_INIT, BUFFER_INIT};
    mutex_lock(&l->lock);
    int r = kept_read(l->kept, take, &read, why);
    if (!r)
        r = buffer_check(&read.rows);
    if (!r)
        r = buffer_check(&read.bytes);
    if (!r)
        r = become(l, &read);
    mutex_unlock(&l->lock);
    return r;
}

struct work_letters *kept_letters_index(struct kept_letters *l) {
    return &l->index;
}

static void read_one(struct kept_letters *l, lsn_t number,
                     void (*each)(void *context, const struct work_letter *letter), void *context) {
    const struct row *row = find(&l->letters, number);
    struct work_letter letter;
    if (row && decode(number, bytes_of(l->letters.bytes.data + row->at, row->size), &letter))
        each(context, &letter);
}

int kept_letters_read(struct kept_letters *l, const lsn_t *numbers, size_t n,
                      void (*each)(void *context, const struct work_letter *letter),
                      void *context) {
    mutex_lock(&l->lock);
    for (size_t i = 0; i < n; i++)
        read_one(l, numbers[i], each, context);
    mutex_unlock(&l->lock);
    return 0;
}

/* ---- Life ---- */

int kept_letters_open(struct os *os, const struct service_url *url, const char *name,
                      struct kept_letters **ret_letters, char why[GROUP_WHY_MAX]) {
    struct kept_letters *l = calloc(1, sizeof *l);
    if (!l)
        return error_origin(-ENOMEM);
    snprintf(l->name, sizeof l->name, "%s-dead-letters", name);
    mutex_init(&l->lock, LOCK_RANK_KEPT_LETTERS);
    work_letters_init(&l->index);
    const struct kept_options options = {.url = url, .name = l->name};
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
    work_letters_deinit(&l->index);
    letters_deinit(&l->letters);
    mutex_deinit(&l->lock);
    free(l);
    return NULL;
}
