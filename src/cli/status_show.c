/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server at a glance: as a screen, as a line, as an object. The screen is drawn over the one
 * before, line by line, so that nothing flickers; escape sequences take no room in a line's width.
 */
#include "base/json.h"
#include "base/time_text.h"
#include "cli/status.h"

#include <math.h>

enum { TEXT_MAX = 48, SPARK_LEVELS = 8, SPARK_COLUMN = 26, BAR_WIDTH = 24 };

/* ---- Numbers as people read them ---- */

static const char *count_text(double value, char out[TEXT_MAX]) {
    if (value < 0)
        snprintf(out, TEXT_MAX, "-");
    else if (value < 10 && value != floor(value))
        snprintf(out, TEXT_MAX, "%.1f", value);
    else if (value < 1e6)
        snprintf(out, TEXT_MAX, "%.0f", value);
    else if (value < 1e9)
        snprintf(out, TEXT_MAX, "%.2fM", value * 1e-6);
    else
        snprintf(out, TEXT_MAX, "%.2fG", value * 1e-9);
    return out;
}

static const char *bytes_text(double value, char out[TEXT_MAX]) {
    static const char units[] = " KMGTP";
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units - 1) {
        value /= 1024;
        unit++;
    }
    snprintf(out, TEXT_MAX, unit && value < 100 ? "%.1f%c" : "%.0f%c", value,
             unit ? units[unit] : 'B');
    return out;
}

static const char *time_span_text(double seconds, char out[TEXT_MAX]) {
    if (seconds < 0)
        snprintf(out, TEXT_MAX, "-");
    else if (seconds < 0.01)
        snprintf(out, TEXT_MAX, "%.2f ms", seconds * 1e3);
    else if (seconds < 1)
        snprintf(out, TEXT_MAX, "%.0f ms", seconds * 1e3);
    else
        snprintf(out, TEXT_MAX, "%.1f s", seconds);
    return out;
}

/* What is said of the server as a whole. */
static const char *state_of(const struct status_view *view) {
    return view->unreachable ? "unreachable" : view->known ? view->sample.state : "starting";
}

static bool is_ready(const struct status_view *view) {
    return strcmp(state_of(view), "ok") == 0;
}

/* ---- The screen ---- */

struct screen {
    struct buffer *out;
    const struct status_screen *size;
    struct buffer line;
    unsigned row;
};

static void color(struct screen *s, const char *sequence) {
    if (s->size->color)
        buffer_append_string(&s->line, sequence);
}

static void bold(struct screen *s, const char *text) {
    color(s, "\033[1m");
    buffer_append_string(&s->line, text);
    color(s, "\033[0m");
}

static void judged(struct screen *s, bool good, const char *text) {
    color(s, good ? "\033[32m" : "\033[1;31m");
    buffer_append_string(&s->line, text);
    color(s, "\033[0m");
}

/* The bytes of text that fit into columns: escape sequences take none, UTF-8 characters one. */
static size_t fitting(struct bytes text, unsigned columns) {
    size_t at = 0;
    unsigned used = 0;
    while (at < text.size) {
        if (text.data[at] == 033) {
            while (at < text.size && text.data[at] != 'm')
                at++;
            at += at < text.size;
            continue;
        }
        if (used == columns)
            return at;
        used++;
        do
            at++;
        while (at < text.size && (text.data[at] & 0xc0) == 0x80);
    }
    return at;
}

/* Puts the line where it belongs; lines below the window's last are dropped. */
static void end_line(struct screen *s) {
    struct bytes line = buffer_bytes(&s->line);
    if (s->row < s->size->rows) {
        buffer_append_string(s->out, s->row ? "\r\n\033[K" : "\033[H\033[K");
        buffer_append(s->out, line.data, fitting(line, s->size->columns));
        buffer_append_string(s->out, s->size->color ? "\033[0m" : "");
    }
    s->row++;
    buffer_clear(&s->line);
}

static double largest(const struct status_history *h) {
    double max = 0;
    for (size_t i = 0; i < h->n; i++)
        max = h->values[i] > max ? h->values[i] : max;
    return max;
}

