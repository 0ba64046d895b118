/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes: applying records.
 *
 *   records ─▶ decode (elements and keys go to the dictionary and the table of keys: they have
 *              locks of their own, and what is known changes nothing)
 *           ─▶ admit each tag's minute ─▶ lock ─▶ add, move the position ─▶ unlock ─▶ count
 *
 * A record about a dead letter (work/letters.h) is applied alone. A tag can be replayed, and is not
 * held up by later ones of its cookie: tags all count. Erasing a user takes the cookie's letters
 * with it.
 *
 * A lane's records are applied by one thread; a few dozen at a time, so that the locks cost little
 * and no reader waits long for one.
 */
#include "events/local/internal.h"

#include <errno.h>

enum { STAGE = 64, PREFETCH = 6, HOT_FACTOR_MAX = 4 };

/* Records on their way in. */
struct stage {
    size_t n;
    struct event_record records[STAGE];
    struct minute_row rows[STAGE];
};

/* Memory is bounded: what is hot waits for what is frozen. Without a checkpoint under way it may
 * grow larger, as its owner has yet to notice. */
static bool must_wait(struct events_store *s, struct lane *l) {
    uint64_t hot = atomic_load_explicit(&s->hot_bytes, memory_order_relaxed);
    if (hot < s->options.hot_bytes_max)
        return false;
    mutex_lock(&l->lock);
    bool frozen = l->frozen != NULL;
    mutex_unlock(&l->lock);
    return frozen || hot >= HOT_FACTOR_MAX * s->options.hot_bytes_max;
}

static int replay(struct events_store *s, const struct journal_record *r,
                  const struct event_record *e) {
    if (e->op == EVENT_ELEMENT)
        return event_dictionary_replay(s->dictionary, r->lsn, e);
    if (e->op == EVENT_ONCE)
        return event_once_replay(s->once, r->lsn, r->wall_us, e->body);
    return 0;
}

static struct minute_row row_of(const struct event_record *e) {
    return (struct minute_row){.minute = event_minute_of(e->tag.time_ms),
                               .action = e->tag.action,
                               .measure = e->tag.measure,
                               .counts = e->op == EVENT_TAG && !e->late};
}

static bool is_letter(const struct journal_record *record) {
    return record->flags & JOURNAL_LETTER;
}

/* Decodes records until one is not to be applied: the verdict says why, unless it is about a
 * letter. */
static void stage_fill(struct events_store *s, struct stage *stage,
                       const struct journal_record *const *records, size_t n,
                       struct work_verdict *v) {
    for (stage->n = 0; stage->n < n && !is_letter(records[stage->n]); stage->n++) {
        struct event_record *e = &stage->records[stage->n];
        if (!event_record_decode(records[stage->n]->payload, e) || e->op == EVENT_FULL_TAG) {
            *v = (struct work_verdict){WORK_REJECT, v->applied, "not a record of events"};
            return;
        }
        int r = replay(s, records[stage->n], e);
        if (r == -ENOMEM)
            *v = (struct work_verdict){WORK_RETRY, v->applied, "memory is out"};
        else if (r != 0)
            *v = (struct work_verdict){WORK_REJECT, v->applied, "does not follow what is known"};
        if (r != 0)
            return;
        stage->rows[stage->n] = row_of(e);
    }
}

static void remove_letter(struct events_store *s, struct generation *g, lsn_t letter,
                          uint64_t hash) {
    work_letters_remove(&s->letters, letter, hash);
    letters_remove(&g->letters, letter);
}

/* Forgets the cookie, in letters too. */
static int erase(struct events_store *s, struct generation *g, uint64_t hash, struct bytes cookie) {
    CLEANUP(buffer_deinit) struct buffer letters = BUFFER_INIT;
    work_letters_of_key(&s->letters, hash, &letters);
    int r = buffer_check(&letters);
    if (r == 0)
        r = letters_reserve(&g->letters, letters.size / sizeof(lsn_t));
    if (r == 0)
        r = generation_erase(g, hash, cookie);
    for (size_t i = 0; r == 0 && i < letters.size; i += sizeof(lsn_t))
        remove_letter(s, g, load_u64(letters.data + i), hash);
    return error_trace(r);
}

static int add(struct events_store *s, struct generation *g, uint64_t hash,
               const struct event_record *e, bool counts) {
    if (e->op == EVENT_TAG)
        return generation_add(g, hash, &e->tag, counts);
    if (e->op == EVENT_ERASE)
        return erase(s, g, hash, e->tag.cookie);
    return 0;
}

