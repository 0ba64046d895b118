/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory comes in blocks and is never given back before the end. What grows (the slots, the list of
 * minutes, the list of blocks) is looked at under the lane's lock only, or once it is frozen.
 *
 * A profile's chunks grow from 24 bytes to half a kilobyte, so that a cookie that came once costs
 * little. When a cookie has more than TAGS_TRIM tags of an action, its chain is trimmed and written
 * again from its first chunk: a cookie that comes a million times stays small.
 */
#include "events/local/generation.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum {
    UNIT = 8,
#ifdef MILLRACE_TINY
    BLOCK_BYTES = 16 << 10,
    ROWS_FIRST = 2,
    ROWS_MOST = 16,
#else
    BLOCK_BYTES = 1 << 20,
    ROWS_FIRST = 16,
    ROWS_MOST = 4096,
#endif
    UNITS_A_BLOCK = BLOCK_BYTES / UNIT,
    CHUNK_FIRST = 24,
    CHUNK_MOST = 504,
    SLOTS_FIRST = 16,
};

/* Encoded tags. */
struct tags_chunk {
    memory_ref next;
    uint16_t used;
    uint16_t size;
    uint8_t bytes[];
};

/* Rows: four arrays of capacity numbers each. */
struct rows_chunk {
    struct rows_chunk *next; /* read only by who knows that this one is full */
    uint32_t capacity;
    uint32_t used; /* for who adds; readers have the chain's number of rows */
    uint32_t values[];
};

static_assert(EVENT_TEXT_MAX + TAG_BYTES_MAX + sizeof(struct tags_chunk) <= BLOCK_BYTES / 2,
              "a chunk holds any tag, and wastes little of a block");
static_assert(sizeof(struct rows_chunk) + ROWS_MOST * COLUMNS * sizeof(uint32_t) <= BLOCK_BYTES / 2,
              "rows fit");

/* ---- Memory ---- */
struct generation *generation_new(void) {
    struct generation *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    atomic_init(&g->references, 1);
    g->used = BLOCK_BYTES;
    return g;
}

struct generation *generation_ref(struct generation *g) {
    atomic_fetch_add_explicit(&g->references, 1, memory_order_relaxed);
    return g;
}

static void generation_free(struct generation *g) {
    for (size_t i = 0; i < g->n_blocks; i++)
        free(g->blocks[i]);
    letters_deinit(&g->letters);
    free(g->blocks);
    free(g->slots);
    free(g->minutes);
    free(g);
}

struct generation *generation_unref(struct generation *g) {
    if (g && atomic_fetch_sub_explicit(&g->references, 1, memory_order_acq_rel) == 1)
        generation_free(g);
    return NULL;
}

bool generation_is_empty(const struct generation *g) {
    return g->n_profiles == 0 && g->n_minutes == 0 && g->letters.n == 0 &&
           letters_gone(&g->letters) == 0;
}

static void *at_ref(const struct generation *g, memory_ref ref) {
    return g->blocks[ref / UNITS_A_BLOCK] + (size_t)(ref % UNITS_A_BLOCK) * UNIT;
}

static bool add_block(struct generation *g) {
    if (g->n_blocks == UINT32_MAX / UNITS_A_BLOCK)
        return false;
    if (g->n_blocks == g->blocks_capacity) {
        size_t capacity = g->blocks_capacity ? 2 * g->blocks_capacity : 16;
        uint8_t **grown = realloc(g->blocks, capacity * sizeof *grown);
        if (!grown)
            return false;
        g->blocks = grown;
        g->blocks_capacity = capacity;
    }
    uint8_t *block = malloc(BLOCK_BYTES);
    if (!block)
        return false;
    g->blocks[g->n_blocks++] = block;
    g->used = g->n_blocks == 1 ? UNIT : 0; /* reference 0 is none */
    return true;
}

/* NULL when memory is out. */
static void *allocate(struct generation *g, size_t size, memory_ref *ret_ref) {
    size = (size + UNIT - 1) & ~(size_t)(UNIT - 1);
    assert(size <= BLOCK_BYTES - UNIT);
    if (size > BLOCK_BYTES - g->used && !add_block(g))
        return NULL;
    *ret_ref = (memory_ref)((g->n_blocks - 1) * UNITS_A_BLOCK + g->used / UNIT);
    void *p = g->blocks[g->n_blocks - 1] + g->used;
    g->used += size;
    g->bytes += size;
    return p;
}

