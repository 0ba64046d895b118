/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a shared journal on RabbitMQ: one connection that publishes to all streams, or quorum
 * queues, confirms in a window.
 *
 *   to be sent ──▶ sent ──confirmed──▶ delivered
 *                    └─ the connection is lost, or RabbitMQ says no: given up
 */
#include "journal/remote/rabbitmq_shared.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    NS_PER_MS = 1000000,
    CLOSE_MS = 1000,
#ifdef MILLRACE_TINY
    WINDOW_MESSAGES = 4,
#else
    WINDOW_MESSAGES = 64,
#endif
    WINDOW_BYTES = 4 << 20,
};
#define MAX_BYTES_DEFAULT UINT64_C(20000000000)
#define SEGMENT_BYTES_DEFAULT UINT64_C(500000000)
#define SEGMENT_BYTES_LEAST UINT64_C(4096)
#define BYTES_MOST (UINT64_C(1) << 53)

static const char *const schemes[] = {"amqp", "amqps", NULL};
static const char *const stream_parameters[] = {"partitions",    "prefix", "max-bytes",
                                                "segment-bytes", "ca",     NULL};
static const char *const queue_parameters[] = {"partitions", "queues", "prefix", "ca", NULL};

/* ---- the streams ---- */

int rabbitmq_streams_init(struct rabbitmq_streams *s, const struct log_options *options,
                          char why[LOG_WHY_MAX]) {
    const struct service_url *url = options->url;
    const char *prefix = service_url_parameter(url, "prefix");
    *s = (struct rabbitmq_streams){.queues = service_url_parameter(url, "queues"),
                                   .n = journal_url_partitions(url),
                                   .max_bytes = MAX_BYTES_DEFAULT,
                                   .segment_bytes = SEGMENT_BYTES_DEFAULT};
    if (!prefix)
        prefix = "millrace-";
    if (strlen(prefix) > RABBITMQ_PREFIX_MAX)
        return log_fail(why, LOG_E_REFUSED, "the URL's prefix is too long");
    snprintf(s->log, sizeof s->log, "%s%s", prefix, options->name);
    if (!service_url_parameter_number(url, "segment-bytes", SEGMENT_BYTES_LEAST, BYTES_MOST,
                                      &s->segment_bytes))
        return log_fail(why, LOG_E_REFUSED, "segment-bytes is no number of bytes from 4096 on");
    if (!service_url_parameter_number(url, "max-bytes", s->segment_bytes, BYTES_MOST,
                                      &s->max_bytes))
        return log_fail(why, LOG_E_REFUSED,
                        "max-bytes is no number of bytes from segment-bytes on");
    return 0;
}

const char *rabbitmq_name(const struct rabbitmq_streams *s, const char *what, unsigned number,
                          char out[RABBITMQ_NAME_MAX]) {
    snprintf(out, RABBITMQ_NAME_MAX, "%.150s-%s%u", s->log, what, number);
    return out;
}

const char *rabbitmq_stream(const struct rabbitmq_streams *s, unsigned number,
                            char out[RABBITMQ_NAME_MAX]) {
    return rabbitmq_name(s, s->queues ? "q" : "", number, out);
}

static int leading_number(amqp_bytes_t text) {
    int number = 0;
    const char *digits = text.bytes;
    for (size_t i = 0; i < text.len && i < 4 && digits[i] >= '0' && digits[i] <= '9'; i++)
        number = number * 10 + (digits[i] - '0');
    return number;
}

/* Of the release that the broker says it is. */
static int major_version(struct link *l) {
    const amqp_table_t *properties = amqp_get_server_properties(l->state);
    for (int i = 0; i < properties->num_entries; i++) {
        const amqp_table_entry_t *e = &properties->entries[i];
        if (bytes_equal(bytes_of(e->key.bytes, e->key.len), BYTES_LITERAL("version")) &&
            e->value.kind == AMQP_FIELD_KIND_UTF8)
            return leading_number(e->value.value.bytes);
    }
    return 0;
}

/* From release 4 on a queue drops what was delivered 20 times, unless it is told not to; to one
 * before, the same argument would mean after the first. */
