/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Popularity of cookies: rank = cookies · u³ with u even in [0, 1) is Zipf's law with the exponent
 * 2/3. Of 50 million tags over a million cookies, the first has 1 %, and 2,152 cookies with more
 * than 1,000 tags each have 13 %. With heavy ones, these have four fifths of the tags, evenly, and
 * the others the rest: of the same tags, 36,000 heavy cookies have 1,100 each, the others 10.
 *
 * A tag costs three hashes and a dozen copies of a fixed length.
 */
#include "cli/load_tags_draw.h"

#include "base/hash.h"
#include "base/time_text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>

enum {
    PIECE_MAX = sizeof((struct tag_piece *)0)->text,
    NUMBER_MAX = 20,
    /* Of the whole text; each piece is copied whole, so the last may reach beyond the end. */
    TAG_TEXT_MAX = 8 * PIECE_MAX + 2 * NUMBER_MAX + TAG_NAME_MAX,
};

const char *const tag_action_names[TAG_ACTIONS] = {"VIEW", "BUY"};
static const char *const device_names[TAG_DEVICES] = {"PC", "MOBILE", "TV"};

/* ---- Drawing ---- */

/* A number below n out of 16 random bits. */
static unsigned pick(uint64_t bits, unsigned n) {
    return (unsigned)((bits & 0xffff) * n >> 16);
}

/* u is even in [0, 1). */
static uint64_t pick_rank(const struct tag_source *source, double u, bool heavy) {
    if (source->heavy == 0)
        return (uint64_t)((double)source->cookies * u * u * u);
    if (heavy)
        return (uint64_t)((double)source->heavy * u);
    return source->heavy + (uint64_t)((double)(source->cookies - source->heavy) * u);
}

void tag_draw(const struct tag_source *source, uint64_t number, struct tag *ret_tag) {
    uint64_t a = hash64_u64(source->mix + number);
    uint64_t b = hash64_u64(a);
    uint64_t c = hash64_u64(b);
    double u = (double)(a >> 11) * 0x1p-53;
    bool own = c % TAG_OWN_ONE_IN == 0;
    bool late = (c >> 6) % 64 == 0;
    int64_t late_ms = late ? pick(c >> 48, TAG_LATE_MS) : 0;
    *ret_tag =
        (struct tag){.number = number,
                     .time_ms = source->start_ms + TAG_LATE_MS + (int64_t)number - late_ms,
                     .rank = pick_rank(source, u, pick(a, TAG_HEAVY_OF) < TAG_HEAVY_SHARE),
                     .price = (uint32_t)(c >> 16) % TAG_PRICES,
                     .origin = (uint16_t)pick(b, own ? TAG_OWN_ORIGINS : TAG_ORIGINS),
                     .country = (uint8_t)pick(b >> 16, TAG_COUNTRIES),
                     .device = (uint8_t)((c >> 12 & 3) % TAG_DEVICES),
                     .action = (c >> 32 & 7) == 0, /* one in eight buys */
                     .brand = (uint8_t)pick(b >> 32, own ? TAG_OWN_BRANDS : TAG_BRANDS),
                     .category = (uint8_t)pick(b >> 48, own ? TAG_OWN_CATEGORIES : TAG_CATEGORIES),
                     .own = own};
}

/* ---- Names ---- */

void tag_own_name(const struct tag_source *source, unsigned thread, enum tag_own what,
                  unsigned number, char out[TAG_NAME_MAX]) {
    static const char *const names[] = {"origin", "brand", "category"};
    snprintf(out, TAG_NAME_MAX, "%s-%u-%s-%u", source->run, thread, names[what], number);
}

void tag_cookie_name(const struct tag_source *source, unsigned thread, uint64_t rank,
                     char out[TAG_NAME_MAX]) {
    if (rank % source->every == 0)
        snprintf(out, TAG_NAME_MAX, "%s-%u-%" PRIu64, source->run, thread, rank);
    else
        snprintf(out, TAG_NAME_MAX, "cookie-%" PRIu64, rank);
}

void tag_datetime(int64_t time_ms, bool with_ms, char out[TAG_NAME_MAX]) {
    time_text(time_ms * 1000, out);
    out[with_ms ? 23 : 19] = '\0';
}

/* ---- Pieces ---- */

static void PRINTF_LIKE(2, 3) set_piece(struct tag_piece *piece, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int size = vsnprintf(piece->text, sizeof piece->text, format, args);
    va_end(args);
    assert(size > 0 && size < PIECE_MAX);
    piece->size = (uint8_t)size;
}

/* The name of a value: a common one, or an own one behind the common ones. */
static void value_name(const struct tag_pieces *p, enum tag_own what, unsigned value,
                       unsigned common, char out[TAG_NAME_MAX]) {
    static const char *const names[] = {"origin", "brand", "category"};
    if (value < common)
        snprintf(out, TAG_NAME_MAX, "%s-%u", names[what], value);
    else
        tag_own_name(p->source, p->thread, what, value - common, out);
}

