/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the store share: a log of records as the journal would hold it, a model of what
 * the store must then say, and a comparison of the two. All is decided by one seed.
 */
#ifndef MILLRACE_POINTS_LOCAL_TEST_FIXTURE_H
#define MILLRACE_POINTS_LOCAL_TEST_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "points/store.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { LOG_MAX = 20000, IDS = 48, NAMES = 2, FLOATS_MAX = 12, TEST_LANES = 3 };

struct rng {
    uint64_t state;
};
static inline uint64_t rng_next(struct rng *r) {
    return hash64_u64(r->state++);
}
static inline unsigned rng_below(struct rng *r, unsigned n) {
    return (unsigned)(rng_next(r) % n);
}
static inline float rng_float(struct rng *r) {
    return (float)((double)rng_below(r, 2000001) / 1000000.0 - 1.0);
}

struct model_point {
    bool there;
    lsn_t lsn;
    uint64_t mask;
    float floats[FLOATS_MAX];
    char payload[40];
};
struct model_collection {
    lsn_t incarnation; /* 0: not there */
    struct point_config config;
    struct model_point points[IDS];
};

/* A record that does not fit its collection, which the store keeps as a dead letter. */
struct model_letter {
    lsn_t lsn;
    lsn_t incarnation;
    unsigned i; /* its point */
    lsn_t changed;
    bool there;
};
enum { LETTERS_MAX = 4096 };

struct fixture {
    struct os *os;
    const char *directory;
    struct rng rng;
    struct journal_record *log; /* lsn i + 1 at i */
    size_t n_log;
    struct model_collection model[NAMES];
    struct model_letter letters[LETTERS_MAX]; /* by lsn */
    size_t n_letters;
    struct points_store_options options;
    struct budget budget;

    struct points_catalog *catalog;
    struct bulk_tasks *tasks;
    struct points_store *store;
    struct points_store_report report;
    uint64_t merges; /* of all stores that were closed */
};

static inline void fixture_init(struct fixture *f, struct os *os, const char *directory,
                                uint64_t seed) {
    *f = (struct fixture){.os = os, .directory = directory, .rng = {seed << 20}};
    f->options = (struct points_store_options){.lanes = TEST_LANES, .segment_rows_max = 16};
    f->log = calloc(LOG_MAX, sizeof *f->log);
    assert_non_null(f->log);
}

/* From now on every checkpoint spills, and nothing is refused: half of the budget is used. */
static inline void fixture_press(struct fixture *f) {
    budget_init(&f->budget, 1 << 30);
    budget_add(&f->budget, BUDGET_POINTS, budget_part(&f->budget, BUDGET_POINTS) / 2);
    f->options.budget = &f->budget;
}

static inline void fixture_close(struct fixture *f) {
    struct points_store_stats stats = {0};
    if (f->store)
        points_store_stats(f->store, &stats);
    f->merges += stats.merges;
    f->store = points_store_close(f->store);
    f->tasks = bulk_tasks_free(f->tasks);
    f->catalog = points_catalog_free(f->catalog);
}

static inline void fixture_deinit(struct fixture *f) {
    fixture_close(f);
    for (size_t i = 0; i < f->n_log; i++)
        free((void *)(uintptr_t)f->log[i].payload.data);
    free(f->log);
}

static inline int fixture_open(struct fixture *f) {
    int r = points_catalog_new(&f->catalog);
    if (!r)
        r = bulk_tasks_new(f->os, &f->tasks);
    if (!r)
        r = points_store_open(f->os, f->directory, f->catalog, f->tasks, &f->options, &f->store,
                              &f->report);
    if (r)
        fixture_close(f);
    return r;
}

/* ---- The log ---- */

static inline struct point_id test_id(unsigned i) {
    if (i % 3 == 0)
        return (struct point_id){.high = hash64_u64(i), .low = i, .uuid = true};
    return (struct point_id){.low = i};
}

