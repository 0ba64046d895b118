/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an event is: a user tag, a view or a purchase, decoded; and the bytes of event records in
 * the journal (record.c: the layout stands there). The fields, and what each is for, stand in one
 * table, schema.def. Strings that repeat are kept as their ids in the dictionary (dictionary.h),
 * assigned before the record is appended, so that a record means the same for ever.
 * Plain values; no locks, no I/O.
 */
#ifndef MILLRACE_EVENTS_TAG_H
#define MILLRACE_EVENTS_TAG_H

#include "base/bytes.h"
#include "journal/journal.h"

/* What fields of a role are beside it (schema.def). */
#define EVENT_CODED_TIME(...)
#define EVENT_CODED_KEY(...)
#define EVENT_CODED_DICTIONARY(...) __VA_ARGS__
#define EVENT_CODED_DIMENSION(...) __VA_ARGS__
#define EVENT_CODED_DEVICE(...)
#define EVENT_CODED_ACTION(...)
#define EVENT_CODED_OPAQUE(...)
#define EVENT_CODED_MEASURE(...)
#define EVENT_DIMENSION_TIME(...)
#define EVENT_DIMENSION_KEY(...)
#define EVENT_DIMENSION_DICTIONARY(...)
#define EVENT_DIMENSION_DIMENSION(...) __VA_ARGS__
#define EVENT_DIMENSION_DEVICE(...)
#define EVENT_DIMENSION_ACTION(...)
#define EVENT_DIMENSION_OPAQUE(...)
#define EVENT_DIMENSION_MEASURE(...)
#define EVENT_MEASURE_TIME(...)
#define EVENT_MEASURE_KEY(...)
#define EVENT_MEASURE_DICTIONARY(...)
#define EVENT_MEASURE_DIMENSION(...)
#define EVENT_MEASURE_DEVICE(...)
#define EVENT_MEASURE_ACTION(...)
#define EVENT_MEASURE_OPAQUE(...)
#define EVENT_MEASURE_MEASURE(...) __VA_ARGS__

enum event_field {
#define EVENT_FIELD(id, parent, name, role, collection, sentence) EVENT_FIELD_##id,
#include "events/schema.def"
    EVENT_FIELDS
};

enum event_action {
#define EVENT_ACTION(id, list) EVENT_##id,
#include "events/schema.def"
    EVENT_ACTIONS
};
enum event_device {
#define EVENT_DEVICE(id) EVENT_##id,
#include "events/schema.def"
    EVENT_DEVICES
};
/* Of the rows' ids. */
extern const char *const event_action_names[EVENT_ACTIONS];
extern const char *const event_device_names[EVENT_DEVICES];

enum {
    EVENT_TEXT_MAX = 4096, /* bytes of a cookie or any other string of a tag */
#define EVENT_LIMIT(id, value) EVENT_##id = (value),
#include "events/schema.def"
    EVENT_MINUTE_MS = 60000,
};

/* The dictionary's collections that tags use, by number; others are numbered after them. */
enum event_collection {
    EVENT_COLLECTION_NONE,
#define EVENT_FIELD(id, parent, name, role, collection, sentence)                                  \
    EVENT_CODED_##role(EVENT_COLLECTION_##id, )
#include "events/schema.def"
    EVENT_COLLECTIONS_FIXED,
};

/* What aggregates can be filtered by. */
enum event_dimension {
#define EVENT_FIELD(id, parent, name, role, collection, sentence)                                  \
    EVENT_DIMENSION_##role(EVENT_FILTER_##id, )
#include "events/schema.def"
    EVENT_FILTERS
};
static const enum event_collection event_filter_collections[EVENT_FILTERS] = {
#define EVENT_FIELD(id, parent, name, role, collection, sentence)                                  \
    EVENT_DIMENSION_##role(EVENT_COLLECTION_##id, )
#include "events/schema.def"
};

