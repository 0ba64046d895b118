/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A payload that is taken for plainly written comes out as the parser reads it; the parser refuses
 * of those only what is no UTF-8.
 */
#include "fuzz.h"

#include "points/qdrant/payload.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct payload_reader reader = PAYLOAD_READER_INIT;
    struct buffer plain = BUFFER_INIT;
    struct buffer parsed = BUFFER_INIT;
    struct bytes text = bytes_of(data, size);
    bool taken = payload_append_plain(&plain, text);
    int r = size > 0 ? payload_append_parsed(&reader, &parsed, text) : 0;
    if (taken && r)
        FUZZ_CHECK(!json_is_utf8(text));
    else if (taken)
        FUZZ_CHECK(bytes_equal(buffer_bytes(&plain), buffer_bytes(&parsed)));
    else
        FUZZ_CHECK(plain.size == 0);
    payload_reader_deinit(&reader);
    buffer_deinit(&plain);
    buffer_deinit(&parsed);
    return 0;
}
