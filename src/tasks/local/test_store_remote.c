/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store whose tasks a remote keeps, against the same model as any other, while the remote goes
 * away, does what it does not answer, and forgets; then each promise by itself. The remote is one
 * of memory: tests/engines has the real one.
 */
#include "tasks/local/internal.h"
#include "tasks/local/test_fixture.h"

enum { ROUNDS = 40, RECORDS_A_ROUND = 40, PAIRS_MAX = 20000 };

struct kept_pair {
    struct value *key, *value; /* of a change, no value: it is removed */
};
struct kept {
    struct kept_pair all[PAIRS_MAX];
    size_t n;
};

/* What it does with the next finish. */
enum mood { GOOD, AWAY, DOES_NOT_ANSWER };

struct server {
    const struct tasks_remote *owner;
    uint64_t number, former_number;
    struct kept now, former, changes; /* former: before the last checkpoint */
    enum mood mood;
    const struct tasks_remote *robber; /* who becomes its owner while it is read */
};

struct fake {
    struct tasks_remote remote;
    struct server *server;
    uint64_t begun;
    bool whole;
};

/* ---- Pairs ---- */
static void kept_clear(struct kept *p) {
    for (size_t i = 0; i < p->n; i++) {
        value_unref(p->all[i].key);
        value_unref(p->all[i].value);
    }
    p->n = 0;
}

static void kept_copy(struct kept *to, const struct kept *from) {
    kept_clear(to);
    for (; to->n < from->n; to->n++)
        to->all[to->n] =
            (struct kept_pair){value_ref(from->all[to->n].key), value_ref(from->all[to->n].value)};
}

static void kept_remove(struct kept *p, struct bytes key) {
    for (size_t i = 0; i < p->n; i++)
        if (bytes_equal(value_bytes(p->all[i].key), key)) {
            value_unref(p->all[i].key);
            value_unref(p->all[i].value);
            p->all[i] = p->all[--p->n];
            return;
        }
}

static void kept_add(struct kept *p, struct value *key, struct value *value) {
    assert_true(p->n < PAIRS_MAX && key);
    p->all[p->n++] = (struct kept_pair){key, value};
}

/* ---- The remote ---- */
static struct fake *fake_of(struct tasks_remote *r) {
    return CONTAINER_OF(r, struct fake, remote);
}

static int answer(struct fake *f) {
    const char *why = "";
    int r = 0;
    if (f->server->mood == AWAY) {
        why = "it is away";
        r = TASKS_REMOTE_E_UNAVAILABLE;
    } else if (f->server->owner && f->server->owner != &f->remote) {
        why = "another owns it";
        r = TASKS_REMOTE_E_FENCED;
    }
    snprintf(f->remote.why, sizeof f->remote.why, "%s", why);
    return r;
}

static int fake_own(struct tasks_remote *r, uint64_t *ret_number) {
    struct fake *f = fake_of(r);
    if (f->server->mood != AWAY)
        f->server->owner = r;
    *ret_number = f->server->number;
    return answer(f);
}

/* Not in their order, and some twice. */
static int fake_read(struct tasks_remote *r, int (*each)(void *, struct bytes, struct bytes),
                     void *context) {
    const struct kept *now = &fake_of(r)->server->now;
    int result = answer(fake_of(r));
    for (size_t i = now->n; result == 0 && i-- > 0;) {
        struct bytes key = value_bytes(now->all[i].key), value = value_bytes(now->all[i].value);
        result = each(context, key, value);
        if (result == 0 && i % 7 == 0)
            result = each(context, key, value);
    }
    if (fake_of(r)->server->robber)
        fake_of(r)->server->owner = fake_of(r)->server->robber;
    return result;
}

static int fake_look(struct tasks_remote *r, uint64_t number) {
    struct fake *f = fake_of(r);
    int result = answer(f);
    return result ? result : f->server->number < number ? TASKS_REMOTE_E_LOST : 0;
}

static int fake_begin(struct tasks_remote *r, uint64_t number, bool whole) {
    struct fake *f = fake_of(r);
    int result = whole ? answer(f) : fake_look(r, number - 1);
    if (result)
        return result;
    assert_true(whole || f->server->number <= number);
    kept_clear(&f->server->changes);
    f->begun = number;
    f->whole = whole;
    return 0;
}

