/* SPDX-License-Identifier: Apache-2.0 */
/*
 * long_task counts from 0 to total, one by one, and reports its progress at every step; with
 * pace_ms it waits at each. What it saves is its count (u64): a later attempt goes on from there.
 */
#include "tasks/handler.h"
#include "tasks/handlers/arguments.h"

enum {
    TOTAL = 100000000,
    STEP = 1000000,
    LOOK_EVERY = 10000000, /* counts between two looks whether to stop: some 10 ms */
    PACE_MS_MAX = 3600000,
};

static const struct argument_row rows[] = {
    {.name = "total", .type = JSON_INT, .max = INT64_MAX},
    {.name = "step", .type = JSON_INT, .min = 1, .max = INT64_MAX},
    {.name = "pace_ms", .type = JSON_INT, .max = PACE_MS_MAX},
};

static bool check(struct json_value args, const struct task_settings *settings UNUSED,
                  char *sentence, size_t size) {
    return arguments_check(rows, ARRAY_LENGTH(rows), args, sentence, size);
}

/* volatile, as the work is the counting itself, which a compiler would do in one addition. */
static uint64_t count(uint64_t from, uint64_t to) {
    volatile uint64_t counter = from;
    while (counter < to)
        counter = counter + 1;
    return counter;
}

/* False when it is to stop; *current is where. */
static bool count_step(struct task_run *r, uint64_t *current, uint64_t to) {
    while (*current < to) {
        if (task_run_stopped(r))
            return false;
        *current = count(*current, to - *current > LOOK_EVERY ? *current + LOOK_EVERY : to);
    }
    return true;
}

static uint64_t saved_count(const struct task_run *r, uint64_t total) {
    struct reader saved = reader_of(task_run_saved(r));
    uint64_t current = reader_u64(&saved);
    return current < total ? current : total;
}

static enum task_outcome run(struct task_run *r) {
    struct json_value args = task_run_arguments(r);
    uint64_t total = argument_u64(args, "total", TOTAL), step = argument_u64(args, "step", STEP);
    uint64_t pace_ms = argument_u64(args, "pace_ms", 0);
    uint64_t current = saved_count(r, total);
    while (current < total) {
        bool whole = count_step(r, &current, total - current > step ? current + step : total);
        task_run_progress(r, current, total, bytes_of(&current, sizeof current));
        if (whole && pace_ms)
            task_run_sleep_ms(r, pace_ms);
        if (!whole || task_run_stopped(r)) {
            buffer_append_string(task_run_text(r), "stopped");
            return TASK_OUTCOME_FAILED;
        }
    }
    buffer_append_string(task_run_text(r), "{\"counted\":");
    json_append_u64(task_run_text(r), current);
    buffer_append_u8(task_run_text(r), '}');
    return TASK_OUTCOME_SUCCEEDED;
}

const struct task_handler task_handler_long_task = {
    .type = "long_task",
    .summary = "Counts to total, one by one, and reports its progress at every step.",
    .args = "{total: uint = 100000000, step: uint = 1000000, pace_ms: uint = 0}",
    .check = check,
    .run = run,
};
