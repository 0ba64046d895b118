/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalog, as catalog.h says: two arrays of the same collections, one ordered by name for
 * requests, one by incarnation for the store, under one lock.
 *
 *   append        read lock:   alive? → journal_append
 *   create, drop  write lock:  check → journal_append → change the arrays, lsn = the record's
 *
 * So a point that was appended to a collection has a smaller lsn than its drop, always, and the
 * catalog's lsn orders it against the journal: it contains every create and drop up to lsn, and
 * none after. That is what makes replay idempotent. Everything that can fail (memory) is done
 * before the append, so that what is in the journal is also in the catalog.
 *
 * The checkpoint's piece: u8 version (1), u64 lsn, u32 n, then for each: u64 incarnation, block
 * name, block configuration (record.c). No checksum: the manifest around it has one.
 */
#include "points/catalog.h"

#include "os/sync.h"
#include "points/home.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { ENCODING_VERSION = 1 };

struct points_catalog {
    struct rwlock lock;
    lsn_t lsn; /* of the newest create or drop */
    size_t n;
    size_t capacity;
    struct points_collection **by_name;
    struct points_collection **by_incarnation;
};

struct points_collection *points_collection_ref(struct points_collection *c) {
    atomic_fetch_add_explicit(&c->references, 1, memory_order_relaxed);
    return c;
}

struct points_collection *points_collection_unref(struct points_collection *c) {
    if (!c || atomic_fetch_sub_explicit(&c->references, 1, memory_order_acq_rel) > 1)
        return NULL;
    buffer_deinit(&c->home);
    free(c);
    return NULL;
}

static struct points_collection *collection_new(lsn_t incarnation, struct bytes name,
                                                const struct point_config *config) {
    assert(name.size > 0 && name.size <= POINT_NAME_MAX);
    struct points_collection *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->incarnation = incarnation;
    memcpy(c->name, name.data, name.size);
    c->config = *config;
    atomic_init(&c->references, 1);
    return c;
}

int points_catalog_new(struct points_catalog **ret_catalog) {
    struct points_catalog *c = calloc(1, sizeof *c);
    if (!c)
        return error_origin(-ENOMEM);
    rwlock_init(&c->lock, LOCK_RANK_CATALOG);
    *ret_catalog = c;
    return 0;
}

struct points_catalog *points_catalog_free(struct points_catalog *c) {
    if (!c)
        return NULL;
    for (size_t i = 0; i < c->n; i++)
        points_collection_unref(c->by_name[i]);
    rwlock_deinit(&c->lock);
    free(c->by_name);
    free(c->by_incarnation);
    free(c);
    return NULL;
}

/* ---- The arrays (lock held) ---- */

static int name_compare(struct bytes a, struct bytes b) {
    int order = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);
    return order ? order : (a.size > b.size) - (a.size < b.size);
}