static void fake_put(struct tasks_remote *r, struct bytes key, struct bytes value) {
    kept_add(&fake_of(r)->server->changes, value_new(key), value_new(value));
}

static void fake_remove(struct tasks_remote *r, struct bytes key) {
    kept_add(&fake_of(r)->server->changes, value_new(key), NULL);
}

static int fake_finish(struct tasks_remote *r) {
    struct fake *f = fake_of(r);
    struct server *s = f->server;
    int result = answer(f);
    if (result)
        return result;
    kept_copy(&s->former, &s->now);
    s->former_number = s->number;
    if (f->whole)
        kept_clear(&s->now);
    for (size_t i = 0; i < s->changes.n; i++) {
        const struct kept_pair *p = &s->changes.all[i];
        kept_remove(&s->now, value_bytes(p->key));
        if (p->value)
            kept_add(&s->now, value_ref(p->key), value_ref(p->value));
    }
    s->number = f->begun;
    if (s->mood != DOES_NOT_ANSWER)
        return 0;
    snprintf(f->remote.why, sizeof f->remote.why, "it does not answer");
    return TASKS_REMOTE_E_UNAVAILABLE;
}

static const struct tasks_remote_ops fake_ops = {.own = fake_own,
                                                 .read = fake_read,
                                                 .look = fake_look,
                                                 .begin = fake_begin,
                                                 .put = fake_put,
                                                 .remove = fake_remove,
                                                 .finish = fake_finish};

static void server_forget(struct server *s) {
    kept_copy(&s->now, &s->former);
    s->number = s->former_number;
}

/* ---- Tests ---- */
struct rig {
    struct fixture f;
    struct server *server;
    struct fake fake;
};

static void begin(struct rig *rig, uint64_t seed) {
    fixture_init(&rig->f, seed);
    rig->server = calloc(1, sizeof *rig->server);
    assert_non_null(rig->server);
    rig->fake = (struct fake){.remote = {.ops = &fake_ops}, .server = rig->server};
    rig->f.options.remote = &rig->fake.remote;
    assert_int_equal(fixture_open(&rig->f), 0);
}

static void end(struct rig *rig) {
    fixture_deinit(&rig->f);
    kept_clear(&rig->server->now);
    kept_clear(&rig->server->former);
    kept_clear(&rig->server->changes);
    free(rig->server);
}

static void reopen(struct rig *rig) {
    fixture_close(&rig->f);
    assert_int_equal(fixture_open(&rig->f), 0);
    assert_int_equal(rig->f.report.damages, 0);
    apply_all(&rig->f);
}

static bool is_reachable(struct rig *rig) {
    struct tasks_remote_status status;
    assert_true(tasks_store_remote_status(rig->f.store, &status));
    assert_true(status.reachable == (status.why[0] == '\0'));
    return status.reachable;
}

/* Also on a machine that has nothing of it. */
static void move(struct rig *rig) {
    fixture_close(&rig->f);
    remove_tree(rig->f.directory);
    reopen(rig);
}

static void fails(struct rig *rig, enum mood mood) {
    rig->server->mood = mood;
    assert_true(tasks_store_checkpoint(rig->f.store) < 0);
    assert_false(is_reachable(rig));
    rig->server->mood = GOOD;
}

static void happen(struct rig *rig) {
    unsigned dice = rng_below(&rig->f.rng, 10);
    rig->f.os.wall_us += rng_below(&rig->f.rng, 4) * SECOND_US;
    if (dice == 0)
        reopen(rig);
    else if (dice == 1)
        move(rig);
    else if (dice == 2)
        fails(rig, AWAY);
    else if (dice == 3)
        expect_failure(&rig->f);
    else if (dice == 4) /* the position has gone on */
        log_some(&rig->f, 1), apply_all(&rig->f), fails(rig, DOES_NOT_ANSWER);
    else if (dice == 5)
        server_forget(rig->server);
    if (dice < 5)
        return;
    assert_int_equal(tasks_store_checkpoint(rig->f.store), 0);
    assert_int_equal(tasks_store_position(rig->f.store), rig->f.n_log);
    assert_true(is_reachable(rig));
}

