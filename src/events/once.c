/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The entries lie in a ring in the order in which they came, which is the order in which they are
 * forgotten; a hash table leads from a key to the number of its newest entry.
 *
 *   slots ──▶ ring[number & (capacity - 1)], first ≤ number < next
 *
 * A key that is used again after its 24 h, but before it was forgotten, has two entries; the table
 * leads to the newer one, and the older one goes without a word.
 *
 * The body of a record (EVENT_ONCE_BODY): 16 bytes key, u64 hash of the body. When it was used is
 * the record's own time.
 */
#include "events/once.h"

#include "base/error.h"
#include "base/hash.h"
#include "os/sync.h"

#include <assert.h>
#include <stdlib.h>

#define KEEP_US (UINT64_C(3600000000) * EVENT_ONCE_HOURS)

#ifdef MILLRACE_TINY
enum { FIRST_CAPACITY = 4 };
#else
enum { FIRST_CAPACITY = 1024 };
#endif

/* What room for a key costs: its entry, and two slots. */
enum { KEY_BYTES = sizeof(struct event_once_entry) + 2 * sizeof(uint64_t) };

struct event_once {
    struct os *os;
    struct budget *budget;
    uint64_t keys_max;
    struct mutex lock;
    struct event_once_entry *ring;
    uint64_t capacity; /* a power of two */
    uint64_t *slots;   /* 2 * capacity of them: number + 1, 0 for none; linear probing */
    uint64_t first;
    uint64_t next;
    bool unordered; /* restored, and not yet sorted */
};

static struct event_once_entry *entry_at(const struct event_once *o, uint64_t number) {
    return &o->ring[number & (o->capacity - 1)];
}

/* ---- The table ---- */

static uint64_t slot_mask(const struct event_once *o) {
    return 2 * o->capacity - 1;
}

static uint64_t home_of(const struct event_once *o, const uint8_t key[16]) {
    return load_u64(key) & slot_mask(o);
}

/* The slot of a key, or the empty one where it would go. */
static uint64_t *slot_of(const struct event_once *o, const uint8_t key[16]) {
    uint64_t i = home_of(o, key);
    while (o->slots[i] && memcmp(entry_at(o, o->slots[i] - 1)->key, key, 16) != 0)
        i = (i + 1) & slot_mask(o);
    return &o->slots[i];
}

/* Empties a slot, and moves up those behind it that would not be found any more. */
static void slot_remove(struct event_once *o, uint64_t *slot) {
    uint64_t mask = slot_mask(o);
    uint64_t hole = (uint64_t)(slot - o->slots);
    for (uint64_t i = (hole + 1) & mask; o->slots[i]; i = (i + 1) & mask) {
        uint64_t home = home_of(o, entry_at(o, o->slots[i] - 1)->key);
        if (((i - home) & mask) < ((i - hole) & mask))
            continue;
        o->slots[hole] = o->slots[i];
        hole = i;
    }
    o->slots[hole] = 0;
}

static void fill_slots(struct event_once *o) {
    memset(o->slots, 0, 2 * o->capacity * sizeof *o->slots);
    for (uint64_t i = o->first; i < o->next; i++)
        *slot_of(o, entry_at(o, i)->key) = i + 1;
}

/* ---- The ring ---- */

/* What is there twice while it is copied is counted once. */
static int set_capacity(struct event_once *o, uint64_t capacity) {
    struct event_once_entry *ring = malloc(capacity * sizeof *ring);
    uint64_t *slots = malloc(2 * capacity * sizeof *slots);
    if (!ring || !slots) {
        free(ring);
        free(slots);
        return error_origin(-ENOMEM);
    }
    for (uint64_t i = o->first; i < o->next; i++)
        ring[i & (capacity - 1)] = *entry_at(o, i);
    free(o->ring);
    free(o->slots);
    budget_add(o->budget, BUDGET_KEYS, (capacity - o->capacity) * KEY_BYTES);
    o->ring = ring;
    o->slots = slots;
    o->capacity = capacity;
    fill_slots(o);
    return 0;
}

/* Room for one more. */
static int reserve(struct event_once *o) {
    return o->next - o->first < o->capacity ? 0 : error_trace(set_capacity(o, 2 * o->capacity));
}

static void add(struct event_once *o, const struct event_once_entry *entry) {
    *entry_at(o, o->next) = *entry;
    *slot_of(o, entry->key) = o->next + 1;
    o->next++;
}