void tag_pieces_init(struct tag_pieces *p, const struct tag_source *source, unsigned thread) {
    char name[TAG_NAME_MAX];
    *p = (struct tag_pieces){.source = source, .thread = thread, .minute = INT64_MIN};
    for (unsigned i = 0; i < TAG_COUNTRIES; i++)
        set_piece(&p->countries[i], "\",\"country\":\"C%02u\",\"device\":\"", i);
    for (unsigned i = 0; i < TAG_DEVICES; i++)
        for (unsigned k = 0; k < TAG_ACTIONS; k++)
            set_piece(&p->devices[i][k], "%s\",\"action\":\"%s\",\"origin\":\"", device_names[i],
                      tag_action_names[k]);
    for (unsigned i = 0; i < ARRAY_LENGTH(p->origins); i++) {
        value_name(p, TAG_OWN_ORIGIN, i, TAG_ORIGINS, name);
        set_piece(&p->origins[i], "%s\",\"product_info\":{", name);
    }
    for (unsigned i = 0; i < ARRAY_LENGTH(p->brands); i++) {
        value_name(p, TAG_OWN_BRAND, i, TAG_BRANDS, name);
        set_piece(&p->brands[i], "\",\"brand_id\":\"%s", name);
    }
    for (unsigned i = 0; i < ARRAY_LENGTH(p->categories); i++) {
        value_name(p, TAG_OWN_CATEGORY, i, TAG_CATEGORIES, name);
        set_piece(&p->categories[i], "\",\"category_id\":\"%s", name);
    }
}

/* ---- JSON ---- */

/* Copies more than there is; what is behind the end is written over by what follows. */
static char *put_piece(char *at, const struct tag_piece *piece) {
    memcpy(at, piece->text, PIECE_MAX);
    return at + piece->size;
}

#define PUT_LITERAL(at, text) ((char *)memcpy(at, text, sizeof(text) - 1) + sizeof(text) - 1)

static char *put_number(char *at, uint64_t number) {
    char digits[NUMBER_MAX];
    unsigned i = NUMBER_MAX;
    do {
        digits[--i] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    memcpy(at, digits + i, NUMBER_MAX - i);
    return at + NUMBER_MAX - i;
}

static char *put_time(char *at, struct tag_pieces *p, int64_t time_ms) {
    int64_t minute = tag_minute(time_ms);
    unsigned rest_ms = (unsigned)(time_ms - minute * TAG_MINUTE_MS);
    if (minute != p->minute) {
        char text[TAG_NAME_MAX];
        tag_datetime(minute * TAG_MINUTE_MS, false, text);
        memcpy(p->minute_text, text, sizeof p->minute_text);
        p->minute = minute;
    }
    memcpy(at, p->minute_text, sizeof p->minute_text);
    at += sizeof p->minute_text;
    const char rest[] = {(char)('0' + rest_ms / 10000),
                         (char)('0' + rest_ms / 1000 % 10),
                         '.',
                         (char)('0' + rest_ms / 100 % 10),
                         (char)('0' + rest_ms / 10 % 10),
                         (char)('0' + rest_ms % 10),
                         'Z'};
    memcpy(at, rest, sizeof rest);
    return at + sizeof rest;
}

static char *put_cookie(char *at, struct tag_pieces *p, const struct tag *tag) {
    if (!tag_is_tracked(p->source, tag))
        return put_number(PUT_LITERAL(at, "cookie-"), tag->rank);
    if (!p->any_cookie || p->cookie_rank != tag->rank) {
        tag_cookie_name(p->source, p->thread, tag->rank, p->cookie);
        p->cookie_rank = tag->rank;
        p->any_cookie = true;
    }
    size_t size = strlen(p->cookie);
    memcpy(at, p->cookie, size);
    return at + size;
}

void tag_append(struct tag_pieces *p, const struct tag *tag, struct buffer *out) {
    char *start = (char *)buffer_reserve(out, TAG_TEXT_MAX);
    if (!start)
        return; /* the buffer remembers */
    char *at = PUT_LITERAL(start, "{\"time\":\"");
    at = put_time(at, p, tag->time_ms);
    at = PUT_LITERAL(at, "\",\"cookie\":\"");
    at = put_cookie(at, p, tag);
    at = put_piece(at, &p->countries[tag->country]);
    at = put_piece(at, &p->devices[tag->device][tag->action]);
    at = put_piece(at, &p->origins[tag->origin + (tag->own ? TAG_ORIGINS : 0)]);
    at = PUT_LITERAL(at, "\"product_id\":\"");
    at = put_number(at, tag->number);
    at = put_piece(at, &p->brands[tag->brand + (tag->own ? TAG_BRANDS : 0)]);
    at = put_piece(at, &p->categories[tag->category + (tag->own ? TAG_CATEGORIES : 0)]);
    at = PUT_LITERAL(at, "\",\"price\":");
    at = put_number(at, tag->price);
    at = PUT_LITERAL(at, "}}");
    assert(at - start <= TAG_TEXT_MAX);
    out->size += (size_t)(at - start);
}