static void test_model(void **state UNUSED) {
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct rig rig;
        begin(&rig, seed);
        for (unsigned i = 0; i < ROUNDS; i++) {
            log_some(&rig.f, 1 + rng_below(&rig.f.rng, RECORDS_A_ROUND));
            apply_all(&rig.f);
            happen(&rig);
            if (i % 3 == 0)
                check_store(&rig.f);
        }
        assert_int_equal(tasks_store_checkpoint(rig.f.store), 0);
        move(&rig);
        check_store(&rig.f);
        end(&rig);
    }
}

/* What the directory has, and the remote has not, is none of the tasks: the journal brings it. */
static void test_an_opening_takes_what_the_remote_has(void **state UNUSED) {
    struct rig rig;
    begin(&rig, 1);
    log_some(&rig.f, 30);
    apply_all(&rig.f);
    assert_int_equal(tasks_store_checkpoint(rig.f.store), 0);
    lsn_t first = tasks_store_position(rig.f.store);
    log_some(&rig.f, 30);
    apply_all(&rig.f);
    assert_int_equal(tasks_store_checkpoint(rig.f.store), 0);
    server_forget(rig.server);
    fixture_close(&rig.f);
    assert_int_equal(fixture_open(&rig.f), 0);
    assert_int_equal(tasks_store_position(rig.f.store), first);
    apply_all(&rig.f);
    check_store(&rig.f);
    end(&rig);
}

static int open_fails(struct rig *rig, const char *sentence) {
    char why[TASKS_REMOTE_WHY_MAX] = "";
    int r = tasks_store_open(&rig->f.os.os, rig->f.directory, &rig->f.options, &rig->f.store,
                             &rig->f.report, why, sizeof why);
    assert_non_null(strstr(why, sentence));
    return r;
}

/* One that was emptied is not taken for a new one; nothing is thrown away. */
static void test_an_emptied_remote_is_refused(void **state UNUSED) {
    struct rig rig;
    begin(&rig, 2);
    log_some(&rig.f, 10);
    apply_all(&rig.f);
    fails(&rig, AWAY); /* what it never took is not missed */
    reopen(&rig);
    assert_int_equal(tasks_store_checkpoint(rig.f.store), 0);
    move(&rig); /* what was only read is missed too */
    fixture_close(&rig.f);
    rig.server->number = 0;
    assert_int_equal(open_fails(&rig, "was it emptied?"), TASKS_E_REFUSED);
    assert_int_equal(open_fails(&rig, "was it emptied?"), TASKS_E_REFUSED);
    rig.server->number = 1;
    assert_int_equal(fixture_open(&rig.f), 0);
    apply_all(&rig.f);
    check_store(&rig.f);
    end(&rig);
}

static void test_a_remote_that_is_away_at_the_start(void **state UNUSED) {
    struct rig rig;
    begin(&rig, 3);
    log_some(&rig.f, 10);
    apply_all(&rig.f);
    assert_int_equal(tasks_store_checkpoint(rig.f.store), 0);
    fixture_close(&rig.f);
    rig.server->mood = AWAY;
    assert_int_equal(open_fails(&rig, "it is away"), TASKS_E_UNAVAILABLE);
    rig.server->mood = GOOD;
    assert_int_equal(fixture_open(&rig.f), 0);
    check_store(&rig.f);
    end(&rig);
}

/* A remote whose pairs do not have the state of the checkpoint that it says they are of. */
static void test_pairs_without_their_state(void **state UNUSED) {
    struct rig rig;
    begin(&rig, 4);
    log_some(&rig.f, 10);
    apply_all(&rig.f);
    assert_int_equal(tasks_store_checkpoint(rig.f.store), 0);
    fixture_close(&rig.f);
    rig.server->number++;
    assert_int_equal(open_fails(&rig, "the state of its own last checkpoint"), -EPROTO);
    rig.server->number--;
    assert_int_equal(fixture_open(&rig.f), 0);
    check_store(&rig.f);
    end(&rig);
}

