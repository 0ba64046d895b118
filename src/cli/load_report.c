/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the load generator tells: progress while it runs, a table or one line of JSON at its end.
 */
#include "base/json.h"
#include "cli/load.h"

#include <inttypes.h>

enum { BAR_WIDTH = 30 };

double load_seconds(const struct load_progress *progress, uint64_t end_ns) {
    return end_ns > progress->start_ns ? (double)(end_ns - progress->start_ns) * 1e-9 : 0;
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
    double rate = per_second(done, load_seconds(progress, os_monotonic_ns(plan->os)));
    if (terminal)
        print_bar(out, (double)done / (double)count);
    fprintf(out, "%s%" PRIu64 " of %" PRIu64 " %s, %.0f/s", terminal ? "  " : "", done, count,
            plan->source->ops->items, rate);
    if (rate > 0 && !final)
        fprintf(out, ", %.0f s left", (double)(count - done) / rate);
    if (atomic_load(&progress->throttled) > 0)
        fprintf(out, ", %" PRIu64 " told to wait", atomic_load(&progress->throttled));
    if (atomic_load(&progress->errors) > 0)
        fprintf(out, ", %" PRIu64 " errors", atomic_load(&progress->errors));
    if (atomic_load(&progress->wrong) > 0)
        fprintf(out, ", %" PRIu64 " wrong", atomic_load(&progress->wrong));
    fputs(terminal ? "\033[K" : "\n", out);
    if (terminal && final)
        fputc('\n', out);
    fflush(out);
}

/* ---- The end ---- */

static double latency_ms(const struct load_kind_result *kind, double q) {
    return (double)histogram_quantile(&kind->latency, q) * 1e-6;
}

static void print_statuses(FILE *out, const struct load_result *result) {
    for (unsigned status = 1; status < LOAD_STATUSES; status++)
        if (result->statuses[status] > 0)
            fprintf(out, "status %u    %" PRIu64 "\n", status, result->statuses[status]);
    if (result->statuses[0] > 0)
        fprintf(out, "no answer     %" PRIu64 "\n", result->statuses[0]);
}

static void print_latency(FILE *out, const char *name, const struct load_kind_result *kind) {
    fprintf(out, "%-13s p50 %.2f ms, p99 %.2f ms, p99.9 %.2f ms, max %.2f ms\n", name,
            latency_ms(kind, 0.5), latency_ms(kind, 0.99), latency_ms(kind, 0.999),
            latency_ms(kind, 1));
}

/* With several kinds of requests, a line each, which also says how many there were. */
static void print_latencies(FILE *out, const struct load_report *report) {
    const struct load_ops *ops = report->plan->source->ops;
    if (ops->n_kinds == 1) {
        print_latency(out, "latency", &report->result->kinds[0]);
        return;
    }
    for (unsigned i = 0; i < ops->n_kinds; i++) {
        const struct load_kind_result *kind = &report->result->kinds[i];
        if (kind->latency.n == 0)
            continue;
        print_latency(out, ops->kinds[i], kind);
        fprintf(out, "              %" PRIu64 " answers, %" PRIu64 " later than %d ms\n",
                kind->latency.n, kind->late, LOAD_LATE_MS);
    }
}

void load_print_report(FILE *out, const struct load_report *report) {
    uint64_t acknowledged = atomic_load(&report->progress->acknowledged);
    report->plan->source->ops->print(out, report);
    fprintf(out, "acknowledged  %" PRIu64 " in %.3f s, %.0f/s\n", acknowledged,
            report->acknowledged_s, per_second(acknowledged, report->acknowledged_s));
    if (report->applied_s >= 0)
        fprintf(out, "applied       %" PRIu64 " in %.3f s, %.0f/s\n", acknowledged,
                report->applied_s, per_second(acknowledged, report->applied_s));
    print_latencies(out, report);
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

static void append_latency(struct buffer *out, const struct load_kind_result *kind) {
    buffer_append_format(out,
                         "\"latency_ms\":{\"p50\":%.4f,\"p99\":%.4f,\"p99.9\":%.4f,\"max\":%.4f},",
                         latency_ms(kind, 0.5), latency_ms(kind, 0.99), latency_ms(kind, 0.999),
                         latency_ms(kind, 1));
}

static void append_kinds(struct buffer *out, const struct load_report *report) {
    const struct load_ops *ops = report->plan->source->ops;
    buffer_append_string(out, "\"kinds\":{");
    for (unsigned i = 0; i < ops->n_kinds; i++) {
        const struct load_kind_result *kind = &report->result->kinds[i];
        buffer_append_format(out, "%s\"%s\":{", i ? "," : "", ops->kinds[i]);
        append_latency(out, kind);
        buffer_append_format(out, "\"answers\":%" PRIu64 ",\"late\":%" PRIu64 "}", kind->latency.n,
                             kind->late);
    }
    buffer_append_string(out, "},");
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
    append_latency(out, &report->result->kinds[0]);
}

void load_print_json(FILE *out, const struct load_report *report) {
    const struct load_source *source = report->plan->source;
    struct buffer text CLEANUP(buffer_deinit) = BUFFER_INIT;
    buffer_append_format(
        &text, "{\"load\":\"%s\",\"%s\":%" PRIu64 ",\"batch_size\":%" PRIu64 ",\"connections\":%u,",
        source->ops->name, source->ops->items, source->count, source->batch,
        report->plan->connections);
    append_rates(&text, report);
    append_kinds(&text, report);
    append_statuses(&text, report->result);
    source->ops->append_json(&text, report);
    buffer_append_format(
        &text, "\"errors\":%" PRIu64 ",\"throttled\":%" PRIu64 ",\"complete\":%s}\n",
        atomic_load(&report->progress->errors), atomic_load(&report->progress->throttled),
        report->complete ? "true" : "false");
    if (buffer_check(&text) == 0)
        fwrite(text.data, 1, text.size, out);
}
