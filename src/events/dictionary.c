/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One hash table holds all collections: its key is (number of the collection, text). The names of
 * collections are entries of it too, in the collection numbered 0.
 *
 *   table ──▶ slots ──▶ entry ◀── collection.entries[id - 1]
 *                         ▲
 *                         └────── order[number], for the checkpoint
 *
 * Reading takes no lock: an entry is complete before its slot is set, slots are never emptied, a
 * table that is outgrown stays until the end (all of them together are as large as the last), and
 * vectors grow by segments that never move. Numbers of entries are published last, so that whoever
 * sees a number finds the entry.
 *
 * Writing: entries that an append brings (struct birth) are known to nobody until the journal took
 * them. What could fail is done before; publishing cannot fail.
 */
#include "events/dictionary.h"

#include "base/error.h"
#include "base/hash.h"
#include "os/sync.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#define BYTES_MAX_DEFAULT (UINT64_C(256) << 20)

enum {
#ifdef MILLRACE_TINY
    TABLE_FIRST_SLOTS = 8,
    SEGMENT_FIRST_SLOTS = 2,
#else
    TABLE_FIRST_SLOTS = 1024,
    SEGMENT_FIRST_SLOTS = 16,
#endif
    SEGMENTS_MAX = 31,
    LOST_MAX = 1 << 16, /* ids on end whose elements may be lost */
    /* What an entry costs beside itself: up to 4 slots here and 4 in older tables, up to two in
     * each of two vectors, what malloc adds. */
    BOOKKEEPING_BYTES = 8 * 8 + 2 * 2 * 8 + 16,
};

struct entry {
    uint64_t hash;
    lsn_t lsn; /* of its record; of a collection's name 0 */
    uint32_t collection;
    uint32_t id; /* of a collection's name: the collection's number */
    uint32_t size;
    uint8_t text[];
};

/* ---- Vectors: segment k has SEGMENT_FIRST_SLOTS << k slots, and stays where it is ---- */

typedef _Atomic(void *) slot;
struct vector {
    _Atomic(slot *) segments[SEGMENTS_MAX];
};

static unsigned segment_of(uint64_t i, uint64_t *ret_offset) {
    uint64_t place = i + SEGMENT_FIRST_SLOTS;
    unsigned k = (unsigned)(__builtin_clzll(SEGMENT_FIRST_SLOTS) - __builtin_clzll(place));
    *ret_offset = place - ((uint64_t)SEGMENT_FIRST_SLOTS << k);
    return k;
}

/* Makes room for the element at i; those before it have theirs. */
static int vector_reserve(struct vector *v, uint64_t i) {
    uint64_t offset;
    unsigned k = segment_of(i, &offset);
    assert(k < SEGMENTS_MAX);
    if (atomic_load_explicit(&v->segments[k], memory_order_relaxed))
        return 0;
    slot *segment = calloc((size_t)SEGMENT_FIRST_SLOTS << k, sizeof *segment);
    if (!segment)
        return error_origin(-ENOMEM);
    atomic_store_explicit(&v->segments[k], segment, memory_order_release);
    return 0;
}

static slot *vector_slot(const struct vector *v, uint64_t i) {
    uint64_t offset;
    unsigned k = segment_of(i, &offset);
    return atomic_load_explicit(&v->segments[k], memory_order_acquire) + offset;
}

static void vector_set(struct vector *v, uint64_t i, void *element) {
    atomic_store_explicit(vector_slot(v, i), element, memory_order_release);
}

/* Of an element whose number was published. */
static void *vector_get(const struct vector *v, uint64_t i) {
    return atomic_load_explicit(vector_slot(v, i), memory_order_acquire);
}

static void vector_deinit(struct vector *v) {
    for (size_t k = 0; k < SEGMENTS_MAX; k++)
        free(atomic_load_explicit(&v->segments[k], memory_order_relaxed));
}

/* ---- Tables: linear probing, at most half full ---- */