/* What is no key of ours is left out, and counted. */
static void test_keys_of_others(void **state UNUSED) {
    struct rig rig;
    begin(&rig, 5);
    log_some(&rig.f, 10);
    apply_all(&rig.f);
    assert_int_equal(tasks_store_checkpoint(rig.f.store), 0);
    fixture_close(&rig.f);
    kept_add(&rig.server->now, value_new(BYTES_LITERAL("t")), value_new(BYTES_LITERAL("")));
    kept_add(&rig.server->now, value_new(BYTES_LITERAL("")), value_new(BYTES_LITERAL("x")));
    kept_add(&rig.server->now, value_new(BYTES_LITERAL("hello")), value_new(BYTES_LITERAL("x")));
    assert_int_equal(fixture_open(&rig.f), 0);
    assert_in_range(rig.f.report.damages, 3, 6); /* some are read twice */
    check_store(&rig.f);
    end(&rig);
}

/* Whoever opens last has it; the one before finds out also when it has nothing to write. */
static void test_the_former_owner_is_put_out(void **state UNUSED) {
    struct rig rig;
    struct fake other;
    uint64_t number;
    begin(&rig, 6);
    log_some(&rig.f, 10);
    apply_all(&rig.f);
    assert_int_equal(tasks_store_checkpoint(rig.f.store), 0);
    assert_true(tasks_store_wants_checkpoint(rig.f.store));
    other = (struct fake){.remote = {.ops = &fake_ops}, .server = rig.server};
    assert_int_equal(fake_own(&other.remote, &number), 0);
    assert_true(tasks_store_checkpoint(rig.f.store) < 0);
    assert_false(is_reachable(&rig));
    lsn_t position = tasks_store_position(rig.f.store);
    log_some(&rig.f, 10);
    apply_all(&rig.f);
    assert_true(tasks_store_checkpoint(rig.f.store) < 0);
    assert_int_equal(tasks_store_position(rig.f.store), position);
    assert_int_equal(rig.server->number, number);
    end(&rig);
}

/* What was read may be from before and after what that one wrote. */
static void test_taken_over_while_it_is_read(void **state UNUSED) {
    struct rig rig;
    struct fake other = {.remote = {.ops = &fake_ops}};
    begin(&rig, 8);
    log_some(&rig.f, 10);
    apply_all(&rig.f);
    assert_int_equal(tasks_store_checkpoint(rig.f.store), 0);
    fixture_close(&rig.f);
    rig.server->robber = &other.remote;
    assert_int_equal(open_fails(&rig, "another owns it"), TASKS_E_REFUSED);
    rig.server->robber = NULL;
    assert_int_equal(fixture_open(&rig.f), 0);
    check_store(&rig.f);
    end(&rig);
}

/* Memory is bounded while it is away, and that is no stall. */
static void test_full_while_the_remote_is_away(void **state UNUSED) {
    const struct work_store_ops *ops = &tasks_store_work_ops;
    struct rig rig;
    struct work_verdict v = {.outcome = WORK_OK};
    begin(&rig, 7);
    log_some(&rig.f, 20);
    apply_all(&rig.f);
    fails(&rig, AWAY);
    rig.server->mood = AWAY;
    log_some(&rig.f, 4000);
    while (v.outcome == WORK_OK) {
        const struct journal_record *record = &rig.f.log[rig.f.applied];
        assert_true(rig.f.applied < rig.f.n_log);
        assert_int_equal(ops->apply(rig.f.store, 0, &record, 1, &v), 0);
        rig.f.applied += v.applied;
    }
    assert_int_equal(v.outcome, WORK_DOWN);
    rig.server->mood = GOOD;
    assert_int_equal(tasks_store_checkpoint(rig.f.store), 0);
    apply_all(&rig.f);
    check_store(&rig.f);
    end(&rig);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_an_opening_takes_what_the_remote_has),
        cmocka_unit_test(test_an_emptied_remote_is_refused),
        cmocka_unit_test(test_a_remote_that_is_away_at_the_start),
        cmocka_unit_test(test_pairs_without_their_state),
        cmocka_unit_test(test_keys_of_others),
        cmocka_unit_test(test_the_former_owner_is_put_out),
        cmocka_unit_test(test_taken_over_while_it_is_read),
        cmocka_unit_test(test_full_while_the_remote_is_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
