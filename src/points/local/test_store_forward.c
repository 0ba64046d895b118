/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store whose points another server keeps: what that server has must be what the model says,
 * whatever it answers and whenever the process dies. The server here is an array.
 */
#include "points/local/test_fixture.h"

#include "os/sim.h"

static const char dir[] = "/data/points";
static const struct work_store_ops *const ops = &points_store_work_ops;

struct kept {
    bool there;
    uint64_t mask;
    uint8_t floats[FLOATS_MAX * sizeof(float)];
    size_t floats_size;
    char payload[40];
};
struct server {
    struct points_sink sink;
    struct rng rng;
    unsigned moods; /* of 100 sendings, those that do not go well */
    struct kept points[NAMES][IDS];
    unsigned sendings;
    size_t largest;
    const char *poison; /* a payload that it refuses */
    struct points_sink_answer always;
    uint64_t takes_ns; /* each sending */
    struct os *os;
};

static void keep(struct kept *k, const struct points_sink_batch *batch,
                 const struct point_record *p) {
    memset(k, 0, sizeof *k);
    if (batch->op == POINT_DELETE)
        return;
    k->there = true;
    k->mask = p->vector_mask;
    k->floats_size = p->vectors.size;
    assert_true(p->vectors.size <= sizeof k->floats && p->payload.size < sizeof k->payload);
    if (p->vectors.size)
        memcpy(k->floats, p->vectors.data, p->vectors.size);
    if (p->payload.size)
        memcpy(k->payload, p->payload.data, p->payload.size);
}

static bool is_poisoned(const struct server *s, const struct points_sink_batch *batch) {
    for (size_t i = 0; s->poison && i < batch->n; i++)
        if (bytes_equal(batch->points[i].payload, bytes_of_string(s->poison)))
            return true;
    return false;
}

/* It may have done some of it, all of it or nothing, whatever it answers. */
static void misbehave(struct server *s, size_t *n, struct points_sink_answer *answer) {
    if (rng_below(&s->rng, 100) >= s->moods)
        return;
    *n = rng_below(&s->rng, (unsigned)*n + 1);
    answer->outcome = rng_below(&s->rng, 3) ? WORK_RETRY : WORK_DOWN;
    answer->too_much = rng_below(&s->rng, 2);
}

static int send_to(void *context, const struct points_sink_batch *batch,
                   struct points_sink_answer *ret_answer) {
    struct server *s = context;
    unsigned name = strcmp(batch->collection->name, test_name(0)) != 0;
    size_t n = batch->n;
    assert_false(atomic_load(&batch->collection->dropped));
    assert_true(n > 0);
    s->sendings++;
    os_sleep_ns(s->os, s->takes_ns);
    s->largest = n > s->largest ? n : s->largest;
    *ret_answer = s->always;
    snprintf(ret_answer->sentence, sizeof ret_answer->sentence, "it does not like it");
    if (ret_answer->outcome != WORK_OK)
        return 0;
    if (is_poisoned(s, batch)) {
        ret_answer->outcome = WORK_REJECT;
        return 0;
    }
    misbehave(s, &n, ret_answer);
    for (size_t i = 0; i < n; i++)
        keep(&s->points[name][batch->points[i].id.low], batch, &batch->points[i]);
    return 0;
}

static void begin(struct fixture *f, struct server *s, struct sim **ret_sim, uint64_t seed) {
    assert_int_equal(sim_new(seed, ret_sim), 0);
    *s = (struct server){
        .sink = {.send = send_to, .context = s}, .rng = {seed << 30}, .os = sim_os(*ret_sim)};
    fixture_init(f, sim_os(*ret_sim), dir, seed);
    f->options.sink = &s->sink;
    assert_int_equal(fixture_open(f), 0);
}

static void end(struct fixture *f, struct sim *sim) {
    fixture_deinit(f);
    sim_free(sim);
}

/* ---- Applying, a lane's records together ---- */