/* ---- Finding profiles ---- */
static uint64_t slot_of(uint64_t hash, memory_ref ref) {
    return (hash & UINT64_C(0xffffffff00000000)) | ref;
}

static bool is_of(const struct profile *p, uint64_t hash, struct bytes cookie) {
    return p->hash == hash && bytes_equal(profile_cookie(p), cookie);
}

/* The slot of the cookie, or the empty one where it would go. */
static uint64_t *find_slot(const struct generation *g, uint64_t hash, struct bytes cookie) {
    size_t mask = g->n_slots - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        uint64_t slot = g->slots[i];
        if (slot == 0 ||
            (slot >> 32 == hash >> 32 && is_of(at_ref(g, (memory_ref)slot), hash, cookie)))
            return &g->slots[i];
    }
}

const struct profile *generation_find(const struct generation *g, uint64_t hash,
                                      struct bytes cookie) {
    if (g->n_slots == 0)
        return NULL;
    uint64_t slot = *find_slot(g, hash, cookie);
    return slot ? at_ref(g, (memory_ref)slot) : NULL;
}

void generation_prefetch(const struct generation *g, uint64_t hash) {
    if (g->n_slots > 0)
        __builtin_prefetch(&g->slots[hash & (g->n_slots - 1)]);
}

void generation_prefetch_profile(const struct generation *g, uint64_t hash) {
    if (g->n_slots == 0)
        return;
    memory_ref ref = (memory_ref)g->slots[hash & (g->n_slots - 1)];
    if (ref)
        __builtin_prefetch(at_ref(g, ref));
}

void generation_prefetch_tags(const struct generation *g, uint64_t hash) {
    if (g->n_slots == 0)
        return;
    memory_ref ref = (memory_ref)g->slots[hash & (g->n_slots - 1)];
    const struct profile *p = ref ? at_ref(g, ref) : NULL;
    if (p && p->last)
        __builtin_prefetch(at_ref(g, p->last));
}

const struct profile *generation_next(const struct generation *g, size_t *at) {
    while (*at < g->n_slots) {
        uint64_t slot = g->slots[(*at)++];
        if (slot)
            return at_ref(g, (memory_ref)slot);
    }
    return NULL;
}

/* At most half of the slots are taken. */
static bool grow_slots(struct generation *g) {
    size_t n = g->n_slots ? 2 * g->n_slots : SLOTS_FIRST;
    uint64_t *slots = calloc(n, sizeof *slots);
    if (!slots)
        return false;
    for (size_t k = 0; k < g->n_slots; k++) {
        if (!g->slots[k])
            continue;
        const struct profile *p = at_ref(g, (memory_ref)g->slots[k]);
        size_t i = p->hash & (n - 1);
        while (slots[i])
            i = (i + 1) & (n - 1);
        slots[i] = g->slots[k];
    }
    g->bytes += (n - g->n_slots) * sizeof *slots;
    free(g->slots);
    g->slots = slots;
    g->n_slots = n;
    return true;
}

/* Finds or makes; NULL when memory is out. */
static struct profile *profile_at(struct generation *g, uint64_t hash, struct bytes cookie) {
    memory_ref ref;
    if (2 * g->n_profiles >= g->n_slots && !grow_slots(g))
        return NULL;
    uint64_t *slot = find_slot(g, hash, cookie);
    if (*slot)
        return at_ref(g, (memory_ref)*slot);
    struct profile *p = allocate(g, sizeof *p + cookie.size, &ref);
    if (!p)
        return NULL;
    *p = (struct profile){.hash = hash, .cookie_size = (uint16_t)cookie.size};
    memcpy(p->cookie, cookie.data, cookie.size);
    *slot = slot_of(hash, ref);
    g->n_profiles++;
    return p;
}

/* ---- The tags of a profile ---- */
/*
 * A chain of chunks is one stream of bytes: a tag may begin in one and end in the next. Chunks
 * behind the last one used are empty, left over from a trim.
 */