/* The newest values that fit, the largest of them as a full bar. */
static void spark(struct screen *s, const struct status_history *h) {
    static const char *const blocks[SPARK_LEVELS] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static const char *const ascii[SPARK_LEVELS] = {"_", ".", ":", "-", "=", "+", "*", "#"};
    size_t room = s->size->columns > SPARK_COLUMN ? s->size->columns - SPARK_COLUMN : 0;
    double max = largest(h);
    color(s, "\033[36m");
    for (size_t i = h->n > room ? h->n - room : 0; i < h->n; i++) {
        double part = max > 0 ? h->values[i] / max : 0;
        int level = h->values[i] <= 0 ? 0 : 1 + (int)(part * (SPARK_LEVELS - 2) + 0.5);
        buffer_append_string(&s->line, (s->size->unicode ? blocks : ascii)[level]);
    }
    color(s, "\033[0m");
}

static void bar(struct screen *s, double part) {
    int full = (int)(part * BAR_WIDTH + 0.5);
    buffer_append_string(&s->line, "[");
    color(s, part > 0.9 ? "\033[31m" : "\033[32m");
    for (int i = 0; i < BAR_WIDTH; i++) {
        if (i == full)
            color(s, "\033[0m");
        buffer_append_u8(&s->line, i < full ? '#' : '.');
    }
    color(s, "\033[0m");
    buffer_append_string(&s->line, "]");
}

static void show_title(struct screen *s, const struct status_view *view) {
    bold(s, "Millrace");
    buffer_append_format(&s->line, " %s  %s  ", view->sample.version, view->address);
    judged(s, is_ready(view), is_ready(view) ? "ready" : state_of(view));
    if (view->restarted)
        judged(s, false, "  restarted");
    buffer_append_format(&s->line, "   every %g s, q quits", (double)view->interval_ms / 1000);
    end_line(s);
    if (view->unreachable) {
        buffer_append_format(&s->line, "No millrace answers: %s.%s", view->unreachable,
                             view->known ? " Below is what it said last." : " Waiting for it.");
        end_line(s);
    }
    end_line(s);
}

static void show_requests(struct screen *s, const struct status_view *view) {
    char a[TEXT_MAX];
    char b[TEXT_MAX];
    char c[TEXT_MAX];
    bold(s, "requests  ");
    buffer_append_format(&s->line, "%10s/s    ", count_text(view->rates.requests, a));
    spark(s, &view->requests);
    end_line(s);
    buffer_append_format(&s->line, "          p50 %s   p99 %s   %s/s failed   %.0f connections",
                         time_span_text(view->rates.latency_p50, a),
                         time_span_text(view->rates.latency_p99, b),
                         count_text(view->rates.errors, c), view->sample.connections);
    end_line(s);
    buffer_append_format(&s->line, "p99       %12s    ",
                         time_span_text(view->rates.latency_p99, a));
    spark(s, &view->latency);
    end_line(s);
    end_line(s);
}

static void show_kind(struct screen *s, const struct status_view *view, size_t i) {
    const struct status_kind *kind = &view->sample.kinds[i];
    char text[TEXT_MAX];
    char lag[TEXT_MAX];
    char name[STATUS_NAME_MAX + 1];
    snprintf(name, sizeof name, "%-8s", kind->name);
    bold(s, name);
    buffer_append_format(&s->line, "in %9s/s    ", count_text(view->rates.appended[i], text));
    spark(s, &view->appended[i]);
    end_line(s);
    buffer_append_format(&s->line, "   applied %9s/s    ",
                         count_text(view->rates.applied[i], text));
    spark(s, &view->applied[i]);
    end_line(s);
    buffer_append_format(&s->line, "   lag %s records, %s   %.0f of %.0f workers busy   ",
                         count_text(kind->lag_records, text),
                         time_span_text(kind->lag_seconds, lag), kind->busy, kind->threads);
    snprintf(lag, sizeof lag, "%s dead letters", count_text(kind->dead_letters, text));
    if (kind->dead_letters > 0)
        judged(s, false, lag);
    else
        buffer_append_string(&s->line, lag);
    end_line(s);
    end_line(s);
}

static void show_journal(struct screen *s, const struct status_view *view) {
    char a[TEXT_MAX];
    char b[TEXT_MAX];
    char c[TEXT_MAX];
    bold(s, "journal");
    buffer_append_format(&s->line, "   durable up to lsn %.0f   sync p50 %s, p99 %s   %s",
                         view->sample.durable_lsn, time_span_text(view->rates.sync_p50, a),
                         time_span_text(view->rates.sync_p99, b),
                         bytes_text(view->sample.journal_bytes, c));
    end_line(s);
}

