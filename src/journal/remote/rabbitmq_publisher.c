/* SPDX-License-Identifier: Apache-2.0 */
/* Publisher confirms: see rabbitmq_publisher.h. */
#include "journal/remote/rabbitmq_publisher.h"

void publisher_init(struct publisher *p, struct link *link) {
    *p = (struct publisher){.link = link, .first = 1, .next = 1};
}

int publisher_begin(struct publisher *p) {
    p->first = p->next = 1;
    p->bytes = 0;
    amqp_confirm_select(p->link->state, LINK_CHANNEL);
    return link_check(p->link, amqp_get_rpc_reply(p->link->state), "asking for confirms");
}

bool publisher_is_waiting(const struct publisher *p) {
    return p->first < p->next;
}

static void confirm(struct publisher *p, uint64_t number, bool all_before) {
    if (number < p->first || number >= p->next)
        return;
    for (uint64_t i = all_before ? p->first : number; i <= number; i++)
        p->slots[i % PUBLISHER_WINDOW].confirmed = true;
    while (p->first < p->next && p->slots[p->first % PUBLISHER_WINDOW].confirmed)
        p->bytes -= p->slots[p->first++ % PUBLISHER_WINDOW].bytes;
}

static int take_method(struct publisher *p, const amqp_method_t *method) {
    switch (method->id) {
    case AMQP_BASIC_ACK_METHOD: {
        const amqp_basic_ack_t *ack = method->decoded;
        confirm(p, ack->delivery_tag, ack->multiple);
        return 0;
    }
    case AMQP_BASIC_NACK_METHOD:
        return log_fail(p->link->why, LOG_E_UNAVAILABLE, "%s could not write a message",
                        p->link->peer);
    case AMQP_BASIC_RETURN_METHOD: {
        const amqp_basic_return_t *returned = method->decoded;
        return log_fail(p->link->why, LOG_E_UNAVAILABLE, "%s: %.*s is gone", p->link->peer,
                        (int)returned->routing_key.len, (const char *)returned->routing_key.bytes);
    }
    default:
        return p->take ? p->take(p->context, method) : 0;
    }
}

/* One frame, if one comes by then. */
static int take_frame(struct publisher *p, uint64_t deadline_ns) {
    amqp_frame_t frame;
    int r = link_wait(p->link, deadline_ns, &frame);
    if (r == 0 && frame.frame_type == AMQP_FRAME_METHOD)
        r = take_method(p, &frame.payload.method);
    if (r == 0)
        amqp_maybe_release_buffers(p->link->state);
    return r;
}

int publisher_take(struct publisher *p) {
    int r;
    do
        r = take_frame(p, 0);
    while (r == 0);
    return r == LOG_E_END ? 0 : r;
}

static int say_late(struct publisher *p) {
    if (p->link->blocked)
        return log_fail(p->link->why, LOG_E_END, "%s", p->link->blocked_why);
    return log_fail(p->link->why, LOG_E_END, "%s confirmed nothing within %llu ms", p->link->peer,
                    (unsigned long long)p->link->patience_ms);
}

static bool has_room(const struct publisher *p, size_t bytes) {
    return !publisher_is_waiting(p) ||
           (p->next - p->first < PUBLISHER_WINDOW && p->bytes + bytes <= PUBLISHER_WINDOW_BYTES);
}

int publisher_make_room(struct publisher *p, size_t bytes, uint64_t deadline_ns) {
    int r = publisher_take(p);
    while (r == 0 && (p->link->blocked || !has_room(p, bytes)))
        r = take_frame(p, deadline_ns);
    return r == LOG_E_END ? say_late(p) : r;
}

/* Counted before it is sent: of one that was sent in part nobody knows either. */
int publisher_send(struct publisher *p, const char *queue,
                   const amqp_basic_properties_t *properties, struct bytes body) {
    uint64_t number = p->next++;
    p->slots[number % PUBLISHER_WINDOW].bytes = body.size;
    p->slots[number % PUBLISHER_WINDOW].confirmed = false;
    p->bytes += body.size;
    return link_publish(p->link, queue, true, properties, body);
}

int publisher_finish(struct publisher *p, uint64_t deadline_ns) {
    int r = 0;
    while (r == 0 && publisher_is_waiting(p))
        r = take_frame(p, deadline_ns);
    return r == LOG_E_END ? say_late(p) : r;
}