static int declare_queue(const struct rabbitmq_streams *s, struct link *l, unsigned number) {
    enum { UNLIMITED = -1, LIMITED_SINCE = 4 };
    char name[RABBITMQ_NAME_MAX];
    amqp_table_entry_t entries[] = {
        {amqp_cstring_bytes("x-queue-type"),
         {AMQP_FIELD_KIND_UTF8, {.bytes = amqp_cstring_bytes("quorum")}}},
        {amqp_cstring_bytes("x-single-active-consumer"), {AMQP_FIELD_KIND_BOOLEAN, {.boolean = 1}}},
        {amqp_cstring_bytes("x-delivery-limit"), {AMQP_FIELD_KIND_I64, {.i64 = UNLIMITED}}},
    };
    int n = ARRAY_LENGTH(entries);
    amqp_table_t arguments = {major_version(l) < LIMITED_SINCE ? n - 1 : n, entries};
    amqp_queue_declare(l->state, LINK_CHANNEL, amqp_cstring_bytes(rabbitmq_stream(s, number, name)),
                       0, 1, 0, 0, arguments);
    return link_check(l, amqp_get_rpc_reply(l->state), "declaring a queue");
}

static int declare_stream(const struct rabbitmq_streams *s, struct link *l, unsigned number) {
    char name[RABBITMQ_NAME_MAX];
    amqp_table_entry_t entries[] = {
        {amqp_cstring_bytes("x-queue-type"),
         {AMQP_FIELD_KIND_UTF8, {.bytes = amqp_cstring_bytes("stream")}}},
        {amqp_cstring_bytes("x-max-length-bytes"),
         {AMQP_FIELD_KIND_I64, {.i64 = (int64_t)s->max_bytes}}},
        {amqp_cstring_bytes("x-stream-max-segment-size-bytes"),
         {AMQP_FIELD_KIND_I64, {.i64 = (int64_t)s->segment_bytes}}},
    };
    amqp_table_t arguments = {ARRAY_LENGTH(entries), entries};
    amqp_queue_declare(l->state, LINK_CHANNEL, amqp_cstring_bytes(rabbitmq_stream(s, number, name)),
                       0, 1, 0, 0, arguments);
    return link_check(l, amqp_get_rpc_reply(l->state), "declaring a stream");
}

/* Whether there is such a stream; LOG_E_END: no. */
static int look_for(const struct rabbitmq_streams *s, struct link *l, unsigned number) {
    char name[RABBITMQ_NAME_MAX];
    amqp_queue_declare(l->state, LINK_CHANNEL, amqp_cstring_bytes(rabbitmq_stream(s, number, name)),
                       1, 1, 0, 0, amqp_empty_table);
    int r = link_check(l, amqp_get_rpc_reply(l->state), "looking for a partition");
    if (r <= 0 || l->code != LINK_CODE_NOT_FOUND)
        return r;
    r = link_reopen(l);
    return r ? r : LOG_E_END;
}

/* One that should be there. */
static int look_or_make(const struct rabbitmq_streams *s, struct link *l, unsigned number,
                        bool make) {
    char name[RABBITMQ_NAME_MAX];
    int r = look_for(s, l, number);
    if (r != LOG_E_END)
        return r;
    if (make)
        return s->queues ? declare_queue(s, l, number) : declare_stream(s, l, number);
    return log_fail(l->why, LOG_E_UNAVAILABLE,
                    "the stream %.150s is gone, and what it held: it is made anew when a process "
                    "is started",
                    rabbitmq_stream(s, number, name));
}

/* Looks that there are n. Those that are missing are made (make, or they are queues), or that is a
 * failure: in a stream that is made under running processes, offsets begin again. The first is made
 * last: where it is, all are, or were. LOG_E_…, with l->why. */
static int prepare(const struct rabbitmq_streams *s, struct link *l, bool make) {
    int first = look_for(s, l, 0), r = first;
    int last = r > 0 && r != LOG_E_END ? r : look_for(s, l, s->n - 1);
    int more = last > 0 && last != LOG_E_END ? last : look_for(s, l, s->n);
    if (more != LOG_E_END && more != 0)
        return more;
    if (more == 0 || (make && first == 0 && last == LOG_E_END))
        return log_fail(l->why, LOG_E_REFUSED, "the journal %.100s has %s than %u partitions",
                        s->log, more == 0 ? "more" : "fewer", s->n);
    r = 0;
    for (unsigned i = s->n; i > 0 && r == 0; i--)
        r = look_or_make(s, l, i - 1, make || s->queues);
    return r;
}

/* ---- the writer ---- */

/* Messages that were sent, by their number on the connection (the broker counts from 1). */
struct window {
    uint64_t first; /* the oldest that is not confirmed */
    uint64_t next;
    size_t bytes; /* of first…next */
    struct shared_message *slots[WINDOW_MESSAGES];
};

