/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the runner share: a journal, the store, its workers and a runner, all real, in
 * a directory of their own. The test's program is its worker processes' too: rig_main. Nothing
 * here depends on how fast anything is: a test waits for what must come, for a minute at most.
 */
#ifndef MILLRACE_TASKS_TEST_RIG_H
#define MILLRACE_TASKS_TEST_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "os/file.h"
#include "tasks/runner.h"
#include "tasks/worker.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RIG_WAIT_MS = 60000, RIG_GRACE_MS = 10000 };

struct rig {
    char directory[64], journal_path[128], store_path[128], commands[128];
    struct journal *journal;
    struct tasks_store *store;
    struct metrics *metrics;
    struct work *work;
    struct tasks_runner_options options;
    struct tasks_runner *runner;
};

static inline void rig_start_runner(struct rig *g) {
    work_stop(g->work); /* the store is told of its listener while nobody applies */
    assert_int_equal(tasks_runner_new(os_real(), tasks_embedded(g->store), g->journal, NULL,
                                      g->metrics, &g->options, &g->runner),
                     0);
    assert_int_equal(work_start(g->work), 0);
    assert_int_equal(tasks_runner_start(g->runner, NULL, NULL), 0);
}

static inline void rig_stop_runner(struct rig *g, uint64_t grace_ms) {
    tasks_runner_stop(g->runner, grace_ms);
    work_stop(g->work);
    tasks_store_listen(g->store, NULL);
    g->runner = tasks_runner_free(g->runner);
    assert_int_equal(work_start(g->work), 0);
}

/* Without the runner. */
static inline void rig_open(struct rig *g, unsigned workers_max) {
    struct journal_recovery recovery;
    struct tasks_store_report report;
    const struct journal_options journal = {.disk_reserve_bytes = 1, .sync = JOURNAL_SYNC_OS};
    const struct tasks_store_options store = {.hot_bytes_max = 64 << 20};
    const struct work_options work = {.lanes = 1, .threads_min = 1, .threads_max = 1};
    char why[256];
    *g = (struct rig){.options = {.workers_max = workers_max}};
    snprintf(g->directory, sizeof g->directory, "/tmp/millrace-runner-XXXXXX");
    assert_non_null(mkdtemp(g->directory));
    snprintf(g->commands, sizeof g->commands, "%s/commands", g->directory);
    g->options.settings.commands = g->commands;
    snprintf(g->journal_path, sizeof g->journal_path, "%s/journal", g->directory);
    assert_int_equal(os_make_path(os_real(), g->journal_path), 0);
    assert_int_equal(journal_open(os_real(), g->journal_path, &journal, &g->journal, &recovery), 0);
    snprintf(g->store_path, sizeof g->store_path, "%s/tasks", g->directory);
    assert_int_equal(
        tasks_store_open(os_real(), g->store_path, &store, &g->store, &report, why, sizeof why), 0);
    assert_int_equal(metrics_new(&g->metrics), 0);
    const lsn_t position = tasks_store_position(g->store);
    assert_int_equal(work_new(os_real(), g->journal, &tasks_store_work_ops, g->store, &position,
                              &work, g->metrics, &g->work),
                     0);
    assert_int_equal(work_start(g->work), 0);
}

static inline void rig_remove(struct rig *g) {
    pid_t child = fork();
    if (child == 0) {
        execlp("rm", "rm", "-rf", "--", g->directory, (char *)NULL);
        _exit(127);
    }
    waitpid(child, NULL, 0);
}

static inline void rig_close(struct rig *g) {
    if (g->runner)
        rig_stop_runner(g, RIG_GRACE_MS);
    work_free(g->work);
    tasks_store_close(g->store);
    journal_close(g->journal);
    metrics_free(g->metrics);
    rig_remove(g);
}

/* ---- Records ---- */
static inline void rig_append(struct rig *g, const struct task_record *record) {
    struct buffer payload = BUFFER_INIT;
    task_record_encode(&payload, record);
    struct journal_record r = {
        .kind = JOURNAL_KIND_TASKS, .key_hash = record->id.key, .payload = buffer_bytes(&payload)};
    int result;
    while ((result = journal_append(g->journal, &r, 1)) == JOURNAL_E_OVERLOAD)
        usleep(1000);
    assert_int_equal(result, 0);
    buffer_deinit(&payload);
}