static int by_time(const void *left, const void *right) {
    const struct event_once_entry *a = left, *b = right;
    return (a->wall_us > b->wall_us) - (a->wall_us < b->wall_us);
}

/* Restored entries came in any order: before anything else they get the order of their times. They
 * lie from the ring's start, for nothing was forgotten yet. */
static void settle(struct event_once *o) {
    if (!o->unordered)
        return;
    assert(o->first == 0);
    qsort(o->ring, o->next, sizeof *o->ring, by_time);
    fill_slots(o);
    o->unordered = false;
}

static void lock(struct event_once *o) {
    mutex_lock(&o->lock);
    settle(o);
}

/* ---- Deciding ---- */

/* How many keys the largest ring that fits has room for. A sixteenth of it is for those that are
 * old and wait for a checkpoint: they don't count, and must not make the ring grow. */
static uint64_t keys_that_fit(const struct budget *budget) {
    uint64_t n = budget_part(budget, BUDGET_KEYS) / KEY_BYTES;
    if (n < FIRST_CAPACITY)
        return FIRST_CAPACITY;
    uint64_t capacity = UINT64_C(1) << (63 - __builtin_clzll(n));
    return capacity - capacity / 16;
}

int event_once_new(struct os *os, const struct event_once_options *options,
                   struct event_once **ret_once) {
    struct event_once *o = calloc(1, sizeof *o);
    if (!o)
        return error_origin(-ENOMEM);
    uint64_t fit = keys_that_fit(options->budget);
    o->os = os;
    o->budget = options->budget;
    o->keys_max = options->keys_max < fit ? options->keys_max : fit;
    mutex_init(&o->lock, LOCK_RANK_EVENT_ONCE);
    int r = set_capacity(o, FIRST_CAPACITY);
    if (r) {
        event_once_free(o);
        return error_trace(r);
    }
    *ret_once = o;
    return 0;
}

struct event_once *event_once_free(struct event_once *o) {
    if (!o)
        return NULL;
    budget_give(o->budget, BUDGET_KEYS, o->capacity * KEY_BYTES);
    mutex_deinit(&o->lock);
    free(o->ring);
    free(o->slots);
    free(o);
    return NULL;
}

static bool is_old(const struct event_once_entry *entry, uint64_t now_us) {
    return now_us >= entry->wall_us + KEEP_US;
}

/* The newest entry of a key; NULL when there is none, or it counts no more. */
static const struct event_once_entry *find(const struct event_once *o, const uint8_t key[16],
                                           uint64_t now_us) {
    uint64_t slot = *slot_of(o, key);
    if (slot == 0 || is_old(entry_at(o, slot - 1), now_us))
        return NULL;
    return entry_at(o, slot - 1);
}

/* Two hashes of the same text with different ends. */
static int hash_key(struct bytes route, struct bytes key, uint8_t out[16]) {
    CLEANUP(buffer_deinit) struct buffer text = BUFFER_INIT;
    buffer_append_block(&text, route);
    buffer_append_bytes(&text, key);
    buffer_append_u8(&text, 0);
    int r = buffer_check(&text);
    if (r)
        return error_trace(r);
    store_u64(out, hash64(text.data, text.size));
    text.data[text.size - 1] = 1;
    store_u64(out + 8, hash64(text.data, text.size));
    return 0;
}

int event_once_describe(struct bytes route, struct bytes key, uint64_t body_hash,
                        struct event_once_entry *ret_entry) {
    struct event_once_entry entry = {.body_hash = body_hash};
    int r = hash_key(route, key, entry.key);
    if (r)
        return error_trace(r);
    *ret_entry = entry;
    return 0;
}

/* Keys that are old but not yet forgotten don't count: only a checkpoint forgets, and with nothing
 * but refusals there would never be another. */
static bool is_full(const struct event_once *o, uint64_t now_us) {
    if (o->next - o->first < o->keys_max)
        return false;
    return o->keys_max == 0 || !is_old(entry_at(o, o->next - o->keys_max), now_us);
}

/* Under the lock. */
static int decide(struct event_once *o, struct event_once_entry *entry,
                  enum event_once_decision *ret_decision) {
    const struct event_once_entry *known = find(o, entry->key, entry->wall_us);
    if (known) {
        *ret_decision = known->body_hash == entry->body_hash ? EVENT_ONCE_AGAIN : EVENT_ONCE_OTHER;
        *entry = *known;
        return 0;
    }
    if (is_full(o, entry->wall_us))
        return EVENTS_E_FULL;
    *ret_decision = EVENT_ONCE_NEW;
    return error_trace(reserve(o));
}

