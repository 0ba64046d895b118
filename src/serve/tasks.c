/* SPDX-License-Identifier: Apache-2.0 */
/* What serve adds to the tasks: the runner, and bulk uploads, which are shown among them. */
#include "serve/internal.h"

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
int serve_tasks_prepare(struct serve *s, const struct serve_options *options) {
    s->tasks_api = (struct tasks_api){
        .os = s->os,
        .journal = s->data->journal,
        .work = s->data->stores[DATA_TASKS].work,
        .store = s->data->tasks,
        .foreign = {.describe = describe_bulk, .list = list_bulk, .context = s},
    };
    return tasks_runner_new(s->os, s->data->tasks, s->data->journal, s->log, s->metrics,
                            &options->tasks, &s->tasks_api.runner);
}
