/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of a lane into the cluster.
 *
 *   take what decodes ─▶ deal to buckets ─▶ scripts ─┬─ all done: the lane has come up to there
 *                             ▲                      ├─ a bucket has more: again, without that
 *                             └──────────────────────┤
 *                                                    └─ no answer: none is applied, as far as the
 *                                                       lane knows; what was will answer so
 *
 * A record about a dead letter (work/letters.h) is applied alone: its tag first, by the lane's lsn
 * like any other, then the letter goes. Whatever dies in between, the tag counts once, as its lsn
 * says, and the letter goes the next time.
 */
#include "events/redis/batch.h"
#include "events/redis/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* So much is combined at a time. */
enum { STAGE_RECORDS = 4096, STAGE_BYTES = 2 << 20, ROUNDS_MAX = 8 };

/* ---- A batch ---- */

static int make_commands(struct events_redis *s, struct batch *b, struct redis_command *commands,
                         struct bucket **asked, size_t *ret_n) {
    size_t n = 0;
    for (size_t i = 0; i < b->n_buckets; i++) {
        bool any = false;
        int r = b->buckets[i].done
                    ? 0
                    : batch_command(b, &s->scripts, &b->buckets[i], &commands[n], &any);
        if (r)
            return error_trace(r);
        if (any)
            asked[n++] = &b->buckets[i];
    }
    *ret_n = n;
    return 0;
}

/* Also when some have no answer: what is done is not sent again. */
static int take_answers(struct events_redis *s, const struct redis_command *commands,
                        struct bucket *const *asked, size_t n, char why[EVENTS_REDIS_WHY_MAX]) {
    for (size_t i = 0; i < n; i++) {
        if (commands[i].result)
            continue;
        if (!batch_answered(asked[i], commands[i].reply))
            return redis_odd(why);
        atomic_fetch_add(asked[i]->done ? &s->scripts_run : &s->overtaken, 1);
    }
    return 0;
}

static int run_batch(struct events_redis *s, struct batch *b, char why[EVENTS_REDIS_WHY_MAX]) {
    int r = batch_deal(b);
    if (r)
        return error_trace(r);
    struct redis_command *commands = arena_calloc(b->arena, b->n_buckets + 1, sizeof *commands);
    struct bucket **asked = arena_calloc(b->arena, b->n_buckets + 1, sizeof(struct bucket *));
    if (!commands || !asked)
        return error_origin(-ENOMEM);
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        size_t n = 0;
        r = make_commands(s, b, commands, asked, &n);
        if (r || n == 0)
            return error_trace(r);
        r = redis_ask(s, commands, n, true, redis_write_timeout(s), why);
        int odd = take_answers(s, commands, asked, n, why);
        redis_commands_free(commands, n);
        if (r || odd)
            return r ? error_trace(r) : odd;
    }
    snprintf(why, EVENTS_REDIS_WHY_MAX, "somebody else applies the same lane at the same time");
    return EVENTS_REDIS_E_DOWN;
}

/* ---- Records ---- */

static bool is_letter(const struct journal_record *record) {
    return record->flags & JOURNAL_LETTER;
}

static bool decode(struct bytes payload, struct event_record *record) {
    return event_record_decode(payload, record) &&
           (record->op == EVENT_FULL_TAG || record->op == EVENT_ERASE);
}

static void stop(struct lane *lane, struct work_verdict *v, int r, const char *why) {
    bool down = r > 0;
    snprintf(lane->reason, sizeof lane->reason, "%s", down ? why : "memory is out");
    v->outcome = down ? WORK_DOWN : WORK_RETRY;
    v->reason = lane->reason;
}

/* The letters of those who are erased go too. */
static int after_batch(struct events_redis *s, unsigned lane, const struct batch *b,
                       char why[EVENTS_REDIS_WHY_MAX]) {
    uint64_t tags = 0;
    int r = 0;
    for (size_t i = 0; !r && i < b->n; i++) {
        tags += b->items[i].record.op == EVENT_FULL_TAG;
        if (b->items[i].record.op == EVENT_ERASE)
            r = redis_letters_remove_all(s, lane, b->items[i].key_hash, why);
    }
    if (!r)
        atomic_fetch_add_explicit(&s->tags, tags, memory_order_relaxed);
    return r > 0 ? r : error_trace(r);
}