int event_once_begin(struct event_once *o, struct bytes route, struct bytes key, uint64_t body_hash,
                     enum event_once_decision *ret_decision, struct event_once_entry *ret_entry) {
    enum event_once_decision decision = EVENT_ONCE_NEW;
    struct event_once_entry entry = {.body_hash = body_hash, .wall_us = os_wall_us(o->os)};
    int r = hash_key(route, key, entry.key);
    if (r)
        return error_trace(r);
    lock(o);
    r = decide(o, &entry, &decision);
    if (r || decision != EVENT_ONCE_NEW)
        mutex_unlock(&o->lock);
    if (r)
        return error_trace(r);
    *ret_decision = decision;
    *ret_entry = entry;
    return 0;
}

void event_once_end(struct event_once *o, const struct event_once_entry *entry, bool appended) {
    if (appended)
        add(o, entry);
    mutex_unlock(&o->lock);
}

/* ---- Records ---- */

void event_once_encode(struct buffer *out, const struct event_once_entry *entry) {
    buffer_append(out, entry->key, sizeof entry->key);
    buffer_append_u64(out, entry->body_hash);
}

int event_once_replay(struct event_once *o, lsn_t lsn, uint64_t wall_us, struct bytes body) {
    struct event_once_entry entry = {.wall_us = wall_us, .first = lsn, .last = lsn};
    int r = 0;
    if (body.size != EVENT_ONCE_BODY)
        return error_origin(-EPROTO);
    memcpy(entry.key, body.data, sizeof entry.key);
    entry.body_hash = load_u64(body.data + sizeof entry.key);
    lock(o);
    if (!find(o, entry.key, wall_us)) {
        r = reserve(o);
        if (!r)
            add(o, &entry);
    }
    mutex_unlock(&o->lock);
    return error_trace(r);
}

/* ---- For the checkpoint ---- */

/* Copies up to n entries from *number on, and moves it behind them. */
static size_t copy_entries(struct event_once *o, uint64_t *number, lsn_t upto,
                           struct event_once_entry *out, size_t n) {
    size_t copied = 0;
    lock(o);
    if (*number < o->first)
        *number = o->first;
    for (; copied < n && *number < o->next && entry_at(o, *number)->last <= upto; ++*number)
        out[copied++] = *entry_at(o, *number);
    mutex_unlock(&o->lock);
    return copied;
}

int event_once_each(struct event_once *o, uint64_t from, lsn_t upto,
                    int (*each)(void *context, const struct event_once_entry *entry), void *context,
                    uint64_t *ret_next) {
    struct event_once_entry some[64]; /* so that nobody waits for what each does */
    uint64_t next = from;
    for (size_t n; (n = copy_entries(o, &next, upto, some, ARRAY_LENGTH(some))) > 0;) {
        for (size_t i = 0; i < n; i++) {
            int r = each(context, &some[i]);
            if (r)
                return r;
        }
    }
    *ret_next = next;
    return 0;
}

int event_once_restore(struct event_once *o, const struct event_once_entry *entry) {
    mutex_lock(&o->lock);
    int r = reserve(o);
    if (!r) {
        add(o, entry);
        o->unordered = true;
    }
    mutex_unlock(&o->lock);
    return error_trace(r);
}

/* Forgets the oldest entry. True when nothing is left of its key. */
static bool forget_first(struct event_once *o, struct event_once_entry *ret_entry) {
    *ret_entry = *entry_at(o, o->first);
    uint64_t *slot = slot_of(o, ret_entry->key);
    bool newest = *slot == o->first + 1;
    if (newest)
        slot_remove(o, slot);
    o->first++;
    return newest;
}

void event_once_expire(struct event_once *o, void (*each)(void *context, const uint8_t key[16]),
                       void *context) {
    struct event_once_entry entry;
    uint64_t now_us = os_wall_us(o->os);
    lock(o);
    while (o->first < o->next && is_old(entry_at(o, o->first), now_us))
        if (forget_first(o, &entry) && each)
            each(context, entry.key);
    mutex_unlock(&o->lock);
}

uint64_t event_once_size(struct event_once *o) {
    lock(o);
    uint64_t n = o->next - o->first;
    mutex_unlock(&o->lock);
    return n;
}
