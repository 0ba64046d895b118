/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice among the kernels.
 */
#include "points/local/kernel.h"

#include "base/compiler.h"

const struct kernel_set *const kernel_sets[] = {&kernel_avx512, &kernel_avx2, &kernel_portable};
const size_t kernel_sets_n = ARRAY_LENGTH(kernel_sets);

const struct kernel_set *kernel_best(void) {
    const struct kernel_set *const *set = kernel_sets;
    while (!(*set)->supported())
        set++;
    return *set;
}