struct table {
    struct table *older;
    size_t n;
    size_t mask; /* slots - 1 */
    slot slots[];
};

static struct table *table_new(size_t slots) {
    struct table *t = calloc(1, sizeof *t + slots * sizeof(slot));
    if (t)
        t->mask = slots - 1;
    return t;
}

static uint64_t hash_of(uint32_t collection, struct bytes text) {
    return hash64_u64(hash64(text.data, text.size) + collection);
}

static struct entry *table_find(const struct table *t, uint64_t hash, uint32_t collection,
                                struct bytes text) {
    for (size_t i = hash & t->mask;; i = (i + 1) & t->mask) {
        struct entry *e = atomic_load_explicit(&t->slots[i], memory_order_acquire);
        if (!e)
            return NULL;
        if (e->hash == hash && e->collection == collection &&
            bytes_equal(bytes_of(e->text, e->size), text))
            return e;
    }
}

static void table_put(struct table *t, struct entry *e) {
    size_t i = e->hash & t->mask;
    while (atomic_load_explicit(&t->slots[i], memory_order_relaxed))
        i = (i + 1) & t->mask;
    atomic_store_explicit(&t->slots[i], e, memory_order_release);
    t->n++;
    assert(2 * t->n <= t->mask + 1);
}

/* ---- The dictionary ---- */

struct collection {
    struct entry *name;
    struct vector entries;
    _Atomic uint32_t n; /* published */
    uint32_t born;      /* the last id given, published or not; under the lock */
};

struct event_dictionary {
    struct mutex lock;
    uint64_t bytes_max;
    struct budget *budget;
    _Atomic(struct table *) table;
    struct vector collections; /* struct collection, by number - 1 */
    _Atomic uint32_t n_collections;
    struct vector order; /* struct entry, by number */
    _Atomic uint64_t n;
    _Atomic uint64_t lost;
    uint64_t bytes; /* under the lock */
};

static struct table *table_of(const struct event_dictionary *d) {
    return atomic_load_explicit(&d->table, memory_order_acquire);
}

static struct entry *find(const struct event_dictionary *d, uint32_t collection,
                          struct bytes text) {
    return table_find(table_of(d), hash_of(collection, text), collection, text);
}

static struct collection *collection_by_number(const struct event_dictionary *d, uint32_t number) {
    if (number == 0 || number > atomic_load_explicit(&d->n_collections, memory_order_acquire))
        return NULL;
    return vector_get(&d->collections, number - 1);
}

/* Room for so many entries more. */
static int reserve_table(struct event_dictionary *d, size_t more) {
    struct table *old = table_of(d);
    size_t slots = old->mask + 1;
    while (2 * (old->n + more) > slots)
        slots *= 2;
    if (slots == old->mask + 1)
        return 0;
    struct table *t = table_new(slots);
    if (!t)
        return error_origin(-ENOMEM);
    for (size_t i = 0; i <= old->mask; i++) {
        struct entry *e = atomic_load_explicit(&old->slots[i], memory_order_relaxed);
        if (e)
            table_put(t, e);
    }
    t->older = old;
    atomic_store_explicit(&d->table, t, memory_order_release);
    return 0;
}

static uint64_t entry_bytes(size_t text_size) {
    return sizeof(struct entry) + text_size + BOOKKEEPING_BYTES;
}

static bool is_full(const struct event_dictionary *d, uint64_t more) {
    return d->bytes + more > d->bytes_max;
}

static void count_bytes(struct event_dictionary *d, uint64_t more) {
    d->bytes += more;
    budget_add(d->budget, BUDGET_DICTIONARY, more);
}

static struct entry *entry_new(uint32_t collection, struct bytes text) {
    struct entry *e = malloc(sizeof *e + text.size);
    if (!e)
        return NULL;
    *e = (struct entry){
        .hash = hash_of(collection, text), .collection = collection, .size = (uint32_t)text.size};
    if (text.size)
        memcpy(e->text, text.data, text.size);
    return e;
}

