/*
 * A unit test as a program for libFuzzer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "choose.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Choices c = { data, size };

    fuzz_one(&c);
    return 0;
}