struct writer {
    struct shared_writer writer; /* first */
    struct os *os;
    struct rabbitmq_streams streams;
    struct link link;
    uint64_t timeout_ms;
    uint64_t incarnation; /* of the connection: no other has the same, ever */
    struct window window;
};

static struct writer *writer_of(struct shared_writer *w) {
    return (struct writer *)w;
}

static uint64_t deadline_after(const struct writer *w, uint64_t ms) {
    return os_monotonic_ns(w->os) + ms * NS_PER_MS;
}

static void window_confirm(struct window *w, uint64_t tag, bool all_before) {
    if (tag < w->first || tag >= w->next)
        return;
    for (uint64_t t = all_before ? w->first : tag; t <= tag; t++)
        w->slots[t % WINDOW_MESSAGES]->delivered = true;
    while (w->first < w->next && w->slots[w->first % WINDOW_MESSAGES]->delivered)
        w->bytes -= w->slots[w->first++ % WINDOW_MESSAGES]->bytes.size;
}

static bool window_has_room(const struct window *w, size_t bytes) {
    return w->first == w->next ||
           (w->next - w->first < WINDOW_MESSAGES && w->bytes + bytes <= WINDOW_BYTES);
}

static int take_method(struct writer *w, const amqp_method_t *method) {
    if (method->id == AMQP_BASIC_ACK_METHOD) {
        const amqp_basic_ack_t *ack = method->decoded;
        window_confirm(&w->window, ack->delivery_tag, ack->multiple);
    }
    if (method->id == AMQP_BASIC_NACK_METHOD)
        return log_fail(w->link.why, LOG_E_UNAVAILABLE, "RabbitMQ could not write a message");
    if (method->id == AMQP_BASIC_RETURN_METHOD)
        return log_fail(w->link.why, LOG_E_UNAVAILABLE, "a partition of %.100s is gone",
                        w->streams.log);
    return 0;
}

/* After a failure the connection is gone, and with it all knowledge of what it carried. */
static int lose_link(struct writer *w, int r) {
    bool unknown = w->window.first < w->window.next;
    link_drop(&w->link, 0);
    w->window = (struct window){.first = 1, .next = 1};
    if (unknown && r < 0)
        return log_fail(w->link.why, LOG_E_UNKNOWN, "memory is out");
    return unknown ? LOG_E_UNKNOWN : r;
}

/* Takes one frame in, or waits until the deadline: LOG_E_END. */
static int take_frame(struct writer *w, uint64_t deadline_ns) {
    amqp_frame_t frame;
    int r = link_wait(&w->link, deadline_ns, &frame);
    if (r == 0 && frame.frame_type == AMQP_FRAME_METHOD)
        r = take_method(w, &frame.payload.method);
    if (r == 0)
        amqp_maybe_release_buffers(w->link.state);
    return r == 0 || r == LOG_E_END ? r : lose_link(w, r);
}

/* All frames that are there. */
static int take_frames(struct writer *w) {
    int r;
    do
        r = take_frame(w, 0);
    while (r == 0);
    return r == LOG_E_END ? 0 : r;
}

/* What was sent is waited for further by the next call. */
static int no_confirm(struct writer *w) {
    if (w->link.blocked)
        return log_fail(w->link.why, LOG_E_UNAVAILABLE, "%s", w->link.blocked_why);
    return log_fail(w->link.why, LOG_E_UNAVAILABLE, "RabbitMQ confirmed nothing within %llu ms",
                    (unsigned long long)w->timeout_ms);
}

static int connect_writer(struct writer *w, bool make, uint64_t deadline_ns) {
    if (w->link.state)
        return 0;
    int r = os_random(w->os, &w->incarnation, sizeof w->incarnation);
    if (r)
        return error_fold(r);
    r = link_connect(&w->link, RABBITMQ_HEARTBEAT_S, deadline_ns);
    if (r == 0)
        r = prepare(&w->streams, &w->link, make);
    if (r == 0) {
        amqp_confirm_select(w->link.state, LINK_CHANNEL);
        r = link_check(&w->link, amqp_get_rpc_reply(w->link.state), "asking for confirms");
    }
    return r ? lose_link(w, r) : 0;
}

/* In a queue it comes again until it is acknowledged, and is known by its id. A stream keeps what
 * it has anyway. */