static int apply_items(struct events_redis *s, unsigned lane, struct arena *a,
                       struct batch_item *items, size_t n, char why[EVENTS_REDIS_WHY_MAX]) {
    struct batch b = {.arena = a,
                      .prefix = s->prefix,
                      .lane = lane,
                      .from = atomic_load(&s->lanes[lane].applied),
                      .last = items[n - 1].lsn,
                      .items = items,
                      .n = n};
    int r = redis_announce(s, lane, b.last, why);
    if (!r)
        r = redis_once_sift(s, lane, a, items, &b.n, why);
    if (!r)
        r = run_batch(s, &b, why);
    return r ? r : after_batch(s, lane, &b, why);
}

static struct batch_item item_of(const struct journal_record *record,
                                 const struct event_record *event) {
    return (struct batch_item){.lsn = record->lsn,
                               .key_hash = record->key_hash,
                               .wall_us = record->wall_us,
                               .cookies = key_cookies_of(record->key_hash),
                               .record = *event};
}

/* Those before the first that does not decode, or is about a letter. */
static size_t stage(const struct journal_record *const *records, size_t n,
                    struct batch_item *items) {
    size_t bytes = 0, i = 0;
    for (; i < n && bytes < STAGE_BYTES && !is_letter(records[i]); i++) {
        struct event_record event;
        if (!decode(records[i]->payload, &event))
            break;
        items[i] = item_of(records[i], &event);
        bytes += records[i]->payload.size;
    }
    return i;
}

static void apply_some(struct events_redis *s, unsigned number,
                       const struct journal_record *const *records, size_t n,
                       struct work_verdict *v) {
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(ARENA_BYTES_MAX);
    char why[EVENTS_REDIS_WHY_MAX] = "";
    struct lane *lane = &s->lanes[number];
    size_t most = n < STAGE_RECORDS ? n : STAGE_RECORDS;
    struct batch_item *items = arena_calloc(&a, most, sizeof *items);
    size_t staged = items ? stage(records, most, items) : 0;
    if (items && staged == 0) {
        *v = (struct work_verdict){WORK_REJECT, v->applied, "not a record of events"};
        return;
    }
    int r = items ? apply_items(s, number, &a, items, staged, why) : error_origin(-ENOMEM);
    if (r) {
        stop(lane, v, r, why);
        return;
    }
    atomic_store(&lane->applied, records[staged - 1]->lsn);
    v->applied += staged;
}

/* ---- About a dead letter ---- */

/* Sets *ret_refused to why it is refused, NULL: it is not. `replayed` gets the tag of a replay. The
 * cluster is asked whether the letter is there, as another process may have taken it away. */
static int judge(struct events_redis *s, unsigned lane, const struct journal_record *record,
                 struct work_letter_record *letter, struct event_record *replayed,
                 const char **ret_refused, char why[EVENTS_REDIS_WHY_MAX]) {
    bool there = false;
    if (!work_letter_decode(record->payload, letter)) {
        *ret_refused = work_letter_unknown;
        return 0;
    }
    if (redis_is_shared(s)) /* the number that routes know it by */
        letter->letter >>= WORK_LETTER_PARTITION_BITS;
    int r = redis_letters_look(s, lane, letter->letter, record->key_hash, &there, why);
    if (r)
        return r > 0 ? r : error_trace(r);
    bool is_tag = letter->op == WORK_LETTER_DROP ||
                  (decode(letter->payload, replayed) && replayed->op == EVENT_FULL_TAG);
    *ret_refused = !there ? work_letter_gone : !is_tag ? "not a tag: it can only be dropped" : NULL;
    return 0;
}

static int do_letter(struct events_redis *s, unsigned number, const struct journal_record *record,
                     const struct work_letter_record *letter, const struct event_record *replayed,
                     char why[EVENTS_REDIS_WHY_MAX]) {
    CLEANUP(arena_deinit) struct arena a = ARENA_INIT(ARENA_BYTES_MAX);
    int r = 0;
    if (letter->op == WORK_LETTER_REPLAY) {
        struct batch_item item = item_of(record, replayed);
        r = apply_items(s, number, &a, &item, 1, why);
    }
    return r ? r : redis_letters_remove(s, number, letter->letter, record->key_hash, why);
}

/* The letter goes last: a record that comes again, as nobody knew that it was applied, finds it and
 * changes nothing more, or finds it gone. */
