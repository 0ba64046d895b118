/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From JSON to one group in the journal. Ids that the dictionary knows are found without a lock
 * while a tag is encoded; only when some are not known is the dictionary's lock taken, once for the
 * whole group.
 */
#include "events/api_parts.h"

#include "base/error.h"
#include "base/hash.h"

#include <assert.h>

enum { FIRST_RECORDS = 2, FIRST_NEWCOMERS = EVENT_COLLECTIONS_FIXED };

void event_write_init(struct event_write *w, struct events_api *api, struct http_request *r) {
    *w = (struct event_write){.api = api, .arena = http_arena(r), .bytes = http_scratch(r)};
}

/* An array of twice as many elements, those that are there copied. NULL without memory. */
static void *grow(struct arena *arena, const void *old, size_t n, size_t max, size_t element_size) {
    void *larger = arena_calloc(arena, max, element_size);
    if (larger && n)
        memcpy(larger, old, n * element_size);
    return larger;
}

static int reserve_record(struct event_write *w) {
    if (w->n < w->records_max)
        return 0;
    size_t max = w->records_max ? 2 * w->records_max : FIRST_RECORDS;
    struct journal_record *records = grow(w->arena, w->records, w->n, max, sizeof *records);
    if (!records)
        return error_origin(-ENOMEM);
    w->records = records;
    w->records_max = max;
    return 0;
}

/* The record whose payload was encoded behind w->bytes from `start` on. */
static int add_record(struct event_write *w, size_t start, uint64_t key_hash, uint8_t flags) {
    int r = buffer_check(w->bytes);
    if (!r)
        r = reserve_record(w);
    if (r)
        return error_trace(r);
    w->records[w->n++] = (struct journal_record){.key_hash = key_hash,
                                                 .kind = JOURNAL_KIND_EVENTS,
                                                 .flags = flags,
                                                 .payload.size = w->bytes->size - start};
    return 0;
}

static int reserve_newcomers(struct event_write *w, size_t more) {
    if (w->n_newcomers + more <= w->newcomers_max)
        return 0;
    size_t max = w->newcomers_max ? 2 * w->newcomers_max : FIRST_NEWCOMERS;
    struct event_newcomer *newcomers =
        grow(w->arena, w->newcomers, w->n_newcomers, max, sizeof *newcomers);
    size_t *places = grow(w->arena, w->id_places, w->n_newcomers, max, sizeof *places);
    if (!newcomers || !places)
        return error_origin(-ENOMEM);
    w->newcomers = newcomers;
    w->id_places = places;
    w->newcomers_max = max;
    return 0;
}

/* An element to be: its text outlives the parser's document. */
static int add_newcomer(struct event_write *w, uint32_t collection, struct bytes text,
                        size_t place) {
    const char *copy = arena_copy_string(w->arena, text);
    if (!copy)
        return error_origin(-ENOMEM);
    w->newcomers[w->n_newcomers] =
        (struct event_newcomer){.collection = event_dictionary_name(w->api->dictionary, collection),
                                .element = bytes_of(copy, text.size)};
    w->id_places[w->n_newcomers++] = place;
    return 0;
}

/* Puts the ids of a tag's texts behind `ids`, those that are known. */
static int place_ids(struct event_write *w, const struct event_input *input, size_t ids) {
    int r = reserve_newcomers(w, EVENT_COLLECTIONS_FIXED);
    for (uint32_t c = 1; !r && c < EVENT_COLLECTIONS_FIXED; c++) {
        size_t place = ids + (c - 1) * sizeof(uint32_t);
        uint32_t id = event_dictionary_find(w->api->dictionary, c, input->texts[c], NULL);
        if (id)
            store_u32(w->bytes->data + place, id);
        else
            r = add_newcomer(w, c, input->texts[c], place);
    }
    return error_trace(r);
}

