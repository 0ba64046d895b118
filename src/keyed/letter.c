/* SPDX-License-Identifier: Apache-2.0 */
/* Dead letters: see letter.h. */
#include "keyed/letter.h"

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
    *l = (struct letters){0};
}

static void encode(struct buffer *out, const struct journal_record *record, const char *reason) {
    buffer_append_u8(out, record->kind);
    buffer_append_u8(out, record->flags);
    buffer_append_u64(out, record->key_hash);
    buffer_append_u64(out, record->wall_us);
    buffer_append_block(out, record->payload);
    buffer_append_block(out, bytes_of_string(reason));
}

int letters_add(struct letters *l, const struct journal_record *record, const char *reason,
                size_t *bytes) {
    CLEANUP(buffer_deinit) struct buffer value = BUFFER_INIT;
    encode(&value, record, reason);
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

static int compare(const void *a, const void *b) {
    const struct letter *x = *(const struct letter *const *)a;
    const struct letter *y = *(const struct letter *const *)b;
    return (x->lsn > y->lsn) - (x->lsn < y->lsn);
}

int letters_write(const struct letters *const *lists, size_t n, struct ingest *file) {
    CLEANUP(buffer_deinit) struct buffer all = BUFFER_INIT;
    for (size_t i = 0; i < n; i++)
        for (const struct letter *l = lists[i]->newest; l; l = l->next)
            buffer_append(&all, &l, sizeof l);
    int r = buffer_check(&all);
    if (r < 0)
        return error_trace(r);
    const struct letter **letters = (void *)all.data;
    size_t n_letters = all.size / sizeof *letters;
    if (n_letters > 1)
        qsort(letters, n_letters, sizeof *letters, compare);
    for (size_t i = 0; i < n_letters; i++) {
        struct key key;
        key_begin(&key, LETTER_KEY);
        key_u64(&key, letters[i]->lsn);
        ingest_put(file, key_view(&key), bytes_of(letters[i]->bytes, letters[i]->size));
    }
    return 0;
}

bool letter_is_sound(struct bytes value) {
    struct reader r = reader_of(value);
    reader_u8(&r);
    reader_u8(&r);
    reader_u64(&r);
    reader_u64(&r);
    reader_block(&r);
    reader_block(&r);
    return !r.failed && r.at == r.end;
}
