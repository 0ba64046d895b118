/* SPDX-License-Identifier: Apache-2.0 */
/* Dead letters of all kinds: see letters.h. */
#include "serve/letters.h"

#include "base/json.h"
#include "base/time_text.h"
#include "events/api.h"
#include "points/api.h"
#include "tasks/api.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static const struct work_letter_kind *const kinds[DATA_STORES] = {
    [DATA_POINTS] = &points_letters,
    [DATA_EVENTS] = &events_letters,
    [DATA_TASKS] = &tasks_letters,
};

/* ---- Kinds ---- */

/* NULL: the directory was opened without it; or processes share the store, and nobody asks it. */
static struct work_letters *index_of(const struct letters_of *l, unsigned kind) {
    const struct data_store *store = &l->data->stores[kind];
    bool there = store->ops && (!l->data->shared || kind == DATA_POINTS);
    return there ? store->ops->work->letters(store->store) : NULL;
}

const char *letters_kind_name(const struct letters_of *l, enum data_store_kind kind) {
    return l->data->stores[kind].ops->work->name;
}

bool letters_kind(const struct letters_of *l, struct bytes name, enum data_store_kind *ret_kind) {
    for (unsigned i = 0; i < DATA_STORES; i++)
        if (index_of(l, i) && bytes_equal(name, bytes_of_string(letters_kind_name(l, i)))) {
            *ret_kind = (enum data_store_kind)i;
            return true;
        }
    return false;
}

/* ---- Reading ---- */

void letters_show_json(struct buffer *out, const struct letter_shown *shown) {
    const struct work_letter *letter = shown->letter;
    char at[TIME_TEXT_BYTES + 1];
    time_text((int64_t)letter->record.wall_us, at);
    buffer_append_format(out, "{\"kind\":\"%s\",\"number\":%" PRIu64 ",\"key\":", shown->kind,
                         letter->record.lsn);
    json_append_string(out, shown->key);
    buffer_append_format(out, ",\"at\":\"%s\",\"reason\":", at);
    json_append_string(out, letter->reason);
    buffer_append_format(out, ",\"bytes\":%zu,\"changed\":%s", letter->record.payload.size,
                         letter->changed ? "true" : "false");
}

static void show(struct letters_of *l, unsigned kind, const struct work_letter *letter,
                 letters_show *show_one, struct buffer *out) {
    CLEANUP(buffer_deinit) struct buffer key = BUFFER_INIT;
    kinds[kind]->append_key(l->apis[kind], letter, &key);
    const struct letter_shown shown = {.kind = letters_kind_name(l, (enum data_store_kind)kind),
                                       .letter = letter,
                                       .key = buffer_bytes(&key)};
    show_one(out, &shown);
    out->failed |= key.failed;
}

/* Letters of a page, whose kinds are read one after the other: so their texts are kept apart. */
struct row {
    lsn_t lsn;
    unsigned kind;
    size_t at; /* of its text */
    size_t size;
};
struct page {
    struct letters_of *letters;
    letters_show *show;
    struct buffer texts;
    struct row *rows;
    size_t n;
    unsigned kind; /* being read */
};

static void page_deinit(struct page *p) {
    buffer_deinit(&p->texts);
    free(p->rows);
}

static int compare_rows(const void *a, const void *b) {
    const struct row *x = a, *y = b;
    return (x->lsn < y->lsn) - (x->lsn > y->lsn);
}

/* One more than the page has, of each kind: then it is known whether there is a next. */
static int gather(struct page *p, const struct letters_query *q, lsn_t *lsns) {
    int r = 0;
    p->rows = calloc(DATA_STORES * (q->limit + 1), sizeof *p->rows);
    if (!p->rows)
        return error_origin(-ENOMEM);
    for (unsigned kind = 0; kind < DATA_STORES && r == 0; kind++) {
        struct work_letters *index = index_of(p->letters, kind);
        size_t n = 0;
        if (index && (q->kind == kind || q->kind == DATA_STORES))
            r = work_letters_page(index, q->below, q->limit + 1, lsns, &n);
        for (size_t i = 0; i < n; i++)
            p->rows[p->n++] = (struct row){.lsn = lsns[i], .kind = kind};
    }
    if (p->n)
        qsort(p->rows, p->n, sizeof *p->rows, compare_rows);
    return error_trace(r);
}

static void take_text(void *context, const struct work_letter *letter) {
    struct page *p = context;
    const struct row wanted = {.lsn = letter->record.lsn};
    struct row *row = bsearch(&wanted, p->rows, p->n, sizeof *row, compare_rows);
    if (!row)
        return;
    row->at = p->texts.size;
    show(p->letters, p->kind, letter, p->show, &p->texts);
    row->size = p->texts.size - row->at;
}

