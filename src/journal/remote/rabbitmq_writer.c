/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a shared journal on RabbitMQ: one connection that publishes to all streams, or quorum
 * queues, confirms in a window.
 *
 *   to be sent ──▶ sent ──confirmed──▶ delivered
 *                    └─ the connection is lost, or RabbitMQ says no: given up
 */
#include "journal/remote/rabbitmq_publisher.h"
#include "journal/remote/rabbitmq_shared.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    NS_PER_MS = 1000000,
    CLOSE_MS = 1000,
};

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
                                   .existing = options->existing,
                                   .n = journal_url_partitions(url),
                                   .warn = options->warn,
                                   .context = options->context};
    if (!prefix)
        prefix = "millrace-";
    if (strlen(prefix) > RABBITMQ_PREFIX_MAX)
        return log_fail(why, LOG_E_REFUSED, "the URL's prefix is too long");
    snprintf(s->log, sizeof s->log, "%s%s", prefix, options->name);
    return stream_bounds_read(&s->bounds, url, why);
}

static int check(const struct service_url *url, char why[LOG_WHY_MAX]) {
    const struct log_options options = {.url = url, .name = "events"};
    struct rabbitmq_streams streams;
    return rabbitmq_streams_init(&streams, &options, why);
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

void rabbitmq_warn_removed(const struct rabbitmq_streams *s, unsigned number) {
    char sentence[LOG_WHY_MAX], name[RABBITMQ_NAME_MAX];
    if (!s->warn)
        return;
    snprintf(sentence, sizeof sentence,
             "%.150s was removed by somebody: what was acknowledged in it and not applied yet is "
             "lost",
             rabbitmq_stream(s, number, name));
    s->warn(s->context, sentence);
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

/* One that should be there; make: else it is made; before: it was there once, so who runs this is
 * warned then. */
static int look_or_make(const struct rabbitmq_streams *s, struct link *l, unsigned number,
                        bool make, bool before) {
    char name[RABBITMQ_NAME_MAX];
    int r = look_for(s, l, number);
    if (r != LOG_E_END)
        return r;
    rabbitmq_stream(s, number, name);
    if (make) {
        r = s->queues ? declare_queue(s, l, number) : link_declare_stream(l, name, &s->bounds);
        if (r == 0 && before)
            rabbitmq_warn_removed(s, number);
        return r;
    }
    return log_fail(l->why, LOG_E_UNAVAILABLE,
                    "the %s %.150s is gone, and what it held: it is made anew when a process is "
                    "started",
                    s->queues ? "queue" : "stream", name);
}

/* There are not n of them, but more, or fewer: says how many. */
static int refuse_number(const struct rabbitmq_streams *s, struct link *l, bool more) {
    unsigned has = more ? s->n + 1 : s->n - 1;
    int r = 0;
    while (more && has < GROUP_PARTITIONS_MAX && (r = look_for(s, l, has)) == 0)
        has++;
    while (!more && has > 1 && (r = look_for(s, l, has - 1)) == LOG_E_END)
        has--;
    if (r && r != LOG_E_END)
        return r;
    r = log_refuse_partitions(l->why, s->log, has, s->n, "prefix");
    size_t said = strlen(l->why);
    if (!more)
        snprintf(l->why + said, sizeof l->why - said, " (or somebody removed the last of them)");
    return r;
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
        return refuse_number(s, l, more == 0);
    if (s->existing && first == LOG_E_END)
        return log_fail(l->why, LOG_E_END, "%s has no journal %.100s", l->peer, s->log);
    r = 0;
    for (unsigned i = s->n; i > 0 && r == 0; i--)
        r = look_or_make(s, l, i - 1, (make || s->queues) && !s->existing, !make || first == 0);
    return r;
}

/* ---- the writer ---- */

struct writer {
    struct shared_writer writer; /* first */
    struct os *os;
    struct rabbitmq_streams streams;
    struct link link;
    uint64_t timeout_ms;
    uint64_t incarnation; /* of the connection: no other has the same, ever */
    struct publisher publisher;
};

static struct writer *writer_of(struct shared_writer *w) {
    return (struct writer *)w;
}

static uint64_t deadline_after(const struct writer *w, uint64_t ms) {
    return os_monotonic_ns(w->os) + ms * NS_PER_MS;
}

/* After a failure the connection is gone, and with it all knowledge of what it carried. */
static int lose_link(struct writer *w, int r) {
    bool unknown = publisher_is_waiting(&w->publisher);
    link_drop(&w->link, 0);
    publisher_init(&w->publisher, &w->link);
    if (unknown && r < 0)
        return log_fail(w->link.why, LOG_E_UNKNOWN, "memory is out");
    return unknown ? LOG_E_UNKNOWN : r;
}

/* What a call of the publisher comes to. What was sent is waited for further by the next call. */
static int judge(struct writer *w, int r) {
    if (r == LOG_E_END)
        return LOG_E_UNAVAILABLE;
    return r ? lose_link(w, r) : 0;
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
    if (r == 0)
        r = publisher_begin(&w->publisher);
    return r ? lose_link(w, r) : 0;
}

/* In a queue it comes again until it is acknowledged, and is known by its id. A stream keeps what
 * it has anyway. */
static int publish(struct writer *w, const struct shared_message *m) {
    char name[RABBITMQ_NAME_MAX], id[RABBITMQ_ID_MAX];
    amqp_basic_properties_t properties = {0};
    if (w->streams.queues) {
        snprintf(id, sizeof id, "%016" PRIx64 "-%" PRIu64, w->incarnation, w->publisher.next);
        properties = (amqp_basic_properties_t){._flags = AMQP_BASIC_DELIVERY_MODE_FLAG |
                                                         AMQP_BASIC_MESSAGE_ID_FLAG,
                                               .delivery_mode = AMQP_DELIVERY_PERSISTENT,
                                               .message_id = amqp_cstring_bytes(id)};
    }
    return publisher_send(&w->publisher, rabbitmq_stream(&w->streams, m->partition, name),
                          &properties, buffer_bytes(&m->bytes));
}

static int send_one(struct writer *w, struct shared_message *m, uint64_t deadline_ns) {
    int r = publisher_make_room(&w->publisher, m->bytes.size, deadline_ns);
    m->sent = r == 0;
    return judge(w, r ? r : publish(w, m));
}

static int deliver(struct writer *w, struct shared_message *messages, size_t n) {
    uint64_t deadline_ns = deadline_after(w, w->timeout_ms);
    int r = w->link.state ? judge(w, publisher_take(&w->publisher)) : 0;
    if (r == 0)
        r = connect_writer(w, false, deadline_ns);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = messages[i].sent ? 0 : send_one(w, &messages[i], deadline_ns);
    return r ? r : judge(w, publisher_finish(&w->publisher, deadline_ns));
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
    link_init(&w->link, os, options->url, options->timeout_ms);
    publisher_init(&w->publisher, &w->link);
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

/* A limit of messages to be consumed, where nobody consumes: what costs the broker least to answer.
 */
static int ask(struct writer *w, uint64_t deadline_ns) {
    if (w->link.blocked)
        return log_fail(w->link.why, LOG_E_UNAVAILABLE, "%s", w->link.blocked_why);
    int r = link_set_deadline(&w->link, deadline_ns);
    if (r == 0) {
        amqp_basic_qos(w->link.state, LINK_CHANNEL, 0, 0, 0);
        r = link_check(&w->link, amqp_get_rpc_reply(w->link.state), NULL);
    }
    if (r)
        return lose_link(w, r);
    amqp_maybe_release_buffers(w->link.state);
    return 0;
}

/* Also answers heartbeats. One that it was lost at may be had again at once. */
static int writer_probe(struct shared_writer *writer, uint64_t timeout_ms) {
    struct writer *w = writer_of(writer);
    uint64_t deadline_ns = deadline_after(w, timeout_ms);
    bool fresh = !w->link.state || judge(w, publisher_take(&w->publisher)) != 0;
    return finish(w, fresh ? connect_writer(w, false, deadline_ns) : ask(w, deadline_ns));
}

static const struct shared_writer_ops writer_ops = {
    .open = writer_open,
    .close = writer_close,
    .deliver = writer_deliver,
    .probe = writer_probe,
};

const struct shared_driver shared_rabbitmq = {
    .name = "amqp",
    .schemes = schemes,
    .parameters = stream_parameters,
    .prefix = "prefix",
    .writer = &writer_ops,
    .member = &rabbitmq_stream_member_ops,
    .check = check,
    .mark = rabbitmq_mark,
};

const struct shared_driver shared_rabbitmq_queues = {
    .name = "amqp-quorum",
    .schemes = schemes,
    .queues = "quorum",
    .parameters = queue_parameters,
    .prefix = "prefix",
    .writer = &writer_ops,
    .member = &rabbitmq_queue_member_ops,
    .check = check,
    .mark = rabbitmq_mark,
};