/* Makes the chain hold size more bytes; false when memory is out. */
static bool chain_reserve(struct generation *g, struct profile *p, size_t size) {
    size_t room = 0, wanted = CHUNK_FIRST;
    memory_ref *link = &p->first;
    for (memory_ref ref = p->last; ref && room < size;) {
        struct tags_chunk *c = at_ref(g, ref);
        room += (size_t)(c->size - c->used);
        wanted = 2 * (size_t)c->size + UNIT;
        link = &c->next;
        ref = c->next;
    }
    while (room < size) {
        memory_ref ref;
        size_t chunk = wanted < CHUNK_MOST ? wanted : CHUNK_MOST;
        struct tags_chunk *c = allocate(g, sizeof *c + chunk, &ref);
        if (!c)
            return false;
        *c = (struct tags_chunk){.size = (uint16_t)chunk};
        *link = ref;
        p->last = p->last ? p->last : ref;
        link = &c->next;
        room += chunk;
        wanted = CHUNK_MOST;
    }
    return true;
}

/* Writes what was reserved. */
static void chain_write(struct generation *g, struct profile *p, const uint8_t *data, size_t size) {
    for (;;) {
        struct tags_chunk *c = at_ref(g, p->last);
        size_t n = (size_t)(c->size - c->used) < size ? (size_t)(c->size - c->used) : size;
        memcpy(c->bytes + c->used, data, n);
        c->used = (uint16_t)(c->used + n);
        data += n;
        size -= n;
        if (size == 0)
            return;
        p->last = c->next;
    }
}

/* Makes the chain empty; the chunks stay. */
static void chain_clear(struct generation *g, struct profile *p) {
    for (memory_ref ref = p->first; ref;) {
        struct tags_chunk *c = at_ref(g, ref);
        c->used = 0;
        ref = c->next;
    }
    p->last = p->first;
    p->last_ms = 0;
    memset(p->n, 0, sizeof p->n);
}

static size_t chain_room(const struct generation *g, const struct profile *p) {
    size_t room = 0;
    for (memory_ref ref = p->first; ref;) {
        const struct tags_chunk *c = at_ref(g, ref);
        room += c->size;
        ref = c->next;
    }
    return room;
}

/* Keeps the newest. When that fails the chain stays as it is, and the next tag tries again. */
static void trim(struct generation *g, struct profile *p) {
    CLEANUP(tag_index_deinit) struct tag_index index = {0};
    CLEANUP(buffer_deinit) struct buffer old = BUFFER_INIT;
    CLEANUP(buffer_deinit) struct buffer kept = BUFFER_INIT;
    uint32_t n[EVENT_ACTIONS] = {0};
    int64_t last_ms = 0;
    generation_tags(g, p, &old);
    if (buffer_check(&old) < 0 || tag_index_add_run(&index, buffer_bytes(&old)) < 0)
        return;
    tag_index_trim(&index);
    tag_index_encode(&index, &kept, n, &last_ms);
    if (buffer_check(&kept) < 0)
        return;
    size_t room = chain_room(g, p);
    if (kept.size > room && !chain_reserve(g, p, kept.size - room + old.size))
        return;
    chain_clear(g, p);
    chain_write(g, p, kept.data, kept.size);
    p->last_ms = last_ms;
    memcpy(p->n, n, sizeof p->n);
}

size_t generation_tags_size(const struct generation *g, const struct profile *p) {
    size_t size = 0;
    for (memory_ref ref = p->first; ref;) {
        const struct tags_chunk *c = at_ref(g, ref);
        size += c->used;
        ref = ref == p->last ? 0 : c->next;
    }
    return size;
}

void generation_tags(const struct generation *g, const struct profile *p, struct buffer *out) {
    for (memory_ref ref = p->first; ref;) {
        const struct tags_chunk *c = at_ref(g, ref);
        buffer_append(out, c->bytes, c->used);
        ref = ref == p->last ? 0 : c->next;
    }
}

void generation_run(const struct generation *g, const struct profile *p, struct buffer *out) {
    tag_run_begin(out, p->n, generation_tags_size(g, p));
    generation_tags(g, p, out);
}