struct event_tag {
    int64_t time_ms; /* since 1970, UTC; of the years 0000 to 9999 */
    struct bytes cookie;
    enum event_device device;
    enum event_action action;
    uint32_t ids[EVENT_COLLECTIONS_FIXED]; /* in the dictionary, from 1, by collection */
    int32_t measure;
    bool product_is_text;
    int64_t product_number;
    struct bytes product_text;
};

/* The minute of event time a tag belongs to, since 1970: rounded down, also before 1970. */
static inline int64_t event_minute_of(int64_t time_ms) {
    return time_ms >= 0 ? time_ms / EVENT_MINUTE_MS : -((-time_ms - 1) / EVENT_MINUTE_MS) - 1;
}

/* The key_hash of every record of a cookie: it decides the lane, and never changes. */
uint64_t event_key_hash(struct bytes cookie);

/* ---- Records ---- */
enum event_op {
    EVENT_TAG = 1,      /* of the cookie's lane */
    EVENT_ERASE = 2,    /* of the cookie's lane: forgets the user */
    EVENT_ELEMENT = 3,  /* of the lane of the collection's name: the dictionary's next element */
    EVENT_ONCE = 4,     /* of the lane of the key: an Idempotency-Key was used (once.h). It stands
                           in one group with what it is for */
    EVENT_FULL_TAG = 5, /* of the cookie's lane: a tag with its texts instead of ids, for a store
                           that shares no dictionary with who appends */
    EVENT_ONCE_TAG = 6, /* of the cookie's lane: a FULL_TAG that came with an Idempotency-Key, for
                           who decides when it applies whether it is the first. It decodes as one */
};

/* A record, decoded: views into its payload. Which fields count depends on op. */
struct event_record {
    enum event_op op;
    bool late;            /* TAG: decided at append, once: older than the aggregates reach back */
    struct event_tag tag; /* TAG; of FULL_TAG all but the ids; of ERASE only the cookie */
    struct bytes texts[EVENT_COLLECTIONS_FIXED]; /* FULL_TAG: by collection */
    struct bytes collection;                     /* ELEMENT: its name */
    struct bytes element;                        /* ELEMENT */
    uint32_t id;                                 /* ELEMENT */
    struct bytes body;                           /* ONCE: event_once_…; of a FULL_TAG too, when
                                                    it came as an ONCE_TAG, else it is empty */
    uint32_t index;                              /* then: which of its request's tags, from 0 */
};

/* Where the dictionary's ids stand in the payload of a TAG, for who encodes it before they are
 * assigned: a little-endian uint32 a collection, from the first. */
enum {
    EVENT_RECORD_IDS = 24,
    EVENT_RECORD_HEADER = EVENT_RECORD_IDS + (EVENT_COLLECTIONS_FIXED - 1) * (int)sizeof(uint32_t),
};

/* Append the payload of a journal record. */
void event_record_encode_tag(struct buffer *out, const struct event_tag *tag, bool late);
/* texts[EVENT_COLLECTIONS_FIXED]. Of a tag without a cookie: what event_record_decode_kept takes.
 */
void event_record_encode_full_tag(struct buffer *out, const struct event_tag *tag,
                                  const struct bytes *texts);
/* What makes a ONCE_TAG of the FULL_TAG that is encoded behind it; body is of EVENT_ONCE_BODY. */
void event_record_encode_once_head(struct buffer *out, struct bytes body, uint32_t index);
void event_record_encode_erase(struct buffer *out, struct bytes cookie);
void event_record_encode_element(struct buffer *out, struct bytes collection, uint32_t id,
                                 struct bytes element);
void event_record_encode_once(struct buffer *out, struct bytes body);
/* False when the bytes are not a record of this version; never reads outside payload. */
bool event_record_decode(struct bytes payload, struct event_record *ret_record) MUST_USE;
/* A FULL_TAG without its cookie, as it is kept where the cookie is the key. */
bool event_record_decode_kept(struct bytes payload, struct event_record *ret_record) MUST_USE;

#endif
