/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver of RabbitMQ: amqp://user:password@host,host/vhost?prefix=…, amqps://. The log is one
 * stream, `<prefix>journal`, over AMQP 0-9-1; a message's position is its offset + 1.
 *
 * Durable means: confirmed, which is written by a majority of the stream's replicas. RabbitMQ never
 * syncs a stream, so what it confirmed survives its crash, but the loss of power only where a
 * majority keeps running. Nor can a stream be trimmed: it drops its oldest segments past max-bytes.
 *
 * ---- Who owns the log ----
 *
 * 1. A lock: the queue `<prefix>owner`, exclusive to the connection that publishes. The broker
 * frees it when that connection is gone, and only then; so who slept past its heartbeat publishes
 * and is confirmed no more. A newcomer that finds it taken puts a message into it, which asks the
 *    owner to go: one that runs does (it is LOG_E_FENCED from then on), one that is frozen loses
 *    its connection after two to three times HEARTBEAT_S. Until then open is LOG_E_UNAVAILABLE.
 * 2. A claim: the lock's being free does not say that what its last holder had in flight is in the
 *    log. So each message begins with a stamp, the epoch of its owner and a number of its process;
 *    a claim is a stamp alone, the owner's first message. A claim counts if its epoch is above all
 *    before it; a message counts if its stamp is that of the newest claim before it. What lands
 *    behind another's claim was confirmed to nobody (1), and every reader leaves it out (`fence`).
 *
 * The owner reads back around its claim: so it knows its own place, the newest message before
 * it, that an empty log is empty, and, after its connection was lost, whether another owned the log
 * since. It looks at more messages than can be in flight, so not all of them are late.
 *
 *     down ──own()──▶ locked ──claim()──▶ claimed ──look_back()──▶ owner ──▶ fenced (for ever)
 *       ▲                └───────────────────┴───── connection lost ──┘ ◀─ asked to go, or
 *       └────────────────────────────────────────────────────────────┘     another's claim seen
 *
 * Heartbeats and requests to go are answered in append, and while nobody appends in tick.
 *
 * Positions of appended messages are counted from the claim. RabbitMQ may put one of its own
 * entries between (one a segment): then they are too low, never too high, and a reader from there
 * begins with an earlier message.
 */
#include "journal/driver.h"
#include "journal/remote/rabbitmq_publisher.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    HEARTBEAT_S = 5,
    ASK_AGAIN_MS = 50,
    RELOCK_MS = 300,
    CLOSE_MS = 1000,
    STAMP_BYTES = 16,
    MESSAGE_BYTES_MAX = 1 << 20,
    PREFIX_MAX = 128,
    NAME_MAX_BYTES = PREFIX_MAX + 16,
    NS_PER_MS = 1000000,
    CLAIMS_MAX = 4, /* tries to be above the epochs that there are; clocks that differ need two */
    LOOK_BACK = 3 * PUBLISHER_WINDOW, /* above what can be in flight */
    LOOK_FURTHER = 8,                 /* times as far, when there were only claims */
};

/* Whose message it is. */
struct stamp {
    uint64_t epoch;
    uint64_t session;
};

static bool stamp_equal(struct stamp a, struct stamp b) {
    return a.epoch == b.epoch && a.session == b.session;
}

/* ---- What counts ---- */

/* The newest claim that counts, as far as the log was read. A start in the midst takes the stamp of
 * the first message for it; so it must not be a late one. */
struct fence {
    struct stamp claim; /* {0}: nothing was read */
};

enum passes { PASSES_NOT, PASSES_CLAIM, PASSES_MESSAGE };

static enum passes fence_pass(struct fence *f, struct bytes body, struct stamp *ret_stamp) {
    if (body.size < STAMP_BYTES)
        return PASSES_NOT; /* not ours: somebody else writes into the stream */
    *ret_stamp = (struct stamp){load_u64(body.data), load_u64(body.data + 8)};
    bool newer = ret_stamp->epoch > f->claim.epoch;
    if (newer)
        f->claim = *ret_stamp;
    if (body.size == STAMP_BYTES)
        return newer ? PASSES_CLAIM : PASSES_NOT;
    return stamp_equal(*ret_stamp, f->claim) ? PASSES_MESSAGE : PASSES_NOT;
}

