/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the load generator tells: progress while it runs, a table or one line of JSON at its end.
 */
#include "cli/load.h"

#include <inttypes.h>

enum { BAR_WIDTH = 30 };

static double seconds_since(const struct load_plan *plan, uint64_t start_ns) {
    return (double)(os_monotonic_ns(plan->os) - start_ns) * 1e-9;
}

static double per_second(uint64_t n, double seconds) {
    return seconds > 0 ? (double)n / seconds : 0;
}

static void print_bar(FILE *out, double part) {
    char bar[BAR_WIDTH + 1];
    int full = (int)(part * BAR_WIDTH);
    for (int i = 0; i < BAR_WIDTH; i++)
        bar[i] = i < full ? '=' : i == full ? '>' : ' ';
    bar[BAR_WIDTH] = '\0';
    fprintf(out, "\r[%s] %3.0f %%", bar, part * 100);
}

void load_print_progress(FILE *out, bool terminal, const struct load_plan *plan,
                         const struct load_progress *progress, bool final) {
    uint64_t count = plan->source->count;
    uint64_t done = atomic_load(&progress->acknowledged);
    double rate = per_second(done, seconds_since(plan, progress->start_ns));
    if (terminal)
        print_bar(out, (double)done / (double)count);
    fprintf(out, "%s%" PRIu64 " of %" PRIu64 " records, %.0f/s", terminal ? "  " : "", done, count,
            rate);
    if (rate > 0 && !final)
        fprintf(out, ", %.0f s left", (double)(count - done) / rate);
    if (atomic_load(&progress->throttled) > 0)
        fprintf(out, ", %" PRIu64 " told to wait", atomic_load(&progress->throttled));
    if (atomic_load(&progress->errors) > 0)
        fprintf(out, ", %" PRIu64 " errors", atomic_load(&progress->errors));
    fputs(terminal ? "\033[K" : "\n", out);
    if (terminal && final)
        fputc('\n', out);
    fflush(out);
}

/* ---- The end ---- */

static double latency_ms(const struct load_report *report, double q) {
    return (double)histogram_quantile(&report->result->latency, q) * 1e-6;
}

/* One task is enough to look at; --json lists them all. */
static void print_tasks(FILE *out, const struct load_result *result) {
    const char *last = NULL;
    size_t n = 0;
    const char *end = (const char *)result->tasks.data + result->tasks.size;
    for (const char *at = (const char *)result->tasks.data; at < end; at += strlen(at) + 1, n++)
        last = at;
    if (last)
        fprintf(out, "tasks         %zu, the last %s\n", n, last);
}

static void print_statuses(FILE *out, const struct load_result *result) {
    for (unsigned status = 1; status < LOAD_STATUSES; status++)
        if (result->statuses[status] > 0)
            fprintf(out, "status %u    %" PRIu64 "\n", status, result->statuses[status]);
    if (result->statuses[0] > 0)
        fprintf(out, "no answer     %" PRIu64 "\n", result->statuses[0]);
}

void load_print_report(FILE *out, const struct load_report *report) {
    uint64_t acknowledged = atomic_load(&report->progress->acknowledged);
    print_tasks(out, report->result);
    fprintf(out, "collection    %s\n", report->plan->source->collection);
    fprintf(out, "acknowledged  %" PRIu64 " in %.3f s, %.0f/s\n", acknowledged,
            report->acknowledged_s, per_second(acknowledged, report->acknowledged_s));
    if (report->applied_s >= 0)
        fprintf(out, "applied       %" PRIu64 " in %.3f s, %.0f/s\n", acknowledged,
                report->applied_s, per_second(acknowledged, report->applied_s));
    fprintf(out, "latency       p50 %.2f ms, p99 %.2f ms, p99.9 %.2f ms, max %.2f ms\n",
            latency_ms(report, 0.5), latency_ms(report, 0.99), latency_ms(report, 0.999),
            latency_ms(report, 1));
    print_statuses(out, report->result);
    fprintf(out, "errors        %" PRIu64 "\n", atomic_load(&report->progress->errors));
}

static void append_statuses(struct buffer *out, const struct load_result *result) {
    const char *separator = "";
    buffer_append_string(out, "\"statuses\":{");
    for (unsigned status = 0; status < LOAD_STATUSES; status++) {
        if (result->statuses[status] == 0)
            continue;
        buffer_append_format(out, "%s\"%u\":%" PRIu64, separator, status, result->statuses[status]);
        separator = ",";
    }
    buffer_append_string(out, "},");
}

static void append_tasks(struct buffer *out, const struct load_result *result) {
    const char *at = (const char *)result->tasks.data;
    const char *end = at + result->tasks.size;
    buffer_append_string(out, "\"tasks\":[");
    for (const char *separator = ""; at < end; at += strlen(at) + 1) {
        buffer_append_string(out, separator);
        json_append_cstring(out, at);
        separator = ",";
    }
    buffer_append_string(out, "]");
}

static void append_rates(struct buffer *out, const struct load_report *report) {
    uint64_t acknowledged = atomic_load(&report->progress->acknowledged);
    buffer_append_format(out,
                         "\"acknowledged\":%" PRIu64 ",\"acknowledged_seconds\":%.6f,"
                         "\"acknowledged_per_second\":%.1f,",
                         acknowledged, report->acknowledged_s,
                         per_second(acknowledged, report->acknowledged_s));
    if (report->applied_s >= 0)
        buffer_append_format(out, "\"applied_seconds\":%.6f,\"applied_per_second\":%.1f,",
                             report->applied_s, per_second(acknowledged, report->applied_s));
    buffer_append_format(out,
                         "\"latency_ms\":{\"p50\":%.4f,\"p99\":%.4f,\"p99.9\":%.4f,\"max\":%.4f},",
                         latency_ms(report, 0.5), latency_ms(report, 0.99),
                         latency_ms(report, 0.999), latency_ms(report, 1));
}

void load_print_json(FILE *out, const struct load_report *report) {
    struct buffer text CLEANUP(buffer_deinit) = BUFFER_INIT;
    buffer_append_format(&text, "{\"load\":\"%s\",\"collection\":", report->plan->source->name);
    json_append_cstring(&text, report->plan->source->collection);
    buffer_append_format(
        &text, ",\"records\":%" PRIu64 ",\"batch_size\":%" PRIu64 ",\"connections\":%u,",
        report->plan->source->count, report->plan->source->batch, report->plan->connections);
    append_rates(&text, report);
    buffer_append_format(&text, "\"errors\":%" PRIu64 ",\"throttled\":%" PRIu64 ",\"complete\":%s,",
                         atomic_load(&report->progress->errors),
                         atomic_load(&report->progress->throttled),
                         report->complete ? "true" : "false");
    append_statuses(&text, report->result);
    append_tasks(&text, report->result);
    buffer_append_string(&text, "}\n");
    if (buffer_check(&text) == 0)
        fwrite(text.data, 1, text.size, out);
}