static void show_memory(struct screen *s, const struct status_view *view) {
    const struct status_sample *sample = &view->sample;
    char a[TEXT_MAX];
    char b[TEXT_MAX];
    bold(s, "memory");
    buffer_append_string(&s->line, "    ");
    if (sample->memory_limit > 0)
        bar(s, fmin(1, sample->resident / sample->memory_limit));
    buffer_append_format(&s->line, " %s of %s", bytes_text(sample->resident, a),
                         bytes_text(sample->memory_limit, b));
    end_line(s);
    bold(s, "disk");
    buffer_append_format(&s->line, "      %s free", bytes_text(sample->disk_free, a));
    end_line(s);
    end_line(s);
}

/* The engines behind parts, a line each. */
static void show_engines(struct screen *s, const struct status_sample *sample) {
    for (size_t i = 0; i < sample->n_parts; i++) {
        const struct status_part *part = &sample->parts[i];
        if (!part->url[0])
            continue;
        buffer_append_format(&s->line, "          %s: %s ", part->name, part->url);
        judged(s, part->reachable, part->reachable ? "reachable" : "not reachable");
        end_line(s);
    }
}

static void show_parts(struct screen *s, const struct status_view *view) {
    const struct status_sample *sample = &view->sample;
    bold(s, "health");
    buffer_append_string(&s->line, "  ");
    for (size_t i = 0; i < sample->n_parts; i++) {
        buffer_append_format(&s->line, "  %s ", sample->parts[i].name);
        judged(s, sample->parts[i].ready, sample->parts[i].ready ? "ok" : "not ready");
    }
    end_line(s);
    for (size_t i = 0; i < sample->n_parts; i++)
        if (!sample->parts[i].ready) {
            buffer_append_format(&s->line, "          %s: %s", sample->parts[i].name,
                                 sample->parts[i].reason);
            end_line(s);
        }
    for (size_t i = 0; i < sample->n_parts; i++)
        if (sample->parts[i].warning[0]) {
            buffer_append_format(&s->line, "          %s: ", sample->parts[i].name);
            judged(s, false, sample->parts[i].warning);
            end_line(s);
        }
    show_engines(s, sample);
}

void status_show_screen(struct buffer *out, const struct status_view *view,
                        const struct status_screen *size) {
    struct screen s = {.out = out, .size = size};
    show_title(&s, view);
    if (view->known) {
        show_requests(&s, view);
        for (size_t i = 0; i < view->sample.n_kinds; i++)
            show_kind(&s, view, i);
        show_journal(&s, view);
        show_memory(&s, view);
        show_parts(&s, view);
    }
    buffer_append_string(out, "\033[J");
    out->failed |= s.line.failed;
    buffer_deinit(&s.line);
}

/* ---- The line ---- */

static void line_of_kind(struct buffer *out, const struct status_view *view, size_t i) {
    const struct status_kind *kind = &view->sample.kinds[i];
    char a[TEXT_MAX];
    char b[TEXT_MAX];
    char c[TEXT_MAX];
    buffer_append_format(out, "; %s in %s/s, applied %s/s, lag %s", kind->name,
                         count_text(view->rates.appended[i], a),
                         count_text(view->rates.applied[i], b), count_text(kind->lag_records, c));
    buffer_append_format(out, " (%s), %s dead", time_span_text(kind->lag_seconds, a),
                         count_text(kind->dead_letters, b));
}

void status_show_line(struct buffer *out, const struct status_view *view) {
    char time[TIME_TEXT_BYTES + 1];
    char a[TEXT_MAX];
    char b[TEXT_MAX];
    char c[TEXT_MAX];
    time_text(view->wall_us, time);
    buffer_append_format(out, "%.8s %s%s", time + strlen("2026-01-02T"), state_of(view),
                         view->restarted ? ", restarted" : "");
    if (view->unreachable) {
        buffer_append_format(out, ": %s\n", view->unreachable);
        return;
    }
    buffer_append_format(
        out, "; requests %s/s, p50 %s, p99 %s", count_text(view->rates.requests, a),
        time_span_text(view->rates.latency_p50, b), time_span_text(view->rates.latency_p99, c));
    for (size_t i = 0; i < view->sample.n_kinds; i++)
        line_of_kind(out, view, i);
    buffer_append_format(out, "; lsn %.0f, sync p99 %s, memory %s", view->sample.durable_lsn,
                         time_span_text(view->rates.sync_p99, a),
                         bytes_text(view->sample.resident, b));
    for (size_t i = 0; i < view->sample.n_parts; i++)
        if (!view->sample.parts[i].ready)
            buffer_append_format(out, "; %s: %s", view->sample.parts[i].name,
                                 view->sample.parts[i].reason);
    buffer_append_u8(out, '\n');
}

