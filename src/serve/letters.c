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

static const struct letter_box *box_of(const struct letters_of *l, unsigned kind) {
    return &l->data->stores[kind].letters;
}

static const char *kind_name(const struct letters_of *l, enum data_store_kind kind) {
    return l->data->stores[kind].ops->work->name;
}

bool letters_kind(const struct letters_of *l, struct bytes name, enum data_store_kind *ret_kind) {
    for (unsigned i = 0; i < DATA_STORES; i++)
        if (box_of(l, i)->ops && bytes_equal(name, bytes_of_string(kind_name(l, i)))) {
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
                         letter->changed == WORK_LETTER_NOBODY_KNOWS ? "null"
                         : letter->changed                           ? "true"
                                                                     : "false");
}

static void show(struct letters_of *l, unsigned kind, const struct work_letter *letter,
                 letters_show *show_one, struct buffer *out) {
    CLEANUP(buffer_deinit) struct buffer key = BUFFER_INIT;
    kinds[kind]->append_key(l->apis[kind], letter, &key);
    const struct letter_shown shown = {.kind = kind_name(l, (enum data_store_kind)kind),
                                       .letter = letter,
                                       .key = buffer_bytes(&key)};
    show_one(out, &shown);
    out->failed |= key.failed;
}

/* Letters of a page, whose kinds are read one after the other: so their texts are kept apart. */
struct row {
    struct letters_place place;
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
    const struct letters_place *x = &((const struct row *)a)->place;
    const struct letters_place *y = &((const struct row *)b)->place;
    int order = (x->number < y->number) - (x->number > y->number);
    return order ? order : (x->kind > y->kind) - (x->kind < y->kind);
}

/* One more than the page has, of each kind: then it is known whether there is a next. */
static int gather(struct page *p, const struct letters_query *q, lsn_t *numbers,
                  char why[WORK_LETTER_WHY_MAX]) {
    int r = 0;
    p->rows = calloc(DATA_STORES * (q->limit + 1), sizeof *p->rows);
    if (!p->rows)
        return error_origin(-ENOMEM);
    for (unsigned kind = 0; kind < DATA_STORES && r == 0; kind++) {
        const struct letter_box *box = box_of(p->letters, kind);
        lsn_t below = q->from.number ? q->from.number + (kind > q->from.kind) : 0;
        size_t n = 0;
        if (box->ops && (q->kind == kind || q->kind == DATA_STORES))
            r = box->ops->page(box->store, below, q->limit + 1, numbers, &n, why);
        for (size_t i = 0; i < n; i++)
            p->rows[p->n++] = (struct row){.place = {.number = numbers[i], .kind = kind}};
    }
    if (p->n)
        qsort(p->rows, p->n, sizeof *p->rows, compare_rows);
    return error_trace(r);
}

static void take_text(void *context, const struct work_letter *letter) {
    struct page *p = context;
    const struct row wanted = {.place = {.number = letter->record.lsn, .kind = p->kind}};
    struct row *row = bsearch(&wanted, p->rows, p->n, sizeof *row, compare_rows);
    if (!row)
        return;
    row->at = p->texts.size;
    show(p->letters, p->kind, letter, p->show, &p->texts);
    row->size = p->texts.size - row->at;
}

static int read_kinds(struct page *p, lsn_t *numbers, char why[WORK_LETTER_WHY_MAX]) {
    int r = 0;
    for (p->kind = 0; p->kind < DATA_STORES && r == 0; p->kind++) {
        const struct letter_box *box = box_of(p->letters, p->kind);
        size_t n = 0;
        for (size_t i = 0; i < p->n; i++)
            if (p->rows[i].place.kind == p->kind)
                numbers[n++] = p->rows[i].place.number;
        if (n)
            r = box->ops->read(box->store, numbers, n, take_text, p, why);
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
                struct letters_place *ret_next, char why[WORK_LETTER_WHY_MAX]) {
    lsn_t *numbers = calloc(q->limit + 1, sizeof *numbers);
    struct letters_place next = {0};
    int r = numbers ? gather(p, q, numbers, why) : error_origin(-ENOMEM);
    if (p->n > q->limit) {
        p->n = q->limit;
        next = p->rows[p->n - 1].place;
    }
    if (r == 0)
        r = read_kinds(p, numbers, why);
    free(numbers);
    if (r)
        return error_trace(r);
    *ret_n = append_rows(p, q->between, out);
    *ret_next = next;
    return error_trace(buffer_check(out));
}

int letters_list(struct letters_of *l, const struct letters_query *q, struct buffer *out,
                 size_t *ret_n, struct letters_place *ret_next, char why[WORK_LETTER_WHY_MAX]) {
    struct page p = {.letters = l, .show = q->show};
    int r = list(&p, q, out, ret_n, ret_next, why);
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
                struct letter_held *ret_held, char why[WORK_LETTER_WHY_MAX]) {
    const struct letter_box *box = box_of(l, kind);
    struct letter_held held = {.kind = kind};
    int r = box->ops ? box->ops->read(box->store, &number, 1, take_copy, &held, why)
                     : WORK_LETTER_E_GONE;
    if (r == 0)
        r = buffer_check(&held.bytes);
    if (r == 0 && (number == 0 || held.letter.record.lsn != number)) /* none has 0 */
        r = WORK_LETTER_E_GONE;
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
    const struct data_store *store = &l->data->stores[kind];
    const struct work_letter_record about = {.op = WORK_LETTER_DROP, .letter = number};
    struct journal_record record = {.kind = (uint8_t)store->ops->work->kind,
                                    .flags = JOURNAL_LETTER | JOURNAL_DELETES};
    struct work_letters *index = store->ops->work->letters(store->store);
    if (!work_letters_hash_of(index, number, &record.key_hash))
        return WORK_LETTER_E_GONE;
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

/* ---- What becomes of one that processes share ---- */

const char letters_unforced[] =
    "whether its key was written since is known to nobody where processes share a journal; `force` "
    "writes it again all the same";

bool letters_must_be_forced(const struct letters_of *l, enum data_store_kind kind) {
    const struct letter_box *box = box_of(l, kind);
    return box->ops && box->ops->overwrites;
}

int letters_drop_shared(struct letters_of *l, enum data_store_kind kind, lsn_t number,
                        char why[WORK_LETTER_WHY_MAX]) {
    const struct letter_box *box = box_of(l, kind);
    return error_trace(box->ops->drop(box->store, number, why));
}

int letters_settle(struct letters_of *l, const struct letter_held *held,
                   const struct work_letter_replay *replay, bool *ret_gone,
                   char why[WORK_LETTER_WHY_MAX]) {
    enum { DURABLE_MS = 5000, APPLIED_MS = 2000, AGAIN_MS = 10 };
    const struct letter_box *box = box_of(l, held->kind);
    struct journal *journal = l->data->stores[held->kind].journal;
    struct os *os = l->data->os;
    bool gone = false;
    if (journal_wait(journal, replay->last, DURABLE_MS) ||
        replay->first <= journal_unknown(journal))
        return WORK_LETTER_E_JOURNAL;
    uint64_t end_ns = os_monotonic_ns(os) + APPLIED_MS * UINT64_C(1000000);
    int r = box->ops->settle(box->store, held->letter.record.lsn, &gone, why);
    while (!r && !gone && os_monotonic_ns(os) < end_ns) {
        os_sleep_ns(os, AGAIN_MS * UINT64_C(1000000));
        r = box->ops->settle(box->store, held->letter.record.lsn, &gone, why);
    }
    *ret_gone = gone;
    return error_trace(r);
}