static void apply_letter(struct events_redis *s, unsigned number,
                         const struct journal_record *record, struct work_verdict *v) {
    char why[EVENTS_REDIS_WHY_MAX] = "";
    struct work_letter_record letter;
    struct event_record replayed;
    const char *refused = NULL;
    int r = judge(s, number, record, &letter, &replayed, &refused, why);
    if (!r && refused) {
        *v = (struct work_verdict){WORK_REJECT, v->applied, refused};
        return;
    }
    if (!r)
        r = do_letter(s, number, record, &letter, &replayed, why);
    if (r) {
        stop(&s->lanes[number], v, r, why);
        return;
    }
    atomic_store(&s->lanes[number].applied, record->lsn);
    v->applied++;
}

/* ---- The workers' table ---- */

static int apply(void *store, unsigned lane, const struct journal_record *const *records, size_t n,
                 struct work_verdict *ret_verdict) {
    struct events_redis *s = store;
    struct work_verdict v = {.outcome = WORK_OK};
    char why[EVENTS_REDIS_WHY_MAX] = "";
    while (v.outcome == WORK_OK && v.applied < n) {
        const struct journal_record *const *rest = records + v.applied;
        if (rest[0]->lsn <= atomic_load(&s->lanes[lane].applied))
            v.applied++;
        else if (is_letter(rest[0]))
            apply_letter(s, lane, rest[0], &v);
        else
            apply_some(s, lane, rest, n - v.applied, &v);
    }
    int r = v.applied ? redis_settle(s, lane, why) : 0;
    if (r) {
        v.applied = 0;
        stop(&s->lanes[lane], &v, r, why);
    }
    *ret_verdict = v;
    return 0;
}

/* Events have no record that is for all lanes. */
static int control(void *store UNUSED, const struct journal_record *record UNUSED) {
    return 0;
}

static void passed(void *store, unsigned lane, lsn_t lsn) {
    struct events_redis *s = store;
    if (lsn > atomic_load(&s->lanes[lane].applied))
        atomic_store(&s->lanes[lane].applied, lsn);
}

/* The letter first: it is known by its lsn, so that a second time changes nothing. */
static int reject(void *store, unsigned lane, const struct journal_record *record,
                  const char *reason) {
    struct events_redis *s = store;
    char why[EVENTS_REDIS_WHY_MAX];
    int r = is_letter(record) ? 0 : redis_letters_keep(s, lane, record, reason, why);
    if (r == WORK_LETTER_E_FULL)
        return r;
    if (!r) {
        passed(s, lane, record->lsn);
        r = redis_settle(s, lane, why);
    }
    return r > 0 ? error_origin(-EIO) : error_trace(r);
}

const struct work_store_ops events_redis_work_ops = {.name = "events",
                                                     .kind = JOURNAL_KIND_EVENTS,
                                                     .apply = apply,
                                                     .control = control,
                                                     .reject = reject,
                                                     .passed = passed,
                                                     .letters = redis_letters_of,
                                                     .read_letters = redis_letters_read};

/* ---- Erasures to be applied ---- */

static unsigned lane_of(const struct events_redis *s, uint64_t key_hash) {
    return work_lane_of_hash(key_hash, atomic_load(&s->n_lanes));
}

bool events_redis_takes_erasure(struct events_redis *s, uint64_t key_hash) {
    struct lane *lane = &s->lanes[lane_of(s, key_hash)];
    if (!atomic_load(&lane->ours))
        return true;
    mutex_lock(&s->lock);
    if (!lane->erasures)
        lane->erasures = calloc(1, sizeof *lane->erasures);
    bool room = lane->erasures && event_erasures_take(lane->erasures, atomic_load(&lane->applied));
    mutex_unlock(&s->lock);
    return room;
}

void events_redis_erased(struct events_redis *s, uint64_t key_hash, lsn_t lsn) {
    struct lane *lane = &s->lanes[lane_of(s, key_hash)];
    mutex_lock(&s->lock);
    if (lane->erasures)
        event_erasures_add(lane->erasures, key_hash, lsn, atomic_load(&lane->applied));
    mutex_unlock(&s->lock);
}

bool redis_is_hidden(struct events_redis *s, uint64_t key_hash) {
    unsigned lanes = atomic_load(&s->n_lanes);
    if (lanes == 0)
        return false;
    struct lane *lane = &s->lanes[lane_of(s, key_hash)];
    mutex_lock(&s->lock);
    bool hidden = lane->erasures &&
                  event_erasures_hide(lane->erasures, key_hash, atomic_load(&lane->applied));
    mutex_unlock(&s->lock);
    return hidden;
}