static inline lsn_t log_append(struct fixture *f, struct buffer *payload, uint64_t key_hash,
                               bool control) {
    assert_int_equal(buffer_check(payload), 0);
    assert_true(f->n_log < LOG_MAX);
    f->log[f->n_log] = (struct journal_record){.lsn = f->n_log + 1,
                                               .key_hash = key_hash,
                                               .kind = JOURNAL_KIND_POINTS,
                                               .flags = control ? JOURNAL_CONTROL : 0,
                                               .payload = buffer_bytes(payload)};
    *payload = BUFFER_INIT;
    return ++f->n_log;
}

static inline struct point_config test_config(unsigned name) {
    struct point_config c = {.n_vectors = name == 0 ? 1 : 2};
    if (name == 0) {
        c.vectors[0].dimension = 5;
        c.vectors[0].distance = DISTANCE_EUCLID;
    } else {
        c.vectors[0] =
            (struct point_vector_config){.name = "a", .dimension = 3, .distance = DISTANCE_DOT};
        c.vectors[1] = (struct point_vector_config){
            .name = "b", .dimension = 9, .distance = DISTANCE_MANHATTAN};
    }
    point_config_finish(&c);
    return c;
}

static inline const char *test_name(unsigned name) {
    return name == 0 ? "one" : "two";
}

static inline void op_create(struct fixture *f, unsigned name) {
    struct model_collection *c = &f->model[name];
    struct buffer b = BUFFER_INIT;
    memset(c, 0, sizeof *c);
    c->config = test_config(name);
    point_record_encode_create(&b, bytes_of_string(test_name(name)), &c->config);
    c->incarnation = log_append(f, &b, 0, true);
}

static inline void op_drop(struct fixture *f, unsigned name) {
    struct buffer b = BUFFER_INIT;
    point_record_encode_drop(&b, f->model[name].incarnation, 0);
    log_append(f, &b, 0, true);
    f->model[name].incarnation = 0;
}

/* The letters of a point that is written have changed. */
static inline void model_wrote(struct fixture *f, lsn_t incarnation, unsigned i, lsn_t lsn) {
    for (size_t k = 0; k < f->n_letters; k++) {
        struct model_letter *l = &f->letters[k];
        if (l->there && l->incarnation == incarnation && l->i == i && l->changed == 0)
            l->changed = lsn;
    }
}

/* Draws what a point is to be, and encodes it. */
static inline void draw_upsert(struct fixture *f, unsigned name, lsn_t incarnation, unsigned i,
                               struct model_point *p, struct buffer *out) {
    const struct point_config config = test_config(name);
    float packed[FLOATS_MAX];
    size_t n = 0;
    memset(p, 0, sizeof *p);
    p->there = true;
    p->mask = name == 0 ? 1 : rng_below(&f->rng, 4);
    for (uint32_t v = 0; v < config.n_vectors; v++)
        for (uint32_t d = 0; p->mask >> v & 1 && d < config.vectors[v].dimension; d++)
            packed[n++] = p->floats[config.offsets[v] + d] = rng_float(&f->rng);
    if (rng_below(&f->rng, 3))
        snprintf(p->payload, sizeof p->payload, "{\"n\":%u}", rng_below(&f->rng, 1000));
    point_record_encode_upsert(out, incarnation, test_id(i), p->mask, packed, n,
                               bytes_of_string(p->payload));
}

static inline void op_upsert(struct fixture *f, unsigned name, unsigned i) {
    struct model_collection *c = &f->model[name];
    struct buffer b = BUFFER_INIT;
    draw_upsert(f, name, c->incarnation, i, &c->points[i], &b);
    c->points[i].lsn = log_append(f, &b, point_key_hash(c->incarnation, test_id(i)), false);
    model_wrote(f, c->incarnation, i, c->points[i].lsn);
}

static inline void op_delete(struct fixture *f, unsigned name, unsigned i) {
    struct model_collection *c = &f->model[name];
    struct buffer b = BUFFER_INIT;
    point_record_encode_delete(&b, c->incarnation, test_id(i));
    lsn_t lsn = log_append(f, &b, point_key_hash(c->incarnation, test_id(i)), false);
    model_wrote(f, c->incarnation, i, lsn);
    c->points[i].there = false;
}

/* ---- The log: dead letters, of the first collection ---- */

