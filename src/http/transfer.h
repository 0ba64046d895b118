/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to servers: files from other ones, as a stream in bounded memory, and questions to
 * those that we were told of: our own from another process, an engine behind us. libcurl is behind
 * this header, and no other file knows it.
 *
 * Blocking calls of one thread. While any of them waits, all transfers of the same struct transfers
 * go on, each until its memory is full, and `stopped` is asked every 50 ms.
 */
#ifndef MILLRACE_HTTP_TRANSFER_H
#define MILLRACE_HTTP_TRANSFER_H

#include "base/budget.h"
#include "base/bytes.h"
#include "base/error.h"

struct transfers;
struct transfers_options {
    bool (*stopped)(const void *context);
    const void *context;
};

/* After each but the first two, transfers_sentence says more. -ENOMEM is the only fatal error. */
enum {
    _TRANSFER_E_SUCCESS,
    TRANSFER_E_END,
    TRANSFER_E_STOPPED,
    TRANSFER_E_REFUSED, /* it will go no better the next time */
    TRANSFER_E_FAILED,  /* it may */
};

int transfers_new(const struct transfers_options *options, struct transfers **ret_t) MUST_USE;
/* After its downloads were closed. Takes NULL. */
struct transfers *transfers_free(struct transfers *t);
const char *transfers_sentence(const struct transfers *t);

/* ---- From other servers ---- */
/*
 * Only http and https, only hosts of the list (http/hosts.h), whatever they redirect to; no user
 * names in URLs, no proxy, no cookies, from https never to http. What the server encodes
 * (Content-Encoding) comes as it is: it is not asked to.
 */
struct download;
struct download_options {
    const char *url;
    const char *hosts;
    uint64_t stall_ms; /* gives up when nothing came for so long */
};
/* Returns once the head of a 200 is there. */
int download_open(struct transfers *t, const struct download_options *options,
                  struct download **ret_download) MUST_USE;
/* The next piece, never empty; valid until the next call for this download. TRANSFER_E_END. */
int download_read(struct download *d, struct bytes *ret_piece) MUST_USE;
/* As the server says it; 0: it does not. */
uint64_t download_length(const struct download *d);
/* Of its length, ETag and Last-Modified: equal for what is the same as far as one can know. */
uint64_t download_version(const struct download *d);
struct download *download_close(struct download *d);

/* ---- To those we know ---- */
enum { QUESTION_HEADERS_MAX = 4, QUESTION_ANSWER_MAX_BYTES = 4 << 20 };
enum { QUESTION_ANSWER_FREE_BYTES = 64 << 10 }; /* of an answer are not counted */
struct question {
    const char *method;  /* NULL: POST */
    const char *url;     /* asked as it stands; where it redirects to is not */
    const char *ca_file; /* NULL: the system's */
    const char *headers[QUESTION_HEADERS_MAX]; /* "Name: value"; NULL behind the last */
    struct bytes body;
    uint64_t timeout_ms;
    uint64_t answer_max_bytes; /* 0: QUESTION_ANSWER_MAX_BYTES; a longer one is refused */
    struct budget *budget;     /* where the answer is counted as it comes; NULL: nowhere */
};
enum { QUESTION_TYPE_MAX = 128 };
struct question_answer {
    unsigned status;
    char content_type[QUESTION_TYPE_MAX]; /* "": it does not say */
    uint64_t retry_after_s;               /* 0: it does not say */
    struct buffer body;
    uint64_t counted_bytes; /* of BUDGET_ANSWERS: the caller's to give back, whatever came of it */
};
/* The answer's body is cleared before. TRANSFER_E_FAILED: there was none; TRANSFER_E_REFUSED: it is
 * too long. -ENOMEM also when the budget has no room for it. */
int transfers_ask(struct transfers *t, const struct question *question,
                  struct question_answer *answer) MUST_USE;

#endif
