/* SPDX-License-Identifier: Apache-2.0 */
/* The rule of scaling, case by case, and on a recorded load: it follows, and does not flap. */
#include "tasks/scale.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

static const struct scale_inputs calm = {
    .workers = 2, .idle = 0, .min = 1, .max = 4, .waited_ms = UINT64_MAX, .since_ms = 60000};

static void expect(struct scale_inputs in, enum scale decision) {
    assert_int_equal(scale_decide(&in), decision);
}

static void test_cases(void **state) {
    (void)state;
    struct scale_inputs in = calm;
    expect(in, SCALE_KEEP);
    in.waited_ms = SCALE_UP_MS - 1;
    expect(in, SCALE_KEEP);
    in.waited_ms = SCALE_UP_MS;
    expect(in, SCALE_UP);
    in.since_ms = SCALE_UP_MS - 1; /* one at a time */
    expect(in, SCALE_KEEP);
    in.since_ms = SCALE_UP_MS;
    in.idle = 1; /* it will be given to that one */
    expect(in, SCALE_KEEP);
    in.idle = 0;
    in.workers = in.max;
    expect(in, SCALE_KEEP);
}

static void test_down(void **state) {
    (void)state;
    struct scale_inputs in = calm;
    in.idle = 1;
    in.idle_ms = SCALE_DOWN_MS - 1;
    expect(in, SCALE_KEEP);
    in.idle_ms = SCALE_DOWN_MS;
    expect(in, SCALE_DOWN);
    in.min = 2;
    expect(in, SCALE_KEEP);
}

static void test_bounds(void **state) {
    (void)state;
    struct scale_inputs in = calm;
    in.workers = 0;
    in.since_ms = 0;
    expect(in, SCALE_UP); /* below min, at once */
    in.min = 0;
    expect(in, SCALE_KEEP);
    in.waited_ms = 0; /* nobody is there at all */
    expect(in, SCALE_UP);
    in = calm;
    in.workers = 5; /* more than max */
    expect(in, SCALE_KEEP);
    in.idle = 1;
    expect(in, SCALE_DOWN);
}

/* ---- A load: how many tasks arrive in each second, recorded; each takes a worker 100 ms ---- */
static const unsigned char arrivals[] = {
    2,  3,  1, 0, 2, 4, 3, 2, 30, 42, 38, 35, 41, 12, 9, 11, 25, 40, 36, 8, 7, 6,
    31, 44, 9, 3, 2, 1, 0, 0, 2,  1,  3,  2,  0,  1,  0, 0,  0,  1,  0,  0, 0, 0,
    0,  1,  0, 0, 0, 0, 0, 0, 0,  0,  0,  0,  0,  0,  0, 0,  0,  0,  0,  0, 0, 0,
};
enum { WORKERS_MAX = 8, TASK_MS = 100, STEP_MS = 10, TAIL_S = 300 };

struct simulation {
    uint64_t now_ms;
    uint64_t free_ms[WORKERS_MAX]; /* when each worker is idle again */
    unsigned workers;
    uint64_t queue_ms[4096]; /* when each task arrived */
    size_t first, last;
    uint64_t changed_ms;
    unsigned ups, downs, most;
    uint64_t waited_most_ms;
};

static void serve(struct simulation *s) {
    for (unsigned i = 0; i < s->workers && s->first < s->last; i++) {
        if (s->free_ms[i] > s->now_ms)
            continue;
        uint64_t waited_ms = s->now_ms - s->queue_ms[s->first++];
        s->waited_most_ms = waited_ms > s->waited_most_ms ? waited_ms : s->waited_most_ms;
        s->free_ms[i] = s->now_ms + TASK_MS;
    }
}

static struct scale_inputs inputs(const struct simulation *s) {
    struct scale_inputs in = {.workers = s->workers, .min = 1, .max = WORKERS_MAX};
    in.waited_ms = s->first < s->last ? s->now_ms - s->queue_ms[s->first] : UINT64_MAX;
    in.since_ms = s->now_ms - s->changed_ms;
    for (unsigned i = 0; i < s->workers; i++) {
        if (s->free_ms[i] > s->now_ms)
            continue;
        in.idle++;
        uint64_t idle_ms = s->now_ms - s->free_ms[i];
        in.idle_ms = idle_ms > in.idle_ms ? idle_ms : in.idle_ms;
    }
    return in;
}

static void step(struct simulation *s) {
    serve(s);
    struct scale_inputs in = inputs(s);
    enum scale decision = scale_decide(&in);
    if (decision == SCALE_UP) {
        s->free_ms[s->workers++] = s->now_ms;
        s->ups++;
    } else if (decision == SCALE_DOWN) {
        s->workers--; /* the last is the one that is idle longest: the first are served first */
        s->downs++;
    }
    if (decision != SCALE_KEEP)
        s->changed_ms = s->now_ms;
    s->most = s->workers > s->most ? s->workers : s->most;
    s->now_ms += STEP_MS;
}

static void test_a_recorded_load(void **state) {
    (void)state;
    static struct simulation s;
    for (unsigned second = 0; second < sizeof arrivals + TAIL_S; second++) {
        unsigned n = second < sizeof arrivals ? arrivals[second] : 0;
        uint64_t arrived = 0;
        for (uint64_t at_ms = 0; at_ms < 1000; at_ms += STEP_MS) {
            for (; arrived < n * (at_ms + STEP_MS) / 1000; arrived++)
                s.queue_ms[s.last++] = s.now_ms;
            step(&s);
        }
    }
    assert_int_equal(s.first, s.last);
    assert_true(s.most >= 4 && s.most <= 6); /* 44 a second are the work of 4.4 */
    assert_true(s.waited_most_ms < 500);
    /* Up with the three waves, and down once each: no worker was let go and missed again. */
    assert_true(s.ups <= s.most + 1);
    assert_int_equal(s.workers, 1);
    assert_int_equal(s.downs, s.ups - 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_down),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_a_recorded_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