/* Adds what is staged; returns how many records were. */
static size_t stage_add(struct events_store *s, struct lane *l, const struct stage *stage,
                        const struct journal_record *const *records) {
    size_t i = 0;
    mutex_lock(&l->lock);
    size_t before = l->hot->bytes;
    for (size_t k = 0; k < stage->n; k++)
        generation_prefetch(l->hot, records[k]->key_hash);
    for (; i < stage->n; i++) {
        if (i + 2 * PREFETCH < stage->n)
            generation_prefetch_profile(l->hot, records[i + 2 * PREFETCH]->key_hash);
        if (i + PREFETCH < stage->n)
            generation_prefetch_tags(l->hot, records[i + PREFETCH]->key_hash);
        if (add(s, l->hot, records[i]->key_hash, &stage->records[i], stage->rows[i].counts) < 0)
            break;
        l->position = records[i]->lsn;
    }
    atomic_fetch_add_explicit(&s->hot_bytes, l->hot->bytes - before, memory_order_relaxed);
    mutex_unlock(&l->lock);
    return i;
}

static void count(struct events_store *s, const struct stage *stage, size_t n) {
    uint64_t tags = 0, late = 0;
    minutes_count(&s->minutes, stage->rows, n);
    for (size_t i = 0; i < n; i++) {
        tags += stage->records[i].op == EVENT_TAG;
        late += stage->records[i].op == EVENT_TAG && !stage->rows[i].counts;
    }
    atomic_fetch_add_explicit(&s->tags_applied, tags, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->tags_late, late, memory_order_relaxed);
}

/* ---- About a dead letter ---- */
static int take_letter(struct events_store *s, struct lane *l, const struct journal_record *record,
                       lsn_t letter, const struct stage *stage) {
    mutex_lock(&l->lock);
    size_t before = l->hot->bytes;
    int r = letters_reserve(&l->hot->letters, 1);
    if (r == 0 && stage->n)
        r = add(s, l->hot, record->key_hash, &stage->records[0], stage->rows[0].counts);
    if (r == 0) {
        remove_letter(s, l->hot, letter, record->key_hash);
        l->position = record->lsn;
    }
    atomic_fetch_add_explicit(&s->hot_bytes, l->hot->bytes - before, memory_order_relaxed);
    mutex_unlock(&l->lock);
    return error_trace(r);
}

/* Why a record about a letter is refused; NULL: it is not. The stage gets the tag of a replay. */
static const char *refusal(struct events_store *s, const struct journal_record *record,
                           struct work_letter_record *letter, struct stage *stage) {
    lsn_t changed;
    stage->n = 0;
    if (!work_letter_decode(record->payload, letter))
        return work_letter_unknown;
    if (!work_letters_find(&s->letters, letter->letter, record->key_hash, &changed))
        return work_letter_gone;
    if (letter->op == WORK_LETTER_DROP)
        return NULL;
    if (!event_record_decode(letter->payload, &stage->records[0]) ||
        stage->records[0].op != EVENT_TAG)
        return "not a tag: it can only be dropped";
    stage->rows[0] = row_of(&stage->records[0]);
    stage->n = 1;
    return NULL;
}

static void apply_letter(struct events_store *s, struct lane *l,
                         const struct journal_record *record, struct work_verdict *v) {
    struct stage stage;
    struct work_letter_record letter;
    const char *why = refusal(s, record, &letter, &stage);
    if (why) {
        *v = (struct work_verdict){WORK_REJECT, v->applied, why};
        return;
    }
    int r = minutes_admit(&s->minutes, stage.rows, stage.n);
    if (r == 0)
        r = take_letter(s, l, record, letter.letter, &stage);
    if (r < 0) {
        *v = (struct work_verdict){WORK_RETRY, v->applied, "memory is out"};
        return;
    }
    count(s, &stage, stage.n);
    v->applied++;
}

static void apply_some(struct events_store *s, struct lane *l,
                       const struct journal_record *const *records, size_t n,
                       struct work_verdict *v) {
    struct stage stage;
    if (must_wait(s, l)) {
        *v = (struct work_verdict){WORK_RETRY, v->applied, "memory is full until the checkpoint"};
        return;
    }
    if (is_letter(records[0])) {
        apply_letter(s, l, records[0], v);
        return;
    }
    stage_fill(s, &stage, records, n, v);
    if (minutes_admit(&s->minutes, stage.rows, stage.n) < 0) {
        *v = (struct work_verdict){WORK_RETRY, v->applied, "memory is out"};
        return;
    }
    size_t added = stage_add(s, l, &stage, records);
    count(s, &stage, added);
    v->applied += added;
    if (added < stage.n)
        *v = (struct work_verdict){WORK_RETRY, v->applied, "memory is out"};
}