static int read_kinds(struct page *p, lsn_t *lsns) {
    int r = 0;
    for (p->kind = 0; p->kind < DATA_STORES && r == 0; p->kind++) {
        const struct data_store *store = &p->letters->data->stores[p->kind];
        size_t n = 0;
        for (size_t i = 0; i < p->n; i++)
            if (p->rows[i].kind == p->kind)
                lsns[n++] = p->rows[i].lsn;
        if (n)
            r = store->ops->work->read_letters(store->store, lsns, n, take_text, p);
    }
    return r ? error_trace(r) : buffer_check(&p->texts);
}

/* One that went in between has no text. */
static size_t append_rows(const struct page *p, const char *between, struct buffer *out) {
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (!p->rows[i].size)
            continue;
        if (n++)
            buffer_append_string(out, between);
        buffer_append(out, p->texts.data + p->rows[i].at, p->rows[i].size);
    }
    return n;
}

static int list(struct page *p, const struct letters_query *q, struct buffer *out, size_t *ret_n,
                lsn_t *ret_next) {
    lsn_t *lsns = calloc(q->limit + 1, sizeof *lsns);
    lsn_t next = 0;
    int r = lsns ? gather(p, q, lsns) : error_origin(-ENOMEM);
    if (p->n > q->limit) {
        p->n = q->limit;
        next = p->rows[p->n - 1].lsn;
    }
    if (r == 0)
        r = read_kinds(p, lsns);
    free(lsns);
    if (r)
        return error_trace(r);
    *ret_n = append_rows(p, q->between, out);
    *ret_next = next;
    return error_trace(buffer_check(out));
}

int letters_list(struct letters_of *l, const struct letters_query *q, struct buffer *out,
                 size_t *ret_n, lsn_t *ret_next) {
    struct page p = {.letters = l, .show = q->show};
    int r = list(&p, q, out, ret_n, ret_next);
    page_deinit(&p);
    return error_trace(r);
}

/* ---- One ---- */

void letter_held_deinit(struct letter_held *h) {
    buffer_deinit(&h->bytes);
}

static void take_copy(void *context, const struct work_letter *letter) {
    struct letter_held *h = context;
    size_t payload = letter->record.payload.size;
    buffer_clear(&h->bytes);
    buffer_append_bytes(&h->bytes, letter->record.payload);
    buffer_append_bytes(&h->bytes, letter->reason);
    h->letter = *letter;
    if (h->bytes.failed)
        return;
    h->letter.record.payload = bytes_of(h->bytes.data, payload);
    h->letter.reason = bytes_of(h->bytes.data + payload, letter->reason.size);
}

int letters_get(struct letters_of *l, enum data_store_kind kind, lsn_t number,
                struct letter_held *ret_held) {
    const struct data_store *store = &l->data->stores[kind];
    struct letter_held held = {.kind = kind};
    int r = store->ops->work->read_letters(store->store, &number, 1, take_copy, &held);
    if (r == 0)
        r = buffer_check(&held.bytes);
    if (r == 0 && held.letter.record.lsn != number)
        r = LETTERS_E_NOT_FOUND;
    if (r) {
        letter_held_deinit(&held);
        return r > 0 ? r : error_trace(r);
    }
    *ret_held = held;
    return 0;
}

void letters_append(struct letters_of *l, const struct letter_held *held, letters_show *show_one,
                    struct buffer *out) {
    show(l, held->kind, &held->letter, show_one, out);
}

int letters_append_record(struct letters_of *l, const struct letter_held *held, struct buffer *out,
                          char sentence[WORK_LETTER_SENTENCE]) {
    return kinds[held->kind]->append_record(l->apis[held->kind], &held->letter, out, sentence);
}

/* ---- What becomes of it ---- */

int letters_replay(struct letters_of *l, const struct letter_held *held,
                   struct work_letter_replay *replay) {
    replay->letter = &held->letter;
    return kinds[held->kind]->replay(l->apis[held->kind], replay);
}

int letters_drop(struct letters_of *l, enum data_store_kind kind, lsn_t number, lsn_t *ret_lsn,
                 uint64_t *ret_key_hash, int *ret_condition) {
    CLEANUP(buffer_deinit) struct buffer bytes = BUFFER_INIT;
    const struct work_letter_record about = {.op = WORK_LETTER_DROP, .letter = number};
    struct journal_record record = {.kind = (uint8_t)l->data->stores[kind].ops->work->kind,
                                    .flags = JOURNAL_LETTER | JOURNAL_DELETES};
    if (!work_letters_hash_of(index_of(l, kind), number, &record.key_hash))
        return LETTERS_E_NOT_FOUND;
    work_letter_encode(&bytes, &about);
    int r = buffer_check(&bytes);
    record.payload = buffer_bytes(&bytes);
    if (r == 0)
        r = journal_append(l->data->journal, &record, 1);
    if (r > 0) {
        *ret_condition = r;
        return WORK_LETTER_E_JOURNAL;
    }
    *ret_lsn = record.lsn;
    *ret_key_hash = record.key_hash;
    return error_trace(r);
}