/* ---- The log ---- */

struct rabbitmq {
    struct log base;
    struct os *os;
    const struct service_url *url;
    uint64_t timeout_ms;
    struct stream_bounds bounds;
    char stream[NAME_MAX_BYTES];
    char owner[NAME_MAX_BYTES];

    struct link link;
    bool owns;   /* the link's connection holds the lock, and its claim counts */
    bool fenced; /* for ever */
    struct stamp stamp;
    uint64_t claims_tag; /* of the claim on this connection */
    uint64_t claims_position;
    struct publisher publisher;
    struct buffer body;   /* of the message that is being sent */
    struct buffer newest; /* the newest message before the claim, */
    uint64_t newest_position;
    bool newest_is_last; /* and nothing was sent since */
};

static struct rabbitmq *rabbitmq_of(struct log *l) {
    return CONTAINER_OF(l, struct rabbitmq, base);
}

static uint64_t deadline_after(struct os *os, uint64_t ms) {
    return os_monotonic_ns(os) + ms * NS_PER_MS;
}

static void lose_link(struct rabbitmq *m) {
    link_drop(&m->link, 0);
    m->owns = false;
    m->newest_is_last = false;
}

static int put_out(struct rabbitmq *m) {
    m->fenced = true;
    return log_fail(m->link.why, LOG_E_FENCED, "another process has taken over the stream %s",
                    m->stream);
}

/* ---- Sending ---- */

/* On the connection that publishes: a request to go, or that none can come any more. */
static int take_method(void *context, const amqp_method_t *method) {
    struct rabbitmq *m = context;
    if (method->id == AMQP_BASIC_DELIVER_METHOD)
        return put_out(m);
    if (method->id == AMQP_BASIC_CANCEL_METHOD)
        return log_fail(m->link.why, LOG_E_UNAVAILABLE, "the queue %s was deleted", m->owner);
    return 0;
}

/* What a call of the publisher comes to: what was not confirmed in time may be yet, and after
 * another failure the link is lost. */
static int judge(struct rabbitmq *m, int r) {
    if (r && r != LOG_E_END)
        lose_link(m);
    return r == LOG_E_END ? LOG_E_UNAVAILABLE : r;
}

/* Sends m->body; its number is publisher.next - 1 then. */
static int send_body(struct rabbitmq *m, uint64_t deadline_ns) {
    int r = buffer_check(&m->body);
    if (r)
        return r;
    r = publisher_make_room(&m->publisher, m->body.size, deadline_ns);
    if (r == 0)
        r = publisher_send(&m->publisher, m->stream, NULL, buffer_bytes(&m->body));
    return judge(m, r);
}

static int wait_confirmed(struct rabbitmq *m, uint64_t deadline_ns) {
    return judge(m, publisher_finish(&m->publisher, deadline_ns));
}

static void begin_body(struct rabbitmq *m) {
    buffer_clear(&m->body);
    buffer_append_u64(&m->body, m->stamp.epoch);
    buffer_append_u64(&m->body, m->stamp.session);
}

/* ---- Becoming the owner ---- */

/* The queue keeps one request to go. */
static int declare_owner(struct rabbitmq *m) {
    amqp_table_entry_t entry = {amqp_cstring_bytes("x-max-length"),
                                {AMQP_FIELD_KIND_I64, {.i64 = 1}}};
    amqp_table_t arguments = {1, &entry};
    amqp_queue_declare(m->link.state, LINK_CHANNEL, amqp_cstring_bytes(m->owner), 0, 0, 1, 0,
                       arguments);
    return link_check(&m->link, amqp_get_rpc_reply(m->link.state), "declaring the owner's queue");
}

/* Who was the owner once asks nobody to go: it is the older one. */
static bool is_newcomer(const struct rabbitmq *m) {
    return m->stamp.epoch == 0;
}

static int still_locked(struct rabbitmq *m) {
    return log_fail(m->link.why, LOG_E_UNAVAILABLE,
                    "the connection that has the stream %s is not gone yet: RabbitMQ ends one that "
                    "is silent after %d to %d s",
                    m->stream, 2 * HEARTBEAT_S, 3 * HEARTBEAT_S);
}

