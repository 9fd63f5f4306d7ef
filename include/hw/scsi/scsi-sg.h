/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scatter/gather lists of SCSI requests
 */

#ifndef HW_SCSI_SCSI_SG_H
#define HW_SCSI_SCSI_SG_H

#include "hw/scsi/scsi.h"
#include "system/dma.h"

/**
 * scsi_req_fit_sg: make a request's list no longer than its data
 * @req: a request with a scatter/gather list, about to move data
 * @fitted: all zero when the request is new; holds the shorter list, if one is
 *          needed.  The caller must call qemu_sglist_destroy() for it together
 *          with the request if it is not all zero any more.
 * @bytes: how much data the command moves
 *
 * The HBA's list may have room for more than the command moves: as on hardware,
 * that room is not used.  Sets the request's residual to what the command would
 * have moved if the list were long enough for it.
 *
 * Can be called again for the same request, when it is retried.
 */
void scsi_req_fit_sg(SCSIRequest *req, QEMUSGList *fitted, uint64_t bytes);

#endif
