/* SPDX-License-Identifier: Apache-2.0 */
/* What serve adds to the tasks: the runner, and bulk uploads, which are shown among them. */
#include "serve/internal.h"

#include <stdio.h>
#include <string.h>

/* ---- Bulk uploads as tasks ---- */
static int describe_bulk(void *context, struct bytes id, struct buffer *out, bool *ret_ended) {
    struct serve *s = context;
    lsn_t visible = work_visible_lsn(s->data->stores[DATA_POINTS].work);
    int r = bulk_tasks_describe(s->data->bulk, id, visible, s->data->catalog, out, ret_ended);
    return r == POINTS_E_NOT_FOUND ? TASKS_E_NOT_FOUND : error_trace(r);
}

static int list_bulk(void *context, struct bytes status, struct bytes type, uint64_t below,
                     size_t limit,
                     void (*each)(void *each_context, uint64_t key, struct bytes json),
                     void *each_context) {
    struct serve *s = context;
    lsn_t visible = work_visible_lsn(s->data->stores[DATA_POINTS].work);
    return bulk_tasks_each(s->data->bulk, status, type, below, limit, visible, s->data->catalog,
                           each, each_context);
}

/* ---- The runner ---- */
static bool imports_are_on(const struct serve_options *options) {
    const struct task_imports *imports = &options->tasks.settings.imports;
    return imports->directory || imports->hosts;
}

/* A key of this process's life, so that no worker knows the users' and a change of theirs stops no
 * import. */
static int make_own_key(struct serve *s) {
    uint8_t chance[(sizeof s->own_key - 1) / 2];
    int r = os_random(s->os, chance, sizeof chance);
    for (size_t i = 0; r == 0 && i < sizeof chance; i++)
        (void)snprintf(s->own_key + 2 * i, 3, "%02x", chance[i]);
    return error_trace(r);
}

static int prepare_shared(struct serve *s, const struct serve_options *options) {
    struct data *d = s->data;
    struct tasks_runner_options runner = options->tasks;
    runner.settings.imports = (struct task_imports){0};
    runner.settings.no_api = true;
    s->tasks_api = (struct tasks_api){
        .os = s->os,
        .journal = d->stores[DATA_TASKS].journal,
        .tasks = tasks_shared_backend(d->tasks_shared),
        .shared = d->tasks_shared,
        .budget = &s->budget,
    };
    s->task_settings = runner.settings;
    s->tasks_api.settings = &s->task_settings;
    if (!(d->options.roles & DATA_ROLE_WORKER))
        return 0;
    return tasks_runner_new(s->os, s->tasks_api.tasks, s->tasks_api.journal, s->log, s->metrics,
                            &runner, &s->tasks_api.runner);
}

int serve_tasks_prepare(struct serve *s, const struct serve_options *options) {
    if (s->data->shared)
        return s->data->tasks_shared ? prepare_shared(s, options) : 0;
    s->tasks_api = (struct tasks_api){
        .os = s->os,
        .journal = s->data->journal,
        .work = s->data->stores[DATA_TASKS].work,
        .tasks = tasks_embedded(s->data->tasks),
        .budget = &s->budget,
        .foreign = {.describe = describe_bulk, .list = list_bulk, .context = s},
    };
    int r = imports_are_on(options) ? make_own_key(s) : 0;
    if (r)
        return error_trace(r);
    r = tasks_runner_new(s->os, s->tasks_api.tasks, s->data->journal, s->log, s->metrics,
                         &options->tasks, &s->tasks_api.runner);
    if (!r)
        s->tasks_api.settings = tasks_runner_settings(s->tasks_api.runner);
    return error_trace(r);
}

/* Where a process on this machine reaches the API. */
static void find_url(struct serve *s, const char *listen) {
    const char *colon = strrchr(listen, ':');
    int host = colon ? (int)(colon - listen) : 0;
    bool wide = strncmp(listen, "0.0.0.0:", 8) == 0 || strncmp(listen, "[::]:", 5) == 0;
    if (host == 0 || wide)
        (void)snprintf(s->url, sizeof s->url, "http://127.0.0.1:%u", serve_port(s));
    else
        (void)snprintf(s->url, sizeof s->url, "http://%.*s:%u", host, listen, serve_port(s));
}

int serve_tasks_start(struct serve *s, const struct serve_options *options) {
    if (!s->tasks_api.runner)
        return 0;
    if (s->data->shared)
        return tasks_runner_start(s->tasks_api.runner, NULL, NULL);
    find_url(s, options->listen_text);
    return tasks_runner_start(s->tasks_api.runner, s->url, s->own_key);
}