static int publish(struct writer *w, const struct shared_message *m, uint64_t number) {
    char name[RABBITMQ_NAME_MAX], id[RABBITMQ_ID_MAX];
    amqp_basic_properties_t properties = {0};
    const amqp_bytes_t body = {.len = m->bytes.size, .bytes = m->bytes.data};
    rabbitmq_stream(&w->streams, m->partition, name);
    if (w->streams.queues) {
        snprintf(id, sizeof id, "%016" PRIx64 "-%" PRIu64, w->incarnation, number);
        properties = (amqp_basic_properties_t){._flags = AMQP_BASIC_DELIVERY_MODE_FLAG |
                                                         AMQP_BASIC_MESSAGE_ID_FLAG,
                                               .delivery_mode = AMQP_DELIVERY_PERSISTENT,
                                               .message_id = amqp_cstring_bytes(id)};
    }
    return link_check_status(&w->link,
                             amqp_basic_publish(w->link.state, LINK_CHANNEL, amqp_empty_bytes,
                                                amqp_cstring_bytes(name), 1, 0, &properties, body),
                             "RabbitMQ");
}

/* Counted as sent before it is: of one that was sent in part nobody knows either. */
static int send_one(struct writer *w, struct shared_message *m, uint64_t deadline_ns) {
    struct window *window = &w->window;
    int r = take_frames(w);
    while (r == 0 && (w->link.blocked || !window_has_room(window, m->bytes.size)))
        r = take_frame(w, deadline_ns);
    if (r)
        return r == LOG_E_END ? no_confirm(w) : r;
    m->sent = true;
    uint64_t number = window->next++;
    window->slots[number % WINDOW_MESSAGES] = m;
    window->bytes += m->bytes.size;
    r = publish(w, m, number);
    return r ? lose_link(w, r) : 0;
}

static int deliver(struct writer *w, struct shared_message *messages, size_t n) {
    uint64_t deadline_ns = deadline_after(w, w->timeout_ms);
    int r = w->link.state ? take_frames(w) : 0;
    if (r == 0)
        r = connect_writer(w, false, deadline_ns);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = messages[i].sent ? 0 : send_one(w, &messages[i], deadline_ns);
    while (r == 0 && w->window.first < w->window.next)
        r = take_frame(w, deadline_ns);
    return r == LOG_E_END ? no_confirm(w) : r;
}

/* ---- the table ---- */

/* What a call returns, with its sentence. */
static int finish(struct writer *w, int r) {
    if (r > 0)
        memcpy(w->writer.why, w->link.why, sizeof w->writer.why);
    return r;
}

static int writer_open(struct os *os, const struct log_options *options,
                       struct shared_writer **ret_writer) {
    struct writer *w = calloc(1, sizeof *w);
    *ret_writer = NULL;
    if (!w)
        return error_origin(-ENOMEM);
    w->writer.ops = shared_rabbitmq.writer; /* as of queues */
    w->os = os;
    w->timeout_ms = options->timeout_ms;
    w->window = (struct window){.first = 1, .next = 1};
    link_init(&w->link, os, options->url, options->timeout_ms);
    *ret_writer = &w->writer;
    int r = rabbitmq_streams_init(&w->streams, options, w->link.why);
    if (r == 0)
        r = connect_writer(w, true, deadline_after(w, w->timeout_ms));
    return finish(w, r);
}

static void writer_close(struct shared_writer *writer) {
    struct writer *w = writer_of(writer);
    link_drop(&w->link, deadline_after(w, CLOSE_MS));
    free(w);
}

static int writer_deliver(struct shared_writer *writer, struct shared_message *messages, size_t n) {
    struct writer *w = writer_of(writer);
    return finish(w, deliver(w, messages, n));
}

/* Answers heartbeats. While something is unconfirmed deliver does, and tells what becomes of it. */
static void writer_tick(struct shared_writer *writer) {
    struct writer *w = writer_of(writer);
    if (w->link.state && w->window.first == w->window.next)
        (void)take_frames(w);
}

static const struct shared_writer_ops writer_ops = {
    .open = writer_open,
    .close = writer_close,
    .deliver = writer_deliver,
    .tick = writer_tick,
};

const struct shared_driver shared_rabbitmq = {
    .name = "amqp",
    .schemes = schemes,
    .parameters = stream_parameters,
    .prefix = "prefix",
    .writer = &writer_ops,
    .member = &rabbitmq_stream_member_ops,
};

const struct shared_driver shared_rabbitmq_queues = {
    .name = "amqp-quorum",
    .schemes = schemes,
    .queues = "quorum",
    .parameters = queue_parameters,
    .prefix = "prefix",
    .writer = &writer_ops,
    .member = &rabbitmq_queue_member_ops,
};