static void apply_lane(struct fixture *f, unsigned lane, const struct journal_record **records,
                       size_t n) {
    size_t done = 0;
    while (done < n) {
        struct work_verdict verdict = {0};
        assert_int_equal(ops->apply(f->store, lane, records + done, n - done, &verdict), 0);
        done += verdict.applied;
        if (verdict.outcome == WORK_REJECT) {
            assert_int_equal(ops->reject(f->store, lane, records[done], verdict.reason), 0);
            done++;
        }
    }
}

/* From one control record to before the next. */
static void apply_stretch(struct fixture *f, size_t from, size_t to) {
    const struct journal_record *records[LOG_MAX];
    for (unsigned lane = 0; lane < TEST_LANES; lane++) {
        size_t n = 0;
        for (size_t i = from; i < to; i++)
            if (work_lane_of_hash(f->log[i].key_hash, TEST_LANES) == lane)
                records[n++] = &f->log[i];
        apply_lane(f, lane, records, n);
    }
}

/* What a client's DELETE has done there before the record came. */
static void drop_there(struct fixture *f, struct server *s, const struct journal_record *record) {
    struct point_record decoded;
    assert_true(point_record_decode(record->payload, &decoded));
    struct points_collection *c =
        decoded.op == POINT_DROP ? points_catalog_find_incarnation(f->catalog, decoded.incarnation)
                                 : NULL;
    if (c)
        memset(s->points[strcmp(c->name, test_name(0)) != 0], 0, sizeof s->points[0]);
    points_collection_unref(c);
}

static void apply_all(struct fixture *f, struct server *s, size_t from) {
    for (size_t i = from; i < f->n_log; i++) {
        size_t begun = i;
        while (i < f->n_log && !(f->log[i].flags & JOURNAL_CONTROL))
            i++;
        apply_stretch(f, begun, i);
        if (i == f->n_log)
            break;
        drop_there(f, s, &f->log[i]);
        assert_int_equal(ops->control(f->store, &f->log[i]), 0);
    }
    pass_all(f);
}

/* A start: the catalog first, as points_store_replay_controls does it. */
static void die_and_start(struct fixture *f, struct server *s) {
    lsn_t positions[WORK_LANES_MAX], lowest = UINT64_MAX;
    fixture_close(f);
    assert_int_equal(fixture_open(f), 0);
    points_store_positions(f->store, positions);
    for (unsigned i = 0; i < TEST_LANES; i++)
        lowest = positions[i] < lowest ? positions[i] : lowest;
    for (size_t i = lowest; i < f->n_log; i++)
        if (f->log[i].flags & JOURNAL_CONTROL)
            assert_int_equal(ops->control(f->store, &f->log[i]), 0);
    apply_all(f, s, lowest);
}

static void compare_there(const struct fixture *f, const struct server *s) {
    for (unsigned name = 0; name < NAMES; name++)
        for (unsigned i = 0; i < IDS; i++) {
            const struct model_point *p = &f->model[name].points[i];
            const struct kept *k = &s->points[name][i];
            const struct point_config *config = &f->model[name].config;
            const uint8_t *at = k->floats;
            if (!f->model[name].incarnation)
                continue;
            assert_int_equal(k->there, p->there);
            if (!p->there)
                continue;
            assert_int_equal(k->mask, p->mask);
            assert_string_equal(k->payload, p->payload);
            for (uint32_t v = 0; v < config->n_vectors; v++) {
                size_t size = config->vectors[v].dimension * sizeof(float);
                if (!(p->mask >> v & 1))
                    continue;
                assert_memory_equal(at, p->floats + config->offsets[v], size);
                at += size;
            }
        }
}

/* Those of a dead collection are left out: whether a record of it was refused or found to be of no
 * use depends on whether its drop was known by then. */
static void compare_letters_there(const struct fixture *f) {
    for (size_t i = 0; i < f->n_letters; i++) {
        const struct model_letter *l = &f->letters[i];
        lsn_t changed = 0;
        if (l->incarnation != f->model[0].incarnation)
            continue;
        bool there = work_letters_find(ops->letters(f->store), l->lsn,
                                       point_key_hash(l->incarnation, test_id(l->i)), &changed);
        assert_int_equal(there, l->there);
        assert_int_equal(changed, there ? l->changed : 0);
    }
}