static void collection_free(struct collection *c) {
    vector_deinit(&c->entries);
    free(c->name);
    free(c);
}

static int collection_new(struct bytes name, struct collection **ret_collection) {
    struct collection *c = calloc(1, sizeof *c);
    if (!c)
        return error_origin(-ENOMEM);
    c->name = entry_new(EVENT_COLLECTION_NONE, name);
    if (!c->name) {
        collection_free(c);
        return error_origin(-ENOMEM);
    }
    *ret_collection = c;
    return 0;
}

/* Gives it the next number. It exists for nobody before it has an element, so that it may stay when
 * that element is refused. */
static int collection_add(struct event_dictionary *d, struct bytes name,
                          struct collection **ret_collection) {
    struct collection *c = NULL;
    uint32_t n = atomic_load_explicit(&d->n_collections, memory_order_relaxed);
    int r = collection_new(name, &c);
    if (r)
        return error_trace(r);
    assert(c);
    r = reserve_table(d, 1);
    if (!r)
        r = vector_reserve(&d->collections, n);
    if (r) {
        collection_free(c);
        return error_trace(r);
    }
    c->name->id = n + 1;
    count_bytes(d, sizeof *c + entry_bytes(name.size));
    vector_set(&d->collections, n, c);
    atomic_store_explicit(&d->n_collections, n + 1, memory_order_release);
    table_put(table_of(d), c->name);
    *ret_collection = c;
    return 0;
}

/* bounded: EVENTS_E_FULL when there is no room for a new one. */
static int collection_get(struct event_dictionary *d, struct bytes name, bool bounded,
                          struct collection **ret_collection) {
    struct entry *e = find(d, EVENT_COLLECTION_NONE, name);
    if (e) {
        *ret_collection = collection_by_number(d, e->id);
        return 0;
    }
    if (bounded && is_full(d, sizeof(struct collection) + entry_bytes(name.size)))
        return EVENTS_E_FULL;
    return error_trace(collection_add(d, name, ret_collection));
}

static int add_fixed_collections(struct event_dictionary *d) {
    static const char *const names[] = {
#define EVENT_FIELD(id, parent, name, role, collection, sentence) collection,
#include "events/schema.def"
    };
    uint32_t added = EVENT_COLLECTION_NONE;
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        struct collection *c = NULL;
        if (*names[i] == '\0')
            continue;
        int r = collection_get(d, bytes_of_string(names[i]), false, &c);
        if (r)
            return error_trace(r);
        assert(c);
        added = c->name->id;
    }
    assert(added == EVENT_COLLECTIONS_FIXED - 1);
    return 0;
}

static uint64_t bytes_max_of(const struct event_dictionary_options *options) {
    uint64_t bytes_max = options->bytes_max ? options->bytes_max : BYTES_MAX_DEFAULT;
    uint64_t part = budget_part(options->budget, BUDGET_DICTIONARY);
    return bytes_max < part ? bytes_max : part;
}

int event_dictionary_new(const struct event_dictionary_options *options,
                         struct event_dictionary **ret_dictionary) {
    struct event_dictionary *d = calloc(1, sizeof *d);
    if (!d)
        return error_origin(-ENOMEM);
    mutex_init(&d->lock, LOCK_RANK_EVENT_DICTIONARY);
    d->budget = options->budget;
    d->bytes_max = bytes_max_of(options);
    struct table *t = table_new(TABLE_FIRST_SLOTS);
    atomic_store_explicit(&d->table, t, memory_order_relaxed);
    int r = t ? add_fixed_collections(d) : error_origin(-ENOMEM);
    if (r) {
        event_dictionary_free(d);
        return error_trace(r);
    }
    *ret_dictionary = d;
    return 0;
}

