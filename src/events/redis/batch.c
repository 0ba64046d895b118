/* SPDX-License-Identifier: Apache-2.0 */
/* Records, dealt to buckets and combined: see batch.h. */
#include "events/redis/batch.h"

#include "base/hash.h"
#include "events/redis/keys.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* ---- Dealing ---- */

typedef const struct batch_item *item_ref;

static int compare_u64(uint64_t a, uint64_t b) {
    return (a > b) - (a < b);
}

static int compare_bytes(struct bytes a, struct bytes b) {
    int r = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);
    return r ? r : compare_u64(a.size, b.size);
}

static int64_t minute_of(const struct batch_item *item) {
    return event_minute_of(item->record.tag.time_ms);
}

/* By bucket, then by cookie, then by age. */
static int compare_cookies(const void *a, const void *b) {
    const struct batch_item *x = *(const item_ref *)a, *y = *(const item_ref *)b;
    int r = compare_u64(x->cookies, y->cookies);
    if (!r)
        r = compare_bytes(x->record.tag.cookie, y->record.tag.cookie);
    return r ? r : compare_u64(x->lsn, y->lsn);
}

static int compare_minutes(const void *a, const void *b) {
    const struct batch_item *x = *(const item_ref *)a, *y = *(const item_ref *)b;
    int64_t mine = minute_of(x), other = minute_of(y);
    return mine != other ? (mine > other ? 1 : -1) : compare_u64(x->lsn, y->lsn);
}

static int64_t number_of(enum bucket_kind kind, const struct batch_item *item) {
    return kind == BUCKET_COOKIES ? (int64_t)item->cookies : minute_of(item);
}

/* Items in the order of their buckets become buckets. */
static void cut(struct batch *b, enum bucket_kind kind, const struct batch_item **items, size_t n) {
    for (size_t i = 0, first = 0; i < n; i++) {
        if (i + 1 < n && number_of(kind, items[i + 1]) == number_of(kind, items[i]))
            continue;
        b->buckets[b->n_buckets++] = (struct bucket){.kind = kind,
                                                     .number = number_of(kind, items[i]),
                                                     .from = b->from,
                                                     .items = items + first,
                                                     .n = i + 1 - first};
        first = i + 1;
    }
}

int batch_deal(struct batch *b) {
    const struct batch_item **cookies = arena_calloc(b->arena, b->n + 1, sizeof *cookies);
    const struct batch_item **minutes = arena_calloc(b->arena, b->n + 1, sizeof *minutes);
    size_t n_minutes = 0;
    b->n_buckets = 0;
    b->buckets = arena_calloc(b->arena, 2 * b->n + 1, sizeof *b->buckets);
    if (!cookies || !minutes || !b->buckets)
        return error_origin(-ENOMEM);
    for (size_t i = 0; i < b->n; i++) {
        cookies[i] = &b->items[i];
        if (b->items[i].record.op == EVENT_FULL_TAG)
            minutes[n_minutes++] = &b->items[i];
    }
    qsort(cookies, b->n, sizeof *cookies, compare_cookies);
    qsort(minutes, n_minutes, sizeof *minutes, compare_minutes);
    cut(b, BUCKET_COOKIES, cookies, b->n);
    cut(b, BUCKET_MINUTE, minutes, n_minutes);
    return 0;
}

/* ---- The arguments of a command ---- */

/* Room was made for all of them; what could not be allocated is found at the end. */
struct arguments {
    struct arena *arena;
    struct bytes *list;
    size_t n;
    size_t max;
    bool failed;
};

static int arguments_init(struct arguments *a, struct arena *arena, size_t max) {
    *a = (struct arguments){.arena = arena, .max = max};
    a->list = arena_calloc(arena, max, sizeof *a->list);
    return a->list ? 0 : error_origin(-ENOMEM);
}

static void add(struct arguments *a, struct bytes argument) {
    assert(a->n < a->max);
    a->failed = a->failed || !argument.data;
    a->list[a->n++] = argument;
}

static void add_number(struct arguments *a, int64_t number) {
    add(a, key_format(a->arena, "%" PRId64, number));
}

static int finish(const struct arguments *a, const struct redis_script *script, size_t n_keys,
                  struct redis_command *ret_command) {
    if (a->failed)
        return error_origin(-ENOMEM);
    *ret_command = (struct redis_command){
        .key = a->list[0], .script = script, .n_keys = n_keys, .arguments = a->list, .n = a->n};
    return 0;
}

/* ---- Cookies ---- */

/* The tag as a member of its list: whose lane and lsn it has makes it another than all equal ones.
 * Numbers with their highest byte first, so that of tags of one time the later sort behind. */
