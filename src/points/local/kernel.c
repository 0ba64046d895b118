/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice among the kernels.
 */
#include "points/local/kernel.h"

#include "base/compiler.h"

const struct kernel_set *const kernel_sets[] = {&kernel_avx512, &kernel_avx2, &kernel_portable};
const size_t kernel_sets_n = ARRAY_LENGTH(kernel_sets);

const struct kernel_set *kernel_best(void) {
    for (size_t i = 0; i < ARRAY_LENGTH(kernel_sets); i++)
        if (kernel_sets[i]->supported())
            return kernel_sets[i];
    return &kernel_portable; /* supported everywhere, and last in the table */
}
