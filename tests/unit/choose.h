/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Choices that a test leaves to chance, or a fuzzer to its input
 *
 * A test that makes all of its choices here is a fuzzer, too: fuzz.c runs its
 * fuzz_one() for libFuzzer.
 */

#ifndef TESTS_UNIT_CHOOSE_H
#define TESTS_UNIT_CHOOSE_H

/**
 * struct Choices: where choices come from
 *
 * @data: the rest of a fuzzer's input; %NULL for random numbers, which
 *        "--seed" of the test program repeats
 * @size: how much that is, in bytes
 */
typedef struct Choices {
    const uint8_t *data;
    size_t size;
} Choices;

/**
 * choose: make a choice
 *
 * Takes one byte of the input if that is enough for the range, else two, or
 * four.  When too little is left, every choice is the first one.
 *
 * @c: where from
 * @begin: the first value there is
 * @end: what follows the last one
 */
static inline int32_t choose(Choices *c, int32_t begin, int32_t end)
{
    uint32_t range = end - begin;
    size_t n = range <= 0x100 ? 1 : range <= 0x10000 ? 2 : 4;
    uint32_t value = 0;

    if (!c->data) {
        return g_test_rand_int_range(begin, end);
    }
    if (c->size < n) {
        c->size = 0;
        return begin;
    }
    for (size_t i = 0; i < n; i++) {
        value = value << 8 | c->data[i];
    }
    c->data += n;
    c->size -= n;
    return begin + value % range;
}

/**
 * fuzz_one: run the test once, and abort if it fails
 *
 * @c: the input
 */
void fuzz_one(Choices *c);

/* Called by libFuzzer, which has no header to declare it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