/* ---- The object ---- */

/* What is not known is null. */
static void member(struct buffer *out, const char *key, double value) {
    buffer_append_format(out, "\"%s\":", key);
    if (value < 0)
        buffer_append_string(out, "null");
    else if (value == floor(value))
        buffer_append_format(out, "%.0f", value);
    else
        json_append_double(out, value);
}

static void text_member(struct buffer *out, const char *key, const char *value) {
    buffer_append_format(out, "\"%s\":", key);
    if (value)
        json_append_cstring(out, value);
    else
        buffer_append_string(out, "null");
    buffer_append_u8(out, ',');
}

static void next_member(struct buffer *out, const char *key, double value) {
    buffer_append_u8(out, ',');
    member(out, key, value);
}

static void object_of_kind(struct buffer *out, const struct status_view *view, size_t i) {
    const struct status_kind *kind = &view->sample.kinds[i];
    json_append_cstring(out, kind->name);
    buffer_append_string(out, ":{");
    member(out, "in_per_s", view->rates.appended[i]);
    next_member(out, "applied_per_s", view->rates.applied[i]);
    next_member(out, "lag_records", kind->lag_records);
    next_member(out, "lag_s", kind->lag_seconds);
    next_member(out, "workers", kind->threads);
    next_member(out, "workers_busy", kind->busy);
    next_member(out, "dead_letters", kind->dead_letters);
    buffer_append_u8(out, '}');
}

static void object_of_sample(struct buffer *out, const struct status_view *view) {
    const struct status_sample *s = &view->sample;
    buffer_append_string(out, "\"requests\":{");
    member(out, "per_s", view->rates.requests);
    next_member(out, "failed_per_s", view->rates.errors);
    next_member(out, "p50_s", view->rates.latency_p50);
    next_member(out, "p99_s", view->rates.latency_p99);
    next_member(out, "connections", s->connections);
    buffer_append_string(out, "},\"journal\":{");
    member(out, "durable_lsn", s->durable_lsn);
    next_member(out, "sync_p50_s", view->rates.sync_p50);
    next_member(out, "sync_p99_s", view->rates.sync_p99);
    next_member(out, "disk_bytes", s->journal_bytes);
    buffer_append_string(out, "},\"kinds\":{");
    for (size_t i = 0; i < s->n_kinds; i++) {
        buffer_append_string(out, i ? "," : "");
        object_of_kind(out, view, i);
    }
    buffer_append_string(out, "},\"memory\":{");
    member(out, "resident_bytes", s->resident);
    next_member(out, "limit_bytes", s->memory_limit);
    buffer_append_string(out, "},");
    member(out, "disk_free_bytes", s->disk_free);
    buffer_append_string(out, ",\"parts\":{");
    for (size_t i = 0; i < s->n_parts; i++) {
        buffer_append_string(out, i ? "," : "");
        json_append_cstring(out, s->parts[i].name);
        buffer_append_format(out,
                             ":{\"ready\":%s,\"reason\":", s->parts[i].ready ? "true" : "false");
        json_append_cstring(out, s->parts[i].reason);
        if (s->parts[i].url[0]) {
            text_member(out, "url", s->parts[i].url);
            buffer_append_format(out, ",\"reachable\":%s",
                                 s->parts[i].reachable ? "true" : "false");
        }
        buffer_append_u8(out, '}');
    }
    buffer_append_string(out, "}");
}

void status_show_json(struct buffer *out, const struct status_view *view) {
    char time[TIME_TEXT_BYTES + 1];
    time_text(view->wall_us, time);
    buffer_append_u8(out, '{');
    text_member(out, "time", time);
    text_member(out, "address", view->address);
    text_member(out, "state", state_of(view));
    text_member(out, "reason", view->unreachable);
    text_member(out, "version", view->known ? view->sample.version : NULL);
    buffer_append_format(out, "\"restarted\":%s,", view->restarted ? "true" : "false");
    member(out, "interval_s", view->rates.seconds > 0 ? view->rates.seconds : -1);
    if (!view->unreachable) {
        buffer_append_u8(out, ',');
        object_of_sample(out, view);
    }
    buffer_append_string(out, "}\n");
}