/* When time is up, link.code stays LINK_CODE_LOCKED. */
static int take_lock(struct rabbitmq *m, uint64_t deadline_ns) {
    bool asked = false;
    for (;;) {
        int r = declare_owner(m);
        if (r != LOG_E_UNAVAILABLE || m->link.code != LINK_CODE_LOCKED)
            return r;
        if (os_monotonic_ns(m->os) + ASK_AGAIN_MS * (uint64_t)NS_PER_MS >= deadline_ns)
            return still_locked(m);
        r = link_reopen(&m->link);
        if (r == 0 && !asked && is_newcomer(m))
            r = link_publish(&m->link, m->owner, false, NULL, BYTES_LITERAL("go"));
        if (r)
            return r;
        asked = true;
        os_sleep_ns(m->os, ASK_AGAIN_MS * (uint64_t)NS_PER_MS);
    }
}

/* Requests to go come to this connection, and messages that it sends are confirmed. */
static int begin_publishing(struct rabbitmq *m) {
    amqp_basic_consume(m->link.state, LINK_CHANNEL, amqp_cstring_bytes(m->owner), amqp_empty_bytes,
                       0, 1, 1, amqp_empty_table);
    int r = link_check(&m->link, amqp_get_rpc_reply(m->link.state), "reading the owner's queue");
    return r ? r : publisher_begin(&m->publisher);
}

/* A view of the log's end, up to a claim. */
struct view {
    struct fence fence;   /* as it was before the claim */
    uint64_t position;    /* of the claim; 0: not met */
    uint64_t newest;      /* position of the newest message before it; 0: none in view */
    struct buffer *ret;   /* it, without its stamp */
    bool from_the_oldest; /* nothing lies before what is in view */
};

/* Reads from an offset on until the claim with this stamp, or until `until` was read. */
static int view_read(struct view *v, struct tap *t, struct stamp claim, uint64_t until,
                     uint64_t deadline_ns) {
    for (uint64_t offset = 0; v->position == 0 && offset < until;) {
        struct bytes body;
        int r = tap_next(t, deadline_ns, &body, &offset);
        if (r)
            return r;
        struct fence before = v->fence;
        struct stamp stamp = {0};
        enum passes passes = fence_pass(&v->fence, body, &stamp);
        if (body.size == STAMP_BYTES && stamp_equal(stamp, claim)) {
            v->fence = before;
            v->position = offset + 1;
        } else if (passes == PASSES_MESSAGE) {
            v->newest = offset + 1;
            buffer_clear(v->ret);
            buffer_append(v->ret, body.data + STAMP_BYTES, body.size - STAMP_BYTES);
        }
    }
    return buffer_check(v->ret);
}

/* Where the log's newest chunk begins. Something is in the log (this process' claim). */
static int find_end(struct rabbitmq *m, struct tap *t, uint64_t deadline_ns, uint64_t *ret_offset) {
    struct bytes body;
    int r = tap_attach(t, m->stream, TAP_LAST, deadline_ns);
    return r ? r : tap_next(t, deadline_ns, &body, ret_offset);
}

/* Views the last `back` messages before the newest chunk, and that: up to its end when the claim is
 * there, up to its first message when it is not (claim {0}). */
static int view_end(struct rabbitmq *m, struct view *v, uint64_t back, struct stamp claim,
                    uint64_t deadline_ns) {
    struct tap t;
    uint64_t end = 0;
    tap_init(&t, m->os, m->url, m->timeout_ms);
    int r = find_end(m, &t, deadline_ns, &end);
    uint64_t from = end > back ? end - back : 0;
    *v = (struct view){.ret = &m->newest, .from_the_oldest = from == 0};
    buffer_clear(v->ret);
    if (r == 0)
        r = tap_attach(&t, m->stream, (int64_t)from, deadline_ns);
    if (r == 0)
        r = view_read(v, &t, claim, claim.epoch ? UINT64_MAX : end, deadline_ns);
    if (r > 0)
        r = log_fail(m->link.why, r == LOG_E_END ? LOG_E_UNAVAILABLE : r, "reading the stream: %s",
                     r == LOG_E_END ? "nothing came in time" : t.link.why);
    tap_deinit(&t);
    return r;
}