static void test_invariant_3_whatever_the_server_answers_it_ends_as_the_model(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct fixture f;
        struct server s;
        struct sim *sim;
        begin(&f, &s, &sim, seed);
        s.moods = 30;
        for (unsigned round = 0; round < 25; round++) {
            size_t from = f.n_log;
            for (unsigned n = rng_below(&f.rng, 60); n > 0; n--)
                op_random(&f);
            apply_all(&f, &s, from);
            if (rng_below(&f.rng, 2))
                assert_int_equal(points_store_checkpoint(f.store, NULL), 0);
            if (rng_below(&f.rng, 3) == 0)
                die_and_start(&f, &s);
            compare_there(&f, &s);
            compare_letters_there(&f);
        }
        end(&f, sim);
    }
}

/* Only the bad one is left, and it is found without asking for each. */
static void test_one_bad_point_of_many(void **state) {
    (void)state;
    struct fixture f;
    struct server s;
    struct sim *sim;
    begin(&f, &s, &sim, 1);
    op_create(&f, 0);
    for (unsigned i = 0; i < IDS; i++)
        op_upsert(&f, 0, i);
    apply_all(&f, &s, 0);
    unsigned without = s.sendings;
    struct model_point *bad = &f.model[0].points[5];
    op_upsert(&f, 0, 5);
    snprintf(bad->payload, sizeof bad->payload, "{\"bad\":1}");
    struct buffer b = BUFFER_INIT;
    point_record_encode_upsert(&b, f.model[0].incarnation, test_id(5), 1, bad->floats, 5,
                               bytes_of_string(bad->payload));
    free((void *)(uintptr_t)f.log[--f.n_log].payload.data);
    log_append(&f, &b, point_key_hash(f.model[0].incarnation, test_id(5)), false);
    size_t from = f.n_log - 1;
    for (unsigned i = 6; i < IDS; i++)
        op_upsert(&f, 0, i);
    s.poison = "{\"bad\":1}";
    s.sendings = 0;
    apply_all(&f, &s, from);
    assert_int_equal(work_letters_n(ops->letters(f.store)), 1);
    assert_true(s.sendings <= without + 8);
    assert_true(s.largest > 1);
    end(&f, sim);
}

static enum work_outcome apply_newest(struct fixture *f, struct work_verdict *ret_verdict) {
    const struct journal_record *record = &f->log[f->n_log - 1];
    unsigned lane = work_lane_of_hash(record->key_hash, TEST_LANES);
    assert_int_equal(ops->apply(f->store, lane, &record, 1, ret_verdict), 0);
    return ret_verdict->outcome;
}

static bool at_once(const void *context) {
    (void)context;
    return true;
}

/* It is missing there because somebody drops it, or because somebody else took it away. */
static void test_a_collection_that_is_missing_there(void **state) {
    (void)state;
    struct fixture f;
    struct server s;
    struct sim *sim;
    struct work_verdict verdict;
    begin(&f, &s, &sim, 1);
    op_create(&f, 0);
    apply_all(&f, &s, 0);
    struct points_collection *c = points_catalog_find(f.catalog, bytes_of_string(test_name(0)));
    assert_non_null(c);
    op_upsert(&f, 0, 1);
    s.always = (struct points_sink_answer){.outcome = WORK_REJECT, .unknown_collection = true};
    atomic_fetch_add(&c->dropping, 1);
    assert_int_equal(apply_newest(&f, &verdict), WORK_RETRY);
    atomic_fetch_sub(&c->dropping, 1);
    assert_int_equal(apply_newest(&f, &verdict), WORK_REJECT);
    assert_string_equal(verdict.reason, "it does not like it");
    op_drop(&f, 0);
    assert_int_equal(ops->control(f.store, &f.log[f.n_log - 1]), 0);
    const struct journal_record *record = &f.log[f.n_log - 2];
    unsigned lane = work_lane_of_hash(record->key_hash, TEST_LANES);
    assert_int_equal(ops->apply(f.store, lane, &record, 1, &verdict), 0);
    assert_int_equal(verdict.outcome, WORK_OK); /* of no use any more */
    assert_true(points_store_settle(f.store, 0, at_once, NULL));
    points_collection_unref(c);
    end(&f, sim);
}