struct event_dictionary *event_dictionary_free(struct event_dictionary *d) {
    if (!d)
        return NULL;
    for (uint64_t i = 0; i < atomic_load(&d->n); i++)
        free(vector_get(&d->order, i));
    for (uint32_t i = 0; i < atomic_load(&d->n_collections); i++)
        collection_free(vector_get(&d->collections, i));
    vector_deinit(&d->order);
    vector_deinit(&d->collections);
    for (struct table *t = table_of(d), *older; t; t = older) {
        older = t->older;
        free(t);
    }
    budget_give(d->budget, BUDGET_DICTIONARY, d->bytes);
    mutex_deinit(&d->lock);
    free(d);
    return NULL;
}

uint32_t event_dictionary_collection(const struct event_dictionary *d, struct bytes name) {
    struct entry *e = find(d, EVENT_COLLECTION_NONE, name);
    if (!e)
        return EVENT_COLLECTION_NONE;
    struct collection *c = collection_by_number(d, e->id);
    bool exists =
        e->id < EVENT_COLLECTIONS_FIXED || atomic_load_explicit(&c->n, memory_order_acquire) > 0;
    return exists ? e->id : EVENT_COLLECTION_NONE;
}

uint32_t event_dictionary_find(const struct event_dictionary *d, uint32_t collection,
                               struct bytes element, lsn_t *ret_lsn) {
    struct entry *e = collection == EVENT_COLLECTION_NONE ? NULL : find(d, collection, element);
    if (!e)
        return 0;
    if (ret_lsn)
        *ret_lsn = e->lsn;
    return e->id;
}

struct bytes event_dictionary_name(const struct event_dictionary *d, uint32_t collection) {
    const struct collection *c = collection_by_number(d, collection);
    return c ? bytes_of(c->name->text, c->name->size) : (struct bytes){0};
}

/* What uses an id may be applied, and read, before the thread that appended it has come to publish
 * it: that thread still has the lock. */
static bool is_published(const struct event_dictionary *d, struct collection *c, uint32_t id) {
    struct mutex *lock = (struct mutex *)&d->lock; /* not part of what is const */
    if (id <= atomic_load_explicit(&c->n, memory_order_acquire))
        return true;
    mutex_lock(lock);
    bool published = id <= atomic_load_explicit(&c->n, memory_order_relaxed);
    mutex_unlock(lock);
    return published;
}

struct bytes event_dictionary_text(const struct event_dictionary *d, uint32_t collection,
                                   uint32_t id) {
    struct collection *c = collection_by_number(d, collection);
    if (!c || id == 0 || !is_published(d, c, id))
        return (struct bytes){0};
    const struct entry *e = vector_get(&c->entries, id - 1);
    return e ? bytes_of(e->text, e->size) : (struct bytes){0};
}

/* ---- Births: what an append brings ---- */

struct birth {
    struct event_dictionary *d;
    struct entry **entries; /* in the order of their ids */
    size_t n;
    struct table *table; /* of them, to find duplicates */
    uint64_t bytes;
    struct buffer payloads;
    struct journal_record *records;
};

static void birth_deinit(struct birth *b) {
    free(b->entries);
    free(b->table);
    free(b->records);
    buffer_deinit(&b->payloads);
}

static int birth_init(struct birth *b, struct event_dictionary *d, size_t n_max) {
    size_t slots = 2;
    while (slots < 2 * n_max)
        slots *= 2;
    *b = (struct birth){.d = d, .payloads = BUFFER_INIT};
    b->entries = malloc((n_max + 1) * sizeof(struct entry *));
    b->table = table_new(slots);
    return b->entries && b->table ? 0 : error_origin(-ENOMEM);
}

/* As if none had been born. */
static void birth_undo(struct birth *b) {
    while (b->n > 0) {
        struct entry *e = b->entries[--b->n];
        struct collection *c = collection_by_number(b->d, e->collection);
        assert(c);
        c->born--;
        free(e);
    }
}

