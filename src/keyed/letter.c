/* SPDX-License-Identifier: Apache-2.0 */
/* Dead letters: see letter.h. */
#include "keyed/letter.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

struct letter {
    struct letter *next;
    lsn_t lsn;
    size_t size;
    uint8_t bytes[]; /* as it stands in the database */
};

void letters_deinit(struct letters *l) {
    for (struct letter *at = l->newest, *next; at; at = next) {
        next = at->next;
        free(at);
    }
    buffer_deinit(&l->gone);
    *l = (struct letters){0};
}

void letter_encode(struct buffer *out, const struct journal_record *record, struct bytes reason) {
    buffer_append_u8(out, record->kind);
    buffer_append_u8(out, record->flags);
    buffer_append_u64(out, record->key_hash);
    buffer_append_u64(out, record->wall_us);
    buffer_append_block(out, record->payload);
    buffer_append_block(out, reason);
}

int letters_add(struct letters *l, const struct journal_record *record, const char *reason,
                size_t *bytes) {
    CLEANUP(buffer_deinit) struct buffer value = BUFFER_INIT;
    letter_encode(&value, record, bytes_of_string(reason));
    int r = buffer_check(&value);
    if (r < 0)
        return error_trace(r);
    struct letter *letter = malloc(sizeof *letter + value.size);
    if (!letter)
        return error_origin(-ENOMEM);
    *letter = (struct letter){.next = l->newest, .lsn = record->lsn, .size = value.size};
    memcpy(letter->bytes, value.data, value.size);
    l->newest = letter;
    l->n++;
    *bytes += sizeof *letter + value.size;
    return 0;
}

void letters_take_back(struct letters *l, size_t *bytes) {
    struct letter *last = l->newest;
    l->newest = last->next;
    l->n--;
    *bytes -= sizeof *last + last->size;
    free(last);
}

int letters_reserve(struct letters *l, size_t n) {
    if (n == 0 || buffer_reserve(&l->gone, n * sizeof(lsn_t)))
        return 0;
    l->gone.failed = false;
    return error_origin(-ENOMEM);
}

void letters_remove(struct letters *l, lsn_t letter) {
    buffer_append_u64(&l->gone, letter);
    assert(!l->gone.failed); /* its room was reserved */
}

/* ---- Writing ---- */

/* What a checkpoint does with the key of a letter. */
struct change {
    lsn_t lsn;
    const struct letter *letter; /* NULL: it is gone */
};

/* Of one letter, that it is gone comes first. */
static int compare(const void *a, const void *b) {
    const struct change *x = a, *y = b;
    if (x->lsn != y->lsn)
        return x->lsn < y->lsn ? -1 : 1;
    return (x->letter != NULL) - (y->letter != NULL);
}

static void gather(const struct letters *list, struct buffer *out) {
    struct change change = {0};
    for (change.letter = list->newest; change.letter; change.letter = change.letter->next) {
        change.lsn = change.letter->lsn;
        buffer_append(out, &change, sizeof change);
    }
    for (size_t i = 0; i < list->gone.size; i += sizeof(lsn_t)) {
        change.lsn = load_u64(list->gone.data + i);
        buffer_append(out, &change, sizeof change);
    }
}

static void write_change(struct ingest *file, const struct change *change) {
    struct key key;
    key_begin(&key, LETTER_KEY);
    key_u64(&key, change->lsn);
    if (change->letter)
        ingest_put(file, key_view(&key), bytes_of(change->letter->bytes, change->letter->size));
    else
        ingest_delete(file, key_view(&key));
}

int letters_write(const struct letters *const *lists, size_t n, struct ingest *file) {
    CLEANUP(buffer_deinit) struct buffer all = BUFFER_INIT;
    for (size_t i = 0; i < n; i++)
        gather(lists[i], &all);
    int r = buffer_check(&all);
    if (r < 0)
        return error_trace(r);
    const struct change *changes = (void *)all.data;
    size_t n_changes = all.size / sizeof *changes;
    if (n_changes > 1)
        qsort(all.data, n_changes, sizeof *changes, compare);
    for (size_t i = 0; i < n_changes; i++)
        if (i == 0 || changes[i].lsn != changes[i - 1].lsn)
            write_change(file, &changes[i]);
    return 0;
}

/* ---- Reading ---- */

bool letter_decode(struct bytes value, struct work_letter *ret_letter) {
    struct reader r = reader_of(value);
    struct work_letter letter = {0};
    letter.record.kind = reader_u8(&r);
    letter.record.flags = reader_u8(&r);
    letter.record.key_hash = reader_u64(&r);
    letter.record.wall_us = reader_u64(&r);
    letter.record.payload = reader_block(&r);
    letter.reason = reader_block(&r);
    if (r.failed || r.at != r.end)
        return false;
    *ret_letter = letter;
    return true;
}

int letters_load(struct base *base, struct work_letters *index) {
    struct base_cursor cursor;
    struct bytes key, value;
    struct work_letter letter;
    struct key first;
    int r = 0, error = 0, damage = 0;
    key_begin(&first, LETTER_KEY);
    base_cursor_init(&cursor, base, true);
    for (base_cursor_seek(&cursor, key_view(&first));
         r == 0 && base_cursor_at(&cursor, &key, &value, &error) && key.data[0] == LETTER_KEY;
         base_cursor_advance(&cursor)) {
        if (key.size == 1 + sizeof(lsn_t) && letter_decode(value, &letter))
            r = work_letters_add(index, be64toh(load_u64(key.data + 1)), letter.record.key_hash);
        else
            damage = -EBADMSG;
    }
    base_cursor_deinit(&cursor);
    r = r ? r : error;
    return r ? error_trace(r) : damage;
}

static const struct letter *find(const struct letters_source *source, lsn_t lsn) {
    for (size_t i = 0; i < source->n_lists; i++)
        for (const struct letter *l = source->newest[i]; l; l = l->next)
            if (l->lsn == lsn)
                return l;
    return NULL;
}

static void give(const struct letters_source *source, lsn_t lsn, struct bytes value,
                 void (*each)(void *context, const struct work_letter *letter), void *context) {
    struct work_letter letter;
    if (!letter_decode(value, &letter))
        return;
    letter.record.lsn = lsn;
    if (work_letters_find(source->index, lsn, letter.record.key_hash, &letter.changed))
        each(context, &letter);
}

int letters_read(const struct letters_source *source, const lsn_t *lsns, size_t n,
                 void (*each)(void *context, const struct work_letter *letter), void *context) {
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        CLEANUP(pinned_deinit) rocksdb_pinnableslice_t *slice = NULL;
        const struct letter *l = find(source, lsns[i]);
        struct key key;
        if (l) {
            give(source, lsns[i], bytes_of(l->bytes, l->size), each, context);
            continue;
        }
        key_begin(&key, LETTER_KEY);
        key_u64(&key, lsns[i]);
        r = base_get(source->base, key_view(&key), &slice);
        if (r == 0 && slice)
            give(source, lsns[i], pinned_bytes(slice), each, context);
    }
    return error_trace(r);
}