/* Whether, before the claim, the log's owner was this process. */
static int check_unbroken(struct rabbitmq *m, const struct view *v, uint64_t session) {
    if (v->fence.claim.session == session)
        return 0;
    if (v->fence.claim.epoch > 0)
        return put_out(m);
    return log_fail(m->link.why, LOG_E_REFUSED, "the stream %s was deleted: what was in it is lost",
                    m->stream);
}

/* Views back until there is a message, or nothing before it. */
static int look_back(struct rabbitmq *m, struct view *v, uint64_t deadline_ns) {
    uint64_t back = LOOK_BACK;
    int r;
    do {
        r = view_end(m, v, back, m->stamp, deadline_ns);
        back *= LOOK_FURTHER;
    } while (r == 0 && v->newest == 0 && !v->from_the_oldest);
    return r;
}

static int claim(struct rabbitmq *m, uint64_t above, uint64_t deadline_ns) {
    uint64_t now = os_wall_us(m->os);
    m->stamp.epoch = now > above ? now : above + 1;
    begin_body(m);
    int r = send_body(m, deadline_ns);
    m->claims_tag = m->publisher.next - 1;
    return r ? r : wait_confirmed(m, deadline_ns);
}

/* A claim that counts. What was seen before it tells whether this process may have it. */
static int claim_log(struct rabbitmq *m, bool newcomer, uint64_t deadline_ns) {
    uint64_t above = m->stamp.epoch;
    for (int i = 0; i < CLAIMS_MAX; i++) {
        struct view v;
        int r = claim(m, above, deadline_ns);
        if (r == 0)
            r = look_back(m, &v, deadline_ns);
        if (r == 0 && !newcomer)
            r = check_unbroken(m, &v, m->stamp.session);
        if (r)
            return r;
        if (v.fence.claim.epoch < m->stamp.epoch) {
            m->claims_position = v.position;
            m->newest_position = v.newest;
            m->newest_is_last = true;
            m->owns = true;
            return 0;
        }
        above = v.fence.claim.epoch;
    }
    return log_fail(m->link.why, LOG_E_UNAVAILABLE, "others claim the stream %s again and again",
                    m->stream);
}

/* The lock is not to be had: because another has it for good, or because the broker has not yet
 * noticed that this process' last connection is gone? */
static int judge_locked(struct rabbitmq *m, uint64_t deadline_ns) {
    struct view v;
    int r = view_end(m, &v, LOOK_BACK, (struct stamp){0}, deadline_ns);
    if (r == 0)
        r = check_unbroken(m, &v, m->stamp.session);
    return r ? r : still_locked(m);
}

static int own_connected(struct rabbitmq *m, uint64_t deadline_ns) {
    bool newcomer = is_newcomer(m);
    int r = link_declare_stream(&m->link, m->stream, &m->bounds);
    /* Who was the owner mostly finds its own last connection, which goes at once, or its heir. */
    uint64_t soon_ns = deadline_after(m->os, RELOCK_MS);
    if (r == 0)
        r = take_lock(m, newcomer || deadline_ns < soon_ns ? deadline_ns : soon_ns);
    if (r == LOG_E_UNAVAILABLE && m->link.code == LINK_CODE_LOCKED && !newcomer)
        return judge_locked(m, deadline_ns);
    if (r == 0)
        r = begin_publishing(m);
    return r ? r : claim_log(m, newcomer, deadline_ns);
}

/* Makes this process the owner, if it is not, or is no more. */
static int own(struct rabbitmq *m, uint64_t deadline_ns) {
    int r = m->owns ? judge(m, publisher_take(&m->publisher)) : LOG_E_UNAVAILABLE;
    if (r <= 0)
        return r;
    if (m->fenced)
        return put_out(m);
    r = link_connect(&m->link, HEARTBEAT_S, deadline_ns);
    if (r == 0)
        r = own_connected(m, deadline_ns);
    if (r)
        lose_link(m);
    return r;
}

/* ---- The driver ---- */

static int read_parameters(struct rabbitmq *m) {
    const char *unknown = service_url_parameter_unknown(m->url, log_rabbitmq.parameters);
    if (unknown)
        return log_fail(m->link.why, LOG_E_REFUSED,
                        "the journal's URL has no parameter called %.80s, or only with "
                        "partitions=N",
                        unknown);
    const char *prefix = service_url_parameter(m->url, "prefix");
    if (!prefix)
        prefix = "millrace-";
    if (strlen(prefix) > PREFIX_MAX)
        return log_fail(m->link.why, LOG_E_REFUSED, "the URL's prefix is too long");
    snprintf(m->stream, sizeof m->stream, "%sjournal", prefix);
    snprintf(m->owner, sizeof m->owner, "%sowner", prefix);
    return stream_bounds_read(&m->bounds, m->url, m->link.why);
}