/* The next element of its collection. */
static int birth_add(struct birth *b, struct collection *c, struct bytes text, bool bounded,
                     struct entry **ret_entry) {
    uint64_t bytes = entry_bytes(text.size);
    if (bounded && (is_full(b->d, b->bytes + bytes) || c->born == INT32_MAX))
        return EVENTS_E_FULL;
    uint64_t number = atomic_load_explicit(&b->d->n, memory_order_relaxed) + b->n;
    int r = vector_reserve(&b->d->order, number);
    if (!r)
        r = vector_reserve(&c->entries, c->born);
    if (r)
        return error_trace(r);
    struct entry *e = entry_new(c->name->id, text);
    if (!e)
        return error_origin(-ENOMEM);
    e->id = ++c->born;
    b->bytes += bytes;
    b->entries[b->n++] = e;
    table_put(b->table, e);
    *ret_entry = e;
    return 0;
}

/* Finds or bears the element of a newcomer, and gives it its id. */
static int birth_of(struct birth *b, struct event_newcomer *newcomer) {
    struct collection *c = NULL;
    int r = collection_get(b->d, newcomer->collection, true, &c);
    if (r)
        return error_trace(r);
    assert(c);
    uint32_t number = c->name->id;
    uint64_t hash = hash_of(number, newcomer->element);
    struct entry *e = table_find(table_of(b->d), hash, number, newcomer->element);
    if (!e)
        e = table_find(b->table, hash, number, newcomer->element);
    if (!e)
        r = birth_add(b, c, newcomer->element, true, &e);
    if (r)
        return error_trace(r);
    newcomer->id = e->id;
    newcomer->lsn = e->lsn;
    return 0;
}

static int birth_of_all(struct birth *b, struct event_newcomer *newcomers, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int r = birth_of(b, &newcomers[i]);
        if (r)
            return error_trace(r);
    }
    return error_trace(reserve_table(b->d, b->n));
}

/* From now on they are known. */
static void birth_publish(struct birth *b) {
    struct event_dictionary *d = b->d;
    uint64_t number = atomic_load_explicit(&d->n, memory_order_relaxed);
    for (size_t i = 0; i < b->n; i++) {
        struct entry *e = b->entries[i];
        struct collection *c = collection_by_number(d, e->collection);
        vector_set(&c->entries, e->id - 1, e);
        vector_set(&d->order, number + i, e);
        atomic_store_explicit(&c->n, e->id, memory_order_release);
        table_put(table_of(d), e);
    }
    atomic_store_explicit(&d->n, number + b->n, memory_order_release);
    count_bytes(d, b->bytes);
}

/* Encodes the EVENT_ELEMENT records, the caller's behind them. */
static int birth_records(struct birth *b, const struct journal_record *records, size_t n) {
    size_t at = 0;
    b->records = calloc(b->n + n + 1, sizeof *b->records);
    if (!b->records)
        return error_origin(-ENOMEM);
    for (size_t i = 0; i < b->n; i++) {
        const struct entry *e = b->entries[i];
        struct bytes name = event_dictionary_name(b->d, e->collection);
        event_record_encode_element(&b->payloads, name, e->id, bytes_of(e->text, e->size));
        b->records[i] = (struct journal_record){.key_hash = hash64(name.data, name.size),
                                                .kind = JOURNAL_KIND_EVENTS,
                                                .payload.size = b->payloads.size - at};
        at = b->payloads.size;
    }
    int r = buffer_check(&b->payloads);
    if (r)
        return error_trace(r);
    at = 0;
    for (size_t i = 0; i < b->n; i++) { /* the bytes move no more */
        b->records[i].payload.data = b->payloads.data + at;
        at += b->records[i].payload.size;
    }
    if (n)
        memcpy(b->records + b->n, records, n * sizeof *records);
    return 0;
}