static int apply(void *store, unsigned lane, const struct journal_record *const *records, size_t n,
                 struct work_verdict *ret_verdict) {
    struct events_store *s = store;
    struct work_verdict v = {.outcome = WORK_OK};
    while (v.outcome == WORK_OK && v.applied < n) {
        size_t left = n - v.applied;
        apply_some(s, &s->lanes[lane], records + v.applied, left < STAGE ? left : STAGE, &v);
    }
    *ret_verdict = v;
    return 0;
}

/* ---- Erasures to be applied ---- */
static struct lane *lane_of(struct events_store *s, uint64_t key_hash) {
    return &s->lanes[work_lane_of_hash(key_hash, s->n_lanes)];
}

bool events_store_takes_erasure(struct events_store *s, uint64_t key_hash) {
    struct lane *l = lane_of(s, key_hash);
    mutex_lock(&l->lock);
    bool room = event_erasures_take(&l->erasures, l->position);
    mutex_unlock(&l->lock);
    return room;
}

void events_store_erased(struct events_store *s, uint64_t key_hash, lsn_t lsn) {
    struct lane *l = lane_of(s, key_hash);
    mutex_lock(&l->lock);
    event_erasures_add(&l->erasures, key_hash, lsn, l->position);
    mutex_unlock(&l->lock);
}

/* ---- The workers' table ---- */
/* Events have no record that is for all lanes. */
static int control(void *store, const struct journal_record *record) {
    (void)store;
    (void)record;
    return 0;
}

/* Lock held. */
static int keep_letter(struct events_store *s, struct lane *l, const struct journal_record *record,
                       const char *reason) {
    int r = work_letters_add(&s->letters, record->lsn, record->key_hash);
    if (r == 0)
        r = letters_add(&l->hot->letters, record, reason, &l->hot->bytes);
    if (r < 0)
        work_letters_remove(&s->letters, record->lsn, record->key_hash);
    return error_trace(r);
}

static int reject(void *store, unsigned lane, const struct journal_record *record,
                  const char *reason) {
    struct events_store *s = store;
    struct lane *l = &s->lanes[lane];
    mutex_lock(&l->lock);
    size_t before = l->hot->bytes;
    int r = is_letter(record) ? 0 : keep_letter(s, l, record, reason);
    if (r == 0)
        l->position = record->lsn;
    atomic_fetch_add_explicit(&s->hot_bytes, l->hot->bytes - before, memory_order_relaxed);
    mutex_unlock(&l->lock);
    return error_trace(r);
}

static void passed(void *store, unsigned lane, lsn_t lsn) {
    struct lane *l = &((struct events_store *)store)->lanes[lane];
    mutex_lock(&l->lock);
    if (lsn > l->position)
        l->position = lsn;
    mutex_unlock(&l->lock);
}

static struct work_letters *letters(void *store) {
    return &((struct events_store *)store)->letters;
}

/* What a lane's lists begin with, and what keeps them. */
struct held {
    struct generation *hot;
    struct generation *frozen;
};

/* The base comes last: what a checkpoint takes out of the lanes meanwhile is then in it. */
static struct base *hold(struct events_store *s, struct held *held, const struct letter **newest) {
    struct base *base = NULL;
    for (unsigned i = 0; i < s->n_lanes; i++) {
        struct lane *l = &s->lanes[i];
        mutex_lock(&l->lock);
        held[i].hot = generation_ref(l->hot);
        held[i].frozen = l->frozen ? generation_ref(l->frozen) : NULL;
        newest[2 * i] = l->hot->letters.newest;
        newest[2 * i + 1] = l->frozen ? l->frozen->letters.newest : NULL;
        mutex_unlock(&l->lock);
    }
    mutex_lock(&s->lanes[0].lock);
    base = base_ref(s->lanes[0].base);
    mutex_unlock(&s->lanes[0].lock);
    return base;
}

static int read_letters(void *store, const lsn_t *lsns, size_t n,
                        void (*each)(void *context, const struct work_letter *letter),
                        void *context) {
    struct events_store *s = store;
    struct held held[WORK_LANES_MAX];
    const struct letter *newest[2 * WORK_LANES_MAX];
    struct base *base = hold(s, held, newest);
    const struct letters_source source = {&s->letters, base, newest, 2 * (size_t)s->n_lanes};
    int r = letters_read(&source, lsns, n, each, context);
    for (unsigned i = 0; i < s->n_lanes; i++) {
        generation_unref(held[i].hot);
        generation_unref(held[i].frozen);
    }
    base_unref(base);
    return error_trace(r);
}

const struct work_store_ops events_store_work_ops = {.name = "events",
                                                     .kind = JOURNAL_KIND_EVENTS,
                                                     .apply = apply,
                                                     .control = control,
                                                     .reject = reject,
                                                     .passed = passed,
                                                     .letters = letters,
                                                     .read_letters = read_letters};
