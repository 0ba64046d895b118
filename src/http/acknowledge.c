/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariant 1: acknowledge() below is the one place that answers 2xx to a write, and it is called
 * only when the journal said that the write's last lsn is durable.
 *
 * Waiting costs no thread: requests sit suspended in lists of their loop,
 *
 *     await ──▶ durable (by lsn) ──durable──▶ visible (of one store) ──visible──▶ answered
 *                   └──deadline: 503 outcome unknown   └──deadline: 2xx, "durable"
 *
 * and whoever moves a position wakes the loop only if it is waited for. The two sides meet at an
 * atomic `wanted`: the loop writes what it waits for and then reads the position; the other side
 * has moved the position and then exchanges `wanted`. Both touch `wanted` by read-modify-write, so
 * one of them sees the other's store: no wake-up is lost.
 */
#include "http/internal.h"

#include <assert.h>

enum { VISIBLE_TIMEOUT_MS = 60000, REASON_MAX = 512 };

/* ---- Lists ---- */

/* Behind everything with a lower or equal last lsn. lsns grow within a loop, so this is the tail
 * but for visible waits that became durable together. */
static void list_insert(struct http_wait_list *list, struct http_request *r) {
    struct http_request *before = list->tail;
    while (before && before->write.last > r->write.last)
        before = before->wait_previous;
    r->wait_previous = before;
    r->wait_next = before ? before->wait_next : list->head;
    *(r->wait_next ? &r->wait_next->wait_previous : &list->tail) = r;
    *(before ? &before->wait_next : &list->head) = r;
}

static void list_remove(struct http_wait_list *list, struct http_request *r) {
    *(r->wait_previous ? &r->wait_previous->wait_next : &list->head) = r->wait_next;
    *(r->wait_next ? &r->wait_next->wait_previous : &list->tail) = r->wait_previous;
    r->wait_previous = r->wait_next = NULL;
}

/* ---- The end of a wait ---- */

static void acknowledge(struct http_request *r, enum http_write_outcome outcome) {
    assert(r->write.last <= journal_durable(r->entry->journal));
    struct http_answer *a = &r->answer;
    buffer_clear(&a->copy);
    struct buffer body = a->copy;
    unsigned status = r->write.render(r, outcome, &body);
    assert(status >= 200 && status < 300);
    a->copy = BUFFER_INIT; /* http_answer_begin empties it; what was rendered stays */
    a->acknowledged = true;
    (void)http_answer_begin(r, status);
    if (body.failed)
        buffer_clear(&body); /* the status alone is still true */
    a->copy = body;
    a->body = buffer_bytes(&a->copy);
    http_answer_charge(r);
    http_loop_resume(r);
}

static void answer_rejected(struct http_request *r, const char *reason) {
    enum http_error error = r->write.rejected ? r->write.rejected(reason) : HTTP_ERROR_BAD_REQUEST;
    http_fail(r, error, NULL, "%s", reason);
    http_loop_resume(r);
}

static void answer_unknown(struct http_request *r) {
    http_fail(r, HTTP_ERROR_OUTCOME_UNKNOWN, NULL, NULL);
    http_loop_resume(r);
}

static void answer_visible(struct http_request *r) {
    char reason[REASON_MAX];
    if (work_rejection(r->write.work, r->write.first, r->write.last, reason, sizeof reason))
        answer_rejected(r, reason);
    else
        acknowledge(r, HTTP_WRITE_VISIBLE);
}

static bool is_visible(const struct http_request *r) {
    return work_visible(r->write.work, r->write.lane_mask, r->write.last);
}

/* ---- Visible ---- */

static void on_visible(struct work_listener *listener) {
    struct http_loop_work *w = CONTAINER_OF(listener, struct http_loop_work, listener);
    atomic_exchange(&listener->wanted, UINT64_MAX);
    atomic_store(&w->moved, true);
    event_signal(&w->loop->wake);
}

/* The loop's list for a store; listens to it from the first wait on. */
static struct http_loop_work *loop_work(struct http_loop *l, struct work *work) {
    for (size_t i = 0; i < l->n_works; i++)
        if (l->works[i].work == work)
            return &l->works[i];
    assert(l->n_works < HTTP_WORKS_MAX);
    struct http_loop_work *w = &l->works[l->n_works++];
    w->loop = l;
    w->work = work;
    w->listener.visible = on_visible;
    atomic_init(&w->listener.wanted, UINT64_MAX);
    work_listen(work, &w->listener);
    return w;
}

static void want_visible(struct http_loop_work *w, lsn_t lsn) {
    lsn_t wanted = atomic_load(&w->listener.wanted);
    while (lsn < wanted && !atomic_compare_exchange_weak(&w->listener.wanted, &wanted, lsn))
        ;
}

static void await_visible(struct http_request *r) {
    struct http_loop_work *w = loop_work(r->loop, r->write.work);
    uint64_t timeout_ms = r->write.timeout_ms ? r->write.timeout_ms : VISIBLE_TIMEOUT_MS;
    r->deadline_ns = r->loop->now_ns + timeout_ms * UINT64_C(1000000);
    list_insert(&w->waiting, r);
    want_visible(w, r->write.last);
    if (is_visible(r)) {
        list_remove(&w->waiting, r);
        answer_visible(r);
    }
}