static int birth_append(struct birth *b, struct journal *j, struct journal_record *records,
                        size_t n, lsn_t *ret_first, lsn_t *ret_last, int *ret_condition) {
    size_t total = b->n + n;
    if (total == 0) {
        *ret_first = *ret_last = 0;
        return 0;
    }
    int r = birth_records(b, records, n);
    if (r)
        return error_trace(r);
    r = journal_append(j, b->records, total);
    if (r > 0) {
        *ret_condition = r;
        return EVENTS_E_JOURNAL;
    }
    if (r)
        return error_trace(r);
    for (size_t i = 0; i < b->n; i++)
        b->entries[i]->lsn = b->records[i].lsn;
    if (n)
        memcpy(records, b->records + b->n, n * sizeof *records);
    *ret_first = b->records[0].lsn;
    *ret_last = b->records[total - 1].lsn;
    return 0;
}

/* The lsns of those that were born just now. */
static void tell_lsns(const struct event_dictionary *d, struct event_newcomer *newcomers,
                      size_t n) {
    for (size_t i = 0; i < n; i++)
        if (newcomers[i].lsn == 0)
            (void)event_dictionary_find(d, event_dictionary_collection(d, newcomers[i].collection),
                                        newcomers[i].element, &newcomers[i].lsn);
}

int event_dictionary_append(struct event_dictionary *d, struct journal *j,
                            struct event_newcomer *newcomers, size_t n_newcomers,
                            void (*place)(void *context), void *context,
                            struct journal_record *records, size_t n, lsn_t *ret_first,
                            lsn_t *ret_last, int *ret_condition) {
    struct birth b;
    int r = birth_init(&b, d, n_newcomers);
    mutex_lock(&d->lock);
    if (!r)
        r = birth_of_all(&b, newcomers, n_newcomers);
    if (!r && place)
        place(context);
    if (!r)
        r = birth_append(&b, j, records, n, ret_first, ret_last, ret_condition);
    if (r)
        birth_undo(&b);
    else
        birth_publish(&b);
    mutex_unlock(&d->lock);
    birth_deinit(&b);
    if (!r)
        tell_lsns(d, newcomers, n_newcomers);
    return error_trace(r);
}

/* ---- Elements that were born in an earlier life ---- */

/* Ids between, whose records the journal lost to damage, stay without an element: what used them
 * must not come to mean another. */
static int adopt_new(struct birth *b, struct collection *c, lsn_t lsn, uint32_t id,
                     struct bytes element) {
    struct entry *e;
    int r = 0;
    for (; !r && c->born < id - 1; c->born++)
        r = vector_reserve(&c->entries, c->born);
    if (!r)
        r = birth_add(b, c, element, false, &e);
    if (!r)
        r = reserve_table(b->d, 1);
    if (r) {
        birth_undo(b);
        return error_fold(r);
    }
    e->lsn = lsn;
    birth_publish(b);
    return 0;
}

/* An element whose id was left out as lost. */
static int adopt_lost(struct event_dictionary *d, struct collection *c, lsn_t lsn, uint32_t id,
                      struct bytes element) {
    uint64_t number = atomic_load_explicit(&d->n, memory_order_relaxed);
    int r = vector_reserve(&d->order, number);
    if (!r)
        r = reserve_table(d, 1);
    struct entry *e = r ? NULL : entry_new(c->name->id, element);
    if (!e)
        return error_origin(-ENOMEM);
    e->id = id;
    e->lsn = lsn;
    count_bytes(d, entry_bytes(element.size));
    vector_set(&c->entries, id - 1, e);
    vector_set(&d->order, number, e);
    if (id > atomic_load_explicit(&c->n, memory_order_relaxed))
        atomic_store_explicit(&c->n, id, memory_order_release);
    table_put(table_of(d), e);
    atomic_store_explicit(&d->n, number + 1, memory_order_release);
    return 0;
}

/* Under the lock. known: that it is there already is no fault. */
static int adopt(struct event_dictionary *d, lsn_t lsn, struct bytes collection, uint32_t id,
                 struct bytes element, bool known) {
    struct collection *c = NULL;
    struct birth b;
    int r = collection_get(d, collection, false, &c);
    if (r)
        return error_fold(r);
    assert(c);
    struct entry *e = find(d, c->name->id, element);
    if (e)
        return known && e->id == id ? 0 : error_origin(-EPROTO);
    if (id == 0 || id > INT32_MAX || (id > c->born && id - c->born > LOST_MAX))
        return error_origin(-EPROTO);
    if (id <= c->born && vector_get(&c->entries, id - 1))
        return error_origin(-EPROTO);
    if (id <= c->born)
        return error_trace(adopt_lost(d, c, lsn, id, element));
    r = birth_init(&b, d, 1);
    if (!r)
        r = adopt_new(&b, c, lsn, id, element);
    birth_deinit(&b);
    return error_trace(r);
}