static struct bytes member_of(const struct batch *b, const struct batch_item *item) {
    enum { PLACE = 12 };
    CLEANUP(buffer_deinit) struct buffer out = BUFFER_INIT;
    struct event_tag tag = item->record.tag;
    tag.cookie = (struct bytes){0};
    for (int shift = 24; shift >= 0; shift -= 8)
        buffer_append_u8(&out, (uint8_t)(b->lane >> shift));
    for (int shift = 56; shift >= 0; shift -= 8)
        buffer_append_u8(&out, (uint8_t)(item->lsn >> shift));
    event_record_encode_full_tag(&out, &tag, item->record.texts);
    uint8_t *member = out.failed ? NULL : arena_alloc(b->arena, out.size);
    if (!member)
        return (struct bytes){0};
    assert(out.size > PLACE);
    memcpy(member, out.data, out.size);
    return bytes_of(member, out.size);
}

static bool same_cookie(const struct batch_item *a, const struct batch_item *b) {
    return bytes_equal(a->record.tag.cookie, b->record.tag.cookie);
}

/* How many of the items are of the first one's cookie. */
static size_t run_of_cookie(const struct batch_item *const *items, size_t n) {
    size_t run = 1;
    while (run < n && same_cookie(items[0], items[run]))
        run++;
    return run;
}

/* The tags of one action, of one cookie. */
static void add_list(const struct batch *b, struct arguments *a, enum event_action action,
                     const struct batch_item *const *items, size_t n) {
    size_t count = a->n, tags = 0;
    add(a, BYTES_LITERAL("0"));
    for (size_t i = 0; i < n; i++) {
        if (items[i]->record.tag.action != action)
            continue;
        add_number(a, items[i]->record.tag.time_ms);
        add(a, member_of(b, items[i]));
        tags++;
    }
    if (tags)
        a->list[count] = key_format(b->arena, "%zu", tags);
}

static void add_cookie(const struct batch *b, struct arguments *a,
                       const struct batch_item *const *items, size_t n) {
    size_t behind = n; /* the last erasure */
    while (behind > 0 && items[behind - 1]->record.op != EVENT_ERASE)
        behind--;
    add(a, behind > 0 ? BYTES_LITERAL("1") : BYTES_LITERAL("0"));
    for (unsigned action = 0; action < EVENT_ACTIONS; action++)
        add_list(b, a, (enum event_action)action, items + behind, n - behind);
}

static void add_range(const struct batch *b, const struct bucket *bucket, struct arguments *a) {
    add(a, key_position(b->arena, bucket->from));
    add(a, key_position(b->arena, b->last));
}

static int cookies_command(const struct batch *b, const struct bucket *bucket,
                           const struct redis_script *script, const struct batch_item *const *items,
                           size_t n, struct redis_command *ret_command) {
    struct arguments a;
    size_t cookies = 0;
    for (size_t i = 0; i < n; i += run_of_cookie(items + i, n - i))
        cookies++;
    int r = arguments_init(&a, b->arena, 6 + cookies * (1 + 2 * EVENT_ACTIONS) + 2 * n);
    if (r)
        return error_trace(r);
    add(&a, key_cookies_positions(b->arena, b->prefix, (unsigned)bucket->number));
    for (size_t i = 0; i < n; i += run_of_cookie(items + i, n - i))
        for (unsigned action = 0; action < EVENT_ACTIONS; action++)
            add(&a, key_tags(b->arena, b->prefix, (unsigned)bucket->number,
                             (enum event_action)action, items[i]->record.tag.cookie));
    size_t n_keys = a.n;
    add_number(&a, b->lane);
    add_range(b, bucket, &a);
    add_number(&a, EVENT_PROFILE_KEEP);
    add_number(&a, EVENT_ACTIONS);
    for (size_t i = 0; i < n;) {
        size_t run = run_of_cookie(items + i, n - i);
        add_cookie(b, &a, items + i, run);
        i += run;
    }
    return finish(&a, script, n_keys, ret_command);
}

/* ---- A minute ---- */

enum { COMBINATIONS = 1 << EVENT_FILTERS };

struct combination {
    struct bytes field;
    int64_t count;
    int64_t sum;
};
/* Open addressing, at most half full. */
struct combinations {
    struct arena *arena;
    struct combination *table;
    size_t mask;
    size_t n;
};

static int combinations_init(struct combinations *c, struct arena *arena, size_t n) {
    size_t size = 1;
    while (size < 2 * n)
        size *= 2;
    *c = (struct combinations){.arena = arena, .mask = size - 1};
    c->table = arena_calloc(arena, size, sizeof *c->table);
    return c->table ? 0 : error_origin(-ENOMEM);
}