/* Applies the newest n, all of one point, in one turn. */
static enum work_outcome apply_turn(struct fixture *f, size_t n, struct work_verdict *ret_verdict) {
    const struct journal_record *records[64];
    unsigned lane = work_lane_of_hash(f->log[f->n_log - 1].key_hash, TEST_LANES);
    for (size_t i = 0; i < n; i++)
        records[i] = &f->log[f->n_log - n + i];
    assert_int_equal(ops->apply(f->store, lane, records, n, ret_verdict), 0);
    return ret_verdict->outcome;
}

/* However the trouble before has halved what is sent together, and success doubled it. */
static void test_no_sending_is_larger_than_the_largest(void **state) {
    (void)state;
    struct fixture f;
    struct server s;
    struct sim *sim;
    struct work_verdict verdict;
    begin(&f, &s, &sim, 1);
    op_create(&f, 0);
    for (unsigned i = 0; i < 40; i++)
        op_delete(&f, 0, 1);
    apply_all(&f, &s, 0);
    size_t largest = s.largest;
    for (unsigned i = 0; i < 7; i++)
        op_delete(&f, 0, 1);
    s.always = (struct points_sink_answer){.outcome = WORK_RETRY, .too_much = true};
    assert_int_equal(apply_turn(&f, 7, &verdict), WORK_RETRY);
    s.always = (struct points_sink_answer){.outcome = WORK_OK};
    assert_int_equal(apply_turn(&f, 7, &verdict), WORK_OK);
    for (unsigned i = 0; i < 40; i++)
        op_delete(&f, 0, 1);
    assert_int_equal(apply_turn(&f, 40, &verdict), WORK_OK);
    assert_true(s.largest <= largest);
    end(&f, sim);
}

/* Each alone, as the operation changes: the worker hears of what is done before all is. */
static void test_a_slow_server_gets_a_turn_s_worth(void **state) {
    (void)state;
    struct fixture f;
    struct server s;
    struct sim *sim;
    struct work_verdict verdict;
    begin(&f, &s, &sim, 1);
    op_create(&f, 0);
    apply_all(&f, &s, 0);
    for (unsigned i = 0; i < 20; i++) {
        op_upsert(&f, 0, 1);
        op_delete(&f, 0, 1);
    }
    s.takes_ns = UINT64_C(3000000000);
    assert_int_equal(apply_turn(&f, 40, &verdict), WORK_RETRY);
    assert_int_equal(verdict.applied, 2);
    s.takes_ns = 0;
    assert_int_equal(apply_turn(&f, 38, &verdict), WORK_OK);
    end(&f, sim);
}

static int settle_in_between(void *fixture, const struct points_sink_batch *batch,
                             struct points_sink_answer *ret_answer) {
    (void)batch;
    const struct fixture *f = fixture;
    uint64_t begun_ns = os_monotonic_ns(f->os), second_ns = UINT64_C(1000000000);
    *ret_answer = (struct points_sink_answer){.outcome = WORK_OK};
    assert_false(points_store_settle(f->store, begun_ns + second_ns, at_once, NULL));
    assert_true(os_monotonic_ns(f->os) < begun_ns + second_ns);
    return 0;
}

static void test_who_waits_for_a_sending_is_let_go_by_a_stop(void **state) {
    (void)state;
    struct fixture f;
    struct server s;
    struct sim *sim;
    struct work_verdict verdict;
    begin(&f, &s, &sim, 1);
    op_create(&f, 0);
    apply_all(&f, &s, 0);
    s.sink = (struct points_sink){.send = settle_in_between, .context = &f};
    op_delete(&f, 0, 1);
    assert_int_equal(apply_newest(&f, &verdict), WORK_OK);
    end(&f, sim);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_invariant_3_whatever_the_server_answers_it_ends_as_the_model),
        cmocka_unit_test(test_one_bad_point_of_many),
        cmocka_unit_test(test_a_collection_that_is_missing_there),
        cmocka_unit_test(test_who_waits_for_a_sending_is_let_go_by_a_stop),
        cmocka_unit_test(test_no_sending_is_larger_than_the_largest),
        cmocka_unit_test(test_a_slow_server_gets_a_turn_s_worth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