static int check_known(const struct event_write *w, const struct event_input *input,
                       struct event_fault *f) {
    for (uint32_t c = 1; c < EVENT_COLLECTIONS_FIXED; c++)
        if (!event_dictionary_find(w->api->dictionary, c, input->texts[c], NULL))
            return event_fault_set(f, EVENT_FAULT_INVALID, NULL,
                                   "the dictionary is full, and the tag has a value that was never "
                                   "seen; raise --dictionary-size, or --memory-limit if its part "
                                   "is smaller");
    return 0;
}

/* Its texts are in the record: nobody needs to know them before. */
static int write_full_tag(struct event_write *w, const struct event_tag *tag,
                          const struct bytes *texts) {
    size_t start = w->bytes->size;
    if (w->once.size)
        event_record_encode_once_head(w->bytes, w->once, (uint32_t)w->n);
    event_record_encode_full_tag(w->bytes, tag, texts);
    return error_trace(add_record(w, start, event_key_hash(tag->cookie), 0));
}

int event_write_tag(struct event_write *w, struct json_parser *parser, struct bytes text,
                    struct event_fault *f) {
    struct event_input input;
    size_t start = w->bytes->size;
    int r = event_parse_tag(parser, text, &input, f);
    if (!r && w->known_only)
        r = check_known(w, &input, f);
    if (r)
        return error_trace(r);
    if (w->api->redis)
        return error_trace(write_full_tag(w, &input.tag, input.texts));
    bool late = events_store_is_late(w->api->store, input.tag.time_ms);
    event_record_encode_tag(w->bytes, &input.tag, late);
    r = add_record(w, start, event_key_hash(input.tag.cookie), 0);
    if (!r)
        r = place_ids(w, &input, start + EVENT_RECORD_IDS);
    return error_trace(r);
}

int event_write_decoded(struct event_write *w, const struct event_record *record) {
    const struct event_tag *tag = &record->tag;
    size_t start = w->bytes->size;
    if (record->op == EVENT_FULL_TAG)
        return error_trace(write_full_tag(w, tag, record->texts));
    event_record_encode_tag(w->bytes, tag, events_store_is_late(w->api->store, tag->time_ms));
    return error_trace(add_record(w, start, event_key_hash(tag->cookie), 0));
}

int event_write_erase(struct event_write *w, struct bytes cookie) {
    size_t start = w->bytes->size;
    event_record_encode_erase(w->bytes, cookie);
    return error_trace(add_record(w, start, event_key_hash(cookie), JOURNAL_DELETES));
}

/* ---- The append ---- */

/* Under the dictionary's lock. */
static void place_newcomers(void *write) {
    struct event_write *w = write;
    for (size_t i = 0; i < w->n_newcomers; i++)
        store_u32(w->bytes->data + w->id_places[i], w->newcomers[i].id);
}

/* The bytes move no more. */
static void point_payloads(struct event_write *w) {
    size_t at = 0;
    for (size_t i = 0; i < w->n; i++) {
        w->records[i].payload.data = w->bytes->data + at;
        at += w->records[i].payload.size;
    }
    assert(at == w->bytes->size);
}

static int append_plain(struct event_write *w, lsn_t *ret_first, lsn_t *ret_last,
                        int *ret_condition) {
    int r = journal_append(w->api->journal, w->records, w->n);
    if (r > 0) {
        *ret_condition = r;
        return EVENTS_E_JOURNAL;
    }
    if (r)
        return error_trace(r);
    *ret_first = w->records[0].lsn;
    *ret_last = w->records[w->n - 1].lsn;
    return 0;
}

static int append(struct event_write *w, lsn_t *ret_first, lsn_t *ret_last, int *ret_condition) {
    point_payloads(w);
    if (w->n_newcomers)
        return event_dictionary_append(w->api->dictionary, w->api->journal, w->newcomers,
                                       w->n_newcomers, place_newcomers, w, w->records, w->n,
                                       ret_first, ret_last, ret_condition);
    if (w->n)
        return append_plain(w, ret_first, ret_last, ret_condition);
    *ret_first = *ret_last = 0;
    return 0;
}

