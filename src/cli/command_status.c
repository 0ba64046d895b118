/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace status`: asks a running server how it is, on its metrics port. Exits 0 when it is
 * ready, 1 when it is not, or does not answer.
 */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/status.h"

#include "os/process.h"

#include <stdlib.h>

enum { STATUS_TIMEOUT_MS = 5000 };

/* What is shown of /metrics: a series, or the sum of all series of a name. */
struct shown {
    const char *series;
    const char *label;
};
static const struct shown shown[] = {
    {"millrace_points_collections", "collections"},
    {"millrace_points_live", "points"},
    {"millrace_consumer_lag_records{consumer=\"points\"}", "records behind"},
    {"millrace_consumer_dead_letters", "dead letters"},
    {"millrace_events_tags_total", "tags"},
    {"millrace_consumer_lag_records{consumer=\"events\"}", "events behind"},
    {"millrace_consumer_partitions", "partitions"},
    {"millrace_consumer_lag_messages", "messages behind"},
    {"millrace_consumer_lost_messages_total", "messages lost"},
    {"millrace_journal_waiting_messages", "messages waiting"},
    {"millrace_tasks{status=\"queued\"}", "tasks queued"},
    {"millrace_tasks{status=\"running\"}", "tasks running"},
    {"millrace_journal_disk_bytes", "journal bytes"},
    {"millrace_disk_free_bytes", "disk free bytes"},
    {"process_resident_memory_bytes", "resident bytes"},
};

static int ask(const struct cli *cli, struct client *client, const char *path,
               struct client_answer *ret_answer) {
    struct buffer request CLEANUP(buffer_deinit) = BUFFER_INIT;
    const char *address = options_text(cli->options, OPTION_METRICS_LISTEN);
    buffer_append_format(&request, "GET %s HTTP/1.1\r\nHost: millrace\r\nContent-Length: 0\r\n\r\n",
                         path);
    if (buffer_check(&request))
        return cli_fail(CLI_FAILED, "out of memory");
    int r = client_ask(client, cli->os, buffer_bytes(&request), STATUS_TIMEOUT_MS, ret_answer);
    if (r == CLIENT_E_CLOSED) /* a kept connection may be closed by now */
        r = client_ask(client, cli->os, buffer_bytes(&request), STATUS_TIMEOUT_MS, ret_answer);
    return r ? cli_fail(CLI_FAILED, "no millrace answers at %s: %s", address, client_reason(r))
             : CLI_OK;
}

/* Adds up "series value" and "series{labels} value"; false when there is none. */
static bool sum_samples(const char *text, const char *series, double *ret_sum) {
    size_t size = strlen(series);
    bool found = false;
    *ret_sum = 0;
    for (const char *at = text; (at = strstr(at, series)); at += size) {
        const char *end = at + strcspn(at, "\n");
        const char *value = memrchr(at, ' ', (size_t)(end - at));
        if ((at != text && at[-1] != '\n') || (at[size] != ' ' && at[size] != '{') || !value)
            continue;
        *ret_sum += strtod(value, NULL);
        found = true;
    }
    return found;
}

static void print_samples(struct bytes metrics) {
    struct buffer text CLEANUP(buffer_deinit) = BUFFER_INIT;
    buffer_append_bytes(&text, metrics);
    buffer_append_u8(&text, 0);
    if (buffer_check(&text))
        return;
    for (size_t i = 0; i < ARRAY_LENGTH(shown); i++) {
        double sum;
        if (sum_samples((const char *)text.data, shown[i].series, &sum))
            printf("%-16s %.0f\n", shown[i].label, sum);
    }
}

/* The engines that keep what the parts take, and what they warn of. */
static void print_parts(struct bytes health) {
    struct status_sample sample = {0};
    if (!status_read_health(&sample, health))
        return;
    for (size_t i = 0; i < sample.n_parts; i++) {
        const struct status_part *part = &sample.parts[i];
        if (part->url[0])
            printf("%-16s %s %s\n", part->name, part->url,
                   part->reachable ? "reachable" : "not reachable");
        if (part->warning[0])
            printf("%-16s %s\n", part->name, part->warning);
    }
}

static int show(const struct cli *cli, struct client *client) {
    struct client_answer answer;
    int status = ask(cli, client, "/readyz", &answer);
    if (status)
        return status;
    bool ready = answer.status == 200;
    bool json = options_flag(cli->options, OPTION_JSON);
    if (ready && !json)
        printf("%-16s ready\n", "state");
    else /* it says which part is not, and why */
        fwrite(answer.body.data, 1, answer.body.size, stdout);
    if (!json) {
        print_parts(answer.body);
        status = ask(cli, client, "/metrics", &answer);
        if (status)
            return status;
        print_samples(answer.body);
    }
    return ready ? CLI_OK : CLI_FAILED;
}

static int run(const struct cli *cli) {
    struct client client CLEANUP(client_deinit) = {.fd = -1};
    struct socket_address address;
    if (options_address(cli->options, OPTION_METRICS_LISTEN, &address))
        return cli_fail(CLI_USAGE, "--metrics-listen %s does not resolve to an address",
                        options_text(cli->options, OPTION_METRICS_LISTEN));
    process_ignore_broken_pipes();
    if (options_flag(cli->options, OPTION_WATCH))
        return status_watch(cli, &address);
    client_init(&client, &address);
    return show(cli, &client);
}

const struct cli_command cli_status = {
    .name = "status",
    .bit = FOR_STATUS,
    .summary = "ask a running server how it is",
    .arguments = "",
    .prose =
        "Asks on the metrics port. Exits 0 when the server is ready, 1 otherwise.\n"
        "\nWith --watch it shows, and shows again, what comes in and is applied, how long "
        "requests\n"
        "and syncs take, the lag, the workers, memory and disk, and every part's health, with the\n"
        "last minute as a line of bars. A server that goes away is waited for. With --json, or\n"
        "where there is no terminal, each interval is one line.\n",
    .examples = "    millrace status\n"
                "    millrace status --watch\n"
                "    millrace status --watch --json --interval 10s --count 6\n"
                "    millrace status --metrics-listen 9100 --json\n",
    .run = run,
};