static const char misfit_reason[] = "the vectors do not fit the collection's configuration";

static inline void encode_misfit(struct buffer *out, lsn_t incarnation, unsigned i,
                                 struct bytes payload) {
    const float floats[4] = {0};
    point_record_encode_upsert(out, incarnation, test_id(i), 1, floats, 4, payload);
}

static inline void op_misfit(struct fixture *f, unsigned i, struct bytes payload) {
    struct buffer b = BUFFER_INIT;
    lsn_t incarnation = f->model[0].incarnation;
    encode_misfit(&b, incarnation, i, payload);
    lsn_t lsn = log_append(f, &b, point_key_hash(incarnation, test_id(i)), false);
    assert_true(f->n_letters < LETTERS_MAX);
    f->letters[f->n_letters++] =
        (struct model_letter){.lsn = lsn, .incarnation = incarnation, .i = i, .there = true};
}

static inline void log_letter(struct fixture *f, const struct model_letter *l,
                              const struct work_letter_record *record) {
    struct buffer b = BUFFER_INIT;
    work_letter_encode(&b, record);
    log_append(f, &b, point_key_hash(l->incarnation, test_id(l->i)), false);
    f->log[f->n_log - 1].flags = JOURNAL_LETTER;
}

static inline void op_letter_drop(struct fixture *f, struct model_letter *l) {
    const struct work_letter_record record = {.op = WORK_LETTER_DROP, .letter = l->lsn};
    log_letter(f, l, &record);
    l->there = false;
}

/* mended: the record is written again as a point that fits. */
static inline void op_letter_replay(struct fixture *f, struct model_letter *l, bool mended,
                                    bool force) {
    struct buffer b CLEANUP(buffer_deinit) = BUFFER_INIT;
    struct model_point point;
    bool alive = f->model[0].incarnation == l->incarnation;
    bool allowed = l->there && (l->changed == 0 || force);
    if (mended)
        draw_upsert(f, 0, l->incarnation, l->i, &point, &b);
    else
        encode_misfit(&b, l->incarnation, l->i, BYTES_LITERAL("{}"));
    const struct work_letter_record record = {
        .op = WORK_LETTER_REPLAY, .force = force, .letter = l->lsn, .payload = buffer_bytes(&b)};
    log_letter(f, l, &record);
    if (!allowed)
        return;
    if (alive && !mended)
        return; /* it is refused once more */
    l->there = false;
    if (!alive)
        return;
    point.lsn = f->n_log;
    f->model[0].points[l->i] = point;
    model_wrote(f, l->incarnation, l->i, f->n_log);
}

/* Something about one of the newest letters, be it there or not. */
static inline void op_letter(struct fixture *f) {
    size_t newest = f->n_letters < 8 ? f->n_letters : 8;
    struct model_letter *l = &f->letters[f->n_letters - 1 - rng_below(&f->rng, (unsigned)newest)];
    if (rng_below(&f->rng, 4) == 0)
        op_letter_drop(f, l);
    else
        op_letter_replay(f, l, rng_below(&f->rng, 4) != 0, rng_below(&f->rng, 2) != 0);
}

/* Appends one random record to the log, and does the same to the model. */
static inline void op_random(struct fixture *f) {
    unsigned name = rng_below(&f->rng, NAMES), i = rng_below(&f->rng, IDS);
    unsigned dice = rng_below(&f->rng, 100);
    if (!f->model[name].incarnation)
        op_create(f, name);
    else if (dice == 0)
        op_drop(f, name);
    else if (dice < 6 && f->model[0].incarnation)
        op_misfit(f, i, BYTES_LITERAL("{}"));
    else if (dice < 12 && f->n_letters)
        op_letter(f);
    else if (dice < 35)
        op_delete(f, name, i);
    else
        op_upsert(f, name, i);
}

/* ---- Applying: what the workers do ---- */

