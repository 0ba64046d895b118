/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace journal dead-letters list|replay|edit|drop`: a part of the journal command.
 */
#ifndef MILLRACE_CLI_DEAD_LETTERS_H
#define MILLRACE_CLI_DEAD_LETTERS_H

#include "cli/cli.h"

int dead_letters_run(const struct cli *cli) MUST_USE;

#endif
