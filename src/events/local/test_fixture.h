/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the store share: a log of records as the journal would hold it, a model that
 * keeps every tag, and a comparison of the store's answers with it. All is decided by one seed.
 * RocksDB does its own I/O, so the directory is a real one.
 */
#ifndef MILLRACE_EVENTS_LOCAL_TEST_FIXTURE_H
#define MILLRACE_EVENTS_LOCAL_TEST_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/hash.h"
#include "events/store.h"
#include "os/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOG_MAX = 120000, COOKIES = 40, ORIGINS = 5, BRANDS = 4, CATEGORIES = 3 };
/* 2022-03-22T12:15 */
static const int64_t TEST_MINUTE = 27466335;

struct rng {
    uint64_t state;
};
static inline uint64_t rng_next(struct rng *r) {
    return hash64_u64(r->state++);
}
static inline unsigned rng_below(struct rng *r, unsigned n) {
    return (unsigned)(rng_next(r) % n);
}

/* A record of the log, as the model knows it. */
struct logged {
    struct journal_record record;
    enum event_op op;
    unsigned cookie;
    struct event_tag tag;
    bool late;
};

struct fixture {
    struct os *os;
    char directory[64];
    struct rng rng;
    struct logged *log; /* lsn i + 1 at i */
    size_t n_log;
    size_t applied; /* of the log, over all lanes */
    struct events_store_options options;
    struct event_dictionary *dictionary;
    struct event_once *once;
    struct events_store *store;
    struct events_store_report report;
    lsn_t position[WORK_LANES_MAX];
};

/* ---- Life ---- */
/* A checkpoint that fails, as a directory stands where its file would be. */
static inline void expect_failure(struct fixture *f) {
    char file[128];
    snprintf(file, sizeof file, "%s/ingest.sst", f->directory);
    assert_int_equal(mkdir(file, 0700), 0);
    assert_true(events_store_checkpoint(f->store, NULL) < 0);
    assert_int_equal(rmdir(file), 0);
}

static inline void remove_tree(const char *directory) {
    pid_t child = fork();
    if (child == 0) {
        execlp("rm", "rm", "-rf", "--", directory, (char *)NULL);
        _exit(127);
    }
    waitpid(child, NULL, 0);
}

static inline int fixture_open(struct fixture *f) {
    char why[256] = "";
    const struct event_dictionary_options dictionary = {0};
    assert_int_equal(event_dictionary_new(&dictionary, &f->dictionary), 0);
    assert_int_equal(
        event_once_new(f->os, &(struct event_once_options){.keys_max = 1000}, &f->once), 0);
    int r = events_store_open(f->os, f->directory, f->dictionary, f->once, &f->options, &f->store,
                              &f->report, why, sizeof why);
    if (r == 0)
        events_store_positions(f->store, f->position);
    f->applied = 0;
    return r;
}

static inline void fixture_close(struct fixture *f) {
    f->store = events_store_close(f->store);
    f->once = event_once_free(f->once);
    f->dictionary = event_dictionary_free(f->dictionary);
}