/* ---- Rows ---- */
static size_t minute_place(const struct generation *g, int64_t minute) {
    size_t low = 0, high = g->n_minutes;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (g->minutes[middle].minute < minute)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool grow_minutes(struct generation *g) {
    size_t capacity = g->minutes_capacity ? 2 * g->minutes_capacity : 4;
    struct minute_rows *grown = realloc(g->minutes, capacity * sizeof *grown);
    if (!grown)
        return false;
    g->bytes += (capacity - g->minutes_capacity) * sizeof *grown;
    g->minutes = grown;
    g->minutes_capacity = capacity;
    return true;
}

/* Finds or makes; NULL when memory is out. */
static struct minute_rows *minute_at(struct generation *g, int64_t minute) {
    if (g->minute_hint < g->n_minutes && g->minutes[g->minute_hint].minute == minute)
        return &g->minutes[g->minute_hint];
    size_t i = minute_place(g, minute);
    g->minute_hint = i;
    if (i < g->n_minutes && g->minutes[i].minute == minute)
        return &g->minutes[i];
    if (g->n_minutes == g->minutes_capacity && !grow_minutes(g))
        return NULL;
    memmove(&g->minutes[i + 1], &g->minutes[i], (g->n_minutes - i) * sizeof *g->minutes);
    g->minutes[i] = (struct minute_rows){.minute = minute};
    g->n_minutes++;
    return &g->minutes[i];
}

/* The chunk for the chain's next row; NULL when memory is out. */
static struct rows_chunk *rows_chunk_at(struct generation *g, struct rows_chain *chain) {
    memory_ref ref;
    if (chain->last && chain->last->used < chain->last->capacity)
        return chain->last;
    uint32_t capacity = chain->last ? 2 * chain->last->capacity : ROWS_FIRST;
    capacity = capacity > ROWS_MOST ? ROWS_MOST : capacity;
    struct rows_chunk *c =
        allocate(g, sizeof *c + (size_t)capacity * COLUMNS * sizeof(uint32_t), &ref);
    if (!c)
        return NULL;
    *c = (struct rows_chunk){.capacity = capacity};
    if (chain->last)
        chain->last->next = c;
    else
        chain->first = c;
    chain->last = c;
    return c;
}

static void add_row(struct rows_chain *chain, const struct event_tag *tag) {
    struct rows_chunk *c = chain->last;
    uint32_t *row = c->values + c->used++;
    for (size_t i = 0; i < EVENT_FILTERS; i++)
        row[i * c->capacity] = tag->ids[event_filter_collections[i]];
    row[COLUMN_MEASURE * c->capacity] = column_of_measure(tag->measure);
    chain->rows++;
    chain->sum += tag->measure;
}

struct rows_chain generation_rows(const struct generation *g, int64_t minute,
                                  enum event_action action) {
    size_t i = minute_place(g, minute);
    if (i < g->n_minutes && g->minutes[i].minute == minute)
        return g->minutes[i].of[action];
    return (struct rows_chain){0};
}

bool rows_next(struct rows_chain *left, struct columns *ret_columns) {
    if (left->rows == 0)
        return false;
    const struct rows_chunk *c = left->first;
    uint32_t rows = left->rows < c->capacity ? (uint32_t)left->rows : c->capacity;
    struct columns columns = {.rows = rows};
    for (size_t i = 0; i < COLUMNS; i++)
        columns.columns[i] = (struct column){.data = c->values + i * c->capacity, .width = 4};
    left->rows -= rows;
    if (left->rows > 0)
        left->first = c->next;
    *ret_columns = columns;
    return true;
}

/* ---- Adding ---- */
int generation_add(struct generation *g, uint64_t hash, const struct event_tag *tag, bool counts) {
    uint8_t encoded[TAG_BYTES_MAX + EVENT_TEXT_MAX];
    struct minute_rows *minute = NULL;
    /* All that can fail comes first. */
    struct profile *p = profile_at(g, hash, tag->cookie);
    if (!p)
        return error_origin(-ENOMEM);
    size_t size = tag_encode(encoded, tag, p->last_ms);
    if (!chain_reserve(g, p, size))
        return error_origin(-ENOMEM);
    if (counts) {
        minute = minute_at(g, event_minute_of(tag->time_ms));
        if (!minute || !rows_chunk_at(g, &minute->of[tag->action]))
            return error_origin(-ENOMEM);
        add_row(&minute->of[tag->action], tag);
    }
    chain_write(g, p, encoded, size);
    p->last_ms = tag->time_ms;
    g->tags++;
    g->late += !counts;
    if (++p->n[tag->action] > TAGS_TRIM)
        trim(g, p);
    return 0;
}

int generation_erase(struct generation *g, uint64_t hash, struct bytes cookie) {
    struct profile *p = profile_at(g, hash, cookie);
    if (!p)
        return error_origin(-ENOMEM);
    chain_clear(g, p);
    p->erased = true;
    return 0;
}
