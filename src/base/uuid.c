/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All forms are one: wrappers are taken off, then 32 digits are read, with hyphens at all four
 * places or at none.
 */
#include "base/uuid.h"

#include <strings.h>

enum { DIGITS = 32 };

static bool hyphen_before(size_t digit) {
    return digit == 8 || digit == 12 || digit == 16 || digit == 20;
}

static bool starts_with(struct bytes text, const char *prefix) {
    size_t size = strlen(prefix);
    return text.size >= size && strncasecmp((const char *)text.data, prefix, size) == 0;
}

/* Only the hyphenated form may be wrapped. */
static struct bytes unwrap(struct bytes text) {
    static const char URN[] = "urn:uuid:";
    const size_t urn_size = sizeof URN - 1;
    if (text.size == UUID_TEXT_BYTES + 2 && text.data[0] == '{' && text.data[text.size - 1] == '}')
        return bytes_of(text.data + 1, UUID_TEXT_BYTES);
    if (text.size == UUID_TEXT_BYTES + urn_size && starts_with(text, URN))
        return bytes_of(text.data + urn_size, UUID_TEXT_BYTES);
    return text;
}

/* The value of a hexadecimal digit, or -1. */
static int digit_value(uint8_t c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool uuid_parse(struct bytes text, uint64_t *ret_high, uint64_t *ret_low) {
    struct bytes core = unwrap(text);
    if (core.size != UUID_TEXT_BYTES && core.size != DIGITS)
        return false;
    bool hyphenated = core.size == UUID_TEXT_BYTES;
    uint64_t halves[2] = {0};
    const uint8_t *p = core.data;
    for (size_t i = 0; i < DIGITS; i++) {
        if (hyphenated && hyphen_before(i) && *p++ != '-')
            return false;
        int value = digit_value(*p++);
        if (value < 0)
            return false;
        halves[i / 16] = halves[i / 16] << 4 | (uint64_t)value;
    }
    *ret_high = halves[0];
    *ret_low = halves[1];
    return true;
}

void uuid_format(uint64_t high, uint64_t low, char out[UUID_TEXT_BYTES + 1]) {
    static const char HEX[] = "0123456789abcdef";
    for (unsigned i = 0; i < DIGITS; i++) {
        if (hyphen_before(i))
            *out++ = '-';
        uint64_t half = i < 16 ? high : low;
        *out++ = HEX[(half >> (60 - 4 * (i % 16))) & 15];
    }
    *out = '\0';
}