static inline void fixture_init(struct fixture *f, uint64_t seed, unsigned lanes) {
    *f = (struct fixture){.os = os_real(), .rng = {seed << 20}, .options = {.lanes = lanes}};
    snprintf(f->directory, sizeof f->directory, "/tmp/millrace-events-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    f->log = calloc(LOG_MAX, sizeof *f->log);
    assert_non_null(f->log);
}

static inline void fixture_deinit(struct fixture *f) {
    fixture_close(f);
    remove_tree(f->directory);
    for (size_t i = 0; i < f->n_log; i++)
        free((void *)(uintptr_t)f->log[i].record.payload.data);
    free(f->log);
}

/* ---- The log ---- */
static inline struct bytes cookie_text(unsigned cookie) {
    static const char texts[COOKIES][16] = {"a/b%\"'", "\xc5\xbc\xc3\xb3\xc5\x82w"};
    static _Thread_local char text[24];
    if (cookie < 2)
        return bytes_of_string(texts[cookie]);
    snprintf(text, sizeof text, "cookie-%u", cookie);
    return bytes_of_string(text);
}

static inline struct logged *log_append(struct fixture *f, struct buffer *payload, uint64_t hash) {
    assert_int_equal(buffer_check(payload), 0);
    assert_true(f->n_log < LOG_MAX);
    struct logged *l = &f->log[f->n_log++];
    *l = (struct logged){.record = {.lsn = f->n_log,
                                    .key_hash = hash,
                                    .wall_us = 1,
                                    .kind = JOURNAL_KIND_EVENTS,
                                    .payload = buffer_bytes(payload)}};
    *payload = BUFFER_INIT;
    return l;
}

static inline void log_tag(struct fixture *f, unsigned cookie, struct event_tag tag, bool late) {
    struct buffer payload = BUFFER_INIT;
    tag.cookie = cookie_text(cookie);
    event_record_encode_tag(&payload, &tag, late);
    struct logged *l = log_append(f, &payload, event_key_hash(tag.cookie));
    struct event_record decoded;
    assert_true(event_record_decode(l->record.payload, &decoded)); /* for views that last */
    l->op = EVENT_TAG;
    l->cookie = cookie;
    l->tag = decoded.tag;
    l->late = late;
}

static inline void log_erase(struct fixture *f, unsigned cookie) {
    struct buffer payload = BUFFER_INIT;
    event_record_encode_erase(&payload, cookie_text(cookie));
    struct logged *l = log_append(f, &payload, event_key_hash(cookie_text(cookie)));
    l->op = EVENT_ERASE;
    l->cookie = cookie;
}

static inline void log_element(struct fixture *f, const char *collection, uint32_t id,
                               const char *element) {
    struct buffer payload = BUFFER_INIT;
    event_record_encode_element(&payload, bytes_of_string(collection), id,
                                bytes_of_string(element));
    log_append(f, &payload, hash64(collection, strlen(collection)))->op = EVENT_ELEMENT;
}

static inline struct event_tag some_tag(struct fixture *f) {
    static const int32_t prices[] = {INT32_MIN, INT32_MAX, 0, -1, 1};
    struct rng *r = &f->rng;
    int64_t second = rng_below(r, 4) ? rng_below(r, 8 * 60) : (int64_t)rng_below(r, 90000) - 80000;
    struct event_tag tag = {
        .time_ms = TEST_MINUTE * EVENT_MINUTE_MS + second * 1000,
        .device = rng_below(r, EVENT_DEVICES),
        .action = rng_below(r, 3) == 0 ? EVENT_BUY : EVENT_VIEW,
        .ids[EVENT_COLLECTION_COUNTRY] = 1 + rng_below(r, 200),
        .ids[EVENT_COLLECTION_ORIGIN] = 1 + rng_below(r, ORIGINS),
        .ids[EVENT_COLLECTION_BRAND] = 1 + rng_below(r, BRANDS),
        .ids[EVENT_COLLECTION_CATEGORY] = rng_below(r, 50) ? 1 + rng_below(r, CATEGORIES) : 70000,
        .measure = rng_below(r, 3) ? (int32_t)rng_below(r, 1000) : prices[rng_below(r, 5)],
        .product_number = (int64_t)f->n_log};
    if (rng_below(r, 4) == 0) {
        static _Thread_local char text[64];
        tag.product_is_text = true;
        tag.product_number = 0;
        snprintf(text, sizeof text, "%zu-%.*s", f->n_log, (int)rng_below(r, 40),
                 "............................................");
        tag.product_text = bytes_of_string(text);
    }
    return tag;
}

/* One cookie of six comes half of the time, so that its lists overflow. */
static inline unsigned some_cookie(struct fixture *f) {
    return rng_below(&f->rng, 2) ? 1 : rng_below(&f->rng, COOKIES);
}

static inline void log_some(struct fixture *f, size_t n) {
    while (n-- > 0) {
        struct event_tag tag = some_tag(f);
        if (rng_below(&f->rng, 100) == 0)
            log_erase(f, rng_below(&f->rng, COOKIES));
        else
            log_tag(f, some_cookie(f), tag, events_store_is_late(f->store, tag.time_ms));
    }
}

/* ---- Applying ---- */
static inline void apply_records(struct fixture *f, unsigned lane,
                                 const struct journal_record *const *records, size_t n) {
    const struct work_store_ops *ops = &events_store_work_ops;
    for (size_t done = 0; done < n;) {
        struct work_verdict v;
        assert_int_equal(ops->apply(f->store, lane, records + done, n - done, &v), 0);
        done += v.applied;
        if (v.outcome == WORK_RETRY)
            assert_int_equal(events_store_checkpoint(f->store, NULL), 0);
        else if (v.outcome == WORK_REJECT)
            assert_int_equal(ops->reject(f->store, lane, records[done++], v.reason), 0);
        else
            assert_int_equal(v.outcome, WORK_OK);
    }
}

/* Applies one lane of the log up to upto, in batches of random sizes. */
static inline void apply_lane(struct fixture *f, unsigned lane, size_t upto) {
    const struct journal_record *batch[64];
    size_t n = 0, most = 1 + rng_below(&f->rng, 64);
    for (lsn_t lsn = f->position[lane] + 1; lsn <= upto; lsn++) {
        const struct journal_record *r = &f->log[lsn - 1].record;
        if (work_lane_of_hash(r->key_hash, events_store_lanes(f->store)) != lane)
            continue;
        batch[n++] = r;
        if (n == most) {
            apply_records(f, lane, batch, n);
            n = 0;
        }
    }
    apply_records(f, lane, batch, n);
    if (f->position[lane] < upto) {
        f->position[lane] = upto;
        events_store_work_ops.passed(f->store, lane, upto);
    }
}

static inline void apply_all(struct fixture *f) {
    for (unsigned lane = 0; lane < events_store_lanes(f->store); lane++)
        apply_lane(f, lane, f->n_log);
    f->applied = f->n_log;
}

/* ---- The model ---- */
static inline int compare_tags(const void *a, const void *b) {
    const struct event_tag *x = *(const struct event_tag *const *)a;
    const struct event_tag *y = *(const struct event_tag *const *)b;
    return x->time_ms > y->time_ms ? -1 : x->time_ms < y->time_ms;
}

static inline bool tags_equal(const struct event_tag *a, const struct event_tag *b) {
    return a->time_ms == b->time_ms && bytes_equal(a->cookie, b->cookie) &&
           a->device == b->device && a->action == b->action &&
           a->ids[EVENT_COLLECTION_COUNTRY] == b->ids[EVENT_COLLECTION_COUNTRY] &&
           a->ids[EVENT_COLLECTION_ORIGIN] == b->ids[EVENT_COLLECTION_ORIGIN] &&
           a->ids[EVENT_COLLECTION_BRAND] == b->ids[EVENT_COLLECTION_BRAND] &&
           a->ids[EVENT_COLLECTION_CATEGORY] == b->ids[EVENT_COLLECTION_CATEGORY] &&
           a->measure == b->measure && a->product_is_text == b->product_is_text &&
           (a->product_is_text ? bytes_equal(a->product_text, b->product_text)
                               : a->product_number == b->product_number);
}

/* The newest tags of a cookie and action, as pointers; all that were applied. */
static inline size_t model_list(const struct fixture *f, unsigned cookie, enum event_action action,
                                const struct event_tag **out) {
    size_t n = 0;
    for (size_t i = 0; i < f->n_log; i++) {
        const struct logged *l = &f->log[i];
        if (l->op == EVENT_ERASE && l->cookie == cookie)
            n = 0;
        if (l->op == EVENT_TAG && l->cookie == cookie && l->tag.action == action)
            out[n++] = &l->tag;
    }
    qsort(out, n, sizeof *out, compare_tags);
    return n;
}

/* Every tag of the store's list is one of the model's, each at most once. */
static inline void check_members(const struct event_list *list, const struct event_tag **model,
                                 size_t n_model) {
    bool *used = calloc(n_model + 1, sizeof *used);
    assert_non_null(used);
    for (size_t i = 0; i < list->n; i++) {
        size_t k = 0;
        while (k < n_model && (used[k] || !tags_equal(&list->tags[i], model[k])))
            k++;
        assert_true(k < n_model);
        used[k] = true;
    }
    free(used);
}

static inline void check_list(const struct event_list *list, const struct event_tag **model,
                              size_t n_model, int64_t from_ms, int64_t to_ms, size_t limit) {
    size_t newest = n_model < EVENT_PROFILE_KEEP ? n_model : EVENT_PROFILE_KEEP, n = 0;
    for (size_t i = 0; i < newest; i++) {
        if (model[i]->time_ms < from_ms || model[i]->time_ms >= to_ms || n == limit)
            continue;
        assert_true(n < list->n);
        assert_int_equal(list->tags[n].time_ms, model[i]->time_ms);
        n++;
    }
    assert_int_equal(list->n, n);
    check_members(list, model, n_model);
}

static inline void check_profile(struct fixture *f, unsigned cookie, int64_t from_ms, int64_t to_ms,
                                 size_t limit) {
    CLEANUP(arena_deinit) struct arena arena = ARENA_INIT(16 << 20);
    struct event_profile profile = {.arena = &arena};
    const struct event_tag **model = calloc(f->n_log + 1, sizeof *model);
    assert_non_null(model);
    assert_int_equal(
        events_store_profile(f->store, cookie_text(cookie), from_ms, to_ms, limit, &profile), 0);
    for (unsigned action = 0; action < EVENT_ACTIONS; action++) {
        size_t n = model_list(f, cookie, action, model);
        check_list(&profile.lists[action], model, n, from_ms, to_ms, limit);
    }
    free(model);
}

static inline bool model_passes(const struct logged *l, const struct event_aggregate_query *q) {
    return l->op == EVENT_TAG && !l->late && l->tag.action == q->action &&
           (!q->ids[EVENT_FILTER_ORIGIN] ||
            q->ids[EVENT_FILTER_ORIGIN] == l->tag.ids[EVENT_COLLECTION_ORIGIN]) &&
           (!q->ids[EVENT_FILTER_BRAND] ||
            q->ids[EVENT_FILTER_BRAND] == l->tag.ids[EVENT_COLLECTION_BRAND]) &&
           (!q->ids[EVENT_FILTER_CATEGORY] ||
            q->ids[EVENT_FILTER_CATEGORY] == l->tag.ids[EVENT_COLLECTION_CATEGORY]);
}

static inline void check_aggregate(struct fixture *f, const struct event_aggregate_query *q) {
    struct event_aggregate model[EVENT_RANGE_MINUTES_MAX] = {{0}}, out[EVENT_RANGE_MINUTES_MAX];
    for (size_t i = 0; i < f->n_log; i++) {
        const struct logged *l = &f->log[i];
        int64_t minute = event_minute_of(l->tag.time_ms) - q->first_minute;
        if (!model_passes(l, q) || minute < 0 || minute >= q->minutes)
            continue;
        model[minute].count++;
        model[minute].sum += l->tag.measure;
    }
    assert_int_equal(events_store_aggregate(f->store, q, out), 0);
    for (unsigned i = 0; i < q->minutes; i++) {
        assert_int_equal(out[i].count, model[i].count);
        assert_int_equal(out[i].sum, model[i].sum);
    }
}

/* All eight combinations of filters, both actions. */
static inline void check_aggregates(struct fixture *f, int64_t first_minute) {
    for (unsigned mask = 0; mask < 16; mask++) {
        struct event_aggregate_query q = {
            .first_minute = first_minute,
            .minutes = 1 + rng_below(&f->rng, EVENT_RANGE_MINUTES_MAX),
            .action = mask & 8 ? EVENT_BUY : EVENT_VIEW,
            .ids[EVENT_FILTER_ORIGIN] = mask & 1 ? 1 + rng_below(&f->rng, ORIGINS + 1) : 0,
            .ids[EVENT_FILTER_BRAND] = mask & 2 ? 1 + rng_below(&f->rng, BRANDS) : 0,
            .ids[EVENT_FILTER_CATEGORY] = mask & 4 ? 1 + rng_below(&f->rng, CATEGORIES) : 0};
        check_aggregate(f, &q);
    }
}

/* Everything, in many ways. */
static inline void check_store(struct fixture *f) {
    for (unsigned cookie = 0; cookie < COOKIES; cookie++) {
        int64_t from_ms = TEST_MINUTE * EVENT_MINUTE_MS + rng_below(&f->rng, 600) * 1000;
        check_profile(f, cookie, INT64_MIN, INT64_MAX, EVENT_PROFILE_KEEP);
        check_profile(f, cookie, from_ms, from_ms + 120000, 1 + rng_below(&f->rng, 30));
    }
    check_aggregates(f, TEST_MINUTE);
    check_aggregates(f, TEST_MINUTE - (int64_t)rng_below(&f->rng, 1400));
}

#endif