/* What a call returns, with its sentence. */
static int finish(struct rabbitmq *m, int r) {
    if (r > 0)
        memcpy(m->base.why, m->link.why, sizeof m->base.why);
    return r;
}

static int rabbitmq_check(const struct service_url *url, char why[LOG_WHY_MAX]) {
    struct rabbitmq m = {.url = url};
    int r = read_parameters(&m);
    return r ? log_fail(why, r, "%s", m.link.why) : 0;
}

static int open_log(struct rabbitmq *m) {
    int r = read_parameters(m);
    if (r == 0)
        r = os_random(m->os, &m->stamp.session, sizeof m->stamp.session);
    return r ? r : own(m, deadline_after(m->os, m->timeout_ms));
}

static int rabbitmq_open(struct os *os, const struct log_options *options, struct log **ret_log) {
    struct rabbitmq *m = calloc(1, sizeof *m);
    *ret_log = NULL;
    if (!m)
        return error_origin(-ENOMEM);
    m->base.driver = &log_rabbitmq;
    m->os = os;
    m->url = options->url;
    m->timeout_ms = options->timeout_ms;
    link_init(&m->link, os, options->url, options->timeout_ms);
    publisher_init(&m->publisher, &m->link);
    m->publisher.take = take_method;
    m->publisher.context = m;
    *ret_log = &m->base;
    return finish(m, open_log(m));
}

static void rabbitmq_close(struct log *l) {
    struct rabbitmq *m = rabbitmq_of(l);
    link_drop(&m->link, deadline_after(m->os, CLOSE_MS));
    buffer_deinit(&m->body);
    buffer_deinit(&m->newest);
    free(m);
}

static int check_sizes(struct rabbitmq *m, const struct log_message *messages, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (messages[i].body.size > MESSAGE_BYTES_MAX - LOG_HEAD_BYTES)
            return log_fail(m->link.why, LOG_E_REFUSED, "a message of %zu bytes is too large",
                            messages[i].body.size);
    return 0;
}

static int append(struct rabbitmq *m, const struct log_message *messages, size_t n,
                  uint64_t *ret_positions) {
    uint64_t deadline_ns = deadline_after(m->os, m->timeout_ms);
    int r = check_sizes(m, messages, n);
    if (r == 0)
        r = own(m, deadline_ns);
    for (size_t i = 0; r == 0 && i < n; i++) {
        m->newest_is_last = false;
        begin_body(m);
        buffer_append(&m->body, messages[i].head, LOG_HEAD_BYTES);
        buffer_append_bytes(&m->body, messages[i].body);
        r = send_body(m, deadline_ns);
    }
    if (r == 0)
        r = wait_confirmed(m, deadline_ns);
    for (size_t i = 0; r == 0 && i < n; i++)
        ret_positions[i] = m->claims_position + (m->publisher.next - n + i - m->claims_tag);
    return r;
}

static int rabbitmq_append(struct log *l, const struct log_message *messages, size_t n,
                           uint64_t *ret_positions) {
    struct rabbitmq *m = rabbitmq_of(l);
    return finish(m, append(m, messages, n, ret_positions));
}

/* What fails here the next append finds, and tells. */
static void rabbitmq_tick(struct log *l) {
    struct rabbitmq *m = rabbitmq_of(l);
    if (m->owns)
        (void)judge(m, publisher_take(&m->publisher));
}

/* A stream is not for its readers to trim. */
static int rabbitmq_trim(struct log *l, uint64_t position) {
    (void)l;
    (void)position;
    return 0;
}

/* As a claim is the one sure sign of where the log ends, a new one is made where something was sent
 * since the last. */
static int find_last(struct rabbitmq *m) {
    uint64_t deadline_ns = deadline_after(m->os, m->timeout_ms);
    int r = own(m, deadline_ns);
    if (r == 0 && !m->newest_is_last) {
        r = claim_log(m, false, deadline_ns);
        if (r)
            lose_link(m);
    }
    return r;
}