/* ---- Idempotency keys: of the embedded store, then on a cluster ---- */

/* The key is new, and the lock of the keys held: its record joins the group. */
static int append_with_key(struct event_write *w, struct event_once_entry *entry,
                           int *ret_condition) {
    struct buffer body = BUFFER_INIT;
    size_t start = w->bytes->size;
    event_once_encode(&body, entry);
    int r = buffer_check(&body);
    if (!r) {
        event_record_encode_once(w->bytes, buffer_bytes(&body));
        r = add_record(w, start, load_u64(entry->key), 0);
    }
    buffer_deinit(&body);
    return r ? error_trace(r) : append(w, &entry->first, &entry->last, ret_condition);
}

static int append_once(struct event_write *w, const char *key, const char *route, struct bytes body,
                       lsn_t *ret_first, lsn_t *ret_last, int *ret_condition) {
    struct event_once_entry entry;
    enum event_once_decision decision;
    int r = event_once_begin(w->api->once, bytes_of_string(route), bytes_of_string(key),
                             hash64(body.data, body.size), &decision, &entry);
    if (r == EVENTS_E_FULL)
        return EVENT_API_E_KEYS_FULL;
    if (r)
        return error_trace(r);
    if (decision == EVENT_ONCE_OTHER)
        return EVENT_API_E_KEY_REUSED;
    if (decision == EVENT_ONCE_NEW) {
        r = append_with_key(w, &entry, ret_condition);
        event_once_end(w->api->once, &entry, r == 0);
    }
    if (r)
        return error_trace(r);
    *ret_first = entry.first;
    *ret_last = entry.last;
    return 0;
}

static int describe(const char *key, const char *route, struct bytes body,
                    struct event_once_entry *ret_entry) {
    return error_trace(event_once_describe(bytes_of_string(route), bytes_of_string(key),
                                           hash64(body.data, body.size), ret_entry));
}

int event_write_key(struct event_write *w, const char *key, const char *route, struct bytes body) {
    CLEANUP(buffer_deinit) struct buffer once = BUFFER_INIT;
    struct event_once_entry entry;
    int r = describe(key, route, body, &entry);
    if (r)
        return error_trace(r);
    event_once_encode(&once, &entry);
    uint8_t *copy = once.failed ? NULL : arena_alloc(w->arena, once.size);
    if (!copy)
        return error_origin(-ENOMEM);
    memcpy(copy, once.data, once.size);
    w->once = bytes_of(copy, once.size);
    return 0;
}

int event_write_claim(struct events_api *api, const char *key, const char *route, struct bytes body,
                      struct event_failure *failure) {
    struct event_once_entry entry;
    bool is_ours = false;
    int r = describe(key, route, body, &entry);
    if (!r)
        r = events_redis_claim(api->redis, &entry, &is_ours, failure->why);
    failure->result = r || is_ours ? r : EVENT_API_E_KEY_REUSED;
    return failure->result;
}

int event_write_check_key(const char *key, struct event_fault *f) {
    size_t size = strlen(key);
    if (size >= 1 && size <= EVENT_ONCE_KEY_MAX)
        return 0;
    return event_fault_set(f, EVENT_FAULT_INVALID, "Idempotency-Key",
                           "the header Idempotency-Key must be 1 to %d bytes", EVENT_ONCE_KEY_MAX);
}

int event_write_append(struct event_write *w, const char *key, const char *route, struct bytes body,
                       lsn_t *ret_first, lsn_t *ret_last, struct event_failure *failure) {
    int r = key ? event_write_check_key(key, &failure->fault) : 0;
    if (!r)
        r = key && !w->api->redis
                ? append_once(w, key, route, body, ret_first, ret_last, &failure->condition)
                : append(w, ret_first, ret_last, &failure->condition);
    failure->result = r;
    return error_trace(r);
}
