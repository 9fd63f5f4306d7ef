/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The plan of vectored AIO, against an oracle
 */

#ifndef TESTS_UNIT_AIO_IOV_PLAN_H
#define TESTS_UNIT_AIO_IOV_PLAN_H

#include "block/aio-iov.h"
#include "choose.h"

#define PLAN_MAX_ELEMENTS 64
#define PLAN_MAX_BYTES 2048

/* Elements at addresses that nobody looks at */
typedef struct Vector {
    struct iovec iov[PLAN_MAX_ELEMENTS];
    QEMUIOVector qiov;
} Vector;

void vector_reset(Vector *v);
void vector_add(Vector *v, uintptr_t base, size_t len);

/**
 * plan_all: plan all of a vector in as many parts as it takes
 *
 * Aborts if a part is not legal, does not have the vector's bytes, or bounces
 * more of them than it has to.
 *
 * @v: up to %PLAN_MAX_BYTES, a multiple of @limits->len_align
 * @limits: what is legal
 * @offset: of the vector on the backend
 *
 * Returns: the number of parts
 */
int plan_all(const Vector *v, const BdrvIovLimits *limits, int64_t offset);

/**
 * plan_any: plan_all() of any vector, with any limits
 *
 * @c: chooses them
 *
 * Returns: the number of parts
 */
int plan_any(Choices *c);

#endif