static int rabbitmq_last(struct log *l, struct buffer *out, uint64_t *ret_position) {
    struct rabbitmq *m = rabbitmq_of(l);
    int r = find_last(m);
    if (r == 0 && m->newest_position == 0)
        r = LOG_E_END;
    if (r == 0) {
        buffer_append_bytes(out, buffer_bytes(&m->newest));
        *ret_position = m->newest_position;
        r = buffer_check(out);
    }
    return finish(m, r);
}

static uint64_t rabbitmq_bound(const struct log *l) {
    return CONTAINER_OF(l, const struct rabbitmq, base)->bounds.max_bytes;
}

/* ---- Readers ---- */

struct reader_of_stream {
    struct log_reader base;
    const struct rabbitmq *log;
    struct tap tap;
    struct fence fence;
    uint64_t first; /* the first position that is wanted */
    int64_t offset; /* to go on from */
    uint64_t connect_ms;
};

/* From one message before: where the first that is wanted follows one that was read, that one's
 * stamp tells what counts. */
static int rabbitmq_reader_new(struct log *l, uint64_t position, struct log_reader **ret_reader) {
    const struct rabbitmq *m = rabbitmq_of(l);
    struct reader_of_stream *r = calloc(1, sizeof *r);
    if (!r)
        return error_origin(-ENOMEM);
    r->base.driver = &log_rabbitmq;
    r->log = m;
    r->first = position;
    /* Late messages make positions too low, and one must not be the first that is seen. */
    r->offset = position > LOOK_BACK ? (int64_t)(position - LOOK_BACK) : 0;
    tap_init(&r->tap, m->os, m->url, m->timeout_ms);
    *ret_reader = &r->base;
    return 0;
}

static int read_stream(struct reader_of_stream *r, uint64_t wait_ms, struct bytes *ret_message,
                       uint64_t *ret_position) {
    const struct rabbitmq *m = r->log;
    if (!r->tap.link.state) {
        int e = tap_attach(&r->tap, m->stream, r->offset, deadline_after(m->os, m->timeout_ms));
        if (e)
            return e;
    }
    uint64_t deadline_ns = deadline_after(m->os, wait_ms);
    for (;;) {
        struct bytes body;
        uint64_t offset = 0;
        struct stamp stamp;
        int e = tap_next(&r->tap, deadline_ns, &body, &offset);
        if (e)
            return e;
        r->offset = (int64_t)offset + 1;
        if (fence_pass(&r->fence, body, &stamp) != PASSES_MESSAGE || offset + 1 < r->first)
            continue;
        *ret_message = bytes_of(body.data + STAMP_BYTES, body.size - STAMP_BYTES);
        *ret_position = offset + 1;
        return 0;
    }
}

static int rabbitmq_read(struct log_reader *reader, uint64_t wait_ms, struct bytes *ret_message,
                         uint64_t *ret_position) {
    struct reader_of_stream *r = CONTAINER_OF(reader, struct reader_of_stream, base);
    int e = read_stream(r, wait_ms, ret_message, ret_position);
    if (e > 0 && e != LOG_E_END)
        memcpy(r->base.why, r->tap.link.why, sizeof r->base.why);
    return e;
}

static void rabbitmq_reader_free(struct log_reader *reader) {
    if (!reader)
        return;
    struct reader_of_stream *r = CONTAINER_OF(reader, struct reader_of_stream, base);
    tap_deinit(&r->tap);
    free(r);
}

const struct log_driver log_rabbitmq = {
    .schemes = (const char *const[]){"amqp", "amqps", NULL},
    .parameters = (const char *const[]){"prefix", "max-bytes", "segment-bytes", "ca", NULL},
    .message_bytes_max = MESSAGE_BYTES_MAX,
    .check = rabbitmq_check,
    .open = rabbitmq_open,
    .close = rabbitmq_close,
    .append = rabbitmq_append,
    .tick = rabbitmq_tick,
    .trim = rabbitmq_trim,
    .last = rabbitmq_last,
    .bound = rabbitmq_bound,
    .reader_new = rabbitmq_reader_new,
    .read = rabbitmq_read,
    .reader_free = rabbitmq_reader_free,
};
