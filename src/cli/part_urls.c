/* SPDX-License-Identifier: Apache-2.0 */
/* The URLs of parts: see part_urls.h. */
#include "cli/part_urls.h"

/* local: has none; the options have looked at those of kind SERVICE before. */
static const struct service_url *parse(const struct options *o, enum option_id id,
                                       struct service_url *url) {
    const char *why;
    return service_url_parse(options_text(o, id), url, &why) ? url : NULL;
}

static int set_points(const struct options *o, struct qdrant_url *url, struct data_options *data) {
    char why[POINTS_SINK_SENTENCE];
    const char *text = options_text(o, OPTION_POINTS);
    if (qdrant_url_is_local(text))
        return CLI_OK;
    if (!qdrant_url_parse(text, url, why))
        return cli_fail(CLI_USAGE, "--points %s %s", text, why);
    data->qdrant = url;
    return CLI_OK;
}

int part_urls_set(const struct options *o, struct part_urls *urls, struct data_options *data) {
    char why[TASKS_REMOTE_WHY_MAX];
    data->journal.url = parse(o, OPTION_JOURNAL, &urls->journal);
    data->events_url = parse(o, OPTION_EVENTS, &urls->events);
    data->tasks_url = parse(o, OPTION_TASKS, &urls->tasks);
    if (data->tasks_url && !tasks_redis_check_url(data->tasks_url, why))
        return cli_fail(CLI_USAGE, "--tasks: %s", why);
    return set_points(o, &urls->points, data);
}