static struct combination *find(struct combinations *c, struct bytes field) {
    size_t at = (size_t)hash64(field.data, field.size) & c->mask;
    while (c->table[at].field.size && !bytes_equal(c->table[at].field, field))
        at = (at + 1) & c->mask;
    return &c->table[at];
}

static int count_one(struct combinations *c, struct bytes field, int32_t measure) {
    struct combination *one = find(c, field);
    if (!one->field.size) {
        uint8_t *copy = arena_alloc(c->arena, field.size);
        if (!copy)
            return error_origin(-ENOMEM);
        memcpy(copy, field.data, field.size);
        one->field = bytes_of(copy, field.size);
        c->n++;
    }
    one->count++;
    one->sum += measure;
    return 0;
}

/* In all the combinations of filters that would find it. */
static int count_tag(struct combinations *c, struct buffer *scratch,
                     const struct event_record *record) {
    struct bytes values[EVENT_FILTERS];
    int r = 0;
    for (unsigned i = 0; i < EVENT_FILTERS; i++)
        values[i] = record->texts[event_filter_collections[i]];
    for (unsigned set = 0; !r && set < COMBINATIONS; set++) {
        bool filtered[EVENT_FILTERS];
        for (unsigned i = 0; i < EVENT_FILTERS; i++)
            filtered[i] = set >> i & 1;
        buffer_clear(scratch);
        key_append_combination(scratch, record->tag.action, filtered, values);
        r = buffer_check(scratch);
        if (!r)
            r = count_one(c, buffer_bytes(scratch), record->tag.measure);
    }
    return error_trace(r);
}

static struct bytes value_of(struct arena *arena, const struct combination *one) {
    uint8_t *value = arena_alloc(arena, KEY_AGGREGATE_BYTES);
    if (!value)
        return (struct bytes){0};
    store_u64(value, (uint64_t)one->count);
    store_u64(value + 8, (uint64_t)one->sum);
    return bytes_of(value, KEY_AGGREGATE_BYTES);
}

static int minute_command(const struct batch *b, const struct bucket *bucket,
                          const struct redis_script *script, struct combinations *c,
                          struct redis_command *ret_command) {
    enum { KEPT_S = 25 * 3600 }; /* of wall-clock time, after it was last written */
    struct arguments a;
    int r = arguments_init(&a, b->arena, 5 + 2 * c->n);
    if (r)
        return error_trace(r);
    add(&a, key_minute(b->arena, b->prefix, bucket->number, key_shard_of(b->lane)));
    add(&a, key_format(b->arena, "p%u", b->lane));
    add_range(b, bucket, &a);
    add_number(&a, KEPT_S);
    for (size_t i = 0; i <= c->mask; i++) {
        const struct combination *one = &c->table[i];
        if (!one->field.size)
            continue;
        add(&a, one->field);
        add(&a, value_of(b->arena, one));
    }
    return finish(&a, script, 1, ret_command);
}

static int combine_minute(const struct batch *b, const struct bucket *bucket,
                          const struct redis_script *script, const struct batch_item *const *items,
                          size_t n, struct redis_command *ret_command) {
    CLEANUP(buffer_deinit) struct buffer scratch = BUFFER_INIT;
    struct combinations c;
    int r = combinations_init(&c, b->arena, n * COMBINATIONS);
    for (size_t i = 0; !r && i < n; i++)
        r = count_tag(&c, &scratch, &items[i]->record);
    return r ? error_trace(r) : minute_command(b, bucket, script, &c, ret_command);
}

/* ---- Both ---- */

int batch_command(struct batch *b, const struct scripts *scripts, struct bucket *bucket,
                  struct redis_command *ret_command, bool *ret_any) {
    const struct batch_item **items = arena_calloc(b->arena, bucket->n, sizeof(item_ref));
    size_t n = 0;
    if (!items)
        return error_origin(-ENOMEM);
    for (size_t i = 0; i < bucket->n; i++)
        if (bucket->items[i]->lsn > bucket->from)
            items[n++] = bucket->items[i];
    bucket->done = n == 0;
    *ret_any = n > 0;
    if (n == 0)
        return 0;
    return bucket->kind == BUCKET_COOKIES
               ? cookies_command(b, bucket, &scripts->cookies, items, n, ret_command)
               : combine_minute(b, bucket, &scripts->minute, items, n, ret_command);
}

bool batch_answered(struct bucket *bucket, const redisReply *reply) {
    lsn_t has;
    if (reply->type == REDIS_REPLY_INTEGER && reply->integer == 1) {
        bucket->done = true;
        return true;
    }
    if (reply->type != REDIS_REPLY_STRING ||
        !key_position_read(bytes_of(reply->str, reply->len), &has) || has <= bucket->from)
        return false;
    bucket->from = has;
    return true;
}