int event_dictionary_replay(struct event_dictionary *d, lsn_t lsn,
                            const struct event_record *record) {
    assert(record->op == EVENT_ELEMENT);
    uint32_t collection = event_dictionary_collection(d, record->collection);
    if (event_dictionary_find(d, collection, record->element, NULL) == record->id)
        return 0; /* nearly always, and without the lock: it was born in this life */
    mutex_lock(&d->lock);
    int r = adopt(d, lsn, record->collection, record->id, record->element, true);
    mutex_unlock(&d->lock);
    return error_trace(r);
}

int event_dictionary_restore(struct event_dictionary *d, lsn_t lsn, struct bytes collection,
                             uint32_t id, struct bytes element) {
    mutex_lock(&d->lock);
    int r = adopt(d, lsn, collection, id, element, false);
    mutex_unlock(&d->lock);
    return error_trace(r);
}

int event_dictionary_restore_lost(struct event_dictionary *d, uint64_t n) {
    int r = 0;
    mutex_lock(&d->lock);
    for (; !r && n > 0; n--) {
        uint64_t number = atomic_load_explicit(&d->n, memory_order_relaxed);
        r = vector_reserve(&d->order, number);
        if (!r)
            atomic_store_explicit(&d->n, number + 1, memory_order_release);
        atomic_fetch_add_explicit(&d->lost, 1, memory_order_relaxed);
    }
    mutex_unlock(&d->lock);
    return error_trace(r);
}

int event_dictionary_leave_out(struct event_dictionary *d, uint32_t ids) {
    uint32_t n = atomic_load_explicit(&d->n_collections, memory_order_acquire);
    int r = 0;
    mutex_lock(&d->lock);
    for (uint32_t number = 1; !r && number <= n; number++) {
        struct collection *c = collection_by_number(d, number);
        assert(c);
        for (uint32_t i = 0; !r && i < ids && c->born < INT32_MAX; i++) {
            r = vector_reserve(&c->entries, c->born);
            c->born += r == 0;
        }
    }
    mutex_unlock(&d->lock);
    return error_trace(r);
}

uint64_t event_dictionary_lost(const struct event_dictionary *d) {
    return atomic_load_explicit(&d->lost, memory_order_relaxed);
}

int event_dictionary_each(struct event_dictionary *d, uint64_t from, lsn_t upto,
                          int (*each)(void *context, uint64_t number, lsn_t lsn,
                                      struct bytes collection, uint32_t id, struct bytes element),
                          void *context, uint64_t *ret_next) {
    uint64_t n = atomic_load_explicit(&d->n, memory_order_acquire);
    uint64_t i = from;
    for (; i < n; i++) {
        const struct entry *e = vector_get(&d->order, i);
        if (!e)
            continue; /* lost */
        if (e->lsn > upto)
            break;
        int r = each(context, i, e->lsn, event_dictionary_name(d, e->collection), e->id,
                     bytes_of(e->text, e->size));
        if (r)
            return r;
    }
    *ret_next = i;
    return 0;
}

void event_dictionary_stats(struct event_dictionary *d, struct event_dictionary_stats *ret_stats) {
    mutex_lock(&d->lock);
    *ret_stats = (struct event_dictionary_stats){
        .collections = atomic_load_explicit(&d->n_collections, memory_order_relaxed),
        .elements = atomic_load_explicit(&d->n, memory_order_relaxed),
        .bytes = d->bytes,
    };
    mutex_unlock(&d->lock);
}