static inline int apply_one(struct fixture *f, const struct journal_record *record) {
    const struct work_store_ops *ops = &points_store_work_ops;
    struct work_verdict verdict = {0};
    if (record->flags & JOURNAL_CONTROL)
        return ops->control(f->store, record);
    unsigned lane = work_lane_of_hash(record->key_hash, TEST_LANES);
    int r = ops->apply(f->store, lane, &record, 1, &verdict);
    if (r)
        return r;
    if (verdict.outcome == WORK_REJECT)
        return ops->reject(f->store, lane, record, verdict.reason);
    return verdict.outcome == WORK_OK ? 0 : -EAGAIN;
}

/* Applies what the log has from lsn on. */
static inline int apply_from(struct fixture *f, lsn_t lsn) {
    for (; lsn <= f->n_log; lsn++) {
        int r = apply_one(f, &f->log[lsn - 1]);
        if (r)
            return r;
    }
    return 0;
}

/* Replays from the store's persisted positions, as a start does. */
static inline int replay(struct fixture *f) {
    lsn_t positions[WORK_LANES_MAX], lowest = UINT64_MAX;
    points_store_positions(f->store, positions);
    for (unsigned i = 0; i < points_store_lanes(f->store); i++)
        lowest = positions[i] < lowest ? positions[i] : lowest;
    return apply_from(f, lowest + 1);
}

static inline void pass_all(struct fixture *f) {
    for (unsigned i = 0; i < TEST_LANES; i++)
        points_store_work_ops.passed(f->store, i, f->n_log);
}

/* ---- Comparing ---- */

static inline bool row_equals(const struct model_collection *c, const struct model_point *p,
                              const struct point_row *row) {
    return row->lsn == p->lsn && row->vector_mask == p->mask &&
           bytes_equal(row->payload, bytes_of_string(p->payload)) &&
           memcmp(row->vectors, p->floats, c->config.row_floats * sizeof(float)) == 0;
}

static inline void compare_gets(struct points_view *v, const struct model_collection *c) {
    size_t count = 0;
    for (unsigned i = 0; i < IDS; i++) {
        struct point_row row;
        int r = points_view_get(v, test_id(i), &row);
        assert_int_equal(r, c->points[i].there ? 0 : POINTS_E_NOT_FOUND);
        if (r == 0)
            assert_true(row_equals(c, &c->points[i], &row));
        count += r == 0;
    }
    assert_int_equal(points_view_count(v), count);
}

static inline void compare_scroll(struct points_view *v, const struct model_collection *c,
                                  struct rng *rng) {
    struct point_row rows[IDS];
    struct point_id next, last = {0};
    bool more = true, first = true;
    unsigned seen[IDS] = {0};
    while (more) {
        size_t n = 0, limit = 1 + rng_below(rng, IDS - 1);
        assert_int_equal(points_view_scroll(v, first ? NULL : &next, limit, rows, &n, &next, &more),
                         0);
        assert_true(n == limit || !more);
        for (size_t k = 0; k < n; k++) {
            unsigned i = (unsigned)rows[k].id.low;
            assert_true(first && k == 0 ? true : point_id_compare(last, rows[k].id) < 0);
            last = rows[k].id;
            assert_true(i < IDS && c->points[i].there && row_equals(c, &c->points[i], &rows[k]));
            seen[i]++;
        }
        first = false;
    }
    for (unsigned i = 0; i < IDS; i++)
        assert_int_equal(seen[i], c->points[i].there);
}

static inline double model_score(const struct point_vector_config *v, const float *a,
                                 const float *b) {
    double sum = 0;
    for (uint32_t d = 0; d < v->dimension; d++) {
        double x = a[d], y = b[d];
        switch (v->distance) {
        case DISTANCE_EUCLID:
            sum += (x - y) * (x - y);
            break;
        case DISTANCE_MANHATTAN:
            sum += fabs(x - y);
            break;
        default:
            sum += x * y;
        }
    }
    return v->distance == DISTANCE_EUCLID ? sqrt(sum) : sum;
}