static inline struct task_id rig_add(struct rig *g, struct task_request request) {
    struct task_record record = {.op = TASK_OP_CREATE, .request = request};
    record.id = tasks_store_new_id(g->store, os_wall_us(os_real()));
    if (!record.request.args.size)
        record.request.args = BYTES_LITERAL("{}");
    rig_append(g, &record);
    return record.id;
}

static inline struct task_id rig_add_task(struct rig *g, const char *type, const char *args) {
    return rig_add(g, (struct task_request){.type = bytes_of_string(type),
                                            .args = bytes_of_string(args),
                                            .priority = 5});
}

static inline void rig_cancel(struct rig *g, struct task_id id) {
    rig_append(g, &(struct task_record){.op = TASK_OP_CANCEL, .id = id});
}

/* ---- Waiting ---- */
/* A copy of what is asked most. */
struct seen {
    enum task_status status;
    uint32_t attempts, failures, deaths;
    uint64_t current;
    pid_t worker; /* 0: none yet */
    char error[512], result[512];
    size_t saved;
};

static inline void copy_text(char *out, size_t size, struct bytes text) {
    snprintf(out, size, "%.*s", (int)text.size, text.size ? (const char *)text.data : "");
}

static inline bool rig_see(struct rig *g, struct task_id id, struct seen *s) {
    struct task_ref ref;
    char worker[TASK_WORKER_MAX + 1];
    int r = tasks_store_get(g->store, id, false, &ref);
    if (r)
        return false;
    const struct task *t = &ref.task;
    *s = (struct seen){.status = t->status,
                       .attempts = t->attempts,
                       .failures = t->failures,
                       .deaths = t->deaths,
                       .current = t->current,
                       .saved = t->saved.size};
    copy_text(worker, sizeof worker, t->worker);
    copy_text(s->error, sizeof s->error, t->error);
    copy_text(s->result, sizeof s->result, t->result);
    const char *colon = strrchr(worker, ':');
    s->worker = colon ? (pid_t)strtol(colon + 1, NULL, 10) : 0;
    task_unref(&ref);
    return true;
}

#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        uint64_t rig_until = os_monotonic_ns(os_real()) + (uint64_t)RIG_WAIT_MS * 1000000;         \
        while (!(condition)) {                                                                     \
            if (os_monotonic_ns(os_real()) > rig_until)                                            \
                fail_msg("waited in vain for %s", #condition);                                     \
            usleep(500);                                                                           \
        }                                                                                          \
    } while (0)

static inline struct seen rig_wait(struct rig *g, struct task_id id, enum task_status status) {
    struct seen s = {0};
    WAIT_FOR(rig_see(g, id, &s) && s.status == status);
    return s;
}

static inline struct seen rig_wait_attempt(struct rig *g, struct task_id id, uint32_t attempt) {
    struct seen s = {0};
    WAIT_FOR(rig_see(g, id, &s) && s.attempts >= attempt);
    return s;
}

/* Until its worker has told of progress; what it told. */
static inline uint64_t rig_wait_progress(struct rig *g, struct task_id id, uint32_t attempt) {
    uint64_t current = 0, total = 0;
    WAIT_FOR(tasks_runner_progress(g->runner, id, attempt, &current, &total) && current > 0);
    return current;
}

static inline struct tasks_runner_status rig_status(struct rig *g) {
    struct tasks_runner_status status;
    tasks_runner_status(g->runner, &status);
    return status;
}

static inline bool process_is_gone(pid_t pid) {
    return kill(pid, 0) < 0 && errno == ESRCH;
}

/* The value of a metric, as /metrics shows it. */
static inline uint64_t rig_metric(struct rig *g, const char *name) {
    struct buffer text = BUFFER_INIT;
    uint64_t value = UINT64_MAX;
    metrics_render(g->metrics, &text);
    buffer_append_u8(&text, 0);
    assert_false(text.failed);
    for (const char *at = (char *)text.data; (at = strstr(at, name)); at++)
        if ((at == (char *)text.data || at[-1] == '\n') && at[strlen(name)] == ' ')
            value = strtoull(at + strlen(name), NULL, 10);
    buffer_deinit(&text);
    return value;
}

static inline int rig_main(int argc, char **argv, const struct CMUnitTest *tests, size_t n) {
    if (argc > 1 && strcmp(argv[1], TASK_WORKER_COMMAND) == 0)
        return task_worker_main(os_real(), TASK_WORKER_SOCKET);
    return _cmocka_run_group_tests("tests", tests, n, NULL, NULL);
}

#endif