/* The place of the first collection whose name is not before `name`. */
static size_t name_place(const struct points_catalog *c, struct bytes name) {
    size_t low = 0, high = c->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (name_compare(bytes_of_string(c->by_name[middle]->name), name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static size_t incarnation_place(const struct points_catalog *c, lsn_t incarnation) {
    size_t low = 0, high = c->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c->by_incarnation[middle]->incarnation < incarnation)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct points_collection *find_name(const struct points_catalog *c, struct bytes name) {
    if (name.size == 0)
        return NULL;
    size_t at = name_place(c, name);
    return at < c->n && bytes_equal(bytes_of_string(c->by_name[at]->name), name) ? c->by_name[at]
                                                                                 : NULL;
}

static struct points_collection *find_incarnation(const struct points_catalog *c, lsn_t lsn) {
    size_t at = incarnation_place(c, lsn);
    return at < c->n && c->by_incarnation[at]->incarnation == lsn ? c->by_incarnation[at] : NULL;
}

static int reserve_one(struct points_catalog *c) {
    if (c->n < c->capacity)
        return 0;
    size_t capacity = c->capacity ? 2 * c->capacity : 16;
    void *grown = realloc(c->by_name, capacity * sizeof(*c->by_name));
    if (!grown)
        return error_origin(-ENOMEM);
    c->by_name = grown;
    grown = realloc(c->by_incarnation, capacity * sizeof(*c->by_incarnation));
    if (!grown)
        return error_origin(-ENOMEM);
    c->by_incarnation = grown;
    c->capacity = capacity;
    return 0;
}

static void array_insert(struct points_collection **array, size_t n, size_t at,
                         struct points_collection *collection) {
    memmove(array + at + 1, array + at, (n - at) * sizeof *array);
    array[at] = collection;
}

static void array_remove(struct points_collection **array, size_t n, size_t at) {
    memmove(array + at, array + at + 1, (n - at - 1) * sizeof *array);
}

/* Takes the reference. There must be room (reserve_one). */
static void insert(struct points_catalog *c, struct points_collection *collection) {
    assert(c->n < c->capacity);
    array_insert(c->by_name, c->n, name_place(c, bytes_of_string(collection->name)), collection);
    array_insert(c->by_incarnation, c->n, incarnation_place(c, collection->incarnation),
                 collection);
    c->n++;
}

static void remove_collection(struct points_catalog *c, struct points_collection *collection) {
    atomic_store(&collection->dropped, true);
    array_remove(c->by_name, c->n, name_place(c, bytes_of_string(collection->name)));
    array_remove(c->by_incarnation, c->n, incarnation_place(c, collection->incarnation));
    c->n--;
    points_collection_unref(collection);
}

/* ---- Looking ---- */

struct points_collection *points_catalog_find(struct points_catalog *c, struct bytes name) {
    rwlock_read(&c->lock);
    struct points_collection *found = find_name(c, name);
    if (found)
        points_collection_ref(found);
    rwlock_unlock(&c->lock);
    return found;
}

struct points_collection *points_catalog_find_incarnation(struct points_catalog *c, lsn_t lsn) {
    rwlock_read(&c->lock);
    struct points_collection *found = find_incarnation(c, lsn);
    if (found)
        points_collection_ref(found);
    rwlock_unlock(&c->lock);
    return found;
}

size_t points_catalog_size(struct points_catalog *c) {
    rwlock_read(&c->lock);
    size_t n = c->n;
    rwlock_unlock(&c->lock);
    return n;
}

void points_catalog_each(struct points_catalog *c,
                         void (*each)(void *context, struct points_collection *collection),
                         void *context) {
    rwlock_read(&c->lock);
    for (size_t i = 0; i < c->n; i++)
        each(context, c->by_name[i]);
    rwlock_unlock(&c->lock);
}

lsn_t points_catalog_lsn(struct points_catalog *c) {
    rwlock_read(&c->lock);
    lsn_t lsn = c->lsn;
    rwlock_unlock(&c->lock);
    return lsn;
}

/* ---- Changing ---- */

static int fold_append(int r, int *ret_condition) {
    if (r <= 0)
        return error_trace(r);
    *ret_condition = r;
    return POINTS_E_JOURNAL;
}

static int append_control(struct journal *j, const struct buffer *payload, lsn_t *ret_lsn,
                          int *ret_condition) {
    int r = buffer_check(payload);
    if (r)
        return error_trace(r);
    struct journal_record record = {
        .kind = JOURNAL_KIND_POINTS, .flags = JOURNAL_CONTROL, .payload = buffer_bytes(payload)};
    r = journal_append(j, &record, 1);
    if (r)
        return fold_append(r, ret_condition);
    *ret_lsn = record.lsn;
    return 0;
}

/* Under the write lock. */
static int create_locked(struct points_catalog *c, struct journal *j, struct bytes name,
                         const struct point_config *config, lsn_t *ret_lsn, int *ret_condition) {
    CLEANUP(buffer_deinit) struct buffer payload = BUFFER_INIT;
    if (find_name(c, name))
        return POINTS_E_EXISTS;
    int r = reserve_one(c);
    if (r)
        return error_trace(r);
    struct points_collection *collection = collection_new(0, name, config);
    if (!collection)
        return error_origin(-ENOMEM);
    point_record_encode_create(&payload, name, config);
    r = append_control(j, &payload, &collection->incarnation, ret_condition);
    if (r) {
        points_collection_unref(collection);
        return error_trace(r);
    }
    c->lsn = *ret_lsn = collection->incarnation;
    insert(c, collection);
    return 0;
}

int points_catalog_create(struct points_catalog *c, struct journal *j, struct bytes name,
                          const struct point_config *config, lsn_t *ret_lsn, int *ret_condition) {
    rwlock_write(&c->lock);
    int r = create_locked(c, j, name, config, ret_lsn, ret_condition);
    rwlock_unlock(&c->lock);
    return error_trace(r);
}

/* collection NULL: there is none. What is applied is asked for under the lock: bulk_tasks_settle
 * relies on it. */
static int drop_locked(struct points_catalog *c, struct journal *j, const struct work *work,
                       struct points_collection *collection, lsn_t *ret_lsn, int *ret_condition) {
    CLEANUP(buffer_deinit) struct buffer payload = BUFFER_INIT;
    lsn_t applied = work ? work_visible_lsn(work) : 0;
    if (!collection)
        return POINTS_E_NOT_FOUND;
    point_record_encode_drop(&payload, collection->incarnation, applied);
    int r = append_control(j, &payload, &c->lsn, ret_condition);
    if (r)
        return error_trace(r);
    *ret_lsn = c->lsn;
    remove_collection(c, collection);
    return 0;
}

int points_catalog_drop(struct points_catalog *c, struct journal *j, const struct work *work,
                        struct bytes name, lsn_t *ret_lsn, int *ret_condition) {
    rwlock_write(&c->lock);
    int r = drop_locked(c, j, work, find_name(c, name), ret_lsn, ret_condition);
    rwlock_unlock(&c->lock);
    return error_trace(r);
}

int points_catalog_drop_incarnation(struct points_catalog *c, struct journal *j,
                                    const struct work *work, lsn_t incarnation, lsn_t *ret_lsn,
                                    int *ret_condition) {
    rwlock_write(&c->lock);
    int r = drop_locked(c, j, work, find_incarnation(c, incarnation), ret_lsn, ret_condition);
    rwlock_unlock(&c->lock);
    return error_trace(r);
}

int points_catalog_append(struct points_catalog *c, struct journal *j,
                          struct points_collection *collection, struct journal_record *records,
                          size_t n, int *ret_condition) {
    rwlock_read(&c->lock);
    int r = POINTS_E_GONE;
    if (!atomic_load_explicit(&collection->dropped, memory_order_relaxed))
        r = fold_append(journal_append(j, records, n), ret_condition);
    rwlock_unlock(&c->lock);
    return error_trace(r);
}

/* ---- Without a journal of one order ---- */

static int heard_new(struct bytes name, const struct point_config *config,
                     struct points_collection **ret_collection) {
    struct points_collection *heard = collection_new(point_home_incarnation(name), name, config);
    if (!heard)
        return error_origin(-ENOMEM);
    point_home_encode(&heard->home, name, config);
    int r = buffer_check(&heard->home);
    if (r)
        points_collection_unref(heard);
    else
        *ret_collection = heard;
    return error_trace(r);
}

/* Takes heard's reference; NULL: there is none. */
static int hear_locked(struct points_catalog *c, struct bytes name,
                       struct points_collection *heard) {
    struct points_collection *known = find_name(c, name);
    bool same =
        known && heard && bytes_equal(buffer_bytes(&known->home), buffer_bytes(&heard->home));
    int r = heard && !same ? reserve_one(c) : 0;
    if (same || r) {
        points_collection_unref(heard);
        return error_trace(r);
    }
    if (known)
        remove_collection(c, known);
    if (heard)
        insert(c, heard);
    return 0;
}

int points_catalog_hear(struct points_catalog *c, struct bytes name,
                        const struct point_config *config) {
    struct points_collection *heard = NULL;
    int r = config ? heard_new(name, config, &heard) : 0;
    if (r)
        return error_trace(r);
    rwlock_write(&c->lock);
    r = hear_locked(c, name, heard);
    rwlock_unlock(&c->lock);
    return error_trace(r);
}

/* ---- Replay and checkpoint ---- */

static int replay_create(struct points_catalog *c, lsn_t lsn, const struct point_record *record) {
    struct point_config config;
    if (!point_config_decode(record->body, &config))
        return error_origin(-EPROTO);
    int r = reserve_one(c);
    if (r)
        return error_trace(r);
    struct points_collection *collection = collection_new(lsn, record->name, &config);
    if (!collection)
        return error_origin(-ENOMEM);
    /* Only after damage, when the drop between the two was lost. */
    struct points_collection *earlier = find_name(c, record->name);
    if (earlier)
        remove_collection(c, earlier);
    insert(c, collection);
    return 0;
}

static int replay_locked(struct points_catalog *c, lsn_t lsn, const struct point_record *record) {
    if (lsn <= c->lsn)
        return 0;
    if (record->op == POINT_CREATE) {
        int r = replay_create(c, lsn, record);
        if (r)
            return error_trace(r);
    } else {
        struct points_collection *collection = find_incarnation(c, record->incarnation);
        if (collection)
            remove_collection(c, collection);
    }
    c->lsn = lsn;
    return 0;
}

int points_catalog_replay(struct points_catalog *c, lsn_t lsn, const struct point_record *record) {
    assert(record->op == POINT_CREATE || record->op == POINT_DROP);
    rwlock_write(&c->lock);
    int r = replay_locked(c, lsn, record);
    rwlock_unlock(&c->lock);
    return error_trace(r);
}

static void encode_collection(struct buffer *out, const struct points_collection *collection) {
    CLEANUP(buffer_deinit) struct buffer config = BUFFER_INIT;
    buffer_append_u64(out, collection->incarnation);
    buffer_append_block(out, bytes_of_string(collection->name));
    point_config_encode(&config, &collection->config);
    buffer_append_block(out, buffer_bytes(&config));
    out->failed |= config.failed;
}

void points_catalog_encode(struct points_catalog *c, struct buffer *out, lsn_t *ret_lsn) {
    rwlock_read(&c->lock);
    buffer_append_u8(out, ENCODING_VERSION);
    buffer_append_u64(out, c->lsn);
    buffer_append_u32(out, (uint32_t)c->n);
    for (size_t i = 0; i < c->n; i++)
        encode_collection(out, c->by_incarnation[i]);
    *ret_lsn = c->lsn;
    rwlock_unlock(&c->lock);
}

static int decode_collection(struct points_catalog *c, struct reader *r) {
    lsn_t incarnation = reader_u64(r);
    struct bytes name = reader_block(r);
    struct bytes body = reader_block(r);
    struct point_config config;
    if (r->failed || name.size == 0 || name.size > POINT_NAME_MAX || find_name(c, name) ||
        find_incarnation(c, incarnation) || !point_config_decode(body, &config))
        return error_origin(-EPROTO);
    int error = reserve_one(c);
    if (error)
        return error_trace(error);
    struct points_collection *collection = collection_new(incarnation, name, &config);
    if (!collection)
        return error_origin(-ENOMEM);
    insert(c, collection);
    return 0;
}

static int decode_locked(struct points_catalog *c, struct bytes encoded) {
    assert(c->n == 0);
    struct reader r = reader_of(encoded);
    uint8_t version = reader_u8(&r);
    lsn_t lsn = reader_u64(&r);
    uint32_t n = reader_u32(&r);
    if (r.failed || version != ENCODING_VERSION)
        return error_origin(-EPROTO);
    for (uint32_t i = 0; i < n; i++) {
        int error = decode_collection(c, &r);
        if (error)
            return error_trace(error);
    }
    if (r.at != r.end)
        return error_origin(-EPROTO);
    c->lsn = lsn;
    return 0;
}

/* Fills an empty catalog. -EPROTO when the bytes are damaged: then free the catalog. */
int points_catalog_decode(struct points_catalog *c, struct bytes encoded) {
    rwlock_write(&c->lock);
    int r = decode_locked(c, encoded);
    rwlock_unlock(&c->lock);
    return error_trace(r);
}