static inline void compare_search(struct points_view *v, const struct model_collection *c,
                                  struct rng *rng) {
    unsigned vector = rng_below(rng, c->config.n_vectors);
    const struct point_vector_config *config = &c->config.vectors[vector];
    double sign = point_distance_ascends(config->distance) ? -1 : 1, worst = INFINITY;
    float query[FLOATS_MAX];
    struct points_hit hits[IDS];
    bool hit[IDS] = {0};
    size_t n = 0, there = 0;
    for (uint32_t d = 0; d < config->dimension; d++)
        query[d] = rng_float(rng);
    struct points_search search = {.vector = vector,
                                   .query = query,
                                   .limit = 1 + rng_below(rng, IDS - 1),
                                   .threads = 1 + rng_below(rng, 2)};
    assert_int_equal(points_view_search(v, &search, hits, &n), 0);
    for (size_t k = 0; k < n; k++) {
        unsigned i = (unsigned)hits[k].row.id.low;
        assert_true(i < IDS && !hit[i] && row_equals(c, &c->points[i], &hits[k].row));
        double score = model_score(config, query, c->points[i].floats + c->config.offsets[vector]);
        assert_true(fabs(score - (double)hits[k].score) < 1e-5);
        assert_true(sign * score <= worst + 1e-5);
        worst = sign * score;
        hit[i] = true;
    }
    for (unsigned i = 0; i < IDS; i++) {
        if (!c->points[i].there || !(c->points[i].mask >> vector & 1))
            continue;
        there++;
        double score = model_score(config, query, c->points[i].floats + c->config.offsets[vector]);
        assert_true(hit[i] || sign * score <= worst + 1e-5);
    }
    assert_int_equal(n, there < search.limit ? there : search.limit);
}

struct seen_letters {
    const struct fixture *f;
    size_t next; /* of the model's, downwards */
    size_t n;
};

static inline void compare_letter(void *context, const struct work_letter *letter) {
    struct seen_letters *seen = context;
    const struct model_letter *l;
    do {
        assert_true(seen->next > 0);
        l = &seen->f->letters[--seen->next];
    } while (!l->there);
    assert_int_equal(letter->record.lsn, l->lsn);
    assert_int_equal(letter->record.kind, JOURNAL_KIND_POINTS);
    assert_int_equal(letter->record.key_hash, point_key_hash(l->incarnation, test_id(l->i)));
    assert_int_equal(letter->changed, l->changed);
    assert_true(bytes_equal(letter->record.payload, seen->f->log[l->lsn - 1].payload));
    assert_true(bytes_equal(letter->reason, bytes_of_string(misfit_reason)));
    seen->n++;
}

static inline void compare_letters(struct fixture *f) {
    const struct work_store_ops *ops = &points_store_work_ops;
    struct seen_letters seen = {.f = f, .next = f->n_letters};
    lsn_t lsns[LETTERS_MAX];
    size_t n = 0, there = 0;
    for (size_t i = 0; i < f->n_letters; i++)
        there += f->letters[i].there;
    assert_int_equal(work_letters_n(ops->letters(f->store)), there);
    assert_int_equal(work_letters_page(ops->letters(f->store), 0, LETTERS_MAX, lsns, &n), 0);
    assert_int_equal(n, there);
    assert_int_equal(ops->read_letters(f->store, lsns, n, compare_letter, &seen), 0);
    assert_int_equal(seen.n, there);
}

/* The store says all that the model says, and nothing else. */
static inline void compare(struct fixture *f) {
    struct rng rng = f->rng; /* so that looking changes nothing */
    size_t collections = 0;
    for (unsigned name = 0; name < NAMES; name++) {
        const struct model_collection *c = &f->model[name];
        struct points_collection *found =
            points_catalog_find(f->catalog, bytes_of_string(test_name(name)));
        assert_int_equal(found != NULL, c->incarnation != 0);
        if (!found)
            continue;
        collections++;
        assert_int_equal(found->incarnation, c->incarnation);
        struct points_view *v = NULL;
        assert_int_equal(points_view_new(f->store, found, &v), 0);
        points_collection_unref(found);
        compare_gets(v, c);
        compare_scroll(v, c, &rng);
        compare_search(v, c, &rng);
        compare_search(v, c, &rng);
        points_view_free(v);
    }
    assert_int_equal(points_catalog_size(f->catalog), collections);
    compare_letters(f);
}

#endif