/* Looks at every wait, because each has lanes of its own; only after a position moved, or when a
 * deadline passed. */
static uint64_t visible_turn(struct http_loop_work *w, uint64_t now_ns) {
    uint64_t next = UINT64_MAX;
    bool moved = atomic_exchange(&w->moved, false);
    if (moved && w->waiting.head)
        want_visible(w, w->waiting.head->write.last); /* before looking */
    for (struct http_request *r = w->waiting.head, *after; r; r = after) {
        after = r->wait_next;
        bool visible = moved && is_visible(r);
        if (!visible && now_ns < r->deadline_ns) {
            next = r->deadline_ns < next ? r->deadline_ns : next;
            continue;
        }
        list_remove(&w->waiting, r);
        if (visible)
            answer_visible(r);
        else
            acknowledge(r, HTTP_WRITE_DURABLE);
    }
    return next;
}

/* ---- Durable ---- */

/* On the journal's thread, after each commit. */
static void on_durable(struct journal_listener *listener, lsn_t durable) {
    struct http_loop_journal *j = CONTAINER_OF(listener, struct http_loop_journal, listener);
    lsn_t wanted = atomic_fetch_add(&j->wanted, 0); /* a read-modify-write: see above */
    if (wanted > durable)
        return;
    atomic_exchange(&j->wanted, UINT64_MAX);
    event_signal(&j->loop->wake);
}

/* The loop's list for a journal, or NULL. */
static struct http_loop_journal *loop_journal(struct http_loop *l, const struct journal *journal) {
    for (size_t i = 0; i < l->n_journals; i++)
        if (l->journals[i].journal == journal)
            return &l->journals[i];
    return NULL;
}

void http_await_write(struct http_request *r, const struct http_write *write) {
    struct http_loop *l = r->loop;
    assert(http_request_writes(r));
    assert(r->state == REQUEST_RUNNING && !http_request_answered(r));
    assert(write->first <= write->last && write->render);
    assert(write->work || !write->wait_visible);
    r->write = *write;
    r->state = REQUEST_WAITING;
    r->deadline_ns = l->now_ns + l->server->options.commit_timeout_ms * UINT64_C(1000000);
    list_insert(&loop_journal(l, r->entry->journal)->durable, r);
}

static uint64_t durable_turn(struct http_loop_journal *j, uint64_t now_ns) {
    struct http_request *r = j->durable.head;
    if (!r)
        return UINT64_MAX;
    atomic_exchange(&j->wanted, r->write.last); /* before looking */
    lsn_t durable = journal_durable(j->journal), unknown = journal_unknown(j->journal);
    for (struct http_request *after; r && r->write.last <= durable; r = after) {
        after = r->wait_next;
        list_remove(&j->durable, r);
        if (r->write.first && r->write.first <= unknown)
            answer_unknown(r);
        else if (r->write.wait_visible)
            await_visible(r);
        else
            acknowledge(r, HTTP_WRITE_DURABLE);
    }
    /* Waits of one loop are in order of time too. */
    while ((r = j->durable.head) && now_ns >= r->deadline_ns) {
        list_remove(&j->durable, r);
        answer_unknown(r);
    }
    if (!r)
        return UINT64_MAX;
    atomic_exchange(&j->wanted, r->write.last);
    if (r->write.last <= journal_durable(j->journal))
        return now_ns; /* moved in between */
    return r->deadline_ns;
}

uint64_t http_acknowledge_turn(struct http_loop *l) {
    uint64_t next = UINT64_MAX;
    for (size_t i = 0; i < l->n_journals; i++) {
        uint64_t then = durable_turn(&l->journals[i], l->now_ns);
        next = then < next ? then : next;
    }
    for (size_t i = 0; i < l->n_works; i++) {
        uint64_t then = visible_turn(&l->works[i], l->now_ns);
        next = then < next ? then : next;
    }
    return next;
}

void http_acknowledge_init(struct http_loop *l) {
    const struct router *router = l->server->router;
    for (size_t i = 0; i < router_size(router); i++) {
        struct journal *journal = router_entry_at(router, i)->journal;
        if (!journal || loop_journal(l, journal))
            continue;
        assert(l->n_journals < HTTP_JOURNALS_MAX);
        struct http_loop_journal *j = &l->journals[l->n_journals++];
        *j = (struct http_loop_journal){
            .loop = l, .journal = journal, .listener.durable = on_durable};
        atomic_init(&j->wanted, UINT64_MAX);
        journal_listen(journal, &j->listener);
    }
}

void http_acknowledge_deinit(struct http_loop *l) {
    for (size_t i = 0; i < l->n_journals; i++)
        journal_unlisten(l->journals[i].journal, &l->journals[i].listener);
}

void http_acknowledge_abandon(struct http_loop *l) {
    for (size_t i = 0; i < l->n_journals; i++) {
        for (struct http_request *r; (r = l->journals[i].durable.head);) {
            list_remove(&l->journals[i].durable, r);
            answer_unknown(r);
        }
    }
    for (size_t i = 0; i < l->n_works; i++) {
        for (struct http_request *r; (r = l->works[i].waiting.head);) {
            list_remove(&l->works[i].waiting, r);
            acknowledge(r, HTTP_WRITE_DURABLE);
        }
    }
}
