/* SPDX-License-Identifier: Apache-2.0 */
/*
 * INI files: a text in, what ini_next gives out, as one table.
 */
#include "cli/ini.h"

#include "base/compiler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct ini_case {
    const char *text;
    const char *entries; /* "section.key=value@line;" for each, then how it ended */
};

static const struct ini_case cases[] = {
    {"", "end"},
    {"\n \n# x\n; y\n", "end"},
    {"a=b", ".a=b@1;end"},
    {"  a \t= b c  \r\n", ".a=b c@1;end"},
    {"a=\n", ".a=@1;end"},
    {"a=b=c\n", ".a=b=c@1;end"},
    {"a=\" b \"\n", ".a= b @1;end"},
    {"a=\"\n", ".a=\"@1;end"},
    {"[serve]\n\nport = 1\n[ load ]\nurl=x#y\n", "serve.port=1@3;load.url=x#y@5;end"},
    {"a=1\njust words\n", ".a=1@1;syntax@2"},
    {"=1\n", "syntax@1"},
    {"[\n", "syntax@1"},
    {"[]\n", "syntax@1"},
    {"[open\n", "syntax@1"},
};

static void read_all(const char *text, char *out, size_t size) {
    char copy[256];
    const char *key;
    const char *value;
    struct ini ini;
    int r;
    size_t n = 0;
    snprintf(copy, sizeof copy, "%s", text);
    ini_init(&ini, copy);
    while (!(r = ini_next(&ini, &key, &value)))
        n += (size_t)snprintf(out + n, size - n, "%s.%s=%s@%u;", ini.section, key, value, ini.line);
    if (r == INI_E_END)
        snprintf(out + n, size - n, "end");
    else
        snprintf(out + n, size - n, "syntax@%u", ini.line);
}

static void test_cases(void **state UNUSED) {
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        char out[512];
        read_all(cases[i].text, out, sizeof out);
        assert_string_equal(out, cases[i].entries);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
